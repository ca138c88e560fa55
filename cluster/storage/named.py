"""A local file that a flag names: it appears whole or not at all."""

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from cam_ops.errors import StorageError


def write_named(path: str, content: bytes, flag: str) -> None:
    """Write the file that a flag names; what was there stays if that fails. Raises StorageError."""
    target = os.path.realpath(path)
    scratch = Path(f"{target}.{uuid.uuid4().hex}.part")  # nobody can have put that there, as in a folder of all users
    try:
        if (os.path.exists(target) and not os.path.isfile(target)) or path.startswith(("/dev/", "/proc/")):  # as stdout
            Path(target).write_bytes(content)
            return
        with scratch.open("xb") as file:
            file.write(content)
        scratch.replace(target)
    except OSError as error:
        with suppress(OSError):  # such as a file system that is read-only
            scratch.unlink()
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if is_full else f"check {flag}"
        raise StorageError(f"cannot write {path}: {error.strerror}; {cure}") from None
