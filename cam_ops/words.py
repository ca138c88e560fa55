"""Words in people's files: when two are the same, which sign separates them, which column they head.

One rule for class lists, labels, manifests and truths: a word is taken letter for letter where it stands so, else
whatever its capitals, its surrounding blanks, `_`, `-` or blanks between its parts, and its Unicode form. What then has
two meanings is not taken.
"""

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from cam_ops.outside import check_columns

DELIMITERS = (",", ";", "\t")
_BETWEEN = re.compile(r"(?<=[^\s_-])[\s_-]+(?=[^\s_-])")


def folded(word: str) -> str:
    """Return what a word has in common with all that are the same: ``" Golden-Retriever"`` and ``golden_retriever``.

    Compatible Unicode forms are one (NFKC), capitals are none, and blanks, `_` and `-` in any number between two parts
    are one blank; ``-1`` is not 1.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return _BETWEEN.sub(" ", plain.strip())


def cells_of(header: str, sign: str) -> list[str]:
    """Return the cells of a CSV's first line. Raises ValueError where they are too many, or one is too long."""
    check_columns(header.count(sign) + 1)
    try:
        return next(csv.reader([header], delimiter=sign), [])
    except csv.Error as error:
        raise ValueError(f"its first line {header[:200]!r} is none of a CSV: {error}") from None


def delimiter_of(header: str) -> str:
    """Return the sign, one of `DELIMITERS`, that separates most cells of a CSV's first line; `,` where none does.

    Signs in double quotes separate nothing. Raises ValueError where two signs make as many cells, or one too many.
    """
    counts = {sign: len(cells_of(header, sign)) for sign in DELIMITERS}
    most = max(counts.values())
    found = [sign for sign in DELIMITERS if counts[sign] == most]
    if most <= 1:
        return ","
    if len(found) > 1:
        signs = " and ".join(repr(sign) for sign in found)
        raise ValueError(f"its first line {header[:200]!r} is cut by {signs} alike; separate the cells by one of them")
    return found[0]


def column_of(found: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the column that bears the first of `names` that one bears, None where none does.

    Raises ValueError where several columns bear it, such as ``label`` twice, or ``Label`` and ``LABEL``.
    """
    for name in names:
        columns = [column for column in found if column == name]
        columns = columns or [column for column in found if folded(column) == folded(name)]
        if len(columns) > 1:
            raise ValueError(f"it has several columns {name}: {', '.join(map(repr, columns[:10]))}")
        if columns:
            return columns[0]
    return None


def near(word: str, words: Iterable[str], most: int = 3) -> list[str]:
    """Return the words most like one, the most alike first, for a message that asks whether one of them was meant."""
    by_fold = {folded(known): known for known in words}
    return [by_fold[fold] for fold in difflib.get_close_matches(folded(word), list(by_fold), n=most, cutoff=0.6)]
