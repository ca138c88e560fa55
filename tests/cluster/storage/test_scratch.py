"""Tables on disk: rows arrive whole and in order, however small or large the batches are."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from cluster.storage.scratch import ROWS_AT_ONCE, load, open_database

SCHEMA = pa.schema([("place", pa.int64()), ("name", pa.string())])


@pytest.mark.parametrize(
    "sizes", [[], [0, 0], [1] * (ROWS_AT_ONCE + 3), [ROWS_AT_ONCE, 0, 1], [5, 2 * ROWS_AT_ONCE, 7]]
)
def test_rows_are_loaded_once_and_in_order(sizes: list[int]) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for size in sizes:
            places = range(first, first + size)
            yield pa.record_batch([pa.array(places, pa.int64()), pa.array(map(str, places), pa.string())], SCHEMA)
            first += size

    with open_database() as database:
        load(database, "rows", SCHEMA, batches())
        rows = database.execute("SELECT place, name FROM rows").fetchall()
    assert rows == [(place, str(place)) for place in range(sum(sizes))]
