"""A listing of tables that hold pictures: where each one is, in the order of files and rows; no picture is read.

An id is ``FILE/ROW`` or ``FILE/ROW/NAME``: the row in eight digits; the name is the column image_id, or the last part
of the path that stands beside the bytes. So the order of ids is that of rows, which are read one after the other.
"""

import os
import re
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.arrays import I64
from cam_ops.errors import StorageError, UsageError
from cam_ops.tables import LISTING
from cluster.process.console import say, shown
from cluster.sources.listing import Listing, image_id_of
from cluster.sources.sorting import ROWS_PER_BATCH
from cluster.sources.source import Asked
from cluster.sources.tables.arrow_files import ArrowFile, open_arrow
from cluster.sources.tables.cells import size_of
from cluster.sources.tables.files import PARQUET, TableFile
from cluster.sources.tables.parquet_files import ParquetTable, column_number, open_parquet
from cluster.sources.tables.roles import Roles, check_columns
from cluster.sources.tables.values import Taken, address_of, is_address, taken_of
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import stream

NUM_THREADS = 8  # that look at files: on a store that is waiting
SAY_EVERY_S = 60.0
DIGITS = 8
PART = re.compile(r"(-\d+-of-\d+)?\.\w+$")
MAX_ROWS = 10**DIGITS  # of a file


def open_table(address: str, options: StorageOptions) -> AbstractContextManager[ParquetTable | ArrowFile]:
    """Open a file of tables as its suffix says."""
    opener = open_parquet if address.lower().endswith(PARQUET) else open_arrow
    return opener(address, options)


@contextmanager
def open_pictures(files: Sequence[TableFile], roles: Roles, asked: Asked) -> Iterator[Listing]:
    """List the pictures that tables with the same columns hold, the first `asked.limit` of them by id.

    The listing ends with the context. Raises UsageError where a file cannot be used, StorageError where one cannot be
    reached, or none has a row.
    """
    with TemporaryDirectory(prefix="camray-") as scratch:
        parts: list[tuple[Path, int]] = []
        num_images, said_s = 0, time.monotonic()
        with closing(_indexed(files, roles, asked, scratch)) as indexed:
            for part, num_rows in indexed:
                parts.append((part, num_rows))
                num_images += num_rows
                if asked.limit is not None and num_images >= asked.limit:
                    num_images = asked.limit
                    break
                if time.monotonic() - said_s > SAY_EVERY_S:
                    said_s = time.monotonic()
                    say(f"listed {len(parts)} of {len(files)} files so far: {num_images} pictures")
        if not num_images:
            raise StorageError(f"expected pictures in {files[0].address}, it has no row; check --images")
        say(f"listed {num_images} pictures in {len(parts)} of {len(files)} files{_kinds(files)}")
        with pq.ParquetFile(parts[0][0]) as first:
            schema = first.schema_arrow
        yield Listing(
            num_images=num_images,
            has_labels="label" in schema.names,
            label_hint=roles.label_hint,
            class_names=roles.class_names,
            names_files=True,
            beside=roles.beside,
            kept=pa.schema(list(schema)[len(schema) - len(asked.keep) :]),
            batches=partial(_batches, [part for part, _ in parts], num_images),
        )


def _kinds(files: Sequence[TableFile]) -> str:
    """Say what the names of files have in common, such as splits, where there are several."""
    kinds = Counter(PART.sub("", file.name) for file in files)
    named = [f"{shown(kind)} ({number})" for kind, number in kinds.items()]
    return f": {', '.join(named[:5])}{', ...' * (len(named) > 5)}" if 1 < len(kinds) < len(files) else ""


def _batches(parts: Sequence[Path], num_images: int) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in stream(file, ROWS_PER_BATCH):
                yield batch.slice(0, num_images)
                num_images -= len(batch)
                if num_images <= 0:
                    return


def _indexed(
    files: Sequence[TableFile], roles: Roles, asked: Asked, scratch: str
) -> Generator[tuple[Path, int], None, None]:
    """Write the rows of each file to one of their own, in threads; yield it and their number, in the files' order."""
    pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="tables")
    begun: deque[Future[tuple[Path, int]]] = deque()
    try:
        for number, file in enumerate(files):
            part = Path(scratch, f"part-{number:06d}.parquet")
            begun.append(pool.submit(_index, file, roles, asked, part))
            if len(begun) >= NUM_THREADS:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _index(file: TableFile, roles: Roles, asked: Asked, part: Path) -> tuple[Path, int]:
    assert roles.image is not None
    with open_table(file.address, asked.options) as table:
        check_columns(table.schema, roles, file.address, file.constant)
        taken = taken_of(table.schema, roles, asked.keep, file.address, file.constant)
        label = [] if roles.label is None else [pa.field("label", pa.string())]
        schema = pa.schema([*LISTING, *label, *taken.kept])
        rows = _rows(file, _placed(table, taken, roles.image), schema)
        try:
            return part, _written(part, rows, schema)
        except _Full as full:
            raise StorageError(
                f"cannot write an index of the tables to {part.parent}: {full}; set TMPDIR to a folder with room"
            ) from None


