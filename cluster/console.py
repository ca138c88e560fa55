"""Lines for people, on stderr; stdout is for what a command prints as its result."""

import sys

ERASE = "\r\033[K"  # what a terminal shows on its last line: a state that may be there


def say(sentence: str) -> None:
    """Write one line."""
    print(f"{ERASE if sys.stderr.isatty() else ''}camray: {sentence}", file=sys.stderr, flush=True)
