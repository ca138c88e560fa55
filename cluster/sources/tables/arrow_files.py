"""Arrow files, streams or with a footer, and where in them a picture's bytes are: each is one range of the file."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import I64
from cam_ops.errors import StorageError, UsageError
from cluster.sources.tables.parquet_files import open_file, reading
from cluster.storage.options import StorageOptions

MAGIC, END = b"ARROW1\0\0", b"\xff\xff\xff\xff\0\0\0\0"  # of a file with a footer; of a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowFile:
    """An Arrow file whose bytes are mapped into memory, from which nothing is copied."""

    address: str
    content: pa.Buffer
    schema: pa.Schema

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the batches that it has, of these columns. Raises what Arrow says of damaged ones."""
        reader = _reader(self.content)
        is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            selected = batch.select(columns)
            selected.validate(full=True)  # before anything is computed: offsets may lead out of the file
            yield selected

    def ranges(self, cells: pa.Array) -> tuple[I64, I64]:
        """Return where the bytes of a batch's column are in the file, offset and size; size -1 where there are none.

        Raises UsageError where they are not in the file as they are.
        """
        wide = pa.types.is_large_binary(cells.type)
        if not wide and not pa.types.is_binary(cells.type):
            raise UsageError(f"the pictures in {self.address} are {cells.type}; save them as binary")
        _, offsets, content = cells.buffers()
        is_valid_N = np.asarray(cells.is_valid())
        if content is None or not content.size:
            return np.zeros(len(cells), np.int64), np.where(is_valid_N, 0, -1)
        kind = np.dtype(np.int64 if wide else np.int32)
        ends_N = np.frombuffer(offsets, kind, len(cells) + 1, cells.offset * kind.itemsize).astype(np.int64)
        start = content.address - self.content.address
        if not 0 <= start <= start + content.size <= self.content.size:
            raise UsageError(
                f"{self.address} is compressed, so that no picture can be read alone; save it uncompressed"
            )
        return start + ends_N[:-1], np.where(is_valid_N, np.diff(ends_N), -1)


@contextmanager
def open_arrow(address: str, options: StorageOptions) -> Iterator[ArrowFile]:
    """Open an Arrow file, one on a store by a copy in `TMPDIR`.

    Raises StorageError where it cannot be reached, UsageError for another file; what is read of it raises the same.
    """
    with reading(address, "Arrow"), open_file(address, options) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        if not num_bytes:
            raise StorageError(f"{address} is empty; check --images")
        content = pa.py_buffer(mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_READ))
        is_stream = content[: len(MAGIC)].to_pybytes() != MAGIC
        if is_stream and content[-len(END) :].to_pybytes() != END:
            raise UsageError(f"{address} is no whole Arrow file: it has not the end that it should have; copy it again")
        yield ArrowFile(address=address, content=content, schema=_reader(content).schema)


def _reader(content: pa.Buffer) -> Any:
    """Return a reader of the batches of a file in either format. Told to leave columns out, Arrow would copy others."""
    if content[: len(MAGIC)].to_pybytes() != MAGIC:
        return pa.ipc.open_stream(content)
    return pa.ipc.open_file(content)
