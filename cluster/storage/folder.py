"""Files below a local folder, each of which appears whole or not at all.

A file is written to scratch on the same file system, synced, and renamed. `cluster.storage.prefix` does the same on
an object store. Where a folder in a folder of ours is a link, nothing is written or removed: what it leads to may be
anybody's.
"""

import contextlib
import errno
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from cam_ops.errors import StorageError
from cluster.process.console import shown
from cluster.process.failpoints import reach

SCRATCH = ".scratch"
SCRATCH_FILE = re.compile(r".*-\d+-[0-9a-f]{32}")  # HOST-PROCESS-RANDOM
SCRATCH_AGE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Folder:
    """A local folder; `root` is an absolute path, `top` that of the folder which is ours, if that lies above."""

    root: str
    top: str = ""

    def where(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.root, name)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes, None where there is no such file. Raises StorageError, also if it has more."""
        path = Path(self.where(name))
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
                raise StorageError(f"expected {path} to be a file of at most {max_bytes} bytes, it is not")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self.where(name)}: {error.strerror}") from None

    def open(self, name: str) -> str:
        """Return what pyarrow reads a file from. Raises OSError where there is no such file."""
        if not os.path.isfile(self.where(name)):
            raise FileNotFoundError("there is no such file")
        return self.where(name)

    def version(self, name: str) -> tuple[int, int] | None:
        """Return what changes when a file is replaced, None where there is none."""
        try:
            found = os.stat(self.where(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self.where(name)}: {error.strerror}") from None
        return found.st_ino, found.st_mtime_ns

    def publish(self, name: str, content: bytes | mmap) -> None:
        """Put a whole file in place, durably, replacing what bears its name. Raises StorageError."""
        self._place(name, content, os.replace)

    def publish_new(self, name: str, content: bytes) -> bool:
        """Put a whole file in place unless one bears its name already; return whether it was put there."""
        try:
            self._place(name, content, os.link)
        except FileExistsError:
            return False
        return True

    def refuse_links(self, folder: str) -> None:
        """Raise StorageError where a folder below `top`, or one on the way to it, is a link."""
        place = Path(self.top or self.root)
        for part in Path(self.where(folder)).relative_to(place).parts:
            place /= part
            if place.is_symlink():
                raise StorageError(
                    f"{place} is a link, to {shown(os.readlink(place))}: what lies there may be something else's, so "
                    "nothing is written or removed there; remove the link, or have all of "
                    f"{self.top or self.root} lie elsewhere, which may be one"
                )

    def _place(self, name: str, content: bytes | mmap, put: Callable[[Path, Path], None]) -> None:
        target = Path(self.where(name))
        scratch = Path(self.where(f"{SCRATCH}/{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"))
        for folder in (os.path.dirname(name), SCRATCH):
            self.refuse_links(folder)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.parent.mkdir(exist_ok=True)
            try:
                with scratch.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                reach(f"scratch-{name}")
                put(scratch, target)
            finally:
                with contextlib.suppress(OSError):  # it may be gone, or never have been made: the first error counts
                    scratch.unlink()
            _sync_folder(target.parent)
        except OSError as error:
            if error.errno == errno.EEXIST and put is os.link and target.is_file():
                raise
            cure = (
                "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check --out and its permissions"
            )
            raise StorageError(
                f"cannot write {target}: {error.strerror}; {cure}, then run the same command again"
            ) from None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none where there is no such folder."""
        try:
            return os.listdir(self.where(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"cannot list {self.where(folder)}: {error.strerror}") from None

    def folders(self) -> list[str]:
        """Return the names of the folders right below the root, none where there is no such place."""
        return [name for name in self.names("") if os.path.isdir(self.where(name))]

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file in a folder was put there, by its name."""
        found = {}
        for name in self.names(folder):
            if version := self.version(f"{folder}/{name}"):  # else it has gone since
                found[name] = version[1] / 1e9
        return found

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises StorageError."""
        self.refuse_links(os.path.dirname(name))
        try:
            os.unlink(self.where(name))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise StorageError(f"cannot remove {self.where(name)}: {error.strerror}") from None

    def sweep_scratch(self) -> None:
        """Remove what dead attempts left in scratch more than a day ago, and nothing that bears another name."""
        self.refuse_links(SCRATCH)
        for path in Path(self.where(SCRATCH)).glob("*"):
            with contextlib.suppress(OSError):  # another driver may sweep too; a leftover does no harm
                if SCRATCH_FILE.fullmatch(path.name) and path.stat().st_mtime < time.time() - SCRATCH_AGE_S:
                    path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
