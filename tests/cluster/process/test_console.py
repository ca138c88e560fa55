"""What stands in lines and pages for people."""

import pytest

from cluster.process.console import visible


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
