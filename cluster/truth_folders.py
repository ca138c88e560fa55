"""Truth that is a folder of files, one for each picture: Pascal VOC, YOLO, masks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError  # the exception alone

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cluster.console import say
from cluster.truth_entries import VOC_CORNERS, Entry, files_below, lines_of, read_bounded, reading, size_of

MAX_XML_BYTES = 4 * 2**20
MAX_NAMES_BYTES = 2**20
YOLO_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
YOLO_LABELS = "labels"


def voc(folder: str) -> Iterator[Entry]:
    """Read ``NAME.xml`` files as entries of the image NAME; what they say of file names is left out.

    Documents with a DTD, and so with entities, are refused.
    """
    with reading(folder, "a folder of Pascal VOC"):
        for name, path in files_below(folder, ".xml"):
            with reading(path, "Pascal VOC"):
                yield from _annotation(name[: -len(".xml")], read_bounded(path, MAX_XML_BYTES))


def _annotation(image: str, content: bytes) -> Iterator[Entry]:
    try:
        root = fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise ValueError("it has a DTD or entities, which are not read") from None
    except ParseError as error:
        raise ValueError(f"it is no whole XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"expected the element annotation, found {root.tag[:40]}")
    yield Entry(image=image, size=size_of(_number(root, "size/width", "0"), _number(root, "size/height", "0")))
    for thing in root.findall("object"):
        if thing.find("bndbox") is not None:
            box = tuple(_number(thing, f"bndbox/{corner}") for corner in VOC_CORNERS)
            yield Entry(image=image, box=box, word=(thing.findtext("name") or "").strip() or None)


def _number(element: Any, path: str, default: str | None = None) -> float:
    text = (element.findtext(path) or "").strip() or default
    if text is None:
        raise ValueError(f"an object has no {path}")
    return float(text)


def yolo(folder: str) -> Iterator[Entry]:
    """Read ``NAME.txt`` files of lines ``class x y width height``, centre and size, as entries of the image NAME.

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


def masks(folder: str) -> Iterator[Entry]:
    """Read the names of ``NAME.png`` files: each is the mask of the image NAME."""
    with reading(folder, "a folder of masks"):
        for name, path in files_below(folder, ".png"):
            with reading(repr(path), "a mask", "rename it to a name in UTF-8"):
                path.encode()
            yield Entry(image=name[: -len(".png")], mask=path)
