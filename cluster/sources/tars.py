"""WebDataset's tar files: the pictures in them, each as a byte range of its file, without unpacking anything.

`tar_samples` says what in a file belongs together. A picture's label is in the member `cls` beside it, or under a key
of the member `json`. An image's id is the file's name and the member's: ``00000.tar/val_0.jpg``.

Files are indexed in parallel and pass through one at a time: memory holds the rows of those under way. Local files are
read at their headers; an object is read in windows, which skip only what is larger than a window.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.documents import json_of
from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.foreign import whole
from cam_ops.tables import LISTING
from cam_ops.words import near
from cluster.process.console import say, shown
from cluster.sources.columns import shown_columns, suggestion
from cluster.sources.folders.folder import check_folder
from cluster.sources.folders.names import expected
from cluster.sources.folders.patterns import addresses_of, distinct, fixed_part
from cluster.sources.listing import AND, Listing, Remarks, remark, say_remarks
from cluster.sources.source import Asked, OwnLabels, Source
from cluster.sources.tar_members import BadTar, Member, ReadAt, walk, windowed
from cluster.sources.tar_samples import NOTES, Sample, samples
from cluster.storage.objects import (
    check_prefix,
    download,
    is_store,
    object_version,
    read_object,
)
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import stream

SUFFIX = ".tar"
ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar")
COMPRESSED_SUFFIXES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")

NUM_THREADS = 8
AHEAD = 8  # files that may be indexed before the one whose turn it is
WINDOW_BYTES = 4096
STORE_WINDOW_BYTES = 8 * 2**20  # what a store sends while it would answer another request
MAX_LABEL_BYTES = 4096  # of a member `cls`: cut, it would be other classes
MAX_WORD = 4096  # characters of a label in `json`
MAX_NOTES_BYTES = 2**20  # of a member `json`
ROWS_PER_BATCH = 2**15
SAY_EVERY_S = 60.0
NUM_SHOWN = 3

LABELLED_LISTING = LISTING.append(pa.field("label", pa.string()))


Value = TypeVar("Value")
Row = tuple[str, int, int, str | None]  # id, offset, size, label


def _is_tars(address: str) -> bool:
    """Say whether an address means tar files, by its suffix."""
    if is_store(address):
        return address.lower().endswith(SUFFIX) and "/" in address.partition("://")[2]
    return address.lower().endswith(SUFFIX) and not os.path.isdir(address)


@contextmanager
def open_tars(addresses: Sequence[str], asked: Asked) -> Iterator[Listing]:
    """List the pictures of the tar files that addresses mean, the first `asked.limit` of them by id.

    An address is that of a file, or a pattern of `patterns`. The listing ends with the context. Raises UsageError where
    a file cannot be used: cut, damaged, compressed, with a member twice or a name that leads out of it; StorageError
    where a file cannot be reached, or none has a picture.
    """
    found = [file for address in addresses for file in addresses_of(address, asked.options, files_only=True)]
    files = dict(sorted((prefix, file) for file, prefix in zip(found, distinct(found), strict=True)))
    which = addresses[0] if len(addresses) == 1 else f"--images, such as {addresses[0]}"
    with TemporaryDirectory(prefix="camray-") as scratch:
        path = Path(scratch, "index.parquet")
        index = _write(path, _in_order(partial(_index, asked=asked, scratch=scratch), files), asked.limit)
        say_remarks("tar files", index.remarks)
        if index.bad:
            raise UsageError(
                f"{len(index.bad)} of {index.num_files} tar files of {which} cannot be used: "
                f"{'; '.join(index.bad[:NUM_SHOWN])}{'; ...' * (len(index.bad) > NUM_SHOWN)}; make them anew, or take "
                "them out of --images"
            )
        if not index.num_images:
            raise StorageError(f"expected members that are {expected()} in {which}, found none; check --images")
        if "label" in asked.columns and not index.has_labels:
            raise UsageError(_no_key(which, asked.columns["label"], index.keys))
        say(f"indexed {index.num_files} tar file(s): {index.num_images} pictures")
        if any(file.startswith("gs://") for file in found):
            say("on gs://, a tar file is read from its beginning on for each picture: copy large ones to disks or S3")
        yield Listing(
            num_images=index.num_images,
            has_labels=index.has_labels,
            names_files=True,
            label_hint="" if index.has_labels else suggestion(index.keys, "label"),
            batches=partial(_batches, path, index.has_labels),
        )


def _no_key(which: str, key: str, keys: Sequence[str]) -> str:
    """Say that no member `json` has a key that --columns asks for."""
    meant = near(key, keys)
    found = f"they have {shown_columns(keys)}" if keys else "there is none that is an object"
    return f"--columns label={key}: no member json of {which} has that key, {found}" + (
        f"; did you mean label={meant[0]}?" if meant else ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Indexed:
    """What one tar file holds: its pictures by id, or why it cannot be used."""

    rows: pa.RecordBatch  # schema LABELLED_LISTING
    bad: str | None
    remarks: Remarks
    keys: tuple[str, ...]  # of the first member json, where labels may be among them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """What all tar files hold together."""

    num_files: int
    num_images: int
    has_labels: bool
    bad: list[str]
    remarks: Remarks
    keys: tuple[str, ...]


def _write(path: Path, indexed: Generator[_Indexed, None, None], limit: int | None) -> _Index:
    """Write the rows of one file after the other, the first `limit`, and add up what there is to say."""
    num_files = num_images = num_labels = 0
    bad: list[str] = []
    keys: tuple[str, ...] = ()
    remarks: Remarks = {}
    said_s = time.monotonic()
    try:
        with pq.ParquetWriter(path, LABELLED_LISTING, compression="lz4") as writer, closing(indexed):
            for tar in indexed:
                rows = tar.rows.slice(0, None if limit is None else limit - num_images)
                if len(rows):
                    writer.write_batch(rows)
                bad += [tar.bad] if tar.bad else []
                keys = keys or tar.keys
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
    return _Index(
        num_files=num_files,
        num_images=num_images,
        has_labels=num_labels > 0,
        bad=bad,
        remarks=remarks,
        keys=keys,
    )


def _in_order(work: Callable[[str, str], _Indexed], files: Mapping[str, str]) -> Generator[_Indexed, None, None]:
    """Do the work for all files in threads, and yield what comes of it in their order."""
    pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="index")
    begun: deque[Future[_Indexed]] = deque()
    try:
        for prefix, address in files.items():
            begun.append(pool.submit(work, prefix, address))
            if len(begun) > AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _index(prefix: str, address: str, *, asked: Asked, scratch: str) -> _Indexed:
    """Index one file, whose ids begin with `prefix`; raises StorageError where it cannot be reached."""
    rows: list[Row] = []
    remarks: Remarks = {}
    keys: tuple[str, ...] = ()
    bad = None
    try:
        with _opened(address, asked.options, scratch) as (read_at, num_bytes):
            found = _Labels(read_at, asked.columns.get("label"))
            rows = sorted(_rows(prefix, samples(prefix, walk(read_at, num_bytes), remarks), found))
            keys = found.keys
        if twice := next((one[0] for one, other in pairwise(rows) if one[0] == other[0]), None):
            raise BadTar(f"has the member {shown(twice.removeprefix(prefix))} twice")
    except BadTar as error:
        rows, bad = [], f"{prefix.removesuffix('/')} {error}"
    ids, offsets, sizes, words = zip(*rows, strict=True) if rows else ((), (), (), ())
    uris = [address if is_store(address) else Path(address).as_uri()] * len(ids)
    columns = [pa.array(ids, pa.string()), uris, offsets, sizes, pa.array(words, pa.string())]
    return _Indexed(rows=pa.record_batch(columns, schema=LABELLED_LISTING), bad=bad, remarks=remarks, keys=keys)


def _rows(prefix: str, found: Iterator[Sample], labels: "_Labels") -> Iterator[Row]:
    """Yield each picture with its label."""
    for sample in found:
        if sample.picture:
            yield prefix + sample.name, sample.picture.offset, sample.picture.size, labels.of(sample)


class _Labels:
    """Reads the labels of samples."""

    def __init__(self, read_at: ReadAt, column: str | None) -> None:
        """Take them from the members `cls`, or from that key of the members `json`."""
        self.read_at, self.column = read_at, column
        self.has_looked = False
        self.keys: tuple[str, ...] = ()  # of the first member `json` that was looked at

    def of(self, sample: Sample) -> str | None:
        """Return a sample's label, None where it has none."""
        if sample.notes and (self.column is not None or not (self.has_looked or sample.label)):
            document = self._document(sample.key, sample.notes)
            self.has_looked, self.keys = True, self.keys or tuple(document)
            if self.column is not None:
                return _word(document.get(self.column), sample.key, self.column)
        if self.column is not None or sample.label is None:
            return None
        if sample.label.size > MAX_LABEL_BYTES:
            raise BadTar(
                f"has a label of {sample.label.size} bytes beside {shown(sample.name)}, at most {MAX_LABEL_BYTES} are "
                "read"
            )
        return self.read_at(sample.label.offset, sample.label.size).decode("utf-8", "backslashreplace")

    def _document(self, key: str, member: Member) -> dict[str, Any]:
        """Return a member `json`; what is no object has no keys, but is refused where labels are looked for."""
        document = None
        if member.size <= MAX_NOTES_BYTES:
            with suppress(ValueError):
                document = json_of(self.read_at(member.offset, member.size))
        if isinstance(document, dict):
            return document
        if self.column is None:
            return {}
        raise BadTar(
            f"has a member {shown(f'{key}.{NOTES}')} that is no JSON object of at most {MAX_NOTES_BYTES} bytes"
        )


