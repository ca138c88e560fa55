"""A picture in a row of a Parquet file, read later: rows that follow each other cost no more than their pages.

A planned picture of such a file has the row as its offset, and as its size -2 less the number of the column that holds
the bytes, which no range of bytes has.
"""

import os
import weakref
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import accumulate
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import BadImage, StorageError
from cam_ops.pictures.header import MAX_BYTES
from cluster.process.console import shown
from cluster.sources.sorting import first_line
from cluster.sources.tables.parquet_files import DAMAGED, Missing, cell_columns, open_file, parquet_of
from cluster.sources.tables.values import address_of, is_address
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions

FIRST_SIZE = -2
MAX_OPEN = 4  # files; a batch may reach into the next ones
WINDOW_BYTES = 8 * 2**20
BATCH_BYTES, BATCH_ROWS = 8 * 2**20, 64  # read at a time, by what the footer says
KEPT_BYTES, KEPT_ROWS = 256 * 2**20, 512  # of the rows before the last one that was read: threads ask in any order


def size_of(column: int) -> int:
    """Return the size that stands for a cell in a Parquet file's column of that number."""
    return FIRST_SIZE - column


def is_cell(size: int) -> bool:
    """Say whether a planned image is one cell of a column."""
    return size <= FIRST_SIZE


def read_cell(address: str, row: int, size: int, options: StorageOptions) -> bytes | str:
    """Return the bytes of a picture, of one that is too large MAX_BYTES + 1; or the address where the file says it is.

    Raises BadImage where the file is the reason, StorageError where the storage is.
    """
    return _cursor(address, FIRST_SIZE - size, options).read(row)


_cursors: OrderedDict[tuple[str, int, StorageOptions], "_Cursor"] = OrderedDict()
_lock = Lock()


def _cursor(address: str, column: int, options: StorageOptions) -> "_Cursor":
    """Return the cursor of a file's column, those of the last files being kept open."""
    key = (address, column, options)
    with _lock:
        cursor = _cursors.pop(key, None) or _Cursor(address, column, options)
        _cursors[key] = cursor
        while len(_cursors) > MAX_OPEN:
            _cursors.popitem(last=False)  # closed when the last thread lets go of it
    return cursor


