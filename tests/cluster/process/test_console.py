"""What stands in lines and pages for people."""

import os
from contextlib import redirect_stderr
from io import StringIO

import pytest

from cluster.process.console import has_colours, is_screen, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),  # turns what follows
        ("a\nb\t\x1b[31m\x7f\x00", "a\\nb\\t\\x1b[31m\\x7f\\x00"),
        ("lone \udcff", "lone \\udcff"),
        ("zero\u200bwidth\ufeff\u2028", "zero\\u200bwidth\\ufeff\\u2028"),
        (
            "\u00e4 \u5bfa\u3000\u0645\u06cc\u200c\u0631 \U0001f469\u200d\U0001f52c\u00a0",
            None,
        ),  # words of several languages, joined
        ("<b>&\"'\\", None),
        ("", None),
    ],
    ids=ascii,
)
def test_what_cannot_be_seen_is_written_out_and_words_stay(text: str, seen: str | None) -> None:
    assert visible(text) == (text if seen is None else seen)
    visible(text).encode()


@pytest.mark.parametrize(
    ("term", "no_color", "expected"),
    [("xterm", "", (True, True)), ("xterm", "1", (True, False)), ("dumb", "", (False, False))],
)
def test_what_a_terminal_can_do_and_a_pipe_cannot(
    term: str, no_color: str, expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    theirs, ours = os.openpty()
    with open(ours, "w") as terminal, redirect_stderr(terminal):
        assert (is_screen(), has_colours()) == expected
    os.close(theirs)
    with redirect_stderr(StringIO()):
        assert (is_screen(), has_colours()) == (False, False)
