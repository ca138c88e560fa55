"""Files below a prefix on an object store, each of which appears whole or not at all: one upload of finished bytes."""

from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap

import pyarrow as pa

from cam_ops.errors import BadImage, StorageError
from cluster.storage.listings import list_level, list_objects, object_times
from cluster.storage.objects import object_version, put_object, read_object, remove_object
from cluster.storage.options import StorageOptions

MAX_KEPT_BYTES = 2 * 2**30  # of a part of a plan


@dataclass(frozen=True, slots=True)
class Prefix:
    """An address such as s3://BUCKET/KEY, below which there are files; the methods are those of `Folder`."""

    root: str
    options: StorageOptions

    def where(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.root}/{name}"

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes, None where there is no such file. Raises StorageError, also if it has more."""
        try:
            content = read_object(self.where(name), self.options, max_bytes=max_bytes + 1)
        except BadImage as bad:
            raise StorageError(f"cannot read {self.where(name)}: {bad}") from None
        if content is not None and len(content) > max_bytes:
            raise StorageError(f"expected {self.where(name)} to have at most {max_bytes} bytes, it has more")
        return content

    def open(self, name: str) -> pa.BufferReader:
        """Return what pyarrow reads a file from: the file in memory, the last two are kept."""
        return pa.BufferReader(_kept(self, name, self.version(name)))

    def version(self, name: str) -> tuple[int, int] | None:
        """Return what changes when a file is replaced, None where there is none."""
        return object_version(self.where(name), self.options)

    def refuse_links(self, folder: str) -> None:
        """Do nothing: a store has no links."""

    def publish(self, name: str, content: bytes | mmap) -> None:
        """Put a whole file in place, replacing what bears its name. Raises StorageError."""
        put_object(self.where(name), content, self.options)

    def publish_new(self, name: str, content: bytes) -> bool:
        """Put a whole file in place unless one bears its name already; return whether it was put there.

        Looks, then puts: pyarrow 26 has no conditional put, so of two that look at the same moment the later one stays.
        """
        if self.version(name) is not None:
            return False
        self.publish(name, content)
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none where there is no such folder."""
        return [name for name, _ in list_objects(self.where(folder), self.options, recursive=False)]

    def folders(self) -> list[str]:
        """Return the names of the folders right below the address."""
        return list_level(self.root, self.options)[1]

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file in a folder was put there, by its name, from one listing."""
        return object_times(self.where(folder), self.options)

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises StorageError."""
        remove_object(self.where(name), self.options)

    def sweep_scratch(self) -> None:
        """Nothing to sweep: an upload that did not end is not there."""


@lru_cache(maxsize=2)
def _kept(prefix: Prefix, name: str, version: tuple[int, int] | None) -> bytes:
    content = prefix.read(name, MAX_KEPT_BYTES)
    if content is None:
        raise StorageError(f"{prefix.where(name)} is missing; see `verify`")
    return content
