"""Arrow tables to Parquet bytes and back, in the one layout that all files of a run share."""

import io
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.documents import json_of
from cam_ops.errors import StorageError
from cam_ops.outside import RAISE, bounded_memory, raised
from cam_ops.tables import METADATA_KEY
from cluster.storage.files import Files

Value = TypeVar("Value")

MAX_ROWS = 2**24  # of a shard's table
ROWS_PER_BYTE = 32  # at most, of a file; numbered names take a fifteenth of a byte, as differences, in zstd
DIFFERENCES = {"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"}
MOST_TAKEN = 4  # times the bytes of a run's table, of memory
ALWAYS_TAKEN = 768 * 2**20  # bytes beside that, and of a batch of others: a page of 2 GiB may be a few bytes of a file
ROWS_AT_ONCE = 2**18  # of a run's table; where it has more, its memory is looked at as it grows
MOST_OF_MANY = 256 * 2**20  # bytes of such a table, beside what its file's bytes allow
MAX_TEXT_BYTES = 2**27  # of a column in a batch: 4 KiB a row, where it has 2**15


def encode(table: pa.Table, row_group_size: int | None = None, checksums: bool = True) -> bytes:
    """Write a table as Parquet (zstd, dictionaries on strings, page index, checksums), prove that it reads back."""
    strings = [field.name for field in table.schema if pa.types.is_string(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=row_group_size,
        compression="zstd",
        use_dictionary=strings,
        write_page_index=True,
        write_page_checksum=checksums,
    )
    content = buffer.getvalue()
    assert pq.ParquetFile(io.BytesIO(content)).metadata.num_rows == len(table)
    return content


def decode(content: bytes, where: str, columns: list[str] | None = None, max_rows: int = MAX_ROWS) -> pa.Table:
    """Read a Parquet file's bytes; raises StorageError naming `where` if they are no Parquet file, or too long, or
    have a column twice.
    """
    try:
        # a fifth of the time that read_table takes
        with (
            _bounded(MOST_TAKEN * len(content) + ALWAYS_TAKEN),
            pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file,
        ):
            check_rows(file.metadata, where, max_rows)
            if _has_twins(file.schema_arrow):
                raise StorageError(f"{where} has two columns of one name")
            if file.metadata.num_rows > ROWS_AT_ONCE:
                table = _read_bounded(file, columns, 2 * MOST_TAKEN * len(content) + MOST_OF_MANY)
            else:
                table = file.read(columns, use_threads=False)  # so that pages are inflated one at a time
            table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise StorageError(f"{where} is not a whole Parquet file: {error}") from None
    return table


def _has_twins(schema: pa.Schema) -> bool:
    return len({*schema.names}) < len(schema.names)


def _read_bounded(file: pq.ParquetFile, columns: list[str] | None, num_bytes: int) -> pa.Table:
    """Read a file of many rows; raises ArrowInvalid as soon as they take more memory than that."""
    batches: list[pa.RecordBatch] = []
    left = most = raised(num_bytes)
    for batch in stream(file, ROWS_AT_ONCE // 4, columns):
        batches.append(batch)
        left -= batch.nbytes
        if left < 0:
            raise pa.ArrowInvalid(f"its rows take more than {most} bytes of memory when they are unpacked; {RAISE}")
    return pa.Table.from_batches(batches) if batches else file.read(columns)


@contextmanager
def _bounded(num_bytes: int) -> Iterator[None]:
    """Raise ArrowInvalid for what takes more memory. A network that computes beside this takes as much as it likes."""
    if "torch" in sys.modules:
        yield
    else:
        with _said_bound(num_bytes):
            yield


@contextmanager
def _said_bound(num_bytes: int) -> Iterator[None]:
    """Raise ArrowInvalid with a sentence for what takes more memory than that."""
    most = raised(num_bytes)
    try:
        with bounded_memory(most):
            yield
    except MemoryError:
        raise pa.ArrowInvalid(
            f"a part of it takes more than {most} bytes of memory when it is unpacked; write smaller pages, {RAISE}"
        ) from None


def check_rows(footer: pq.FileMetaData, where: str, max_rows: int = MAX_ROWS) -> None:
    """Raise StorageError where a file says that it has more rows: a few bytes may stand for any number of them."""
    groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    if footer.num_rows > max_rows or sum(groups) > max_rows:
        raise StorageError(f"{where} has {max(footer.num_rows, sum(groups))} rows, at most {max_rows} were expected")


def stream(file: pq.ParquetFile, num_rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in batches of at most `num_rows`, one row group after the other.

    pyarrow 26's `iter_batches` over all row groups keeps the whole file in memory until its end.
    """
    for row_group in range(file.num_row_groups):
        yield from file.iter_batches(num_rows, row_groups=[row_group], columns=columns)


def open_by_dictionary(source: Any, footer: pq.FileMetaData, **options: Any) -> pq.ParquetFile:
    """Open a file of this footer so that texts which it holds once stay so; what is read of it goes to `plain`.

    pyarrow 26 cannot for texts that are stored as differences (DELTA_BYTE_ARRAY): they are read as they are.
    """
    schema = footer.schema.to_arrow_schema()
    texts = {field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)}
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    for at in range(footer.num_columns):
        if footer.schema.column(at).path in texts and any(set(g.column(at).encodings) & DIFFERENCES for g in groups):
            texts.remove(footer.schema.column(at).path)
    return pq.ParquetFile(source, read_dictionary=sorted(texts), metadata=footer, **options)


def plain(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches, validated, with columns of texts as they are in `schema`.

    Raises ArrowInvalid where a column's texts are too long together, or a batch takes too much memory: a few bytes may
    stand for any number of them.
    """
    kinds = {field.name: field.type for field in schema}
    for batch in bounded(batches):
        names = batch.schema.names
        columns = [_plain(values, name, kinds[name]) for name, values in zip(names, batch.columns, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, names)


def bounded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches, validated. Raises ArrowInvalid where one takes too much memory."""
    while True:
        with _said_bound(ALWAYS_TAKEN):
            if (batch := next(batches, None)) is None:
                return
            batch.validate(full=True)
        yield batch


def _plain(values: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(values.type) or not _is_of_texts(values.type.value_type):
        return values
    lengths = pc.binary_length(values.dictionary).cast(pa.int64())
    if (pc.sum(lengths.take(values.indices)).as_py() or 0) > (most := raised(MAX_TEXT_BYTES)):
        raise pa.ArrowInvalid(
            f"{len(values)} texts of its column {name} have more than {most} bytes; shorten them, {RAISE}"
        )
    return values if pa.types.is_dictionary(kind) else values.dictionary_decode().cast(kind)


def _is_of_texts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def check_rows_per_byte(footer: pq.FileMetaData, num_bytes: int) -> None:
    """Raise ValueError where a file says that it has more rows than its bytes can be."""
    if footer.num_rows > (most := raised(ROWS_PER_BYTE)) * num_bytes:
        raise ValueError(
            f"it says that it has {footer.num_rows} rows, at most {most} a byte are read and it has {num_bytes} bytes; "
            f"write it as CSV, {RAISE}"
        )


def read_row_group(files: Files, name: str, row_group: int, first: pa.Schema) -> pa.Table:
    """Return a row group of a file whose first columns are these. Raises OSError, IndexError or ArrowException."""
    footer = _footer(files, name, files.version(name))
    with (
        _bounded(ALWAYS_TAKEN),
        pq.ParquetFile(files.open(name), metadata=footer, page_checksum_verification=True) as opened,
    ):
        try:
            is_known = pa.schema(list(opened.schema_arrow)[: len(first)]).equals(first)
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid(str(error)) from None
        too_many = opened.metadata.row_group(row_group).num_rows > MAX_ROWS
        if too_many or not is_known or _has_twins(opened.schema_arrow):
            raise pa.ArrowInvalid("it has not the columns that it should have, each once, or too many rows")
        rows = opened.read_row_group(row_group)
        rows.validate(full=True)
        return rows


def row_groups_with(files: Files, name: str, column: str, texts: Collection[str]) -> list[int]:
    """Return the row groups of a file that may hold one of the texts in a column, as far as its statistics tell.

    Raises OSError or ArrowException.
    """
    footer, wanted = _footer(files, name, files.version(name)), sorted(texts)
    found: list[int] = []
    try:
        for number in range(footer.num_row_groups):
            bounds = bounds_of(footer, number, column, str)
            if bounds is None or bisect_left(wanted, bounds[0]) < bisect_right(wanted, bounds[1]):
                found.append(number)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(str(error)) from None
    return found


def bounds_of(footer: pq.FileMetaData, row_group: int, name: str, kind: type[Value]) -> tuple[Value, Value] | None:
    """Return the least and the largest value of a column in a row group, None where they are not told.

    Of a column with two types pyarrow 26 does not return: the process ends.
    """
    group = footer.row_group(row_group)
    at = next((at for at in range(group.num_columns) if group.column(at).path_in_schema == name), None)
    if at is None or group.column(at).physical_type != footer.schema.column(at).physical_type:
        return None
    told = group.column(at).statistics
    if told is None or not told.has_min_max or not isinstance(told.min, kind) or not isinstance(told.max, kind):
        return None
    return told.min, told.max


@lru_cache(maxsize=2)
def _footer(files: Files, name: str, version: tuple[int, int] | None) -> pq.FileMetaData:
    """Read a file's footer once for all of its row groups: it is nine tenths of the time to read one."""
    try:
        return pq.read_metadata(files.open(name))
    except UnicodeDecodeError as error:  # of a column's name
        raise pa.ArrowInvalid(str(error)) from None


def document_of(schema: pa.Schema) -> dict[str, Any]:
    """Return the run's own document from a file's schema, empty where there is none."""
    text = (schema.metadata or {}).get(METADATA_KEY.encode())
    try:
        document = json_of(text) if text else {}
    except ValueError:  # none of ours
        return {}
    return document if isinstance(document, dict) else {}
