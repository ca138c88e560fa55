"""Arrow tables to Parquet bytes and back, in the one layout that all files of a run share."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import StorageError
from cam_ops.tables import METADATA_KEY


def encode(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """Write a table as Parquet (zstd, dictionaries on strings, page index) and prove that it reads back."""
    strings = [field.name for field in table.schema if pa.types.is_string(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=row_group_size,
        compression="zstd",
        use_dictionary=strings,
        write_page_index=True,
    )
    content = buffer.getvalue()
    assert pq.ParquetFile(io.BytesIO(content)).metadata.num_rows == len(table)
    return content


def decode(content: bytes, where: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file's bytes; raises StorageError naming `where` if they are no Parquet file."""
    try:
        return pq.read_table(io.BytesIO(content), columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{where} is not a whole Parquet file: {error}") from None


def document_of(schema: pa.Schema) -> dict[str, Any]:
    """Return the run's own document from a file's schema, empty where there is none."""
    text = (schema.metadata or {}).get(METADATA_KEY.encode())
    document = json.loads(text) if text else {}
    return document if isinstance(document, dict) else {}
