"""Lines for people, on stderr, and what stands in them; stdout is for what a command prints as its result."""

import sys

ERASE = "\r\033[K"  # what a terminal shows on its last line: a state that may be there
SHOWN_CHARACTERS = 200


def shortened(value: object, most: int, kept: int | None = None) -> str:
    """Return a value as it stands in a message: of a text longer than `most` characters the first `kept`, or `most`."""
    text = str(value)
    return text if len(text) <= most else text[: kept or most] + "..."


def shown(text: str) -> str:
    """Return a name from outside as it stands in a message: quoted, and shortened where it is long."""
    return repr(shortened(text, SHOWN_CHARACTERS))


def say(sentence: str, end: str = "\n") -> None:
    """Write one line; one that a full disk does not take is lost. Raises BrokenPipeError where nobody reads on."""
    try:
        print(f"{ERASE if sys.stderr.isatty() else ''}camray: {sentence}", end=end, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        return  # the work is worth more than what is said of it
