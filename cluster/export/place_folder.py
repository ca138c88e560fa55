"""An export's place in a local folder: all is made in a folder in it, and moved out of that at the end."""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cam_ops.errors import StorageError, UsageError
from cluster.export.marks import MARKER, MAX_RECORD_BYTES, RECORD, stage_name, stages_in
from cluster.process.failpoints import reach

LOCK, TMP, PARTS, OUT, OLD = "lock", "tmp", "parts", "out", "old"
HELD: dict[str, int] = {}
"""Descriptors of the locks of this process, by token."""


@contextmanager
def said(what: str, where: str) -> Iterator[None]:
    """Turn an OSError into a StorageError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "check --out and its permissions"
        raise StorageError(f"cannot {what} in {where}: {error.strerror or error}; {cure}") from None


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A local folder; `root` is an absolute path. Methods raise StorageError."""

    root: str
    token: str

    @property
    def stage(self) -> str:
        """The folder in which all is made."""
        return f"{self.root}/{stage_name(self.token)}"

    def found(self) -> tuple[list[str], set[str]]:
        """Return the stages that there are, and the names of all else."""
        try:
            names = {*os.listdir(self.root)}
        except FileNotFoundError:
            names = set()
        except NotADirectoryError:
            raise UsageError(f"--out expects a folder, {self.root} is none") from None
        except OSError as error:
            raise StorageError(f"cannot list {self.root}: {error.strerror}; check --out") from None
        stages = [name for name in stages_in(names) if not os.path.islink(f"{self.root}/{name}")]  # somebody else's
        return stages, names - {*stages}

    def read(self, name: str) -> bytes | None:
        """Return the first MAX_RECORD_BYTES of a file, None where there is none."""
        path = f"{self.root}/{name}"
        if not os.path.isfile(path):
            return None
        try:
            with open(path, "rb") as file:
                return file.read(MAX_RECORD_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; check --out") from None

    def is_held(self, stage: str) -> bool:
        """Say whether the export of a stage goes on, as far as the file system has locks."""
        try:
            with open(f"{self.root}/{stage}/{LOCK}", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is none, or no locks here
            return False
        return False

    def start(self, marker: bytes) -> None:
        """Make the stage, lock it while this process lives, and put the marker in it."""
        with said("write", self.root):
            for folder in (TMP, PARTS, OUT, OLD):
                os.makedirs(f"{self.stage}/{folder}")
            descriptor = HELD[self.token] = os.open(f"{self.stage}/{LOCK}", os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(f"{self.stage}/{MARKER}", marker)

    def clear(self, names: set[str]) -> set[str]:
        """Return which names of earlier exports `finish` has to take away: all."""
        return names

    def remove(self, name: str) -> None:
        """Remove a file or a folder of this place, with all that is in it."""
        path = f"{self.root}/{name}"
        with said("write", self.root):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def put(self, name: str, content: bytes) -> None:
        """Put a file of the export in place."""
        self._put(f"{OUT}/{name}", content)

    def put_part(self, name: str, content: bytes) -> None:
        """Put a file in place that goes with the stage."""
        self._put(f"{PARTS}/{name}", content)

    def part(self, name: str) -> bytes:
        """Return such a file's content, nothing where there is none."""
        path = f"{self.stage}/{PARTS}/{name}"
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from None

    def link(self, name: str, path: str) -> None:
        """Put a link to a local file in place, hard if the file systems allow it, else symbolic."""
        real = os.path.realpath(path)  # a link to a relative link would lead nowhere

        def make(scratch: str) -> None:
            try:
                os.link(real, scratch)
            except OSError:
                os.symlink(real, scratch)

        self._place(f"{OUT}/{name}", make)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file of the export, which is put in place where nothing was raised."""
        scratch = self._scratch()
        with said("write", self.root):
            try:
                with open(scratch, "xb") as file:
                    yield file
                self._move(scratch, f"{self.stage}/{OUT}/{name}")
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(scratch)

    def made(self, entries: set[str]) -> set[str]:
        """Return what the export has made of its entries."""
        with said("list", self.root):
            return {*os.listdir(f"{self.stage}/{OUT}")}

    def sync(self, in_the_way: set[str]) -> None:
        """Have all on disk. Raises StorageError where there is what was not there, or known, at the beginning."""
        os.sync()  # the files, once, instead of each
        with said("list", self.root):
            names = {*os.listdir(f"{self.stage}/{OUT}"), RECORD} - in_the_way
        if new := sorted(name for name in names if os.path.lexists(f"{self.root}/{name}")):
            raise StorageError(
                f"{self.root} holds {new[0]}, which was not there when this export began; move it away, or give "
                "another --out"
            )

    def finish(self, made: set[str], in_the_way: set[str], record: bytes, check: Callable[[], None]) -> None:
        """Move what was made to its names, what is in the way out of theirs; then the record."""
        with said("write", self.root):
            for name in sorted(in_the_way, key=lambda name: (name != RECORD, name)):
                os.rename(f"{self.root}/{name}", f"{self.stage}/{OLD}/{name}")
                reach(f"taken-{name}")
            for name in sorted(made, reverse=True):  # labels before pictures
                os.rename(f"{self.stage}/{OUT}/{name}", f"{self.root}/{name}")
                reach(f"moved-{name}")
            check()
            self._write(f"{self.root}/{RECORD}", record)
            os.unlink(f"{self.stage}/{MARKER}")
            shutil.rmtree(self.stage)
        self.let_go()

    def give_up(self) -> None:
        """Remove what was made."""
        with contextlib.suppress(StorageError):
            self.remove(stage_name(self.token))
        self.let_go()

    def let_go(self) -> None:
        """Unlock the stage."""
        if self.token in HELD:
            os.close(HELD.pop(self.token))

    def _put(self, name: str, content: bytes) -> None:
        def make(scratch: str) -> None:
            with open(scratch, "xb") as file:
                file.write(content)

        self._place(name, make)

    def _place(self, name: str, make: Callable[[str], None]) -> None:
        """Make a file below the stage, which appears whole."""
        scratch = self._scratch()
        with said("write", self.root):
            try:
                make(scratch)
                self._move(scratch, f"{self.stage}/{name}")
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(scratch)

    def _scratch(self) -> str:
        """Return a new name in a folder that only `start` makes: with the stage gone, nothing can be written."""
        return f"{self.stage}/{TMP}/{uuid.uuid4().hex}"

    def _move(self, scratch: str, target: str) -> None:
        try:
            os.replace(scratch, target)
        except FileNotFoundError:
            if not os.path.lexists(scratch):  # the stage is gone, and must not come back
                raise
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(scratch, target)

    def _write(self, path: str, content: bytes) -> None:
        """Write a file that is on disk before it has its name."""
        scratch = self._scratch()
        with open(scratch, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
