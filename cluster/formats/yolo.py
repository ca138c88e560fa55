"""YOLO: a text file a picture, lines ``class x y width height``, the centre and size as fractions of the picture's.

Where a picture is ``images/a/1.jpg``, its file is ``labels/a/1.txt``. One without lines says that there is no object.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cam_ops.words import folded
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.files import files_below, lines_of, read_bounded, reading
from cluster.formats.format import Format
from cluster.formats.shapes import Box, box_of_points
from cluster.process.console import say, shown

MAX_NAMES_BYTES = 2**20
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LIST_NAMES = ("classes.txt", "obj.names")
YAML_SUFFIXES = (".yaml", ".yml")
YOLO_NAMES = (*YAML_NAMES, *LIST_NAMES)
YOLO_LABELS, YOLO_IMAGES = "labels", "images"
LEVELS_UP = 4  # that the names of classes may lie above the labels
MAX_CLASS = 10**9
OUTSIDE = 0.01  # by which fractions may leave the picture: tools round


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """What files say of the classes."""

    words: dict[int, str] = field(default_factory=dict)
    num_keypoints: int = 0  # numbers of keypoints behind each box
    where: str = ""


def _entries(folder: str) -> Iterator[Entry]:
    """Read ``NAME.txt`` files as entries of the image NAME.

    A line with more corners is a polygon, its box is taken. Where folders ``labels`` lie below `folder`, only what is
    in them is read. A file whose first line does not begin with a number is none of labels, such as a list of images.
    Classes are called by the names in the nearest files `YOLO_NAMES`, else by their numbers.
    """
    with reading(folder, "a folder of YOLO"):
        in_labels = any(_is_in_labels(name) for name, _ in files_below(folder, ".txt"))
    names = _class_names(Path(folder))
    if not names.words:
        names_files = " or ".join((YAML_NAMES[0], *LIST_NAMES))
        say(f"truth: no {names_files} at {folder}, the numbers of classes are taken as the network's")
    elif Path(names.where).parent != Path(folder):
        say(f"truth: classes are called as {names.where} says")
    with reading(folder, "a folder of YOLO"):
        for name, path in files_below(folder, ".txt"):
            if os.path.basename(path) not in YOLO_NAMES and (_is_in_labels(name) or not in_labels):
                with reading(path, "YOLO"):
                    yield from _file_entries(name, path, names)


def _is_in_labels(name: str) -> bool:
    return YOLO_LABELS in name.split("/")[:-1]


def _file_entries(name: str, path: str, names: _Names) -> Iterator[Entry]:
    image, is_first = _image_of(name), True
    try:
        for number, line in lines_of(path):
            cells = line.split()
            if is_first and number_of(cells[0]) is None:
                reason = f"{name} line {number}: expected the number of a class, found {cells[0][:40]!r}"
                yield Entry(image=None, unusable=reason)
                return
            is_first = False
            yield _line_entry(image, f"{name} line {number}", cells, names)
        yield Entry(image=image)
    except UnicodeDecodeError:
        yield Entry(image=None if is_first else image, unusable=f"{name}: it is not in UTF-8")


def _line_entry(image: str, where: str, cells: list[str], names: _Names) -> Entry:
    try:
        return Entry(image=image, box=_box_of(cells[1:], names), word=_word_of(cells[0], names))
    except ValueError as error:
        return Entry(image=image, unusable=f"{where}: {error}")


def _image_of(name: str) -> str:
    """Return the image of a file by its path: as far as it lies in `labels`, that one lies in `images`."""
    *folders, last = name[: -len(".txt")].split("/")
    if YOLO_LABELS in folders:
        at = len(folders) - 1 - folders[::-1].index(YOLO_LABELS)
        folders[at] = YOLO_IMAGES
    return "/".join([*folders, last])


def _box_of(cells: list[str], names: _Names) -> Box:
    """Return the corners of a box, or the box of a polygon. Raises ValueError."""
    num_cells = 1 + len(cells)
    if names.num_keypoints and len(cells) == 4 + names.num_keypoints:
        cells = cells[:4]
    values = [value for cell in cells if (value := number_of(cell)) is not None]
    if len(values) < len(cells) or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
        raise ValueError(f"expected a class and 4 numbers, or a polygon, found {num_cells} cells")
    if not all(-OUTSIDE <= value <= 1 + OUTSIDE for value in values):
        raise ValueError(f"expected fractions of the picture, from 0 to 1, found {' '.join(cells)[:80]}")
    if len(values) > 4:
        return box_of_points(list(zip(values[::2], values[1::2], strict=True)))
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _word_of(cell: str, names: _Names) -> str:
    number = number_of(cell)
    if number is None or number != int(number) or not 0 <= number < MAX_CLASS:
        raise ValueError(f"expected the number of a class, found {cell[:40]!r}")
    class_id = int(number)
    if names.words and class_id not in names.words:
        raise ValueError(f"class {class_id} has no name in {names.where}")
    return names.words.get(class_id, str(class_id))


def _class_names(folder: Path) -> _Names:
    """Return the names that files give to classes: those beside the labels, else those of the nearest folder above.

    Beside them is in the folder, in `labels`, and beside that; any `.yaml` will do there where none has a known name.
    Raises UsageError where two files at one place call a class by two names.
    """
    places = [folder, folder / YOLO_LABELS]
    places += [place.parent for place in (folder, *folder.parents[:LEVELS_UP]) if place.name == YOLO_LABELS]
    own = [path for place in places for path in _named(place, YOLO_NAMES)]
    own = own or [path for place in places if place.is_dir() for path in _yaml_files(place)]
    for paths in (own, *(_named(place, YOLO_NAMES) for place in folder.parents[:LEVELS_UP])):
        found = _Names()
        for path in paths:
            with reading(path, "names of YOLO's classes"):
                found = _agreed(found, _read_names(path))
        if found.words:
            return found
    return _Names()


def _yaml_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix in YAML_SUFFIXES and path.is_file()]


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [path for name in names if (path := folder / name).is_file()]


def _agreed(before: _Names, more: _Names) -> _Names:
    for class_id in before.words.keys() & more.words.keys():
        one, other = before.words[class_id], more.words[class_id]
        if folded(one) != folded(other):
            raise ValueError(
                f"it calls class {class_id} {shown(other)}, {before.where} calls it {shown(one)}; take one of them away"
            )
    return _Names(
        words={**more.words, **before.words},
        num_keypoints=before.num_keypoints or more.num_keypoints,
        where=before.where or more.where,
    )


def _read_names(path: Path) -> _Names:
    """Read the names of one file. Raises ValueError where it has names that are none."""
    text = read_bounded(path, MAX_NAMES_BYTES).decode("utf-8-sig")
    if path.name in LIST_NAMES:
        lines = enumerate(line.strip() for line in text.splitlines())
        return _Names(words={number: line for number, line in lines if line}, where=str(path))
    try:
        document = _plain_yaml(text)
    except ValueError:
        if path.name not in YAML_NAMES:  # it is of something else
            return _Names()
        raise
    names: Any = document.get("names") if isinstance(document, dict) else None
    named = dict(enumerate(names)) if isinstance(names, list) else names if names is not None else {}
    if not isinstance(named, dict) or not all(isinstance(word, str) for word in named.values()):
        raise ValueError("expected `names`, a list of texts, or texts by number")
    if not all(isinstance(key, int) or re.fullmatch(r"\d{1,9}", str(key)) for key in named):
        raise ValueError("expected `names`, a list of texts, or texts by number")
    words = {int(key): word.strip() for key, word in named.items() if word.strip()}
    shape = document.get("kpt_shape") if isinstance(document, dict) else None
    sides = [number_of(side) for side in shape] if isinstance(shape, list) else []
    num_keypoints = int(sides[0] * sides[1]) if len(sides) == 2 and sides[0] and sides[1] else 0
    return _Names(words=words, num_keypoints=num_keypoints, where=str(path))


def _plain_yaml(text: str) -> Any:
    """Return a YAML document whose every scalar is the text that stands there: the names 0, 1, no and off are words."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # merged, they fill the memory
            raise ValueError("it has aliases, which are not read")
        return yaml.BaseLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {error}") from None


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
