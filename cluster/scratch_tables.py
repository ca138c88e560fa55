"""Tables of two runs side by side in a DuckDB file of their own, so that memory does not grow with the runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from cam_ops.errors import StorageError

MEMORY_LIMIT = "1GiB"

Rows = list[dict[str, Any]]


class ScratchTables:
    """The open file. Names of tables and queries are written here in the code: nothing from a run becomes SQL."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def create(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table."""
        self.connection.from_arrow(schema.empty_table()).create(table)

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows, columns by place."""
        self.connection.from_arrow(rows).insert_into(table)

    def execute(self, query: str) -> None:
        """Run a query for its effect."""
        self.connection.execute(query)

    def rows(self, query: str, *values: object) -> Rows:
        """Run a query; return its rows by column name."""
        cursor = self.connection.execute(query, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, query: str) -> dict[str, Any]:
        """Run a query that has one row."""
        return self.rows(query)[0]


@contextmanager
def scratch_tables() -> Iterator[ScratchTables]:
    """Open a file without tables, and remove it at the end; raises StorageError where there is no room for it."""
    with TemporaryDirectory(prefix="camray-") as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": scratch,
            "threads": 1,  # means are then added up in one order
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with duckdb.connect(str(Path(scratch, "tables.duckdb")), config=settings) as connection:
                yield ScratchTables(connection)
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = str(error).partition("\n")[0]
            raise StorageError(f"no room in {scratch}: {reason}; set TMPDIR to a folder with room") from None
