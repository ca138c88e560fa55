"""Text that moves a terminal, breaks lines or turns the direction of reading, and how to see that none got out."""

import unicodedata

from tests.support.command import Command

SECRET = "wJalrXUtnFEMIbPxRfiCY"
MOVES = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202e\u2066\u2028\u2029\x85\r\nOWN-LINE <script>alert(1)&"
"""Erases a screen, names a window, rings, colours, deletes, turns, ends lines in six ways, runs in a page."""
TOLD = f"s3://me:{SECRET}@bucket/key?token={SECRET}"
JOINERS = "\u200c\u200d"


def unseen(text: str) -> set[str]:
    """Return what in a text a terminal would obey, or would not show."""
    other = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return other - {"\n", *JOINERS}


def assert_seen(done: Command) -> Command:
    """Hold what a command said to the rule, and return it."""
    said = done.out + done.err
    assert unseen(said) == set(), said
    assert not [line for line in said.split("\n") if line.lstrip().startswith("OWN-LINE")]
    assert SECRET not in said
    assert "Traceback" not in said, said
    assert done.code != 1
    return done
