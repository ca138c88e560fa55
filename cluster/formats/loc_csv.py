"""ImageNet's LOC CSV: an image and its boxes a line, pixels whose ends are inside, counted from 0.

A box is ``class x0 y0 x1 y1``.
"""

import csv
from collections.abc import Iterator

from cam_ops.words import column_of
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.files import bounded_lines, is_file, open_text, reading
from cluster.formats.format import Format
from cluster.formats.table import TEXT_SUFFIXES, delimiter_in, header_of

COLUMNS = ("ImageId", "PredictionString")


def _entries(path: str) -> Iterator[Entry]:
    with reading(path, "ImageNet's LOC CSV"):
        delimiter = delimiter_in(path)
        with open_text(path) as file:
            lines = csv.DictReader(bounded_lines(file), delimiter=delimiter)
            image_column, boxes_column = (column_of(lines.fieldnames or (), (name,)) for name in COLUMNS)
            if image_column is None or boxes_column is None:
                raise ValueError(f"expected the columns {' and '.join(COLUMNS)}, found {str(lines.fieldnames)[:200]}")
            for line in lines:
                yield from _boxes(line[image_column], (line[boxes_column] or "").split(), lines.line_num)


def _boxes(image: str | None, words: list[str], number: int) -> Iterator[Entry]:
    yield Entry(image=image)
    if len(words) % 5:
        yield Entry(image=image, unusable=f"line {number}: expected five words a box, found {len(words)}")
        return
    for at in range(0, len(words), 5):
        corners = tuple(map(number_of, words[at + 1 : at + 5]))
        if None in corners:
            yield Entry(image=image, unusable=f"line {number}: expected four numbers, found {words[at + 1 : at + 5]}")
        else:
            yield Entry(image=image, box=corners, word=words[at])


def _recognise(path: str) -> bool:
    if not is_file(path, TEXT_SUFFIXES):
        return False
    with reading(path, "a table"):
        found = header_of(path)
        return all(column_of(found, (name,)) for name in COLUMNS)


LOC = Format(
    name="loc",
    frame="inclusive",
    recognise=_recognise,
    read=lambda path, masks: batches_of(_entries(path)),
)
