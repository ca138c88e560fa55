"""Lines for people, on stderr, and what stands in them; stdout is for what a command prints as its result."""

import os
import re
import shutil
import sys
import unicodedata
from collections import deque
from typing import TextIO

PREFIX = "camray: "
ERASE = "\r\033[K"  # what a terminal shows on its last line: a state that may be there
SHOWN_CHARACTERS = 200
SECRET = (  # of addresses; a password may hold slashes
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/@:'\"]*:[^\s'\"]*@"), r"\1***@"),
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/'\"]*@"), r"\1***@"),
    (re.compile(r"(\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s?'\"]*\?)[^\s'\"]+"), r"\1***"),
)
SAID: deque[str] = deque(maxlen=200)  # what this process has said last


def shortened(value: object, most: int, kept: int | None = None) -> str:
    """Return a value as it stands in a message: of a text longer than `most` characters the first `kept`, or `most`."""
    text = str(value)
    return text if len(text) <= most else text[: kept or most] + "..."


def is_or_are(number: int) -> str:
    """Return the verb of so many."""
    return "is" if number == 1 else "are"


def public(text: str) -> str:
    """Return a text without what is secret in its addresses: what stands before an @, and behind a question mark."""
    for pattern, kept in SECRET:
        text = pattern.sub(kept, text)
    return text


def shown(text: str) -> str:
    """Return a name from outside as it stands in a message: quoted, and shortened where it is long."""
    return repr(shortened(text, SHOWN_CHARACTERS))


def visible(text: str) -> str:
    """Return a text in which everything can be seen: control characters, lone surrogates and what turns the direction
    of text stand as they would in Python's source; letters and spaces of all languages stay.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    """Return a letter, or its escape; joiners stay, as emoji and Persian words are made with them."""
    if letter.isprintable() or letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs":
        return letter
    return letter.encode("unicode_escape").decode()


def is_screen(stream: TextIO | None = None) -> bool:
    """Say whether a stream, else stderr, is a terminal that redraws a line."""
    stream = stream or sys.stderr
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def has_colours() -> bool:
    """Say whether stderr may have colours."""
    return is_screen() and not os.environ.get("NO_COLOR")


def num_columns() -> int:
    """Return the width of the terminal that stderr is, or else of what there is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or shutil.get_terminal_size().columns
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def say(sentence: str, end: str = "\n") -> None:
    """Write one line; one that a full disk does not take is lost. Raises BrokenPipeError where nobody reads on."""
    sentence = public(sentence)
    SAID.append(sentence)
    try:
        print(f"{ERASE if is_screen() else ''}{PREFIX}{visible(sentence)}", end=end, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        return  # the work is worth more than what is said of it
