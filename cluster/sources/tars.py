"""WebDataset's tar files: the pictures in them, each as a byte range of its file, without unpacking anything.

A member is called ``KEY.KIND``, the kind being all that follows the first dot of its last part. Pictures are the kinds
that are suffixes of pictures in folders, too; the member `cls` beside a picture, of the same key, is its label. An
image's id is the file's name and the member's: ``00000.tar/val_0.jpg``. What else lies beside a picture, such as
`json`, is found by `walk` and the same key.

Files are indexed in parallel and pass through one at a time: memory holds the rows of those under way. Local files are
read at their headers; an object is read in windows, which skip only what is larger than a window.
"""

import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from hashlib import blake2b
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.pictures.formats import format_named, read_suffixes, suffix_of
from cam_ops.tables import LISTING
from cluster.process.console import say, shown
from cluster.sources.folder import check_folder
from cluster.sources.listing import Listing, Remarks, image_id_of, remark, say_remarks
from cluster.sources.names import expected, is_hidden_file, is_hidden_folder, remark_unread
from cluster.sources.source import Asked, OwnLabels, Source
from cluster.sources.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.storage.objects import (
    check_prefix,
    download,
    is_plain,
    is_store,
    list_objects,
    object_version,
    read_object,
)
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import stream

SUFFIX = ".tar"
COMPRESSED_SUFFIXES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
WILDCARDS = set("*?[")
LABEL, NOTES = "cls", "json"
NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)

NUM_THREADS = 8
AHEAD = 8  # files that may be indexed before the one whose turn it is
WINDOW_BYTES = 4096
STORE_WINDOW_BYTES = 8 * 2**20  # what a store sends while it would answer another request
MAX_LABEL_BYTES = 256
ROWS_PER_BATCH = 2**15
SAY_EVERY_S = 60.0
NUM_SHOWN = 3

LABELLED_LISTING = LISTING.append(pa.field("label", pa.string()))

HIDDEN = "members that are hidden, or of systems and file managers, are left out"
OTHER = "members of other kinds are left out"
NO_FILE = "members named as pictures, cls or json are links, folders, devices or sparse, and are left out"
APART = "keys come again after others: what lies apart is not put together; `tar --sort=name` packs it in order"
SEVERAL = "keys have several pictures, each of them an image"
BARE = "keys have no picture"

Value = TypeVar("Value")
Row = tuple[str, int, int, str | None]  # id, offset, size, label


def _is_tars(address: str) -> bool:
    """Say whether an address means tar files, by its suffix."""
    if is_store(address):
        return address.lower().endswith(SUFFIX) and "/" in address.partition("://")[2]
    return address.lower().endswith(SUFFIX) and not os.path.isdir(address)


def key_and_kind(name: str) -> tuple[str, str] | None:
    """Return a member's key and its kind, in small letters; None where it has none, as `.hidden` and `README`."""
    found = NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else None


@contextmanager
def _open_tars(address: str, asked: Asked) -> Iterator[Listing]:
    """List the pictures of the tar files that an address means, the first `asked.limit` of them by id.

    The address is that of a file, or its last part has wildcards: ``*``, ``?``, ``[...]``. The listing ends with the
    context. Raises UsageError where a file cannot be used: cut, damaged, compressed, with a member twice or a name that
    leads out of it; StorageError where a file cannot be reached, or none has a picture.
    """
    folder, pattern = os.path.split(address)
    names = _find(folder, pattern, asked.options)
    with TemporaryDirectory(prefix="camray-") as scratch:
        path = Path(scratch, "index.parquet")
        index = _write(
            path, _in_order(partial(_index, folder, options=asked.options, scratch=scratch), names), asked.limit
        )
        say_remarks("tar files", index.remarks)
        if index.bad:
            raise UsageError(
                f"{len(index.bad)} of {index.num_files} tar files in {folder} cannot be used: "
                f"{'; '.join(index.bad[:NUM_SHOWN])}{'; ...' * (len(index.bad) > NUM_SHOWN)}; make them anew, or take "
                "them out of --images"
            )
        if not index.num_images:
            raise StorageError(f"expected members that are {expected()} in {address}, found none; check --images")
        say(f"indexed {index.num_files} tar file(s): {index.num_images} pictures")
        if address.startswith("gs://"):
            say("on gs://, a tar file is read from its beginning on for each picture: copy large ones to disks or S3")
        batches = partial(_batches, path, index.has_labels)
        yield Listing(num_images=index.num_images, has_labels=index.has_labels, batches=batches)


