"""Boxes in WebDataset's tar files: in the member KEY.json beside a picture, pixels whose ends are outside."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from cluster.formats.entries import Corners, Entry, batches_of
from cluster.formats.files import parsed, reading
from cluster.formats.format import Format
from cluster.sources.listing import image_id_of
from cluster.sources.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.sources.tars import LABEL, MAX_LABEL_BYTES, NOTES, SUFFIX, WILDCARDS, WINDOW_BYTES, named_members

MAX_NOTES_BYTES = 2**20  # of a member `json`


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notes:
    boxes: list[Corners] = field(default_factory=list)
    class_id: int | str | None = None


def _entries(address: str) -> Iterator[Entry]:
    """Read the samples of tar files: `boxes` and `class_id` of ``KEY.json``, else the class in ``KEY.cls``.

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
                    notes = parsed(_Notes, _content(read_at, name, member, MAX_NOTES_BYTES))
        yield Entry(image=prefix + key, image_word=word if notes.class_id is None else str(notes.class_id))
        for box in notes.boxes:
            yield Entry(image=prefix + key, box=tuple(box))


def _content(read_at: ReadAt, name: str, member: Member, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise ValueError(f"its member {name[:200]!r} has {member.size} bytes, at most {max_bytes} are read")
    return read_at(member.offset, member.size)


TAR = Format(
    name="tar",
    frame="half-open",
    recognise=lambda path: bool(_paths(path)) if os.path.isdir(path) else path.lower().endswith(SUFFIX),
    read=lambda path, masks: batches_of(_entries(path)),
)
