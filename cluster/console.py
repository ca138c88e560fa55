"""Lines for people, on stderr; stdout is for what a command prints as its result."""

import sys


def say(sentence: str) -> None:
    """Write one line."""
    print(f"camray: {sentence}", file=sys.stderr, flush=True)
