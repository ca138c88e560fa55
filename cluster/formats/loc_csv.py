"""ImageNet's LOC CSV: an image and its boxes a line, pixels whose ends are inside, counted from 0.

A box is ``class x0 y0 x1 y1``.
"""

import csv
import gzip
from collections.abc import Iterator
from typing import IO

from cluster.formats.entries import Entry, batches_of
from cluster.formats.files import bounded_lines, is_file, reading
from cluster.formats.format import Format
from cluster.formats.table import TABLE_SUFFIXES, header_of

COLUMNS = ("ImageId", "PredictionString")


def _entries(path: str) -> Iterator[Entry]:
    with reading(path, "ImageNet's LOC CSV"), _open_text(path) as file:
        lines = csv.DictReader(bounded_lines(file))
        if not set(COLUMNS) <= set(lines.fieldnames or ()):
            raise ValueError(f"expected the columns {' and '.join(COLUMNS)}, found {str(lines.fieldnames)[:200]}")
        for line in lines:
            words = (line[COLUMNS[1]] or "").split()
            if len(words) % 5:
                raise ValueError(f"line {lines.line_num}: expected five words a box, found {len(words)}")
            yield Entry(image=line[COLUMNS[0]])
            for at in range(0, len(words), 5):
                box = tuple(float(word) for word in words[at + 1 : at + 5])
                yield Entry(image=line[COLUMNS[0]], box=box, word=words[at])


def _open_text(path: str) -> IO[str]:
    opener = gzip.open if path.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _recognise(path: str) -> bool:
    if not is_file(path, TABLE_SUFFIXES):
        return False
    with reading(path, "a table"):
        return set(COLUMNS) <= set(header_of(path))


LOC = Format(
    name="loc",
    frame="inclusive",
    recognise=_recognise,
    read=lambda path, masks: batches_of(_entries(path)),
)
