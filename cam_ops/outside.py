"""Files that others have made: what may be opened, and how much memory reading one may take."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from cam_ops.errors import UsageError

POINTER = b"version https://git-lfs"
OTHERS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
LIMITS_VARIABLE = "CAMRAY_FILE_LIMITS"  # of the environment, as children and replicas inherit it
MOST_RAISED = 1000
RAISE = "or raise the limits by --file-limits"
MAX_COLUMNS = 10_000  # of a table
STATUS = Path("/proc/self/status")


def raised(limit: int) -> int:
    """Return a limit of what a file may be, times what `--file-limits` says."""
    return int(limit * float(os.environ.get(LIMITS_VARIABLE) or 1))


def raise_limits(times: str) -> None:
    """Take the limits of files times a number, in this process and those that it begins. Raises UsageError."""
    try:
        is_one = 1 <= float(times) <= MOST_RAISED
    except ValueError:
        is_one = False
    if not is_one:
        raise UsageError(
            f"--file-limits, or {LIMITS_VARIABLE}, expects a number from 1 to {MOST_RAISED}, got {times[:40]!r}"
        )
    os.environ[LIMITS_VARIABLE] = times


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
    if num_columns > (most := raised(MAX_COLUMNS)):
        raise ValueError(
            f"it has {num_columns} columns, at most {most} are read; leave out what is not needed, {RAISE}"
        )


@dataclass(slots=True)
class _Bound:
    """What this process may take, while any thread of it is within `bounded_memory`."""

    lock: Lock = field(default_factory=Lock)
    within: int = 0  # calls
    had: int = 0  # bytes, before the first of them
    most: int = 0  # bytes more, of all of them
    soft: int = resource.RLIM_INFINITY  # what held before


_bound = _Bound()


@contextmanager
def bounded_memory(num_bytes: int) -> Iterator[None]:
    """Let this process take at most so many bytes more than it has; what would take more raises MemoryError or such.

    For libraries that are told by a file how much to take; memory that others of its threads take counts as well.
    Calls that overlap, in threads or one within the other, share the largest of their bounds, until the last one ends.
    Where the system does not say what a process has, nothing is bounded.
    """
    with _bound.lock:
        if not _bound.within:
            _bound.had, _bound.most = _data_bytes(), 0
            _bound.soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
        _bound.within += 1
        _bound.most = max(_bound.most, num_bytes)
        if _bound.had:
            _limit_data(_bound.had + _bound.most)
    try:
        yield
    finally:
        with _bound.lock:
            _bound.within -= 1
            if not _bound.within and _bound.had:
                _limit_data(_bound.soft)


def _limit_data(num_bytes: int) -> None:
    """Set the limit, but for what is stricter already."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (num_bytes, _bound.soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits, default=resource.RLIM_INFINITY), hard))


def _data_bytes() -> int:
    """Return what this process has of memory that it can write to, 0 where the system does not say."""
    try:
        return int(STATUS.read_text().partition("VmData:")[2].split()[0]) * 2**10
    except (OSError, LookupError, ValueError):
        return 0


def refuse_pointer(name: object, start: bytes) -> None:
    """Raise UsageError for a file that Git LFS has put in the place of another, by its first bytes."""
    if start.startswith(POINTER):
        raise UsageError(f"{name} is a pointer of Git LFS to the file itself; fetch that by `git lfs pull`")
