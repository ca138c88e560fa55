"""Parquet files of a run: what is read of them, and what is refused."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import StorageError
from cluster.storage.parquet import check_rows_per_byte, decode, encode, open_by_dictionary, plain, stream


def test_a_column_that_is_there_twice_is_refused_whether_or_not_it_is_asked_for() -> None:
    twice = io.BytesIO()
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), twice)
    for columns in (None, ["a"]):
        with pytest.raises(StorageError, match="images/a has two columns of one name"):
            decode(twice.getvalue(), "images/a", columns)
    assert decode(encode(pa.table({"a": [1], "b": [2]})), "images/a", ["b"]).to_pylist() == [{"b": 2}]


@pytest.mark.parametrize("encoding", ["PLAIN", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_numbered_names_are_read_however_they_are_stored(encoding: str) -> None:
    names = pa.table({"uri": [f"images/{i:09d}.jpg" for i in range(100_000)]})
    buffer = io.BytesIO()
    is_dictionary = encoding == "RLE_DICTIONARY"
    written = (
        {"use_dictionary": ["uri"]}
        if is_dictionary
        else {"use_dictionary": False, "column_encoding": {"uri": encoding}}
    )
    pq.write_table(names, buffer, compression="zstd", compression_level=19, row_group_size=40_000, **written)
    footer = pq.read_metadata(buffer)
    assert encoding in footer.row_group(0).column(0).encodings
    check_rows_per_byte(footer, len(buffer.getvalue()))
    with open_by_dictionary(buffer, footer) as file:
        batches = plain(stream(file, 2**15), names.schema)
        assert pa.Table.from_batches(batches).equals(names)
