"""Label Studio: tasks in JSON, boxes ``x, y, width, height`` in percent of the picture, ends outside. Only written.

A task has one prediction with all its boxes as regions, and `config.xml` the labels that these are of. A picture's
address is percent-encoded, but on a store, where Label Studio takes it letter for letter.
"""

from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # to write; it reads nothing

from cam_ops.errors import UsageError
from cluster.formats.coco import packed
from cluster.formats.exported import (
    SCORE_DIGITS,
    Box,
    ExportFormat,
    Part,
    Picture,
    Settings,
    Whole,
    document_name,
    folder_of,
    joined,
)
from cluster.process.console import shown
from cluster.storage.objects import is_store

DOCUMENT, CONFIG = "tasks.json", "config.xml"
TASKS = "tasks"
LABEL, IMAGE = "label", "image"  # names of the config's tags
LOCAL_FILES = "/data/local-files/?d="
PERCENT_DIGITS = 7


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        regions = [_region(number, box, picture, part.settings) for number, box in enumerate(picture.boxes, 1)]
        score = {"score": min(region["score"] for region in regions)} if regions else {}
        task = {
            "data": {IMAGE: _address(picture, part.settings), "image_id": picture.image_id},
            "predictions": [{"model_version": "camray", **score, "result": regions}],
        }
        part.note(TASKS, picture.split, packed(task))


def _region(number: int, box: Box, picture: Picture, settings: Settings) -> dict[str, Any]:
    sides = (picture.width, picture.height) * 2
    extent = box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0
    x, y, width, height = (round(100 * value / side, PERCENT_DIGITS) for value, side in zip(extent, sides, strict=True))
    label = settings.classes.names[box.class_id]
    return {
        "id": f"box{number}",
        "type": "rectanglelabels",
        "from_name": LABEL,
        "to_name": IMAGE,
        "original_width": picture.width,
        "original_height": picture.height,
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]},
        "score": round(box.score, SCORE_DIGITS),
    }


def _address(picture: Picture, settings: Settings) -> str:
    """Return where Label Studio finds a picture: in the export if it is there, else where the run found it."""
    prefix, place = settings.url_prefix, picture.image_id
    if settings.has_pictures:
        place = f"{folder_of(LABEL_STUDIO_EXPORT, picture.split)}/{picture.name}"
        if prefix is None and is_store(settings.root):
            prefix = f"{settings.root}/"
    elif prefix is None:
        if is_store(picture.uri):
            return picture.uri
        if not picture.uri:
            raise UsageError(
                f"the picture {shown(picture.image_id)} lies in a file with others, so it has no address; give "
                "--pictures copy, or --url-prefix for where such pictures are served"
            )
    prefix = LOCAL_FILES if prefix is None else prefix if prefix.endswith(("/", "=")) else f"{prefix}/"
    return prefix + (quote(place) if _is_url(prefix) else place)


def _is_url(prefix: str) -> bool:
    scheme, colon, _ = prefix.partition("://")
    return not colon or scheme.lower() in ("http", "https")


def _finish(whole: Whole) -> None:
    whole.put(CONFIG, _config(whole.settings))
    for split in whole.splits:
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(b"[\n")
            file.writelines(joined(whole.notes(TASKS, split)))
            file.write(b"\n]\n")


def _config(settings: Settings) -> bytes:
    """Return the labelling interface."""
    view = Element("View")
    SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true")
    labels = SubElement(view, "RectangleLabels", name=LABEL, toName=IMAGE)
    for class_id in settings.classes.numbers:
        SubElement(labels, "Label", value=settings.classes.names[class_id])
    indent(view)
    return cast(bytes, tostring(view, encoding="utf-8"))


LABEL_STUDIO_EXPORT = ExportFormat(
    name="label-studio",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0], CONFIG),
    write=_write,
    finish=_finish,
)
