"""Text from outside: what people see of it, and whether files can hold it."""

import re
import unicodedata

HALF = re.compile("[\ud800-\udfff]")  # of a pair, alone: UTF-8 has none, nor can JSON or Parquet be read that hold one


def visible(text: str) -> str:
    """Return a text in which everything can be seen, on one line: control characters, lone surrogates and what turns
    the direction of text stand as they would in Python's source; letters and spaces of all languages stay.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    """Return a letter, or its escape; joiners stay, as emoji and Persian words are made with them."""
    if letter.isprintable() or letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs":
        return letter
    return letter.encode("unicode_escape").decode()


def whole(text: str) -> str:
    """Return a text that UTF-8 can hold: lone surrogates, such as Python has of other bytes in paths, are escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def half_in(tree: object, where: str = "") -> tuple[str, str] | None:
    """Return place and text of the first in a tree of objects and lists that UTF-8 cannot hold; None without any."""
    if isinstance(tree, str):
        return (where, tree) if HALF.search(tree) else None
    if isinstance(tree, dict):
        named = ((f"{where}.{key}".lstrip("."), part) for key, value in tree.items() for part in (key, value))
        return next((found for name, part in named if (found := half_in(part, name))), None)
    if isinstance(tree, list | tuple):
        return next((found for i, part in enumerate(tree) if (found := half_in(part, f"{where}.{i}"))), None)
    return None
