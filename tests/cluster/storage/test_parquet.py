"""Parquet files of a run: what is read of them, and what is refused."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import StorageError
from cluster.storage.parquet import decode, encode


def test_a_column_that_is_there_twice_is_refused_whether_or_not_it_is_asked_for() -> None:
    twice = io.BytesIO()
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), twice)
    for columns in (None, ["a"]):
        with pytest.raises(StorageError, match="images/a has two columns of one name"):
            decode(twice.getvalue(), "images/a", columns)
    assert decode(encode(pa.table({"a": [1], "b": [2]})), "images/a", ["b"]).to_pylist() == [{"b": 2}]
