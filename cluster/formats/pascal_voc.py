"""Pascal VOC: an XML file a picture, pixels whose ends are inside, counted from 1.

An object has a `bndbox`, or is a polygon, of which the box is taken: points `pt` of an `x` and a `y`, or `x1`, `y1`,
`x2`, `y2` and so on. What it says of its parts is left out, and so are objects that are marked as deleted; `difficult`
ones, which VOC's own evaluation leaves out, are objects like others.
Written, boxes are whole pixels, and an object's `score` and `probability` stand where readers look for nothing.
"""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # to write; it reads nothing

import pyarrow as pa

from cam_ops.documents import xml_of
from cam_ops.outside import size_of_file
from cluster.formats.entries import VOC_CORNERS, Entry, batches_of, number_of, size_of
from cluster.formats.exported import SCORE_DIGITS, ExportFormat, Part, Picture, Whole
from cluster.formats.exported import Box as ExportedBox
from cluster.formats.files import files_below, read_bounded, reading
from cluster.formats.format import Format
from cluster.formats.shapes import Box, box_of_points

MAX_XML_BYTES = 4 * 2**20
HEAD_BYTES = 1024


def _entries(folder: str) -> Iterator[Entry]:
    """Read ``NAME.xml`` files as entries of the image NAME, not of the name that stands in it.

    Documents with a DTD, and so with entities, are not read.
    """
    with reading(folder, "a folder of Pascal VOC"):
        for name, path in files_below(folder, ".xml"):
            image = name[: -len(".xml")]
            with reading(path, "Pascal VOC"):
                try:
                    root = xml_of(read_bounded(path, MAX_XML_BYTES))
                except ValueError as error:
                    yield Entry(image=image, unusable=f"{name}: {error}")
                    continue
                if root.tag == "annotation":
                    yield from _annotation(image, name, root)
                else:
                    reason = f"{name}: expected the element annotation, found {root.tag[:40]}"
                    yield Entry(image=None, unusable=reason)


def _annotation(image: str, name: str, root: Any) -> Iterator[Entry]:
    size = size_of(_text(root, "size/width"), _text(root, "size/height"))
    yield Entry(image=image, size=size, other_image=_text(root, "filename"))
    for number, thing in enumerate(root.findall("object"), 1):
        if _text(thing, "deleted") == "1":
            continue
        try:
            yield Entry(image=image, box=_box_of(thing), word=_text(thing, "name"))
        except ValueError as error:
            yield Entry(image=image, unusable=f"{name} object {number}: {error}")


def _box_of(thing: Any) -> Box:
    """Return the box of an object. Raises ValueError where it has none, or several."""
    boxes, polygons = thing.findall("bndbox"), thing.findall("polygon")
    if len(boxes) > 1:
        raise ValueError(f"it has {len(boxes)} bndbox")
    found = [number_of(_text(boxes[0], corner)) for corner in VOC_CORNERS] if boxes else []
    corners = [corner for corner in found if corner is not None]
    if len(corners) == len(VOC_CORNERS):
        return corners[0], corners[1], corners[2], corners[3]
    if len(polygons) == 1:
        return box_of_points(_points(polygons[0]))
    lacking = ", ".join(name for name, corner in zip(VOC_CORNERS, found, strict=False) if corner is None)
    raise ValueError(f"no number bndbox/{lacking}" if boxes else "no bndbox, and no polygon")


def _points(polygon: Any) -> list[tuple[object, object]]:
    if points := polygon.findall("pt"):
        return [(_text(point, "x"), _text(point, "y")) for point in points]
    numbers = range(1, len(polygon) // 2 + 1)
    return [(_text(polygon, f"x{number}"), _text(polygon, f"y{number}")) for number in numbers]


def _text(element: Any, path: str) -> str | None:
    return (element.findtext(path) or "").strip() or None


def _read(path: str, masks: str) -> Iterator[pa.RecordBatch]:
    return batches_of(_entries(path))


def is_annotation(path: str) -> bool:
    """Say whether a file begins as one of VOC does."""
    try:
        size_of_file(path)
        with open(path, "rb") as file:
            return b"<annotation" in file.read(HEAD_BYTES)
    except OSError:
        return False


VOC = Format(
    name="voc",
    frame="from-1",
    is_folder=True,
    suffix=".xml",
    read=_read,
)
VOC_INCLUSIVE = Format(
    name="voc-inclusive",  # of tools that count from 0; it looks like the other, and must be asked for
    frame="inclusive",
    is_folder=True,
    read=_read,
)
VOC_HALF_OPEN = Format(
    name="voc-half-open",  # as this one must
    frame="half-open",
    is_folder=True,
    read=_read,
)


PICTURES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets"
WHOLE_SET = "trainval"  # of an export without splits
NAMES = "names"
NUM_CHANNELS = 3  # as readers take all pictures
BREAKS_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        root = Element("annotation")
        _fill(root, folder=PICTURES, filename=picture.name)
        _fill(SubElement(root, "source"), database="camray", image=BREAKS_XML.sub("\ufffd", picture.image_id))
        _fill(SubElement(root, "size"), width=picture.width, height=picture.height, depth=NUM_CHANNELS)
        _fill(root, segmented=0)
        for box in picture.boxes:
            _add_object(root, box, part.settings.classes.names[box.class_id])
        indent(root, "\t")
        part.put(f"{ANNOTATIONS}/{picture.stem}.xml", tostring(root, encoding="utf-8"))
        part.note(NAMES, picture.split, picture.stem.encode())


def _add_object(root: Element, box: ExportedBox, name: str) -> None:
    thing = SubElement(root, "object")
    _fill(thing, name=name, pose="Unspecified", truncated=0, difficult=0)
    corners = (from_0 + 1 for from_0 in box.pixels)
    _fill(SubElement(thing, "bndbox"), **dict(zip(VOC_CORNERS, corners, strict=True)))
    _fill(thing, score=f"{box.score:.{SCORE_DIGITS}f}")
    if box.probability is not None:
        _fill(thing, probability=f"{box.probability:.{SCORE_DIGITS}f}")


def _fill(element: Element, **texts: object) -> None:
    for tag, text in texts.items():
        SubElement(element, tag).text = str(text)


def _finish(whole: Whole) -> None:
    for split in whole.splits:
        with whole.open(f"{SETS}/Main/{split or WHOLE_SET}.txt") as file:
            file.writelines(name + b"\n" for name in whole.notes(NAMES, split))


VOC_EXPORT = ExportFormat(
    name="voc",
    entries=(ANNOTATIONS, SETS),
    write=_write,
    finish=_finish,
    pictures="link",
    folder=PICTURES,
    has_split_folders=False,
    is_jpeg=True,
    has_files=True,
    lists_classes=False,
)