class _Cursor:
    """Reads a column on from row to row, and keeps the last ones; one thread at a time."""

    def __init__(self, address: str, column: int, options: StorageOptions) -> None:
        self.address, self.column, self.options = address, column, options
        self.lock = Lock()
        self.parquet: pq.ParquetFile | None = None
        self.start_of: list[int] = []  # the first row of each row group, and that after the last one
        self.columns: list[str] = []
        self.group, self.next_row = -1, 0
        self.batches: Iterator[pa.RecordBatch] = iter(())
        self.kept: deque[tuple[int, pa.Array]] = deque()  # first row and cells
        self.kept_rows = self.kept_bytes = 0
        self.failed: dict[int, tuple[int, BadImage]] = {}  # by row group: from which row on, and why

    def read(self, row: int) -> bytes | str:
        """Do what `read_cell` says."""
        with self.lock:
            parquet = self.parquet or self._open()
            if not 0 <= row < self.start_of[-1]:
                raise BadImage("missing", f"the file has {self.start_of[-1]} rows")
            cell = self._kept_cell(row)
            if cell is None:
                cell = self._read_on(parquet, row)
            return self._content(cell)

    def _open(self) -> pq.ParquetFile:
        try:
            file = open_file(self.address, self.options, WINDOW_BYTES)
            weakref.finalize(self, file.close)
            parquet = parquet_of(file)
            self.columns = cell_columns(parquet, self.column)
        except Missing:
            folder = os.path.dirname(self.address)
            if not is_store(folder) and not os.path.isdir(folder):  # a disk that is not there
                raise StorageError(
                    f"there is no folder {folder} on {os.uname().nodename}; the shard is left for the next run"
                ) from None
            raise BadImage("missing", "there is no such Parquet file") from None
        except DAMAGED as error:
            raise self._reason(error) from None
        footer = parquet.metadata
        rows = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        self.start_of = [0, *accumulate(rows)]
        self.parquet = parquet
        return parquet

    def _kept_cell(self, row: int) -> pa.Scalar | None:
        for first, cells in reversed(self.kept):
            if first <= row < first + len(cells):
                return cells[row - first]
        return None

    def _read_on(self, parquet: pq.ParquetFile, row: int) -> pa.Scalar:
        """Read batches until one has the row: from where the last one ended, or from the row group's beginning on.

        Threads that follow each other may ask for rows of two groups in turn: the rest of the first one is read too.
        """
        group = bisect_right(self.start_of, row) - 1
        if group in self.failed and row >= self.failed[group][0]:
            raise self.failed[group][1]
        is_near = group == self.group or (group == self.group + 1 and row - self.next_row < BATCH_ROWS)
        if self.group < 0 or row < self.next_row or not is_near:
            self._seek(parquet, group)
        while row >= self.next_row:
            while self.next_row == self.start_of[self.group + 1]:
                self._seek(parquet, self.group + 1)
            try:
                cells = next(self.batches).column(0)
            except StopIteration:
                self._fail(group, BadImage("undecodable", "its row group ends before its footer says"))
            except StorageError as failure:
                self._fail(group, failure)
            except DAMAGED as failure:
                self._fail(group, self._reason(failure))
            else:
                self._keep(cells)
                continue
            self._seek(parquet, group)
        return cells[row - self.next_row + len(cells)]

    def _seek(self, parquet: pq.ParquetFile, group: int) -> None:
        self.group, self.next_row = group, self.start_of[group]
        self.batches = self._open_group(parquet, group)

    def _fail(self, group: int, error: BadImage | StorageError) -> None:
        """Note where reading ended; raise the error where it ended in the group."""
        failed, self.group = self.group, -1
        if isinstance(error, BadImage):  # else each row that follows would be looked for again
            self.failed[failed] = (self.next_row, error)
        if failed == group:
            raise error

    def _open_group(self, parquet: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
        footer = parquet.metadata.row_group(group)
        column = footer.column(self.column)
        num_cells = 1 if column.has_dictionary_page else footer.num_rows  # a dictionary has a cell once for many rows
        num_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * num_cells // max(1, column.total_uncompressed_size)))
        batches: Iterator[pa.RecordBatch] = parquet.iter_batches(
            num_rows, row_groups=[group], columns=self.columns, use_threads=False
        )
        return batches

    def _keep(self, cells: pa.Array) -> None:
        self.kept.append((self.next_row, cells))
        self.next_row += len(cells)
        self.kept_rows, self.kept_bytes = self.kept_rows + len(cells), self.kept_bytes + cells.nbytes
        while len(self.kept) > 1 and (self.kept_rows > KEPT_ROWS or self.kept_bytes > KEPT_BYTES):
            _, gone = self.kept.popleft()
            self.kept_rows, self.kept_bytes = self.kept_rows - len(gone), self.kept_bytes - gone.nbytes

    def _reason(self, error: Exception) -> BadImage | StorageError:
        if isinstance(error, OSError) and error.errno is not None:
            where = f"{self.address} on {os.uname().nodename}"
            return StorageError(f"cannot read {where}: {error.strerror}; the shard is left for the next run")
        return BadImage("undecodable", f"its Parquet file is damaged: {first_line(error)}")

    def _content(self, cell: pa.Scalar) -> bytes | str:
        path = None
        if cell.is_valid and isinstance(cell, pa.StructScalar):
            path = cell["path"].as_py() if "path" in cell else None
            cell = cell["bytes"]
        if cell.is_valid:
            content = cell.as_buffer()
            whole: bytes = content.slice(0, min(content.size, MAX_BYTES + 1)).to_pybytes()
            return whole
        if not path:
            raise BadImage("missing", "its cell is empty, and names no file")
        if not is_address(path) and "://" in path:
            raise BadImage("missing", f"its cell is empty, and names {shown(path)}, which cannot be reached")
        return address_of(path, os.path.dirname(self.address))
