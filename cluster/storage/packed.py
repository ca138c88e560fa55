"""Open a local file that gzip may have packed: its first bytes say so, not its name."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase

from cam_ops.outside import size_of_file

GZIP = b"\x1f\x8b"


@contextmanager
def unpacked(path: str) -> Iterator[BufferedIOBase]:
    """Open a file for what it holds, which is read as a stream.

    Raises OSError; of these gzip.BadGzipFile, here or while it is read, for what is cut or damaged.
    """
    size_of_file(path)
    with open(path, "rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not is_packed:
            yield file
            return
        try:
            with gzip.open(file) as content:
                yield content
        except (EOFError, zlib.error) as error:
            raise gzip.BadGzipFile(str(error)) from None
