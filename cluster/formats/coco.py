"""COCO: one JSON document, boxes ``[x, y, width, height]`` in pixels whose ends are outside.

Written, a category's id is ``class_id + 1``, as 0 is the background for torchvision and others; all else that a box has
goes with it: `score`, `energy`, `probability`. Read, it is validated by pydantic, which leaves out what
is not asked for, and whole, up to `MAX_COCO_BYTES`, into which the instances of COCO's own training set fit.
Segmentations, most of such a file, are looked at where a box is missing, each becoming its box at once. One field that
is null or empty costs its entry alone.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BeforeValidator

from cluster.formats.entries import UNKNOWN, Entry, Size, batches_of, number_of, size_of
from cluster.formats.exported import (
    SCORE_DIGITS,
    ExportFormat,
    Part,
    Picture,
    Settings,
    Whole,
    document_name,
    joined,
)
from cluster.formats.exported import (
    Box as ExportedBox,
)
from cluster.formats.files import is_file, read_bounded, reading
from cluster.formats.format import Format
from cluster.formats.shapes import Box, box_of_segmentation
from cluster.process.console import shortened, shown
from cluster.storage.documents import validated

MAX_COCO_BYTES = 512 * 2**20
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Category:
    id: Any = None
    name: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotation:
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    iscrowd: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coco:
    images: list[_Image | None]
    annotations: list[_Annotation | None]
    categories: list[_Category | None] | None = None


Outlined = tuple[Box, tuple[int, int] | None] | str
"""A segmentation's box, and the size that it is drawn in if it says so; or why it has none."""


def _outlined(segmentation: object) -> Outlined:
    try:
        return box_of_segmentation(segmentation)
    except ValueError as error:
        return str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segmented:
    segmentation: Annotated[Any, BeforeValidator(_outlined)] = "it has no box and no segmentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segmentations:
    annotations: list[_Segmented | None] = field(default_factory=list)


def _entries(path: str) -> Iterator[Entry]:
    """Read a COCO file of instances; an annotation without a box has that of its segmentation."""
    with reading(path, "COCO JSON"):
        content = read_bounded(path, MAX_COCO_BYTES)
        document = validated(_Coco, content, is_strict=False)
        images = [image or _Image() for image in document.images]
        annotations = [annotation or _Annotation() for annotation in document.annotations]
        name_of = _names("image", ((image.id, image.file_name) for image in images))
        word_of = _names("category", ((each.id, each.name) for each in document.categories or () if each))
        boxes = [_box_of(annotation.bbox) for annotation in annotations]
        outlined: list[Outlined] = []
        if None in boxes:
            segmented = validated(_Segmentations, content, is_strict=False).annotations
            outlined = [(each or _Segmented()).segmentation for each in segmented]
        del content, document
    size_by: dict[str | None, Size] = {}
    for number, image in enumerate(images):
        name, size = _text(image.file_name), size_of(image.width, image.height)
        size_by[_key(image.id)] = size
        yield Entry(image=name, size=size, unusable=None if name else _said("image", number, image.id, "no file_name"))
    for number, (annotation, box) in enumerate(zip(annotations, boxes, strict=True)):
        key = _key(annotation.image_id)
        entry = Entry(image=name_of.get(key), word=word_of.get(_key(annotation.category_id)))
        try:
            shape = (box, None) if box else _shape_of(annotation, outlined[number])
            size = _drawn_size(size_by.get(key, UNKNOWN), shape[1])
            yield replace(entry, box=shape[0], size=size, crowd=_is_crowd(annotation.iscrowd))
        except ValueError as error:
            yield replace(entry, unusable=_said("annotation", number, annotation.id, error))


def _box_of(bbox: object) -> Box | None:
    """Return the corners of a box that is one."""
    numbers = [number_of(value) for value in bbox] if isinstance(bbox, list) else []
    x, y, width, height = numbers if len(numbers) == 4 else [None] * 4
    if x is None or y is None or not width or not height or width < 0 or height < 0:
        return None
    return x, y, x + width, y + height


def _shape_of(annotation: _Annotation, outlined: Outlined) -> tuple[Box, tuple[int, int] | None]:
    """Return what stands for a box that is none. Raises ValueError."""
    if not isinstance(outlined, str):
        return outlined
    bbox = annotation.bbox
    if bbox in (None, []):
        raise ValueError(outlined)
    said = f"its bbox is {shortened(bbox, SHOWN_CHARACTERS)}"
    if isinstance(bbox, list) and len(bbox) == 4 and None not in map(number_of, bbox):
        said += ", whose width and height are not both above 0"
    raise ValueError(f"{said}, and {outlined.replace('no box and no segmentation', 'no segmentation')}")


def _drawn_size(size: Size, drawn: tuple[int, int] | None) -> Size:
    """Return the size that a mask says its image has, where the image does not; raise ValueError if it is another."""
    if drawn is None or size == drawn:
        return UNKNOWN
    if size != UNKNOWN:
        raise ValueError(f"its mask is of {drawn[0]} x {drawn[1]} pixels, its image of {size[0]} x {size[1]}")
    return drawn


