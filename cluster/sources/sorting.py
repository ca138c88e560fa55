"""Sort a stream of rows by a column of texts into a Parquet file, on disk where they outgrow memory: DuckDB does it.

No path and no text of a row ever becomes SQL.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import StorageError
from cam_ops.tables import LISTING
from cluster.sources.listing import Listing
from cluster.storage.parquet import stream
from cluster.storage.scratch import MEMORY_LIMIT, connect

NUM_THREADS = 1  # the rows arrive one after the other; with two, the sort needs more memory and no less time
ROWS_PER_BATCH = 2**15


def sort_rows(
    rows: pa.RecordBatchReader, column: str, ordered: Path, limit: int | None, scratch: str, memory_limit: str
) -> None:
    """Write the rows to the Parquet file `ordered`, by the UTF-8 bytes of `column`, nulls first, the first `limit`.

    Raises duckdb.Error where the sort cannot be done within the limit and the room in `scratch`, or `rows` raises.
    """
    with connect(":memory:", scratch, NUM_THREADS, memory_limit) as connection:
        relation = connection.from_arrow(rows).order(f"{column} NULLS FIRST")
        _write(connection, relation if limit is None else relation.limit(limit), ordered)


def _write(connection: duckdb.DuckDBPyConnection, rows: duckdb.DuckDBPyRelation, ordered: Path) -> None:
    """Run the sort in a thread of its own: an interrupt inside DuckDB's call for rows would be its error."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(int).result()  # the thread is there: its end would not be waited for if its start was interrupted
        try:
            thread.submit(
                rows.write_parquet, str(ordered), compression="lz4_raw", row_group_size=ROWS_PER_BATCH
            ).result()
        finally:
            connection.interrupt()


def first_line(error: Exception) -> str:
    """Return what DuckDB or Arrow says of an error, without what Python said before."""
    return str(error).strip().partition("\n")[0].partition(" Detail: Python exception")[0]


@contextmanager
def sorted_listing(
    address: str,
    batches: Iterator[pa.RecordBatch],
    limit: int | None,
    schema: pa.Schema = LISTING,
    memory_limit: str = MEMORY_LIMIT,
) -> Iterator[Listing]:
    """List the images of batches in any order, the first `limit` of them by id; the columns are those of `schema`.

    They go through files in `TMPDIR`; the listing ends with the context. Raises StorageError where there is no room,
    and what `batches` raises.
    """
    with TemporaryDirectory(prefix="camray-") as scratch:
        found, ordered = Path(scratch, "found.parquet"), Path(scratch, "sorted.parquet")
        try:
            with pq.ParquetWriter(
                found, schema, compression="lz4", use_dictionary=False, write_statistics=False
            ) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            with pq.ParquetFile(found) as file:
                rows = pa.RecordBatchReader.from_batches(schema, stream(file, ROWS_PER_BATCH))
                sort_rows(rows, "image_id", ordered, limit, scratch, memory_limit)
            found.unlink()
            num_images = pq.read_metadata(ordered).num_rows
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StorageError(
                f"cannot sort the images of {address} in {scratch}: {first_line(error)}; set TMPDIR to a folder with "
                "room"
            ) from None
        yield Listing(
            num_images=num_images, has_labels="label" in schema.names, batches=partial(_batches, ordered, schema)
        )


def _batches(ordered: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(ordered) as file:
        for batch in stream(file, ROWS_PER_BATCH):
            yield pa.record_batch([batch[field.name].cast(field.type) for field in schema], schema=schema)
