"""Seeded mutations of Parquet and Arrow files: of their footer's bytes, and of what a table holds, written anew.

`text` gives another text for a document of JSON, as metadata hold some, or a hostile word for None.
"""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.fuzz import mutated

Generator = np.random.Generator
Text = Callable[[Any], str]
NUMBERS: tuple[Any, ...] = (None, float("nan"), float("inf"), -1.0, 0.0, 1e308, 2.0**31, 2.0**63, 0.5)
MANY = 2**22  # rows, of one value


def parquet_mutated(content: bytes, text: Text, generator: Generator) -> bytes:
    """Change the footer's bytes, or the table, and write it anew."""
    if generator.random() < 0.25:
        size = int.from_bytes(content[-8:-4], "little")
        footer = mutated(content[-8 - size : -8], [content], generator)
        return content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    table = table_mutated(pq.read_table(io.BytesIO(content)), text, generator)
    stream = io.BytesIO()
    packing = ("none", "zstd", "snappy", "gzip")[generator.integers(4)]
    rows = None if generator.random() < 0.8 else max(1, len(table) // 3)
    try:
        pq.write_table(table, stream, compression=packing, row_group_size=rows)
    except (pa.ArrowException, UnicodeError):  # what Parquet does not take
        return mutated(content, [content], generator)
    return stream.getvalue()


def arrow_mutated(content: bytes, text: Text, generator: Generator) -> bytes:
    """Change the table, and write it anew as a stream or as a file."""
    with pa.ipc.open_stream(io.BytesIO(content)) as reader:
        table = table_mutated(reader.read_all(), text, generator)
    stream, new = io.BytesIO(), pa.ipc.new_stream if generator.random() < 0.8 else pa.ipc.new_file
    try:
        with new(stream, table.schema) as writer:
            writer.write_table(table, 3)
    except (pa.ArrowException, UnicodeError):
        return mutated(content, [content], generator)
    written = stream.getvalue()
    return written if generator.random() < 0.7 else mutated(written, [content], generator)


def table_mutated(table: pa.Table, text: Text, generator: Generator) -> pa.Table:
    """Change a column, its name, the rows or the metadata."""
    for _ in range(generator.integers(1, 4)):
        try:
            table = _changed(table, text, generator)
        except (pa.ArrowException, UnicodeError, ValueError, OverflowError):  # what Arrow does not hold
            continue
    return table


def _changed(table: pa.Table, text: Text, generator: Generator) -> pa.Table:
    if not table.num_columns:
        return table
    at = int(generator.integers(table.num_columns))
    field, column = table.field(at), table.column(at)
    kind = generator.integers(0, 12)
    if kind < 4:
        return table.set_column(at, field.name, _other_values(column, text, generator))
    if kind == 4:
        return table.rename_columns([text(None) if i == at else name for i, name in enumerate(table.column_names)])
    if kind == 5:
        return table.append_column(field.name, column)
    if kind == 6:
        return table.remove_column(at)
    if kind == 7:
        return table.take(
            generator.integers(0, max(1, len(table)), int(2 ** generator.uniform(0, 10)) if len(table) else 0)
        )
    if kind == 8:
        return table.slice(0, int(generator.integers(0, 2)))
    if kind == 9 and generator.random() < 0.1 and len(table):
        return table.take(np.zeros(MANY, np.int64)) if table.nbytes < 2**16 else table
    if kind == 10 and table.schema.metadata:
        return table.replace_schema_metadata(_other_metadata(table.schema.metadata, text, generator))
    return table.set_column(at, field.name, _other_type(column, generator))


def _other_metadata(metadata: dict[bytes, bytes], text: Text, generator: Generator) -> dict[bytes, bytes]:
    names = sorted(metadata)
    name = names[generator.integers(len(names))]
    try:
        document = json.loads(metadata[name])
    except (ValueError, RecursionError):  # of another mutation
        document = None
    return {**metadata, name: text(document).encode("utf-8", "surrogatepass")}


def _other_values(column: pa.ChunkedArray, text: Text, generator: Generator) -> pa.Array:
    """Return a column of the same type with another value in one row or in all."""
    kind, values = column.type, column.to_pylist()
    rows = range(len(values)) if generator.random() < 0.3 else generator.integers(0, max(1, len(values)), 1).tolist()
    for row in rows[: len(values)]:
        values[row] = _other_value(kind, values[row], text, generator)
    return pa.array(values, kind)


def _other_value(kind: pa.DataType, value: Any, text: Text, generator: Generator) -> Any:
    chance = generator.random()
    if chance < 0.15:
        return None
    if pa.types.is_string(kind):
        return text(None)
    if pa.types.is_binary(kind):
        return mutated(value or b"", [b"PK\x03\x04"], generator)
    if pa.types.is_list(kind):
        inner = [_other_value(kind.value_type, None, text, generator) for _ in range(int(2 ** generator.uniform(0, 8)))]
        return inner if chance < 0.6 else []
    if pa.types.is_struct(kind):
        given = value or {}
        return {each.name: _other_value(each.type, given.get(each.name), text, generator) for each in kind}
    if pa.types.is_integer(kind):
        bits = kind.bit_width
        return int([0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 1000][generator.integers(6)])
    if pa.types.is_floating(kind):
        return NUMBERS[generator.integers(len(NUMBERS))]
    return value


def _other_type(column: pa.ChunkedArray, generator: Generator) -> pa.Array:
    num = len(column)
    others: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(num),
        lambda: pa.array([str(value) for value in column.to_pylist()]),
        lambda: pa.array([[value] for value in column.to_pylist()]),
        lambda: pa.array([{"bytes": b"a", "path": "b"}] * num),
        lambda: pa.array(generator.random(num)),
        lambda: pa.array([b"\xff\xfe"] * num, pa.binary()),
        lambda: pa.DictionaryArray.from_arrays(np.zeros(num, np.int8), ["a" * 1000]),
        lambda: pa.array([2**63] * num, pa.uint64()),
        lambda: pa.array([0] * num, pa.timestamp("ns")),
        lambda: pa.array([True] * num),
        lambda: pa.array(["a"] * num, pa.large_string()),
        lambda: pa.array([1] * num, pa.decimal128(38, 2)),
        lambda: _not_utf8(num),
    ]
    return others[generator.integers(len(others))]()


def _not_utf8(num: int) -> pa.Array:
    raw = pa.array([b"\xff\xfe"] * num, pa.binary())
    return pa.Array.from_buffers(pa.string(), num, raw.buffers())
