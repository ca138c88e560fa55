"""A run directory, local or on an object store: the only way in which a file gets there.

A file appears whole or not at all. A published file stays unless `clear`, `remove` or `remove_plan_from` is asked to
delete it.
"""

import os
from dataclasses import dataclass
from mmap import mmap

import pyarrow as pa

from cam_ops.errors import UsageError
from cluster.runs.names import DERIVED, RUN, SHARD_FILE, SUMMARY, TABLES, plan_name, shard_name
from cluster.storage.folder import Folder
from cluster.storage.objects import is_store, store_address, without_credentials
from cluster.storage.options import NO_OPTIONS, StorageOptions
from cluster.storage.prefix import Prefix

MAX_FILE_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run directory; `root` is an absolute path, or an address on an object store, reached with `options`.

    The options are for the source's pictures, too: where this goes, they go. Methods raise StorageError.
    """

    root: str
    options: StorageOptions = NO_OPTIONS

    @property
    def files(self) -> Folder | Prefix:
        """The files, where they are."""
        return Prefix(self.root, self.options) if is_store(self.root) else Folder(self.root)

    def where(self, name: str) -> str:
        """Return the path or address of a file of the run, for people."""
        return self.files.where(name)

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Return a file's bytes, None where there is no such file. Raises StorageError, also if it has more."""
        return self.files.read(name, max_bytes)

    def open(self, name: str) -> "str | pa.BufferReader":
        """Return what pyarrow reads a file from."""
        return self.files.open(name)

    def version(self, name: str) -> tuple[int, int] | None:
        """Return what changes when a file is replaced, None where there is none."""
        return self.files.version(name)

    def exists(self, name: str) -> bool:
        """Say whether there is a file of that name."""
        return self.files.version(name) is not None

    def publish(self, name: str, content: bytes | mmap) -> None:
        """Put a whole file in place, durably, replacing what bears its name."""
        self.files.publish(name, content)

    def publish_new(self, name: str, content: bytes) -> bool:
        """Put a whole file in place unless one bears its name already; return whether it was put there."""
        return self.files.publish_new(name, content)

    def shards(self, table: str) -> set[int]:
        """Return the numbers of the shards that have a file in `table`."""
        return {int(match[1]) for name in self.files.names(table) if (match := SHARD_FILE.fullmatch(name))}

    def clear(self) -> None:
        """Remove a run: first run.json, so that a crash in between cannot mix two runs, then all that belongs to it."""
        shards = [shard_name(table, shard) for table in reversed(TABLES) for shard in self.shards(table)]
        for name in (RUN, SUMMARY, *shards):
            self.remove(name)
        for folder, suffixes in {"quarantine": ("",), **DERIVED}.items():
            for name in self.files.names(folder):
                if name.endswith(suffixes):
                    self.remove(f"{folder}/{name}")
        self.remove_plan_from(0)

    def remove_plan_from(self, part: int) -> None:
        """Remove the parts of a plan from number `part` on."""
        while self.exists(plan_name(part)):
            self.remove(plan_name(part))
            part += 1

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        self.files.remove(name)

    def sweep_scratch(self) -> None:
        """Remove what dead attempts left behind more than a day ago."""
        self.files.sweep_scratch()


def open_run_dir(text: str, options: StorageOptions = NO_OPTIONS) -> RunDir:
    """Return the run directory at a local path or at an s3:// or gs:// address."""
    if not text:
        raise UsageError("expected a path for the run directory, got an empty text")
    if is_store(text):
        return RunDir(store_address(text, "the run directory"), options)
    if "://" in text:
        raise UsageError(
            f"expected a local path, s3://... or gs://... for the run directory, got {without_credentials(text)}"
        )
    return RunDir(os.path.abspath(os.path.expanduser(text)), options)
