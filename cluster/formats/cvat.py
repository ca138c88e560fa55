"""CVAT for images 1.1: an XML of all pictures, pixels from 0 as fractions have them, ends outside. Only written.

An `image` is known by its name, or else its `id`: its place in the run, from 0, which is that in a task of all its
pictures. A box's `score`, and its `probability` where it has one, are attributes, which CVAT takes for labels that have
such: `labels.json` is what its form for them takes.
"""

import json
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring  # to write; it reads nothing

from cluster.formats.exported import SCORE_DIGITS, Box, ExportFormat, Part, Picture, Settings, Whole, document_name

DOCUMENT, LABELS = "annotations.xml", "labels.json"
IMAGES = "images"
EDGES = ("xtl", "ytl", "xbr", "ybr")
SCALE = ("0", "1", "0.000001")  # of a number: least, most, step


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        width, height = str(picture.width), str(picture.height)
        image = Element("image", id=str(picture.number - 1), name=picture.name, width=width, height=height)
        for box in picture.boxes:
            _add_box(image, box, part.settings.classes.names[box.class_id])
        part.note(IMAGES, picture.split, tostring(image, encoding="utf-8"))


def _add_box(image: Element, box: Box, label: str) -> None:
    corners = dict(zip(EDGES, map(str, box.corners), strict=True))
    element = SubElement(image, "box", {"label": label, "source": "auto", "occluded": "0", **corners, "z_order": "0"})
    for name, value in (("score", box.score), ("probability", box.probability)):
        if value is not None:
            SubElement(element, "attribute", name=name).text = f"{value:.{SCORE_DIGITS}f}"


def _finish(whole: Whole) -> None:
    labels = _labels(whole.settings)
    whole.put(LABELS, json.dumps(labels, indent=1).encode())
    for split in whole.splits:
        size = sum(1 for _ in whole.notes(IMAGES, split))
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            file.write(tostring(_meta(split, size, labels), encoding="utf-8") + b"\n")
            file.writelines(line + b"\n" for line in whole.notes(IMAGES, split))
            file.write(b"</annotations>\n")


def _labels(settings: Settings) -> list[dict[str, Any]]:
    """Return the labels of a task as CVAT's form takes them."""
    names = ("score", "probability") if settings.is_calibrated else ("score",)
    attributes = [
        {"name": name, "mutable": False, "input_type": "number", "default_value": "0", "values": SCALE}
        for name in names
    ]
    classes = (settings.classes.names[class_id] for class_id in settings.classes.numbers)
    return [{"name": name, "type": "rectangle", "attributes": attributes} for name in classes]


def _meta(split: str, size: int, labels: list[dict[str, Any]]) -> Element:
    meta = Element("meta")
    task = SubElement(meta, "task")
    texts = {"name": "camray", "size": size, "mode": "annotation", "overlap": 0, "flipped": False}
    _fill(task, {**texts, "subset": split} if split else texts)
    listed = SubElement(task, "labels")
    for label in labels:
        element = SubElement(listed, "label")
        _fill(element, {"name": label["name"], "type": label["type"]})
        attributes = SubElement(element, "attributes")
        for attribute in label["attributes"]:
            _fill(SubElement(attributes, "attribute"), {**attribute, "values": "\n".join(attribute["values"])})
    return meta


def _fill(element: Element, texts: dict[str, Any]) -> None:
    for tag, text in texts.items():
        SubElement(element, tag).text = str(text)


CVAT_EXPORT = ExportFormat(
    name="cvat",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0], LABELS),
    write=_write,
    finish=_finish,
)
