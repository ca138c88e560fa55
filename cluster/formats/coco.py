"""COCO: one JSON document, boxes ``[x, y, width, height]`` in pixels whose ends are outside.

It is validated and read by pydantic, which leaves out what is not asked for, and whole, up to `MAX_COCO_BYTES`, into
which the instances of COCO's own training set fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.formats.entries import Corners, Entry, batches_of, size_of
from cluster.formats.files import is_file, parsed, read_bounded, reading
from cluster.formats.format import Format

MAX_COCO_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    id: int | str
    file_name: str
    width: float = 0
    height: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Category:
    id: int | str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotation:
    image_id: int | str
    category_id: int | str | None = None
    bbox: Corners | None = None
    iscrowd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coco:
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] = field(default_factory=list)


def _entries(path: str) -> Iterator[Entry]:
    """Read a COCO file of instances. Segmentations are left out."""
    with reading(path, "COCO JSON"):
        document = parsed(_Coco, read_bounded(path, MAX_COCO_BYTES))
    word_of = {category.id: category.name for category in document.categories}
    name_of = {image.id: image.file_name for image in document.images}
    for image in document.images:
        yield Entry(image=image.file_name, size=size_of(image.width, image.height))
    for annotation in document.annotations:
        if annotation.bbox is not None:
            x, y, width, height = annotation.bbox
            yield Entry(
                image=name_of.get(annotation.image_id),
                box=(x, y, x + width, y + height),
                word=None if annotation.category_id is None else word_of.get(annotation.category_id),
                crowd=annotation.iscrowd != 0,
            )


COCO = Format(
    name="coco",
    frame="half-open",
    recognise=lambda path: is_file(path, ".json"),
    read=lambda path, masks: batches_of(_entries(path)),
)