class _Full(Exception):
    """The index cannot be written."""


def _written(part: Path, rows: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write rows to a file, and count them."""
    num_rows = 0
    try:
        writer = pq.ParquetWriter(part, schema, compression="lz4")
    except OSError as error:
        raise _Full(error.strerror) from None
    with writer:
        for batch in rows:
            num_rows += len(batch)
            try:
                writer.write_batch(batch)
            except OSError as error:
                raise _Full(error.strerror) from None
    return num_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Rows of a table that follow each other, and where their pictures are."""

    taken: pa.RecordBatch
    paths: pa.Array  # beside the bytes, texts
    uris: Sequence[str] | None  # where they are not all in the table's file
    offset_N: I64
    size_N: I64


def _rows(file: TableFile, placed: Iterator[_Placed], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give rows their ids."""
    prefix, first = f"{image_id_of(file.name)}/", 0
    uri = _own_uri(file.address)
    for rows in placed:
        num_rows = len(rows.offset_N)
        if first + num_rows > MAX_ROWS:
            raise UsageError(f"{file.address} has more than {MAX_ROWS} rows; cut it into several files")
        given = rows.taken["image_id"].to_pylist() if "image_id" in rows.taken.schema.names else [None] * num_rows
        names = [
            (name or _last_part(path)).lstrip("/") for name, path in zip(given, rows.paths.to_pylist(), strict=True)
        ]
        ids = [f"{prefix}{first + i:0{DIGITS}d}{'/' * bool(name)}{name}" for i, name in enumerate(names)]
        columns = {
            **{name: rows.taken[name] for name in rows.taken.schema.names},
            "image_id": ids,
            "uri": rows.uris or [uri] * num_rows,
            "offset": rows.offset_N,
            "size": rows.size_N,
        }
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
        first += num_rows


def _last_part(path: str | None) -> str:
    return (path or "").replace("\\", "/").rpartition("/")[2]


def _own_uri(address: str) -> str:
    return address if is_store(address) else Path(address).as_uri()


def _placed(table: ParquetTable | ArrowFile, taken: Taken, image: str) -> Iterator[_Placed]:
    """Say where the picture of each row is."""
    return _in_arrow(table, taken, image) if isinstance(table, ArrowFile) else _in_parquet(table, taken, image)


def _in_parquet(table: ParquetTable, taken: Taken, image: str) -> Iterator[_Placed]:
    """Say by footers which rows there are, and read the columns that are taken alone."""
    size = size_of(column_number(table.address, table.parquet, image))
    kind = table.schema.field(image).type
    has_paths = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    columns = [*taken.needed, *([f"{image}.path"] if has_paths else [])]
    first = 0
    for group, num_rows in enumerate(table.num_rows()):
        left = num_rows
        for batch in table.group(group, num_rows, columns):
            row_N = np.arange(first, first + len(batch))
            first, left = first + len(batch), left - len(batch)
            paths = batch[image].field("path") if has_paths else pa.nulls(len(batch), pa.string())
            yield _Placed(
                taken=taken.of(batch),
                paths=paths.cast(pa.string()),
                uris=None,
                offset_N=row_N,
                size_N=np.full(len(batch), size, np.int64),
            )
        if left:
            raise UsageError(f"{table.address} says that a row group has {num_rows} rows, it has {num_rows - left}")


def _in_arrow(table: ArrowFile, taken: Taken, image: str) -> Iterator[_Placed]:
    """Say where in the file the bytes of each picture are."""
    folder, own = os.path.dirname(table.address), _own_uri(table.address)
    for batch in table.batches([*dict.fromkeys([*taken.needed, image])]):
        cells = batch.column(batch.schema.names.index(image))
        paths = pa.nulls(len(batch), pa.string())
        if pa.types.is_struct(cells.type):
            valid = cells.is_valid()
            has_paths = cells.type.get_field_index("path") >= 0
            paths = pc.if_else(valid, cells.field("path"), None).cast(pa.string()) if has_paths else paths
            offset_N, size_N = table.ranges(cells.field("bytes"))
            size_N = np.where(np.asarray(valid), size_N, -1)
        else:
            offset_N, size_N = table.ranges(cells)
        uris = None
        if (size_N < 0).any():  # the file names them, or has nothing
            uris = [
                own if size >= 0 or not path else _uri_of(path, folder)
                for size, path in zip(size_N.tolist(), paths.to_pylist(), strict=True)
            ]
            is_own_N = np.array([uri == own for uri in uris])
            offset_N, size_N = np.where(size_N < 0, 0, offset_N), np.where((size_N < 0) & is_own_N, 0, size_N)
        yield _Placed(taken=taken.of(batch), paths=paths, uris=uris, offset_N=offset_N, size_N=size_N)


def _uri_of(path: str, folder: str) -> str:
    return address_of(path, folder) if is_address(path) or is_store(folder) else Path(folder, path).as_uri()
