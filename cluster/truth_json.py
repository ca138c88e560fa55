"""Truth in JSON: COCO's one document, and the members `json` of WebDataset's tar files.

Documents are validated and read by pydantic, which leaves out what is not asked for. A COCO file is read whole, up to
`MAX_COCO_BYTES`, into which the instances of COCO's own training set fit.
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from cluster.documents import first_reason
from cluster.listing import image_id_of
from cluster.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.tars import LABEL, MAX_LABEL_BYTES, NOTES, SUFFIX, WILDCARDS, WINDOW_BYTES, named_members
from cluster.truth_entries import Entry, read_bounded, reading, size_of

MAX_COCO_BYTES = 512 * 2**20
MAX_NOTES_BYTES = 2**20  # of a member `json`

Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
Document = TypeVar("Document")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notes:
    boxes: list[Corners] = field(default_factory=list)
    class_id: int | str | None = None


def coco(path: str) -> Iterator[Entry]:
    """Read a COCO file of instances; boxes are ``[x, y, width, height]``. Segmentations are left out."""
    with reading(path, "COCO JSON"):
        document = _parsed(_Coco, read_bounded(path, MAX_COCO_BYTES))
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


def tar(address: str) -> Iterator[Entry]:
    """Read the samples of tar files: `boxes` and `class_id` of ``KEY.json``, else the class in ``KEY.cls``.

    The address is a file, a folder of files, or has wildcards in its last part. A sample is called by its file and key,
    as its picture is.
    """
    for path in tar_paths(address):
        with reading(path, "a tar file", "make it anew"), open(path, "rb", buffering=0) as file:
            descriptor = file.fileno()
            read_at = windowed(partial(_pread, descriptor), WINDOW_BYTES)
            try:
                yield from _samples(image_id_of(os.path.basename(path)) + "/", read_at, os.fstat(descriptor).st_size)
            except BadTar as bad:
                raise ValueError(f"it {bad}") from None


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    return os.pread(descriptor, size, offset)


def tar_paths(address: str) -> list[str]:
    """Return the tar files that an address means, none where there are none."""
    folder, pattern = os.path.split(address)
    if os.path.isdir(address):
        folder, pattern = address, "*" + SUFFIX
    elif not WILDCARDS & set(pattern):
        return [address]
    return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))


def _samples(prefix: str, read_at: ReadAt, num_bytes: int) -> Iterator[Entry]:
    for key, group in groupby(named_members(prefix, walk(read_at, num_bytes), {}), key=lambda named: named[0]):
        word, notes = None, _Notes()
        for _, kind, name, member in group:
            if kind == LABEL:
                word = _content(read_at, name, member, MAX_LABEL_BYTES).decode("utf-8", "backslashreplace").strip()
            elif kind == NOTES:
                with reading(prefix + name, "boxes", "make the tar file anew"):
                    notes = _parsed(_Notes, _content(read_at, name, member, MAX_NOTES_BYTES))
        yield Entry(image=prefix + key, image_word=word if notes.class_id is None else str(notes.class_id))
        for box in notes.boxes:
            yield Entry(image=prefix + key, box=tuple(box))


def _content(read_at: ReadAt, name: str, member: Member, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise ValueError(f"its member {name[:200]!r} has {member.size} bytes, at most {max_bytes} are read")
    return read_at(member.offset, member.size)


def _parsed(kind: type[Document], content: bytes) -> Document:
    """Validate a document. Raises ValueError with what is wrong first, and where."""
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        raise ValueError(first_reason(error)) from None
