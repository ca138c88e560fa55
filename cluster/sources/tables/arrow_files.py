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
from cam_ops.outside import POINTER, refuse_pointer
from cluster.sources.tables.parquet_files import open_file, reading
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import bounded

INLINE_BYTES = 12  # of a view; more are elsewhere
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
        # before anything is computed they are validated: offsets may lead out of the file
        yield from bounded(batch.select(columns) for batch in batches)

    def ranges(self, cells: pa.Array) -> tuple[I64, I64]:
        """Return where the bytes of a batch's column are in the file, offset and size; size -1 where there are none.

        Raises UsageError where they are not in the file as they are.
        """
        places = self._views if pa.types.is_binary_view(cells.type) else self._offsets
        start_N, size_N = places(cells)
        is_valid_N = np.asarray(cells.is_valid())
        start_N, size_N = np.where(is_valid_N & (size_N > 0), start_N, 0), np.where(is_valid_N, size_N, -1)
        if not ((start_N >= 0) & (start_N + size_N <= self.content.size)).all():
            raise UsageError(
                f"{self.address} is compressed, so that no picture can be read alone; save it uncompressed"
            )
        return start_N, size_N

    def _offsets(self, cells: pa.Array) -> tuple[I64, I64]:
        _, offsets, content = cells.buffers()
        kind = np.dtype(np.int64 if pa.types.is_large_binary(cells.type) else np.int32)
        ends_N = np.frombuffer(offsets, kind, len(cells) + 1, cells.offset * kind.itemsize).astype(np.int64)
        return self._place(content) + ends_N[:-1], np.diff(ends_N)

    def _views(self, cells: pa.Array) -> tuple[I64, I64]:
        """Find cells that say each for itself where they are: after their length, or in a further buffer."""
        _, views, *contents = cells.buffers()
        view_N4 = np.frombuffer(views, np.int32, 4 * len(cells), 16 * cells.offset).reshape(-1, 4).astype(np.int64)
        size_N, is_inline_N = view_N4[:, 0], view_N4[:, 0] <= INLINE_BYTES
        inline_N = self._place(views) + 16 * (cells.offset + np.arange(len(cells))) + 4
        place_C = np.array([self._place(content) for content in contents] or [0], np.int64)
        buffer_N = np.where(is_inline_N, 0, view_N4[:, 2]).clip(0, len(place_C) - 1)
        return np.where(is_inline_N, inline_N, place_C[buffer_N] + view_N4[:, 3]), size_N

    def _place(self, buffer: pa.Buffer | None) -> int:
        """Return where in the file a buffer begins; some number that is outside of it where it is a copy."""
        return 0 if buffer is None else int(buffer.address - self.content.address)


@contextmanager
def open_arrow(address: str, options: StorageOptions) -> Iterator[ArrowFile]:
    """Open an Arrow file, one on a store by a copy in `TMPDIR`.

    Raises StorageError where it cannot be reached, UsageError for another file; what is read of it raises the same.
    """
    with reading(address, "Arrow"), open_file(address, options) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        if not num_bytes:
            raise StorageError(f"{address} is empty; check --images")
        file.seek(0)
        refuse_pointer(address, file.read(len(POINTER)))
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
