"""YOLO: a text file a picture, lines ``class x y width height``, the centre and size as fractions of the picture's.

Where a picture is ``images/a/1.jpg``, its file is ``labels/a/1.txt``. One without lines says that there is no object.
Written, classes are counted from 0 among those exported, and ``data.yaml`` names them and the splits.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cam_ops.errors import UsageError
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.exported import SCORE_DIGITS, ExportFormat, Part, Picture, Whole
from cluster.formats.files import files_below, lines_of, reading
from cluster.formats.format import Format
from cluster.formats.shapes import MIN_POINTS, Box, box_of_points
from cluster.formats.yolo_names import YOLO_LABELS, YOLO_NAMES, Names, NamesBelow
from cluster.process.console import say
from cluster.storage.objects import is_store

YOLO_IMAGES = "images"
MAX_CLASS = 10**9
NUM_OF_BOX = 4  # numbers of a line
NEAR_BOX = 0.1  # of a box's side: keypoints may lie as far out of it
OUTSIDE = 0.01  # by which fractions may leave the picture: tools round


@dataclass(slots=True)
class _Long:
    """Lines with more than a box: outlines, or boxes with keypoints behind them, which have all as many numbers."""

    num_lines: int = 0
    num_like_keypoints: int = 0
    lengths: set[int] = field(default_factory=set)
    first: str = ""

    def note(self, values: list[float], where: str) -> None:
        """Look at the numbers of a line."""
        self.num_lines += 1
        self.lengths.add(len(values))
        if _may_be_keypoints(values):
            self.num_like_keypoints += 1
            self.first = self.first or where

    def refuse_two_meanings(self) -> None:
        """Raise UsageError where half of the lines or more may be either."""
        if len(self.lengths) == 1 and self.num_like_keypoints * 2 >= self.num_lines:
            raise UsageError(
                f"{self.first} has a class and {self.lengths.pop()} numbers, which may be an outline, or a box with "
                f"keypoints in it, as in {self.num_like_keypoints} of {self.num_lines} such lines; give --truth-format "
                "yolo-polygons, or say kpt_shape: [NUMBER, 2 or 3] in data.yaml"
            )


def _entries(folder: str, *, are_polygons: bool = False) -> Iterator[Entry]:
    """Read ``NAME.txt`` files as entries of the image NAME.

    A line with more corners is a polygon, its box is taken. Where folders ``labels`` lie below `folder`, only what is
    in them is read. A file whose first line does not begin with a number is none of labels, such as a list of images.
    Raises UsageError where lines may as well be boxes with keypoints, unless `are_polygons`.
    """
    with reading(folder, "a folder of YOLO"):
        places = {name.rpartition("/")[0]: _is_in_labels(name) for name, _ in files_below(folder, ".txt")}
        in_labels = any(places.values())
        names = NamesBelow(Path(folder), [place for place, is_in in places.items() if is_in or not in_labels])
        long = _Long()
        for name, path in files_below(folder, ".txt"):
            if os.path.basename(path) not in YOLO_NAMES and (_is_in_labels(name) or not in_labels):
                with reading(path, "YOLO"):
                    yield from _file_entries(name, path, names, long)
    if not are_polygons:
        long.refuse_two_meanings()


def _is_in_labels(name: str) -> bool:
    return YOLO_LABELS in name.split("/")[:-1]


def _file_entries(name: str, path: str, below: NamesBelow, long: _Long) -> Iterator[Entry]:
    image, is_first = _image_of(name), True
    try:
        for number, line in lines_of(path):
            cells = line.split()
            if is_first and number_of(cells[0]) is None:
                reason = f"{name} line {number}: expected the number of a class, found {cells[0][:40]!r}"
                yield Entry(image=None, unusable=reason)
                return
            if is_first:
                names = below.of(name.rpartition("/")[0])
            is_first = False
            yield _line_entry(image, f"{name} line {number}", cells, names, long)
        yield Entry(image=image)
    except UnicodeDecodeError:
        yield Entry(image=None if is_first else image, unusable=f"{name}: it is not in UTF-8")


def _line_entry(image: str, where: str, cells: list[str], names: Names, long: _Long) -> Entry:
    try:
        values = _values_of(cells[1:], names)
        if len(values) > NUM_OF_BOX and not names.num_keypoints:
            long.note(values, where)
        return Entry(image=image, box=_box_of(values), word=_word_of(cells[0], names))
    except ValueError as error:
        return Entry(image=image, unusable=f"{where}: {error}")


def _image_of(name: str) -> str:
    """Return the image of a file by its path: as far as it lies in `labels`, that one lies in `images`."""
    *folders, last = name[: -len(".txt")].split("/")
    if YOLO_LABELS in folders:
        at = len(folders) - 1 - folders[::-1].index(YOLO_LABELS)
        folders[at] = YOLO_IMAGES
    return "/".join([*folders, last])


def _values_of(cells: list[str], names: Names) -> list[float]:
    """Return the numbers of a box, or of a polygon. Raises ValueError."""
    num_cells = 1 + len(cells)
    if names.num_keypoints and len(cells) == NUM_OF_BOX + names.num_keypoints:
        cells = cells[:NUM_OF_BOX]
    values = [value for cell in cells if (value := number_of(cell)) is not None]
    is_polygon = len(values) >= 2 * MIN_POINTS and len(values) % 2 == 0
    if len(values) < len(cells) or not (len(values) == NUM_OF_BOX or is_polygon):
        keypoints = "; of keypoints, kpt_shape in data.yaml says how many" if len(cells) > NUM_OF_BOX else ""
        raise ValueError(f"expected a class and 4 numbers, or a polygon, found {num_cells} cells{keypoints}")
    if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values):
        raise ValueError(f"expected fractions of the picture, from 0 to 1, found {' '.join(cells)[:80]}")
    return values


def _box_of(values: list[float]) -> Box:
    """Return the corners of a box, or the box of a polygon."""
    if len(values) > NUM_OF_BOX:
        return box_of_points(list(zip(values[::2], values[1::2], strict=True)))
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _may_be_keypoints(values: list[float]) -> bool:
    """Say whether the first four numbers may be a box of the picture, and the others points in it, seen or not."""
    x, y, width, height = values[:NUM_OF_BOX]
    x0, y0, x1, y1 = _box_of([x, y, width, height])
    if width <= 0 or height <= 0 or min(x0, y0) < -OUTSIDE or max(x1, y1) > 1 + OUTSIDE:
        return False
    near_x, near_y = NEAR_BOX * width, NEAR_BOX * height

    def is_point(x: float, y: float) -> bool:
        is_near = x0 - near_x <= x <= x1 + near_x and y0 - near_y <= y <= y1 + near_y
        return is_near or x == y == 0  # of one that is not there

    rest = values[NUM_OF_BOX:]
    are_pairs = all(map(is_point, rest[::2], rest[1::2]))
    are_triples = len(rest) % 3 == 0 and all(map(is_point, rest[::3], rest[1::3])) and {*rest[2::3]} <= {0, 1, 2}
    return are_pairs or are_triples


def _word_of(cell: str, names: Names) -> str:
    number = number_of(cell)
    if number is None or number != int(number) or not 0 <= number < MAX_CLASS:
        raise ValueError(f"expected the number of a class, found {cell[:40]!r}")
    class_id = int(number)
    if names.words and class_id not in names.words:
        raise ValueError(f"class {class_id} has no name in {names.where}")
    return names.words.get(class_id, str(class_id))


def is_labels(path: str) -> bool:
    """Say whether a file may be of labels: it is empty, or begins with a number, and is no list of names."""
    if os.path.basename(path) in YOLO_NAMES:
        return False
    try:
        first = next((line for _, line in lines_of(path)), "0")
    except (OSError, ValueError):
        return False
    return number_of(first.split()[0]) is not None


def _recognise(path: str) -> bool:
    places = (path, os.path.join(path, "train"), os.path.join(path, "valid"), os.path.join(path, "val"))
    known = [os.path.join(path, name) for name in YOLO_NAMES]
    return any(map(os.path.exists, [*known, *(os.path.join(place, YOLO_LABELS) for place in places)]))


YOLO = Format(
    name="yolo",
    frame="fractions",
    is_folder=True,
    recognise=_recognise,
    suffix=".txt",
    read=lambda path, masks: batches_of(_entries(path)),
)
YOLO_POLYGONS = Format(
    name="yolo-polygons",  # its lines may look like boxes with keypoints
    frame="fractions",
    is_folder=True,
    read=lambda path, masks: batches_of(_entries(path, are_polygons=True)),
)


DATA = "data.yaml"
FRACTION_DIGITS = 9
NEEDED = ("train", "val")


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        lines = _lines(picture, part)
        part.put(f"{YOLO_LABELS}/{picture.split}/{picture.stem}.txt", "".join(lines).encode())


def _lines(picture: Picture, part: Part) -> Iterator[str]:
    for box in picture.boxes:
        x, y = (box.x0 + box.x1) / 2 / picture.width, (box.y0 + box.y1) / 2 / picture.height
        width, height = (box.x1 - box.x0) / picture.width, (box.y1 - box.y0) / picture.height
        numbers = (f"{value:.{FRACTION_DIGITS}f}" for value in (x, y, width, height))
        confidence = f" {box.score:.{SCORE_DIGITS}f}" if part.settings.confidence else ""
        yield f"{part.settings.classes.numbers[box.class_id]} {' '.join(numbers)}{confidence}\n"


def _finish(whole: Whole) -> None:
    """Write data.yaml, without `path` on a store: Ultralytics takes the folder of the file for it then."""
    settings = whole.settings
    if lacking := [split for split in NEEDED if split not in whole.splits]:
        say(f"warning: {DATA} names no {' and no '.join(lacking)}, which Ultralytics needs; give them by --split")
    if not settings.has_pictures:
        say(f"{DATA} names {YOLO_IMAGES}/, which --pictures none leaves out: put the pictures there before you train")
    document = {
        **({} if is_store(settings.root) else {"path": settings.root}),
        **{split: f"{YOLO_IMAGES}/{split}" for split in whole.splits},
        "names": {number: settings.classes.names[class_id] for class_id, number in settings.classes.numbers.items()},
    }
    whole.put(DATA, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10**6).encode())


YOLO_EXPORT = ExportFormat(
    name="yolo",
    entries=(YOLO_LABELS, DATA),
    write=_write,
    finish=_finish,
    pictures="link",
    folder=YOLO_IMAGES,
    has_files=True,
    split="train=0.9,val=0.1",
    reserved=frozenset({YOLO_IMAGES}),
)
