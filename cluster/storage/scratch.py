"""A DuckDB file in a scratch folder, for tables that may outgrow memory.

No path and no text of a row ever becomes SQL; nothing is installed or loaded from elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from cam_ops.errors import StorageError

MEMORY_LIMIT = "512MiB"  # more makes a sort no faster
ROWS_AT_ONCE = 4096


@contextmanager
def open_database(num_threads: int = 2, memory_limit: str = MEMORY_LIMIT) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in a scratch folder, which goes with it.

    Raises StorageError where room lacks, KeyboardInterrupt where a signal's handler raised that during a query.
    """
    with TemporaryDirectory(prefix="camray-") as scratch:
        try:
            with connect(Path(scratch, "tables.duckdb"), scratch, num_threads, memory_limit) as database:
                yield database
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = str(error).strip().partition("\n")[0]
            raise StorageError(f"no room in {scratch}: {reason}; set TMPDIR to a folder with room") from None
        except RuntimeError as error:
            if str(error) != "Query interrupted":  # DuckDB drops what a signal's handler raised
                raise
            raise KeyboardInterrupt from None


def connect(path: Path | str, scratch: str, num_threads: int, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """Connect to the database at `path`, which spills to `scratch` and loads nothing from elsewhere."""
    return duckdb.connect(
        path,
        config={
            "memory_limit": memory_limit,
            "temp_directory": scratch,
            "threads": num_threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )


def load(database: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Make a table of batches of a schema. What reading them raises passes through."""
    database.from_arrow(schema.empty_table()).create(name)
    database.begin()
    for some in _together(batches):
        database.from_arrow(pa.Table.from_batches(some, schema)).insert_into(name)
    database.commit()


def _together(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Gather small batches: an insertion takes as long as a thousand rows do."""
    some: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        some.append(batch)
        num_rows += len(batch)
        if num_rows >= ROWS_AT_ONCE:
            yield some
            some, num_rows = [], 0
    if some:
        yield some
