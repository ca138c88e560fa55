"""Files that others have made: what may be opened, and how much memory reading one may take."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cam_ops.errors import UsageError

POINTER = b"version https://git-lfs"
OTHERS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
MAX_COLUMNS = 10_000  # of a table


def size_of_file(path: str | Path) -> int:
    """Return the bytes of a file. Raises OSError where there is none, and where it is something else than a file.

    To open a pipe may wait for ever, and a device may have no end: ask this before anything from outside is opened.
    """
    found = os.stat(path)
    if other := OTHERS.get(stat.S_IFMT(found.st_mode)):
        raise OSError(errno.EINVAL, f"it is {other}, not a file", str(path))
    return found.st_size


def check_columns(num_columns: int) -> None:
    """Raise ValueError where a table has more columns than are read."""
    if num_columns > MAX_COLUMNS:
        raise ValueError(f"it has {num_columns} columns, at most {MAX_COLUMNS} are read; leave out what is not needed")


@contextmanager
def bounded_memory(num_bytes: int) -> Iterator[None]:
    """Let this process take at most so many bytes more than it has; what would take more raises MemoryError or such.

    For libraries that are told by a file how much to take; memory that others of its threads take counts as well.
    """
    has = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) * 2**10
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (has + num_bytes, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def refuse_pointer(name: object, start: bytes) -> None:
    """Raise UsageError for a file that Git LFS has put in the place of another, by its first bytes."""
    if start.startswith(POINTER):
        raise UsageError(f"{name} is a pointer of Git LFS to the file itself; fetch that by `git lfs pull`")
