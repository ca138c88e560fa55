"""ImageNet's LOC CSV: an image and its boxes a line, pixels whose ends are inside, counted from 0.

A box is ``class x0 y0 x1 y1``. Written, boxes are whole pixels, an image stands without its suffix, and a class is its
number in the network, from 0; where a class has a number for its name, all stand by name, with ``_`` for blanks.
"""

import csv
from collections.abc import Iterator

from cam_ops.classes import whole_number
from cam_ops.errors import UsageError
from cam_ops.words import column_of, folded
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.exported import Classes, ExportFormat, Part, Picture, Whole, document_name
from cluster.formats.files import bounded_lines, is_file, open_text, reading
from cluster.formats.format import Format
from cluster.formats.table import TEXT_SUFFIXES, csv_line, delimiter_in, header_of

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


DOCUMENT = "loc.csv"
LINES = "lines"


def _write(pictures: Iterator[Picture], part: Part) -> None:
    words = _words(part.settings.classes)
    for picture in pictures:
        boxes = (" ".join((words[box.class_id], *map(str, box.pixels))) for box in picture.boxes)
        part.note(LINES, picture.split, csv_line((picture.stem, " ".join(boxes))))


def _words(classes: Classes) -> dict[int, str]:
    """Return a word without blanks for each class, which no other one can be called by. Raises UsageError."""
    if all(whole_number(name) is None for name in classes.names):
        return {class_id: str(class_id) for class_id in classes.numbers}
    words = {class_id: "_".join(name.split()) for class_id, name in enumerate(classes.names)}
    first: dict[str, str] = {}
    for word in words.values():
        if (other := first.setdefault(folded(word), word)) is not word:
            raise UsageError(
                f"--to loc has a word without blanks for each class, and {other} and {word} may be the same one; names "
                "that are numbers leave none for it; export --to csv, or give such classes other names"
            )
    return words


def _finish(whole: Whole) -> None:
    for split in whole.splits:
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(csv_line(COLUMNS) + b"\n")
            file.writelines(line + b"\n" for line in whole.notes(LINES, split))


LOC_EXPORT = ExportFormat(
    name="loc",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0]),
    write=_write,
    finish=_finish,
    has_files=True,
    lists_classes=False,
)
