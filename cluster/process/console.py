"""Lines for people, on stderr, and what stands in them; stdout is for what a command prints as its result.

All text reaches people through `visible`: a line of ours as a whole, so that it stays one line, and by `Seen` what
others print, such as warnings, tracebacks and Ray.
"""

import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, TextIO

from cam_ops.foreign import visible

PREFIX = "camray: "
ERASE = "\r\033[K"  # what a terminal shows on its last line: a state that may be there
SHOWN_CHARACTERS = 200
SECRET = (  # of addresses; a password may hold slashes
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/@:'\"]*:[^\s'\"]*@"), r"\1***@"),
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/'\"]*@"), r"\1***@"),
    (re.compile(r"(\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s?'\"]*\?)[^\s'\"]+"), r"\1***"),
)
COLOUR = re.compile(r"\033\[[\d;]*m")  # of others, which is no text
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


def is_screen(stream: TextIO | None = None) -> bool:
    """Say whether a stream, else stderr, is a terminal that redraws a line."""
    stream = stream or sys.stderr
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def num_columns() -> int:
    """Return the width of the terminal that stderr is, or else of what there is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or shutil.get_terminal_size().columns
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


class Seen:
    """A stream over another, `beneath`: in what goes through it everything but the ends of lines can be seen."""

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath
        self.state = ""  # of a line that is written over and over, as by a progress bar; the last one is shown
        self.has_begun = False  # a line that has not ended

    def write(self, text: str) -> int:
        """Write a text, of which colours are left out, and of a line with carriage returns all but its end.

        Raises OSError.
        """
        *lines, rest = (self.state + COLOUR.sub("", text)).split("\n")
        shown = "".join(map(self._ended, lines))
        line = rest.rstrip("\r")
        _, returned, last = line.rpartition("\r")
        self.state = f"{returned}{last}{rest[len(line) :][:1]}" if "\r" in rest else ""
        if rest and not self.state:
            shown, self.has_begun = shown + visible(rest), True
        if shown:
            self.beneath.write(shown)
        return len(text)

    def _ended(self, line: str) -> str:
        _, returned, last = line.rstrip("\r").rpartition("\r")
        start, self.has_begun = "\n" if returned and self.has_begun else "", False
        return f"{start}{visible(last)}\n"

    def end(self) -> None:
        """Show the last state of a line that did not end. Raises OSError."""
        if self.state:
            self.write("\n")

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several. Raises OSError."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        if name == "beneath":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.beneath, name)


def beneath(stream: TextIO) -> TextIO:
    """Return what a stream writes to in the end, for what moves a terminal on purpose."""
    return stream.beneath if isinstance(stream, Seen) else stream


def say(sentence: str, end: str = "\n") -> None:
    """Write one line; one that a full disk does not take is lost. Raises BrokenPipeError where nobody reads on."""
    sentence = public(sentence)
    SAID.append(sentence)
    try:
        print(
            f"{ERASE if is_screen() else ''}{PREFIX}{visible(sentence)}", end=end, file=beneath(sys.stderr), flush=True
        )
    except BrokenPipeError:
        raise
    except OSError:
        return  # the work is worth more than what is said of it
