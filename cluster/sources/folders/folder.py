"""A folder: the pictures below it, by their suffix; files without one by their first bytes.

What is left out is said once, with a count and an example.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import NoPictures, StorageError, UsageError
from cam_ops.pictures.formats import HEAD_BYTES, format_of, is_read, suffix_of
from cam_ops.tables import LISTING
from cluster.process.console import shown
from cluster.runs.names import RUN, plan_name
from cluster.sources.folders.names import (
    HIDDEN_FOLDERS,
    expected,
    is_hidden_file,
    is_hidden_folder,
    is_picture,
    remark_unread,
)
from cluster.sources.listing import Remarks, image_id_of, remark, say_remarks
from cluster.sources.sorting import ROWS_PER_BATCH, sorted_listing
from cluster.sources.source import Source
from cluster.storage.parquet import document_of

CYCLE = "links lead back to a folder that they lie in, and are not followed"
NOWHERE = "links lead nowhere or where this user may not look, and are left out"
BARE = "files without a suffix are taken, as they begin as pictures do"
RUNS = "run directories of this program are not searched for pictures"

Instead = Callable[[str, Iterable[str]], str]
"""From a folder without pictures, and the names in it, to how else to give its files: `kinds` knows."""


def folder_source(instead: Instead) -> Source:
    """Return the kind of source that any path is."""
    return Source(
        means=lambda address: True,
        called=f"a folder of {expected()}, searched at any depth",
        check=lambda address, options: check_folder(address),
        open=lambda address, asked: sorted_listing(address, _folder_batches(address, asked.skip, instead), asked.limit),
    )


def check_folder(address: str) -> None:
    """Raise StorageError unless the folder at `address` can be listed from here, UsageError where it is a file."""
    try:
        os.scandir(address).close()
    except NotADirectoryError:
        raise UsageError(
            f"--images {address} is a file of no kind that is read: no picture, tar file, list or table by its name"
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot list the image folder {address} on {os.uname().nodename}: {error.strerror}; "
            "check --images, and that every node sees it"
        ) from None


def _folder_batches(address: str, skip: str, instead: Instead) -> Iterator[pa.RecordBatch]:
    """Find the pictures below a folder, in no order; an id is the path below the folder, with `/`.

    Links to folders are followed, but for those that lead back to where they lie. The directory `skip`, an absolute
    path, is not entered, nor are run directories. Raises StorageError if the folder cannot be listed or holds no
    picture.
    """
    check_folder(address)
    remarks: Remarks = {}
    rows = ((image_id, Path(path).as_uri(), size) for image_id, path, size in _walk(address, skip, remarks))
    kinds = f"{expected()} below {address}, or STL10's binary files in it"
    yield from batched(rows, kinds, remarks, lambda: instead(address, os.listdir(address)))


def batched(
    rows: Iterator[tuple[str, str, int]], kinds: str, remarks: Remarks, hint: Callable[[], str]
) -> Iterator[pa.RecordBatch]:
    """Yield rows of id, uri and size in batches of schema LISTING, then say what was not entered.

    Raises NoPictures where there are no rows.
    """
    first = True
    while held := list(islice(rows, ROWS_PER_BATCH)):
        first = False
        ids, uris, sizes = zip(*held, strict=True)
        yield pa.record_batch([ids, uris, [0] * len(ids), sizes], schema=LISTING)
    say_remarks("--images", remarks)
    if first:
        raise NoPictures(f"expected {kinds}, found none; check --images{hint()}")


def _walk(folder: str, skip: str, remarks: Remarks) -> Iterator[tuple[str, str, int]]:
    """Yield id, path and size of each picture below `folder`, in no particular order."""
    skip = skip and os.path.realpath(skip)
    here: tuple[str, ...] = (os.path.realpath(folder),)  # the real folder, after those that links on the way lie in
    pending = [(folder, "", here)]
    while pending:
        folder, prefix, way = pending.pop()
        if way[-1] == skip:
            continue
        if is_run(folder):
            remark(remarks, RUNS, shown(folder))
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    image_id = prefix + image_id_of(entry.name)
                    is_link = entry.is_symlink()
                    if os.path.isdir(entry.path) if is_link else entry.is_dir():
                        if is_hidden_folder(entry.name):
                            remark(remarks, HIDDEN_FOLDERS, shown(entry.path))
                        elif below := way_into(way, entry.path, is_link):
                            pending.append((entry.path, image_id + "/", below))
                        else:
                            remark(remarks, CYCLE, shown(entry.path))
                    elif is_picture(entry.name, entry.path, remarks) or _begins_as_picture(entry, remarks):
                        yield image_id, entry.path, _size(entry)
                    elif is_link and not os.path.exists(entry.path):
                        remark(remarks, NOWHERE, shown(entry.path))
        except OSError as error:
            raise StorageError(f"cannot list {folder}: {error.strerror}; nothing was planned") from None


def is_run(folder: str) -> bool:
    """Say whether a local folder is a run directory of this program, whose files are no pictures and no tables.

    One that was killed between its plan and run.json has the former alone.
    """
    plan = os.path.join(folder, plan_name(0))
    return os.path.exists(plan) and (os.path.exists(os.path.join(folder, RUN)) or _is_plan(plan))


def _is_plan(path: str) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return document_of(file.schema_arrow).get("table") == "plan"
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def way_into(way: tuple[str, ...], path: str, is_link: bool) -> tuple[str, ...]:
    """Return the real folder behind a path, after those that links on the way to it lie in.

    `way` is that of the folder that the path lies in. Returns nothing for a link that leads back to one of them.
    """
    if not is_link:
        return (*way[:-1], os.path.join(way[-1], os.path.basename(path)))
    target = os.path.realpath(path)
    return () if any(_is_below(place, target) for place in way) else (*way, target)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _begins_as_picture(entry: "os.DirEntry[str]", remarks: Remarks) -> bool:
    """Look at the first bytes of a file without suffix; what cannot be read is none."""
    if suffix_of(entry.name) or is_hidden_file(entry.name):
        return False
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return False
        with open(entry.path, "rb", buffering=0) as file:
            form = format_of(file.read(HEAD_BYTES))
    except OSError:
        return False
    if is_read(form):
        remark(remarks, BARE, shown(entry.path))
    elif form:
        remark_unread(remarks, "without a suffix", form, entry.path)
    return is_read(form)


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a broken link: its row will say `missing`
        return 0
