"""Files below a local folder or an address on a store, each of which appears whole or not at all.

A published file stays until `remove` is asked to delete it.
"""

from dataclasses import dataclass
from mmap import mmap

import pyarrow as pa

from cluster.storage.folder import Folder
from cluster.storage.objects import is_store
from cluster.storage.options import NO_OPTIONS, StorageOptions
from cluster.storage.prefix import Prefix

MAX_FILE_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Files:
    """Files by their names below `root`: an absolute path, or an address on a store that is reached with `options`.

    A local folder may be a link if it is `top`, or `root` where there is none, and no folder below that.

    Methods raise StorageError.
    """

    root: str
    options: StorageOptions = NO_OPTIONS
    top: str = ""

    @property
    def place(self) -> Folder | Prefix:
        """Where they are."""
        return Prefix(self.root, self.options) if is_store(self.root) else Folder(self.root, self.top)

    def below(self, name: str) -> "Files":
        """Return the files below a folder of these."""
        return Files(f"{self.root}/{name}", self.options, self.top or self.root)

    def where(self, name: str) -> str:
        """Return the path or address of a file, for people."""
        return self.place.where(name)

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Return a file's bytes, None where there is no such file. Raises StorageError, also if it has more."""
        return self.place.read(name, max_bytes)

    def open(self, name: str) -> "str | pa.BufferReader":
        """Return what pyarrow reads a file from."""
        return self.place.open(name)

    def version(self, name: str) -> tuple[int, int] | None:
        """Return what changes when a file is replaced, None where there is none."""
        return self.place.version(name)

    def exists(self, name: str) -> bool:
        """Say whether there is a file of that name."""
        return self.place.version(name) is not None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none where there is no such folder."""
        return self.place.names(folder)

    def folders(self) -> list[str]:
        """Return the names of the folders right below the root, none where there is no such place."""
        return self.place.folders()

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file in a folder was put there, by its name: seconds of the storage's clock since 1970."""
        return self.place.times(folder)

    def publish(self, name: str, content: bytes | mmap) -> None:
        """Put a whole file in place, durably, replacing what bears its name."""
        self.place.publish(name, content)

    def publish_new(self, name: str, content: bytes) -> bool:
        """Put a whole file in place unless one bears its name already; return whether it was put there."""
        return self.place.publish_new(name, content)

    def refuse_links(self, *folders: str) -> None:
        """Refuse folders that are links to elsewhere, before they are written to."""
        for folder in folders:
            self.place.refuse_links(folder)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        self.place.remove(name)

    def sweep_scratch(self) -> None:
        """Remove what dead attempts left behind more than a day ago."""
        self.place.sweep_scratch()
