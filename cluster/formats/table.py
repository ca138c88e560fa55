"""Tables of boxes, CSV or Parquet: a box a row, pixels whose ends are outside, or as `table-inclusive` inside."""

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from cam_ops.tables import CORNERS
from cluster.formats.entries import ENTRIES, NUM_SHOWN, ROWS_PER_BATCH, VOC_CORNERS
from cluster.formats.files import is_file, reading
from cluster.formats.format import Format
from cluster.storage.parquet import stream

TABLE_SUFFIXES = (".csv", ".csv.gz", ".parquet")
CSV_BLOCK_BYTES = 4 * 2**20  # and the longest row
IMAGE = ("image_id", "image")
CLASS = ("class", "class_name", "class_id", "label")


def _read(path: str) -> Iterator[pa.RecordBatch]:
    """Read a CSV or Parquet file, or all of a folder, a box a row; batches of schema ENTRIES.

    Columns are one of `IMAGE`, the `CORNERS` or `VOC_CORNERS`, and as the author likes one of `CLASS`, and `width` with
    `height`; others are left out. Of several for the same the first named here is taken. A row without corners names an
    image without boxes.
    """
    for file in _files(path):
        with reading(file, "a table of boxes"):
            parquet = file.lower().endswith(".parquet")
            yield from (_parquet_entries(file) if parquet else _csv_entries(file))


def _files(path: str) -> list[str]:
    """Return the files of a table: the path itself, or those in the folder."""
    if not os.path.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(TABLE_SUFFIXES))
    return [os.path.join(path, name) for name in names if not name.startswith(".")]


def header_of(path: str) -> list[str]:
    """Return the names of a table's columns. Raises what `reading` catches."""
    if path.lower().endswith(".parquet"):
        return list(pq.read_schema(path).names)
    with pc_csv.open_csv(path, read_options=pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES)) as opened:
        return list(opened.schema.names)


def _columns(found: list[str]) -> dict[str, str]:
    """Map the columns of ENTRIES to the table's own."""
    image = next((name for name in IMAGE if name in found), None)
    corners = next((names for names in (CORNERS, VOC_CORNERS) if set(names) <= set(found)), None)
    if image is None or corners is None:
        raise ValueError(
            f"expected a column {' or '.join(IMAGE)} and the columns {', '.join(CORNERS)} (or "
            f"{', '.join(VOC_CORNERS)}), found {', '.join(found[:NUM_SHOWN])[:200]}"
        )
    columns = {"image": image, **dict(zip(CORNERS, corners, strict=True))}
    if word := next((name for name in CLASS if name in found), None):
        columns["word"] = word
    columns |= {name: name for name in ("width", "height") if {"width", "height"} <= set(found)}
    if twice := [name for name in columns.values() if found.count(name) > 1]:
        raise ValueError(f"it has several columns {twice[0]}")
    return columns


def _csv_entries(path: str) -> Iterator[pa.RecordBatch]:
    columns = _columns(header_of(path))
    kinds = {name: ENTRIES.field(ours).type for ours, name in columns.items()}
    with pc_csv.open_csv(
        path,
        read_options=pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
        parse_options=pc_csv.ParseOptions(newlines_in_values=True),
        convert_options=pc_csv.ConvertOptions(
            include_columns=list(kinds), column_types=kinds, strings_can_be_null=True, null_values=[""]
        ),
    ) as batches:
        for batch in batches:
            yield _entries_of(batch, columns)


def _parquet_entries(path: str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        columns = _columns(file.schema_arrow.names)
        for batch in stream(file, ROWS_PER_BATCH, list(columns.values())):
            batch.validate(full=True)
            yield _entries_of(batch, columns)


def _entries_of(batch: pa.RecordBatch, columns: dict[str, str]) -> pa.RecordBatch:
    """Cast a table's columns to those of ENTRIES. Raises ArrowException where they do not fit."""
    given = {"crowd": pa.repeat(False, len(batch))}
    for ours, name in columns.items():
        values = batch[name]
        if ENTRIES.field(ours).type == pa.string() and pa.types.is_floating(values.type):
            values = values.cast(pa.int64())  # as pandas writes numbers beside nulls
        given[ours] = values.cast(ENTRIES.field(ours).type)
    if "width" in given:
        fits = pc.and_(pc.greater(given["width"], 0), pc.greater(given["height"], 0))
        given |= {name: pc.if_else(fits, given[name], None) for name in ("width", "height")}
    arrays = [given.get(field.name, pa.nulls(len(batch), field.type)) for field in ENTRIES]
    return pa.record_batch(arrays, schema=ENTRIES)


def _recognise(path: str) -> bool:
    if not os.path.isdir(path):
        return is_file(path, TABLE_SUFFIXES)
    with reading(path, "a folder"):
        return bool(_files(path))


TABLE = Format(
    name="table",
    frame="half-open",
    recognise=_recognise,
    read=lambda path, masks: _read(path),
)
TABLE_INCLUSIVE = Format(
    name="table-inclusive",  # it looks like the other, and must be asked for
    frame="inclusive",
    read=lambda path, masks: _read(path),
)
