"""What stands in lines and pages for people."""

import copy
import os
from contextlib import redirect_stderr
from io import StringIO
from typing import TextIO, cast

import pytest

from cam_ops.foreign import visible
from cluster.process.console import Seen, beneath, is_screen, say


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


@pytest.mark.parametrize(("term", "expected"), [("xterm", True), ("dumb", False)])
def test_what_a_terminal_can_do_and_a_pipe_cannot(term: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    theirs, ours = os.openpty()
    with open(ours, "w") as terminal, redirect_stderr(terminal):
        assert is_screen() is expected
    os.close(theirs)
    with redirect_stderr(StringIO()):
        assert not is_screen()


def test_what_others_print_moves_no_terminal_and_what_we_move_it_by_passes() -> None:
    under = StringIO()
    stream = Seen(under)
    assert stream.write("\x1b[33mred\x1b[0m 1 %\r2 %\r\n\x1b[2J\x9b\u202e\n") > 0
    stream.writelines(["a\tb", "\x07\n"])
    assert under.getvalue() == "2 %\n\\x1b[2J\\x9b\\u202e\na\\tb\\x07\n"
    assert beneath(cast(TextIO, stream)) is under
    assert beneath(under) is under


def test_a_state_that_is_written_over_and_over_is_shown_once_as_it_ends() -> None:
    under = StringIO()
    stream = Seen(under)
    stream.write("fetching: ")
    for percent in range(0, 101, 10):
        stream.write(f"\r{percent} %")
    stream.write("\nnext\n")
    stream.writelines(["10 %\r", "20 %\r", "done\n", "a\r", "\nb"])
    stream.write("\n\r5 %\r6 %")
    assert under.getvalue() == "fetching: \n100 %\nnext\ndone\na\nb\n"
    stream.end()
    stream.end()
    assert under.getvalue() == "fetching: \n100 %\nnext\ndone\na\nb\n6 %\n"


def test_a_stream_can_be_copied() -> None:
    under = StringIO()
    assert copy.copy(Seen(under)).beneath is under
    assert not hasattr(Seen.__new__(Seen), "beneath")


def test_a_sentence_is_one_line() -> None:
    with redirect_stderr(StringIO()) as err:
        say("no\nnew line\u2028 or \x85")
    assert err.getvalue() == "camray: no\\nnew line\\u2028 or \\x85\n"