def _is_crowd(iscrowd: object) -> bool:
    if iscrowd in (None, "", 0, "0"):
        return False
    if iscrowd in (1, "1"):
        return True
    raise ValueError(f"its iscrowd is {shortened(iscrowd, SHOWN_CHARACTERS)}")


def _names(what: str, pairs: Iterable[tuple[object, object]]) -> dict[str | None, str]:
    """Return names by id. Raises ValueError where an id is that of several."""
    names: dict[str | None, str] = {}
    for number, text in pairs:
        key, name = _key(number), _text(text)
        if key is not None and name and names.setdefault(key, name) != name:
            raise ValueError(f"the {what} id {key} is that of {shown(names[key])} and of {shown(name)}")
    return names


def _key(value: object) -> str | None:
    """Return an id by which entries refer to each other: a whole number and the same as a text are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else _text(value)


def _text(value: object) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _said(what: str, number: int, own: object, reason: object) -> str:
    """Name an entry by its id, or else by its place."""
    named = f"{what} {shortened(own, SHOWN_CHARACTERS)}" if own is not None else f"{what}s[{number}]"
    return f"{named}: {reason}"


COCO = Format(
    name="coco",
    frame="half-open",
    recognise=lambda path: is_file(path, ".json"),
    read=lambda path, masks: batches_of(_entries(path)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """The ids of a dataset."""

    images: dict[str, int]  # by file name
    categories: dict[str, int]  # by name
    sizes: dict[str, Size]  # width and height of images, by file name


def read_ids(path: str) -> Ids:
    """Read the ids of a COCO file. Raises UsageError, also unless names and ids, whole numbers, fit one to one."""
    with reading(path, "COCO JSON", "give another --like"):
        document = validated(_Coco, read_bounded(path, MAX_COCO_BYTES), is_strict=False)
        images = _ids("image", ((each.file_name, each.id) for each in document.images if each))
        categories = _ids("category", ((each.name, each.id) for each in document.categories or () if each))
        sizes = {str(_text(each.file_name)): size_of(each.width, each.height) for each in document.images if each}
    return Ids(images=images, categories=categories, sizes=sizes)


def _ids(what: str, pairs: Iterable[tuple[object, object]]) -> dict[str, int]:
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for name, key in pairs:
        text = _text(name)
        if text is None or not isinstance(key, int) or isinstance(key, bool):
            said = shortened(repr(key), SHOWN_CHARACTERS)
            raise ValueError(
                f"expected names and ids that are whole numbers, found the {what} {shown(str(name))}, {said}"
            )
        if ids.setdefault(text, key) != key:
            raise ValueError(f"the {what} {shown(text)} has the ids {ids[text]} and {key}")
        if names.setdefault(key, text) != text:
            raise ValueError(f"the {what} id {key} is that of {shown(names[key])} and of {shown(text)}")
    return ids


DOCUMENT = "annotations.json"
IMAGES, ANNOTATIONS = "images", "annotations"


def box_fields(box: ExportedBox) -> dict[str, Any]:
    """Return what COCO says of a box, but for ids."""
    x, y, width, height = box.extent
    fields = {
        "bbox": [x, y, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": round(box.score, SCORE_DIGITS),
        "energy": round(box.energy, SCORE_DIGITS),
    }
    return fields if box.probability is None else {**fields, "probability": round(box.probability, SCORE_DIGITS)}


def packed(document: object) -> bytes:
    """Return JSON in one line, in ASCII."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        image = {
            "id": picture.number,
            "file_name": picture.name,
            "width": picture.width,
            "height": picture.height,
            **({} if picture.name == picture.image_id else {"image_id": picture.image_id}),
        }
        part.note(IMAGES, picture.split, packed(image))
        for box in picture.boxes:
            fields = {"image_id": picture.number, "category_id": box.class_id + 1, **box_fields(box)}
            part.note(ANNOTATIONS, picture.split, packed(fields))


def _finish(whole: Whole) -> None:
    settings = whole.settings
    categories = [
        {"id": class_id + 1, "name": settings.classes.names[class_id]} for class_id in settings.classes.numbers
    ]
    for split in whole.splits:
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(b'{"info":' + packed(_info(settings)) + b',\n"images":[\n')
            file.writelines(joined(whole.notes(IMAGES, split)))
            file.write(b'\n],\n"annotations":[\n')
            lines = enumerate(whole.notes(ANNOTATIONS, split), 1)
            file.writelines(joined(b'{"id":%d,' % number + line[1:] for number, line in lines))
            file.write(b'\n],\n"categories":' + packed(categories) + b"}\n")


def _info(settings: Settings) -> dict[str, str]:
    return {
        "description": f"boxes that camray made of class activation maps, of the run {settings.run}",
        "categories": "id = class_id of the network + 1: 0 is the background",
        "boxes": "pixels of the picture as it is seen, after EXIF orientation: x, y, width, height",
    }


COCO_EXPORT = ExportFormat(
    name="coco",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0]),
    write=_write,
    finish=_finish,
)
