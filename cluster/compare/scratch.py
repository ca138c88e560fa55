"""Tables of two runs side by side in a DuckDB file of their own, so that memory does not grow with the runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from cluster.storage.scratch import open_database

MEMORY_LIMIT = "1GiB"

Rows = list[dict[str, Any]]


class ScratchTables:
    """The open file. Names of tables and queries are written in the code: nothing from a run becomes SQL.

    Queries run in a thread of their own: DuckDB 2.0 does not hear Ctrl-C while it works.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, thread: ThreadPoolExecutor) -> None:
        self.connection = connection
        self.thread = thread

    def create(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table."""
        self.connection.from_arrow(schema.empty_table()).create(table)

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows, columns by place."""
        self.connection.from_arrow(rows).insert_into(table)

    def execute(self, query: str) -> None:
        """Run a query for its effect."""
        self.rows(query)

    def rows(self, query: str, *values: object) -> Rows:
        """Run a query; return its rows by column name."""
        try:
            return self.thread.submit(self._rows, query, values).result()
        finally:
            self.connection.interrupt()

    def _rows(self, query: str, values: tuple[object, ...]) -> Rows:
        cursor = self.connection.execute(query, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, query: str) -> dict[str, Any]:
        """Run a query that has one row."""
        return self.rows(query)[0]


@contextmanager
def scratch_tables(memory_limit: str = MEMORY_LIMIT) -> Iterator[ScratchTables]:
    """Open a file without tables, and remove it at the end; raises StorageError where there is no room for it."""
    # one thread: means are then added up in one order
    with open_database(num_threads=1, memory_limit=memory_limit) as connection, ThreadPoolExecutor(1) as thread:
        yield ScratchTables(connection, thread)
