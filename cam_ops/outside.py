"""Files that others have made."""

import errno
import os
import stat
from pathlib import Path

OTHERS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def size_of_file(path: str | Path) -> int:
    """Return the bytes of a file. Raises OSError where there is none, and where it is something else than a file.

    To open a pipe may wait for ever, and a device may have no end: ask this before anything from outside is opened.
    """
    found = os.stat(path)
    if other := OTHERS.get(stat.S_IFMT(found.st_mode)):
        raise OSError(errno.EINVAL, f"it is {other}, not a file", str(path))
    return found.st_size
