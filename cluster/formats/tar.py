"""Boxes in WebDataset's tar files: in the member KEY.json beside a picture, pixels whose ends are outside.

Written, each box has its class in `box_class_ids`, a number of the network's, as `KEY.cls` has the picture's.
"""

import glob
import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from cam_ops.errors import StorageError
from cam_ops.outside import size_of_file
from cam_ops.pictures.formats import HEAD_BYTES, format_of
from cluster.formats.coco import packed
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.exported import SCORE_DIGITS, Add, Box, ExportFormat, Part, Picture, Settings, Whole, pack
from cluster.formats.files import reading
from cluster.formats.format import Format
from cluster.process.console import shortened
from cluster.sources.folders.patterns import addresses_of
from cluster.sources.listing import image_id_of
from cluster.sources.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.sources.tar_samples import LABEL, NOTES, samples
from cluster.sources.tars import MAX_LABEL_BYTES, MAX_NOTES_BYTES, SUFFIX, WINDOW_BYTES
from cluster.storage.documents import validated
from cluster.storage.options import NO_OPTIONS

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notes:
    boxes: list[list[Any] | None] | None = None
    class_id: int | str | None = None
    box_class_ids: list[int | str] | None = None


def _entries(address: str) -> Iterator[Entry]:
    """Read the samples of tar files: `boxes` and `class_id` of ``KEY.json``, else the class in ``KEY.cls``.

    Where boxes are of several classes, `box_class_ids` has that of each.
    A sample without `boxes`, which is not one whose `boxes` are empty, does not say where its objects are.

    The address is a file, a folder of files, or has wildcards in its last part. A sample is called by its file and key,
    as its picture is.
    """
    for path in _paths(address):
        with reading(path, "a tar file", "make it anew"), _opened(path) as file:
            descriptor = file.fileno()
            read_at = windowed(partial(_pread, descriptor), WINDOW_BYTES)
            try:
                yield from _samples(image_id_of(os.path.basename(path)) + "/", read_at, os.fstat(descriptor).st_size)
            except BadTar as bad:
                raise ValueError(f"it {bad}") from None


def _opened(path: str) -> IO[bytes]:
    size_of_file(path)
    return open(path, "rb", buffering=0)


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    return os.pread(descriptor, size, offset)


def _paths(address: str) -> list[str]:
    """Return the tar files that an address means, none where there are none."""
    if os.path.isdir(address):
        return sorted(glob.glob(os.path.join(glob.escape(address), "*" + SUFFIX)))
    try:
        return addresses_of(address, NO_OPTIONS, files_only=True)
    except StorageError:
        return []


def _samples(prefix: str, read_at: ReadAt, num_bytes: int) -> Iterator[Entry]:
    for sample in samples(prefix, walk(read_at, num_bytes), {}):
        word, notes = None, _Notes()
        if sample.label:
            content = _content(read_at, sample.key, sample.label, MAX_LABEL_BYTES)
            word = content.decode("utf-8", "backslashreplace").strip()
        image, why = prefix + sample.key, "it has no `boxes`"
        if sample.notes:
            try:
                content = _content(read_at, sample.key, sample.notes, MAX_NOTES_BYTES)
                notes = validated(_Notes, content, is_strict=False)
            except ValueError as error:
                why = f"its json: {error}"
        yield Entry(image=image, image_word=word if notes.class_id is None else str(notes.class_id))
        boxes = notes.boxes or []
        words = [None] * len(boxes) if notes.box_class_ids is None else [*map(str, notes.box_class_ids)]
        if notes.boxes is None or len(words) != len(boxes):
            why = why if notes.boxes is None else f"it has {len(boxes)} `boxes` and {len(words)} `box_class_ids`"
            yield Entry(image=image, unusable=why)
            continue
        for number, (box, word) in enumerate(zip(boxes, words, strict=True)):
            corners = tuple(map(number_of, box or ()))
            if len(corners) == 4 and None not in corners:
                yield Entry(image=image, box=corners, word=word)
            else:
                reason = f"boxes[{number}]: expected four numbers, found {shortened(box, SHOWN_CHARACTERS)}"
                yield Entry(image=image, unusable=reason)


def _content(read_at: ReadAt, key: str, member: Member, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise ValueError(f"a member beside {key[:200]!r} has {member.size} bytes, at most {max_bytes} are read")
    return read_at(member.offset, member.size)


TAR = Format(
    name="tar",
    frame="half-open",
    recognise=lambda path: bool(_paths(path)) if os.path.isdir(path) else path.lower().endswith(SUFFIX),
    read=lambda path, masks: batches_of(_entries(path)),
)


FOLDER, CLASSES = "shards", "classes.json"
ALONE = "shard"  # what files are called where there are no splits
META = re.compile(r"__[^/]*__/")  # at the beginning of a name: webdataset leaves the member out


def _write(pictures: Iterator[Picture], part: Part) -> None:
    """Write a part. Bytes of a tar file follow from its samples alone: its members have no time and no owner."""
    pack(
        pictures,
        part,
        lambda split: f"{FOLDER}/{split or ALONE}-{part.number:06d}",
        ".tar",
        partial(_begun, settings=part.settings),
    )


@contextmanager
def _begun(file: IO[bytes], settings: Settings) -> Iterator[Add]:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(picture: Picture) -> None:
            for kind, content in _members(picture, settings):
                member = tarfile.TarInfo(f"{_key(picture)}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

        yield add


def _key(picture: Picture) -> str:
    """Return the key of a sample: its last part ends at the first dot, so it has none."""
    folder, slash, last = picture.stem.rpartition("/")
    key = folder + slash + last.replace(".", "_")
    return f"./{key}" if META.match(key) else key


def _members(picture: Picture, settings: Settings) -> Iterator[tuple[str, bytes]]:
    if settings.has_pictures:
        form = format_of(picture.content[:HEAD_BYTES])
        assert form is not None
        yield form.suffixes[0], picture.content
    if len(picture.labels) == 1:
        yield LABEL, str(picture.labels[0]).encode()
    document = {
        "image_id": picture.image_id,
        "width": picture.width,
        "height": picture.height,
        "boxes": [box.corners for box in picture.boxes],
        "box_class_ids": [box.class_id for box in picture.boxes],
        "scores": [round(box.score, SCORE_DIGITS) for box in picture.boxes],
        "energies": [round(box.energy, SCORE_DIGITS) for box in picture.boxes],
    }
    if settings.is_calibrated:
        document["probabilities"] = [_probability(box) for box in picture.boxes]
    yield NOTES, packed(document)


def _probability(box: Box) -> float | None:
    return None if box.probability is None else round(box.probability, SCORE_DIGITS)


def _finish(whole: Whole) -> None:
    """Write the names of classes by number."""
    classes = whole.settings.classes
    whole.put(CLASSES, packed({str(class_id): classes.names[class_id] for class_id in classes.numbers}))


WEBDATASET_EXPORT = ExportFormat(
    name="webdataset",
    entries=(FOLDER, CLASSES),
    write=_write,
    finish=_finish,
    pictures="copy",
    embeds=True,
)
