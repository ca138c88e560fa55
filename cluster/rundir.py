"""A run directory: names of its files, and the only way in which a file gets there.

A file appears whole or not at all: it is written to scratch on the same file system, synced, and renamed. Nothing here
ever deletes a published file, but for `clear`, which `--overwrite` calls.
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
from pathlib import Path

from cam_ops.errors import StorageError, UsageError
from cluster.failpoints import reach

TABLES = ("heatmaps", "boxes", "images")  # in the order of publication: the last commits the shard
RUN, SUMMARY, SCRATCH = "run.json", "summary.json", ".scratch"
SHARD_FILE = re.compile(r"shard-(\d{7,})\.parquet")
MAX_FILE_BYTES = 4 * 2**30
SCRATCH_AGE_S = 24 * 3600.0


def shard_name(table: str, shard: int) -> str:
    """Return the name of a shard's file, below the run directory."""
    return f"{table}/shard-{shard:07d}.parquet"


def quarantine_name(shard: int) -> str:
    """Return the name of the file on a shard's pictures that kill their replica, below the run directory."""
    return f"quarantine/shard-{shard:07d}.json"


def plan_name(part: int) -> str:
    """Return the name of a part of the plan, below the run directory."""
    return f"plan/part-{part:05d}.parquet"


@dataclass(frozen=True, slots=True)
class RunDir:
    """A local run directory; `root` is an absolute path."""

    root: str

    def path(self, name: str) -> Path:
        """Return the path of a file of the run."""
        return Path(self.root, name)

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Return a file's bytes, None where there is no such file. Raises StorageError, also if it has more."""
        path = self.path(name)
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
                raise StorageError(f"expected {path} to be a file of at most {max_bytes} bytes, it is not")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self.path(name)}: {error.strerror}") from None

    def publish(self, name: str, content: bytes) -> None:
        """Put a whole file in place, durably, replacing what bears its name. Raises StorageError."""
        self._place(name, content, os.replace)

    def publish_new(self, name: str, content: bytes) -> bool:
        """Put a whole file in place unless one bears its name already; return whether it was put there."""
        try:
            self._place(name, content, os.link)
        except FileExistsError:
            return False
        return True

    def _place(self, name: str, content: bytes, put: Callable[[Path, Path], None]) -> None:
        target = self.path(name)
        scratch = self.path(f"{SCRATCH}/{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}")
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
            if error.errno == errno.EEXIST and put is os.link and self.path(name).is_file():
                raise
            cure = (
                "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check --out and its permissions"
            )
            raise StorageError(
                f"cannot write {target}: {error.strerror}; {cure}, then run the same command again"
            ) from None

    def shards(self, table: str) -> set[int]:
        """Return the numbers of the shards that have a file in `table`."""
        try:
            names = os.listdir(self.path(table))
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            raise StorageError(f"cannot list {self.path(table)}: {error.strerror}") from None
        return {int(match[1]) for name in names if (match := SHARD_FILE.fullmatch(name))}

    def clear(self) -> None:
        """Remove a run: first run.json, so that a crash in between cannot mix two runs, then its files."""
        shards = [shard_name(table, shard) for table in reversed(TABLES) for shard in self.shards(table)]
        for name in (RUN, SUMMARY, *shards):
            self.remove(name)
        for path in self.path("quarantine").glob("shard-*.json"):
            self.remove(f"quarantine/{path.name}")
        self.remove_plan_from(0)

    def remove_plan_from(self, part: int) -> None:
        """Remove the parts of a plan from number `part` on."""
        while self.path(plan_name(part)).is_file():
            self.remove(plan_name(part))
            part += 1

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises StorageError."""
        try:
            self.path(name).unlink()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise StorageError(f"cannot remove {self.path(name)}: {error.strerror}") from None

    def sweep_scratch(self) -> None:
        """Remove what dead attempts left in scratch more than a day ago."""
        for path in self.path(SCRATCH).glob("*"):
            with contextlib.suppress(OSError):  # another driver may sweep too; a leftover does no harm
                if path.stat().st_mtime < time.time() - SCRATCH_AGE_S:
                    path.unlink()


def open_run_dir(text: str) -> RunDir:
    """Return the run directory at a local path."""
    if not text:
        raise UsageError("expected a local path for the run directory, got an empty text")
    if "://" in text:
        raise UsageError(f"expected a local path for the run directory, got {text}: this address kind is not supported")
    return RunDir(os.path.abspath(os.path.expanduser(text)))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
