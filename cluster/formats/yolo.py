"""YOLO: a text file a picture, lines ``class x y width height``, the centre and size as fractions of the picture's."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.formats.entries import Entry, batches_of
from cluster.formats.files import files_below, lines_of, read_bounded, reading
from cluster.formats.format import Format
from cluster.process.console import say

MAX_NAMES_BYTES = 2**20
YOLO_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
YOLO_LABELS = "labels"


def _entries(folder: str) -> Iterator[Entry]:
    """Read ``NAME.txt`` files as entries of the image NAME.

    A line with more corners is a polygon, its box is taken. Below `folder`, those below its ``labels`` are taken if it
    has such. Classes are called by the names in one of `YOLO_NAMES`, there or up to two folders above, else by their
    numbers.
    """
    names = _yolo_names(Path(folder))
    if not names:
        say(f"truth: no {' or '.join(YOLO_NAMES)} at {folder}, the numbers of classes are taken as the network's")
    labels = os.path.join(folder, YOLO_LABELS)
    labels = labels if os.path.isdir(labels) else folder
    with reading(labels, "a folder of YOLO"):
        for name, path in files_below(labels, ".txt"):
            if os.path.basename(path) in YOLO_NAMES:
                continue
            image = name[: -len(".txt")]
            yield Entry(image=image)
            with reading(path, "YOLO"):
                for number, line in lines_of(path):
                    yield _yolo_entry(image, number, line.split(), names)


def _yolo_entry(image: str, number: int, cells: list[str], names: dict[int, str]) -> Entry:
    values = [float(cell) for cell in cells[1:]]
    if len(values) == 4:
        x, y, width, height = values
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        raise ValueError(f"line {number}: expected a class and 4 numbers, or a polygon, found {len(cells)} cells")
    if not re.fullmatch(r"\d{1,9}(\.0*)?", cells[0]):
        raise ValueError(f"line {number}: expected the number of a class, found {cells[0][:40]!r}")
    class_id = int(float(cells[0]))
    return Entry(image=image, box=box, word=names.get(class_id, str(class_id)))


def _yolo_names(folder: Path) -> dict[int, str]:
    """Return the names that the first file of them, in the folder or up to two above it, gives to classes."""
    places = (folder, *folder.parents[:2])
    paths = [path for place in places for name in YOLO_NAMES if (path := place / name).is_file()]
    for path in paths[:1]:
        with reading(path, "names of YOLO's classes"):
            text = read_bounded(path, MAX_NAMES_BYTES).decode("utf-8-sig")
            if path.suffix not in (".yaml", ".yml"):
                return dict(enumerate(line.strip() for line in text.splitlines()))
            document = _plain_yaml(text)
            names: Any = document.get("names", []) if isinstance(document, dict) else None
            named = dict(enumerate(names)) if isinstance(names, list) else names
            if not isinstance(named, dict) or not all(isinstance(word, str) for word in named.values()):
                raise ValueError("expected `names`, a list of texts, or texts by number")
            return named
    return {}


def _plain_yaml(text: str) -> Any:
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # merged, they fill the memory
            raise ValueError("it has aliases, which are not read")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {error}") from None


YOLO = Format(
    name="yolo",
    frame="fractions",
    is_folder=True,
    recognise=lambda path: any(os.path.exists(os.path.join(path, name)) for name in (YOLO_LABELS, *YOLO_NAMES)),
    suffix=".txt",
    read=lambda path, masks: batches_of(_entries(path)),
)