def _word(value: object, key: str, column: str) -> str | None:
    """Return what a key of `json` says as the word for a class, several of them with `AND` between."""
    if value is None:
        return None
    parts = value if isinstance(value, list) and value else [value]
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        raise BadTar(
            f"has a label that is no text or number in {shown(f'{key}.{NOTES}')}: {shown(f'{column}: {value}')}"
        )
    word = whole(AND.join(map(str, parts)))
    if len(word) > MAX_WORD:  # cut, it would be other classes
        raise BadTar(f"has a label of {len(word)} characters in {shown(f'{key}.{NOTES}')}, at most {MAX_WORD} are read")
    return word


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
    fixed = fixed_part(address)
    folder = os.path.dirname(address) if fixed == address else fixed
    if is_store(folder):
        check_prefix(folder, options)
    else:
        check_folder(folder)


def _refusal(text: str) -> str:
    if not is_store(text) and os.path.isdir(text):
        return ""
    if text.lower().endswith(ARCHIVE_SUFFIXES):
        return "of such an archive no picture is read; unpack it, and give the folder"
    is_compressed = text.lower().endswith(COMPRESSED_SUFFIXES)
    return "of a compressed tar file no picture can be read alone; unpack it to a .tar" if is_compressed else ""


TARS = Source(
    means=_is_tars,
    check=_check_folder_of,
    open=lambda address, asked: open_tars((address,), asked),
    together=open_tars,
    takes_wildcards=lambda address: True,
    columns=frozenset(("label",)),  # a key of the members `json`
    called="WebDataset's tar files, `FILE.tar`",
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
