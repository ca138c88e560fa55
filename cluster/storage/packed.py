"""Open a local file that gzip may have packed: its first bytes say so, not its name."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import Any

from cam_ops.outside import RAISE, raised, size_of_file

GZIP = b"\x1f\x8b"
MOST_UNPACKED = 100  # times the size of the file; rows of texts and numbers are a tenth of that
ALWAYS_UNPACKED = 64 * 2**20  # bytes
PIECE_BYTES = 2**20


class UnpacksToMore(gzip.BadGzipFile):
    """It unpacks to far more than tables do."""


@contextmanager
def unpacked(path: str, always: int = ALWAYS_UNPACKED) -> Iterator[BufferedIOBase]:
    """Open a file for what it holds, which is read as a stream; it may be `always` bytes, however few it has itself.

    Raises OSError; of these gzip.BadGzipFile, here or while it is read, for what is cut or damaged, and UnpacksToMore.
    """
    num_bytes = size_of_file(path)
    with open(path, "rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not is_packed:
            yield file
            return
        try:
            with (
                gzip.open(file) as content,
                io.BufferedReader(_Bounded(content, num_bytes, always), PIECE_BYTES) as bounded,
            ):
                yield bounded
        except (EOFError, zlib.error) as error:
            raise gzip.BadGzipFile(str(error)) from None


def check_unpacked(path: str) -> bool:
    """Say whether a file is packed, and unpack one that is to see that it is whole, which Arrow would not.

    Raises as `unpacked` does.
    """
    with unpacked(path) as file:
        is_packed = isinstance(file, io.BufferedReader) and isinstance(file.raw, _Bounded)
        while is_packed and file.read(PIECE_BYTES):
            pass
    return is_packed


class _Bounded(io.RawIOBase):
    """What a file unpacks to, up to a bound."""

    def __init__(self, content: gzip.GzipFile, packed_bytes: int, always: int) -> None:
        self.content, self.packed_bytes, self.read_bytes = content, packed_bytes, 0
        self.most_bytes = raised(max(always, MOST_UNPACKED * packed_bytes))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num_bytes = int(self.content.readinto(buffer))
        self.read_bytes += num_bytes
        if self.read_bytes > self.most_bytes:
            raise UnpacksToMore(
                f"its {self.packed_bytes} bytes unpack to more than {self.most_bytes}, which is not how tables are "
                f"packed; unpack it, and give that file, {RAISE}"
            )
        return num_bytes
