"""Parquet files, here or on a store: of those on S3 only what is asked for is fetched."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.outside import POINTER, check_columns, refuse_pointer
from cluster.sources.sorting import ROWS_PER_BATCH, first_line
from cluster.sources.tables.roles import bytes_of
from cluster.sources.tar_members import ReadAt, windowed
from cluster.storage.objects import download, is_store, object_version, read_object
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import check_rows_per_byte, open_by_dictionary, plain, stream

BY_PAGES: dict[str, Any] = {
    "buffer_size": 2**20,  # of a column that is read; without it a row group's whole column would be in memory
    "pre_buffer": False,
    "page_checksum_verification": True,
}
LIST_WINDOW_BYTES = 2**16


DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises of such files


class Missing(Exception):
    """There is no such file."""


def open_file(address: str, options: StorageOptions, window_bytes: int | None = None) -> IO[bytes]:
    """Open a file for reading at any place; close it. On S3 at least `window_bytes` are fetched at a time.

    Without these, and on Google's stores, where a range is read from the beginning on, all of it is copied to `TMPDIR`.
    Raises Missing, StorageError, and BadImage where the object cannot be had.
    """
    if not is_store(address):
        return _open_here(address)
    if window_bytes is None or address.startswith("gs://"):
        copy = NamedTemporaryFile(prefix="camray-")  # noqa: SIM115
        try:
            if not download(address, Path(copy.name), options):
                raise Missing
        except OSError as error:
            copy.close()
            raise StorageError(
                f"cannot copy {address} to {os.path.dirname(copy.name)}: {error.strerror}; set TMPDIR to a folder with "
                "room"
            ) from None
        except BaseException:
            copy.close()
            raise
        return cast(IO[bytes], copy)
    version = object_version(address, options)
    if version is None:
        raise Missing
    num_bytes = version[0]

    def read(offset: int, size: int) -> bytes:
        size = max(0, min(size, num_bytes - offset))
        content = read_object(address, options, offset=offset, max_bytes=size)
        if content is None or len(content) != size:
            raise StorageError(f"{address} was changed while it was read; run the same command again")
        return content

    return cast(IO[bytes], _Ranges(windowed(read, window_bytes), num_bytes))


def _open_here(path: str) -> IO[bytes]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadImage("unreadable", "not a regular file")
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise Missing from None
    except OSError as error:
        raise StorageError(f"cannot read {path} on {os.uname().nodename}: {error.strerror}") from None


class _Ranges(io.RawIOBase):
    """A file of which ranges are fetched."""

    def __init__(self, read_at: ReadAt, num_bytes: int) -> None:
        self.read_at, self.num_bytes, self.place = read_at, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.num_bytes}[whence]
        self.place = max(0, start + offset)
        return self.place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self.read_at(self.place, min(len(view), max(0, self.num_bytes - self.place)))
        view[: len(content)] = content
        self.place += len(content)
        return len(content)


@contextmanager
def open_parquet(address: str, options: StorageOptions) -> Iterator["ParquetTable"]:
    """Open a Parquet file to list what it has. Raises StorageError where it cannot be reached, UsageError for another.

    What is read of it raises the same.
    """
    with reading(address, "Parquet"), open_file(address, options, LIST_WINDOW_BYTES) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        if not num_bytes:
            raise StorageError(f"{address} is empty; check --images")
        file.seek(0)
        refuse_pointer(address, file.read(len(POINTER)))
        with parquet_of(file) as parquet:
            try:
                check_columns(parquet.metadata.num_columns)
            except ValueError as error:
                raise UsageError(f"cannot read {address}: {error}") from None
            rows = open_by_dictionary(file, parquet.metadata, **BY_PAGES)
            yield ParquetTable(address=address, parquet=parquet, rows=rows, num_bytes=num_bytes)


@contextmanager
def reading(address: str, kind: str) -> Iterator[None]:
    """Turn what opening and reading a file raise into the errors of a command."""
    try:
        yield
    except Missing:
        raise StorageError(f"there is no {address}; check --images") from None
    except BadImage as bad:
        raise StorageError(f"cannot read {address}: {bad}; check --images") from None
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            where = os.uname().nodename
            raise StorageError(f"cannot read {address} on {where}: {error.strerror}; check --images") from None
        raise UsageError(f"cannot read {address}, which its name says is {kind}: {first_line(error)}") from None


def parquet_of(file: IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file so that a page of a column is in memory at a time, not a row group's whole column."""
    return pq.ParquetFile(file, **BY_PAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetTable:
    """A Parquet file opened to list what it has."""

    address: str
    parquet: pq.ParquetFile
    rows: pq.ParquetFile  # the same file, `open_by_dictionary`
    num_bytes: int

    @property
    def schema(self) -> pa.Schema:
        """The columns, and what else the file says of them."""
        return self.parquet.schema_arrow

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield all rows of some columns. Raises UsageError for more than can be, what Arrow says of damaged ones."""
        try:
            check_rows_per_byte(self.parquet.metadata, self.num_bytes)
        except ValueError as error:
            raise UsageError(f"cannot read {self.address}: {error}") from None
        return plain(stream(self.rows, ROWS_PER_BATCH, columns), self.schema)

    def num_rows(self) -> list[int]:
        """Return the rows of each row group; raise UsageError for numbers that cannot be.

        A few bytes may promise any number of rows: there cannot be more of them than bytes, if each has a picture.
        """
        footer = self.parquet.metadata
        rows = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        if sum(rows) != footer.num_rows or min(rows, default=0) < 0 or sum(rows) > self.num_bytes:
            raise UsageError(
                f"{self.address} says that it has {footer.num_rows} rows, which its {self.num_bytes} bytes cannot be"
            )
        return rows

    def group(self, number: int, num_rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group, which should be so many; without columns batches of nothing but length."""
        if columns:
            batches = self.rows.iter_batches(ROWS_PER_BATCH, row_groups=[number], columns=columns)
            yield from plain(batches, self.schema)
            return
        for first in range(0, num_rows, ROWS_PER_BATCH):
            yield pa.record_batch({"": pa.nulls(min(ROWS_PER_BATCH, num_rows - first))})


def column_number(address: str, parquet: pq.ParquetFile, name: str) -> int:
    """Return the number of the Parquet column that holds the bytes of a table's column of pictures."""
    paths = [parquet.schema.column(i).path for i in range(parquet.metadata.num_columns)]
    field = parquet.schema_arrow.field(name)
    wanted = f"{name}.bytes" if pa.types.is_struct(field.type) else name
    if paths.count(wanted) != 1:
        raise UsageError(f"{address} has {paths.count(wanted)} columns {wanted}; rename the others")
    return paths.index(wanted)


def cell_columns(parquet: pq.ParquetFile, number: int) -> list[str]:
    """Return the columns to read for the bytes in the Parquet column of a number, and the paths beside them.

    Raises BadImage where it holds none, as in a file that was replaced.
    """
    path = parquet.schema.column(number).path if number < parquet.metadata.num_columns else ""
    for field in parquet.schema_arrow:
        if bytes_of(field.type) is None:
            continue
        if not pa.types.is_struct(field.type):
            columns = [field.name]
        else:
            columns = [f"{field.name}.{child.name}" for child in field.type if child.name in ("bytes", "path")]
        if path in columns:
            return columns
    raise BadImage("undecodable", "its Parquet file has no such column of pictures; was it replaced?")