def _find(folder: str, pattern: str, options: StorageOptions) -> list[str]:
    """Return the names of the files that a pattern means, in the order of their images' ids."""
    if not WILDCARDS & set(pattern):
        return [pattern]
    try:
        names = (
            [name for name, _ in list_objects(folder, options, recursive=False)]
            if is_store(folder)
            else [entry.name for entry in os.scandir(folder) if entry.is_file()]
        )
    except OSError as error:
        raise StorageError(
            f"cannot list {folder} on {os.uname().nodename}: {error.strerror}; check --images, whose last part alone "
            "may have wildcards"
        ) from None
    if pattern in names:
        return [pattern]
    found = [name for name in names if fnmatchcase(name, pattern) and name.startswith(".") <= pattern.startswith(".")]
    if not found:
        raise StorageError(
            f"expected tar files {pattern} in {folder}, found none; check --images, whose last part alone may have "
            "wildcards"
        )
    return sorted(found, key=_prefix)


def _prefix(name: str) -> str:
    return image_id_of(name) + "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Indexed:
    """What one tar file holds: its pictures by id, or why it cannot be used."""

    rows: pa.RecordBatch  # schema LABELLED_LISTING
    bad: str | None
    remarks: Remarks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """What all tar files hold together."""

    num_files: int
    num_images: int
    has_labels: bool
    bad: list[str]
    remarks: Remarks


def _write(path: Path, indexed: Generator[_Indexed, None, None], limit: int | None) -> _Index:
    """Write the rows of one file after the other, the first `limit`, and add up what there is to say."""
    num_files = num_images = num_labels = 0
    bad: list[str] = []
    remarks: Remarks = {}
    said_s = time.monotonic()
    try:
        with pq.ParquetWriter(path, LABELLED_LISTING, compression="lz4") as writer, closing(indexed):
            for tar in indexed:
                rows = tar.rows.slice(0, None if limit is None else limit - num_images)
                if len(rows):
                    writer.write_batch(rows)
                bad += [tar.bad] if tar.bad else []
                for what, (count, example) in tar.remarks.items():
                    remark(remarks, what, example, count)
                num_files, num_images = num_files + 1, num_images + len(rows)
                num_labels += len(rows) - rows["label"].null_count
                if num_images == limit:
                    break
                if time.monotonic() - said_s > SAY_EVERY_S:
                    said_s = time.monotonic()
                    say(f"indexed {num_files} tar files so far: {num_images} pictures")
    except OSError as error:
        raise StorageError(
            f"cannot write an index of the tar files to {path.parent}: {error.strerror or error}; set TMPDIR to a "
            "folder with room"
        ) from None
    return _Index(num_files=num_files, num_images=num_images, has_labels=num_labels > 0, bad=bad, remarks=remarks)


def _in_order(work: Callable[[str], _Indexed], names: list[str]) -> Generator[_Indexed, None, None]:
    """Do the work for all names in threads, and yield what comes of it in their order."""
    pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="index")
    begun: deque[Future[_Indexed]] = deque()
    try:
        for name in names:
            begun.append(pool.submit(work, name))
            if len(begun) > AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _index(folder: str, name: str, *, options: StorageOptions, scratch: str) -> _Indexed:
    """Index one file; raises StorageError where it cannot be reached."""
    address, prefix = os.path.join(folder, name), _prefix(name)
    rows: list[Row] = []
    remarks: Remarks = {}
    bad = None
    try:
        with _opened(address, options, scratch) as (read_at, num_bytes):
            rows = sorted(_rows(prefix, read_at, num_bytes, remarks))
        if twice := next((one[0] for one, other in pairwise(rows) if one[0] == other[0]), None):
            raise BadTar(f"has the member {shown(twice.removeprefix(prefix))} twice")
    except BadTar as error:
        rows, bad = [], f"{image_id_of(name)} {error}"
    ids, offsets, sizes, words = zip(*rows, strict=True) if rows else ((), (), (), ())
    uris = [address if is_store(address) else Path(address).as_uri()] * len(ids)
    columns = [pa.array(ids, pa.string()), uris, offsets, sizes, pa.array(words, pa.string())]
    return _Indexed(rows=pa.record_batch(columns, schema=LABELLED_LISTING), bad=bad, remarks=remarks)


def _rows(prefix: str, read_at: ReadAt, num_bytes: int, remarks: Remarks) -> Iterator[Row]:
    """Yield each picture, with the label that lies beside it: members of one key, as long as no other comes between."""
    seen: set[bytes] = set()
    for key, group in groupby(named_members(prefix, walk(read_at, num_bytes), remarks), key=lambda named: named[0]):
        digest = blake2b(key.encode(), digest_size=16).digest()  # keys may be long
        if digest in seen:
            remark(remarks, APART, shown(prefix + key))
        seen.add(digest)
        pictures: list[tuple[str, int, int]] = []
        word: str | None = None
        for _, kind, name, member in group:
            if kind == LABEL:
                if word is not None:
                    raise BadTar(f"has two members cls of the key {shown(key)}")
                content = read_at(member.offset, min(member.size, MAX_LABEL_BYTES))
                word = content.decode("utf-8", "backslashreplace")
            elif kind in read_suffixes():
                pictures.append((prefix + name, member.offset, member.size))
        if len(pictures) != 1:
            remark(remarks, SEVERAL if pictures else BARE, shown(prefix + key))
        yield from ((*picture, word) for picture in pictures)


