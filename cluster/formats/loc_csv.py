"""ImageNet's LOC CSV: an image and its boxes a line, pixels whose ends are inside, counted from 0."""

import csv
import gzip
from collections.abc import Iterator
from typing import IO

from cluster.formats.entries import Entry
from cluster.formats.files import bounded_lines, reading

LOC = ("ImageId", "PredictionString")


def loc(path: str) -> Iterator[Entry]:
    """Read ImageNet's LOC CSV: an image and its boxes a line, each ``class x0 y0 x1 y1``."""
    with reading(path, "ImageNet's LOC CSV"), _open_text(path) as file:
        lines = csv.DictReader(bounded_lines(file))
        if not set(LOC) <= set(lines.fieldnames or ()):
            raise ValueError(f"expected the columns {' and '.join(LOC)}, found {str(lines.fieldnames)[:200]}")
        for line in lines:
            words = (line[LOC[1]] or "").split()
            if len(words) % 5:
                raise ValueError(f"line {lines.line_num}: expected five words a box, found {len(words)}")
            yield Entry(image=line[LOC[0]])
            for at in range(0, len(words), 5):
                box = tuple(float(word) for word in words[at + 1 : at + 5])
                yield Entry(image=line[LOC[0]], box=box, word=words[at])


def _open_text(path: str) -> IO[str]:
    opener = gzip.open if path.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")
