"""Boxes in WebDataset's tar files: in the member KEY.json beside a picture, pixels whose ends are outside."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from cam_ops.errors import StorageError
from cluster.formats.entries import Entry, batches_of, number_of
from cluster.formats.files import parsed, reading
from cluster.formats.format import Format
from cluster.process.console import shortened
from cluster.sources.folders.patterns import addresses_of
from cluster.sources.listing import image_id_of
from cluster.sources.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.sources.tar_samples import samples
from cluster.sources.tars import MAX_LABEL_BYTES, MAX_NOTES_BYTES, SUFFIX, WINDOW_BYTES
from cluster.storage.options import NO_OPTIONS

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notes:
    boxes: list[list[Any] | None] | None = None
    class_id: int | str | None = None


def _entries(address: str) -> Iterator[Entry]:
    """Read the samples of tar files: `boxes` and `class_id` of ``KEY.json``, else the class in ``KEY.cls``.

    A sample without `boxes`, which is not one whose `boxes` are empty, does not say where its objects are.

    The address is a file, a folder of files, or has wildcards in its last part. A sample is called by its file and key,
    as its picture is.
    """
    for path in _paths(address):
        with reading(path, "a tar file", "make it anew"), open(path, "rb", buffering=0) as file:
            descriptor = file.fileno()
            read_at = windowed(partial(_pread, descriptor), WINDOW_BYTES)
            try:
                yield from _samples(image_id_of(os.path.basename(path)) + "/", read_at, os.fstat(descriptor).st_size)
            except BadTar as bad:
                raise ValueError(f"it {bad}") from None


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
                notes = parsed(_Notes, _content(read_at, sample.key, sample.notes, MAX_NOTES_BYTES))
            except ValueError as error:
                why = f"its json: {error}"
        yield Entry(image=image, image_word=word if notes.class_id is None else str(notes.class_id))
        if notes.boxes is None:
            yield Entry(image=image, unusable=why)
        for number, box in enumerate(notes.boxes or ()):
            corners = tuple(map(number_of, box or ()))
            if len(corners) == 4 and None not in corners:
                yield Entry(image=image, box=corners)
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