def named_members(prefix: str, members: Iterator[Member], remarks: Remarks) -> Iterator[tuple[str, str, str, Member]]:
    """Yield key, kind and name, as they stand in ids, of each regular file that has a key."""
    for member in members:
        name = image_id_of(_LEADING.sub("", member.name))
        key, kind = key_and_kind(name) or ("", "")
        if _is_hidden(name):
            if member.is_file:
                remark(remarks, HIDDEN, shown(prefix + name))
            continue
        is_wanted = kind in read_suffixes() or kind in (LABEL, NOTES)
        if not is_wanted and member.is_file:
            _remark_other(remarks, prefix + name)
        elif is_wanted and not member.is_file:
            remark(remarks, NO_FILE, shown(prefix + name))
        elif is_wanted and (not is_plain(name) or "\0" in name):
            raise BadTar(f"has a member {shown(name)}, whose name is absolute, has empty, . or .. parts, or a NUL")
        if key and member.is_file:
            yield key, kind, name, member


def _is_hidden(name: str) -> bool:
    """Say whether a member lies in a hidden folder, or is hidden itself; `.` and `..` hide nothing."""
    *folders, file = (part for part in ["", *name.split("/")] if part not in (".", ".."))
    return is_hidden_file(file) or any(map(is_hidden_folder, folders))


def _remark_other(remarks: Remarks, where: str) -> None:
    """Note a member that is none of the wanted kinds."""
    suffix = suffix_of(where)
    form = format_named(suffix)
    if form and suffix not in read_suffixes():
        remark_unread(remarks, f".{suffix}", form, where)
    else:
        remark(remarks, OTHER, shown(where))


_LEADING = re.compile(r"^(\./+)+")  # as `tar cf x.tar .` writes


@contextmanager
def _opened(address: str, options: StorageOptions, scratch: str) -> Iterator[tuple[ReadAt, int]]:
    """Open a tar file for reading at any place, and say how many bytes it has. Raises StorageError."""
    if not is_store(address):
        with _opened_file(address, address) as opened:
            yield opened
    elif address.startswith("gs://"):  # where a range is read from the beginning on
        with NamedTemporaryFile(dir=scratch) as copy:
            if not _reached(address, lambda: download(address, Path(copy.name), options)):
                raise _missing(address)
            with _opened_file(copy.name, address) as opened:
                yield opened
    else:
        version = object_version(address, options)
        if version is None:
            raise _missing(address)
        num_bytes = version[0]

        def read(offset: int, size: int) -> bytes:
            size = max(0, min(size, num_bytes - offset))
            content = _reached(address, lambda: read_object(address, options, offset=offset, max_bytes=size))
            if content is None or len(content) != size:
                raise StorageError(f"{address} was changed while it was read; run the same command again")
            return content

        yield windowed(read, STORE_WINDOW_BYTES), num_bytes


@contextmanager
def _opened_file(path: str, address: str) -> Iterator[tuple[ReadAt, int]]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StorageError(f"expected {address} to be a file, it is none; check --images")
        with open(path, "rb", buffering=0) as file:
            descriptor = file.fileno()
            read = windowed(lambda offset, size: os.pread(descriptor, size, offset), WINDOW_BYTES)
            yield read, os.fstat(descriptor).st_size
    except FileNotFoundError:
        raise _missing(address) from None
    except OSError as error:
        raise StorageError(
            f"cannot read {address} on {os.uname().nodename}: {error.strerror}; check --images"
        ) from None


def _missing(address: str) -> StorageError:
    return StorageError(f"there is no tar file {address}; check --images")


def _reached(address: str, read: Callable[[], Value]) -> Value:
    try:
        return read()
    except BadImage as bad:
        raise StorageError(f"cannot read the tar file {address}: {bad}") from None


def _batches(path: Path, has_labels: bool) -> Iterator[pa.RecordBatch]:
    """Yield batches as `Listing` has them."""
    with pq.ParquetFile(path) as file:
        yield from stream(file, ROWS_PER_BATCH, (LABELLED_LISTING if has_labels else LISTING).names)


def _check_folder_of(address: str, options: StorageOptions) -> None:
    folder = os.path.dirname(address)
    if is_store(folder):
        check_prefix(folder, options)
    else:
        check_folder(folder)


def _refusal(text: str) -> str:
    is_compressed = text.lower().endswith(COMPRESSED_SUFFIXES)
    return "of a compressed tar file no picture can be read alone; unpack it to a .tar" if is_compressed else ""


TARS = Source(
    means=_is_tars,
    check=_check_folder_of,
    open=_open_tars,
    own_labels=OwnLabels(
        word="tar",
        needed="FILE.tar",
        place="members cls",
        subject="the members cls of the tar files are",
        names_image="image_id",
    ),
    no_folders="tar files are no folders; give --labels tar (members cls) or FILE.csv",
    inside="tar files, --images '{folder}/*.tar'",
    refusal=_refusal,
)
