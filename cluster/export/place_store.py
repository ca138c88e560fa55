"""An export's place on a store, where nothing can be moved: a marker is there until the end."""

import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from cluster.export.marks import MARKER, MAX_RECORD_BYTES, RECORD, stage_name, stages_in
from cluster.export.place_folder import PARTS, said
from cluster.storage.listings import list_level, list_objects
from cluster.storage.objects import put_object, read_object, remove_object
from cluster.storage.options import StorageOptions


@dataclass(frozen=True, slots=True)
class StorePlace:
    """An address such as s3://BUCKET/KEY; the methods are those of `FolderPlace`, but for links."""

    root: str
    token: str
    options: StorageOptions = field(repr=False)

    @property
    def stage(self) -> str:
        """Where the marker is, and what goes with it."""
        return f"{self.root}/{stage_name(self.token)}"

    def found(self) -> tuple[list[str], set[str]]:
        """Return the stages that there are, and the names of all else."""
        files, folders = list_level(self.root, self.options)
        names = {*(name for name, _ in files), *folders}
        stages = stages_in(names)
        return stages, names - {*stages}

    def read(self, name: str) -> bytes | None:
        """Return the first MAX_RECORD_BYTES of an object, None where there is none."""
        return read_object(f"{self.root}/{name}", self.options, max_bytes=MAX_RECORD_BYTES)

    def is_held(self, stage: str) -> bool:
        """Say that nobody knows whether the export of a stage goes on."""
        return False

    def start(self, marker: bytes) -> None:
        """Put the marker in place."""
        put_object(f"{self.stage}/{MARKER}", marker, self.options)

    def clear(self, names: set[str]) -> set[str]:
        """Remove what earlier exports left, as its objects would stand among the new ones: nothing is in the way."""
        for name in sorted(names, key=lambda name: name != RECORD):
            self.remove(name)
        return set()

    def remove(self, name: str) -> None:
        """Remove an object, and all that are below its name."""
        path = f"{self.root}/{name}"
        for below, _ in list(list_objects(path, self.options)):
            remove_object(f"{path}/{below}", self.options)
        remove_object(path, self.options)

    def put(self, name: str, content: bytes) -> None:
        """Put an object of the export in place."""
        put_object(f"{self.root}/{name}", content, self.options)

    def put_part(self, name: str, content: bytes) -> None:
        """Put an object in place that goes with the marker."""
        put_object(f"{self.stage}/{PARTS}/{name}", content, self.options)

    def part(self, name: str) -> bytes:
        """Return such an object's content, nothing where there is none."""
        return read_object(f"{self.stage}/{PARTS}/{name}", self.options) or b""

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Write an object of the export, which is put in place where nothing was raised."""
        with said("write", tempfile.gettempdir()), tempfile.NamedTemporaryFile(prefix="camray-") as file:
            yield cast(IO[bytes], file)
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
            put_object(f"{self.root}/{name}", content, self.options)

    def made(self, entries: set[str]) -> set[str]:
        """Return which of its entries the export has made."""
        if self.root.startswith("gs://"):  # whose client would list all objects below: these may be millions
            return entries
        return self.found()[1] & entries

    def sync(self, in_the_way: set[str]) -> None:
        """Nothing to do: an object that was put is there."""

    def finish(self, made: set[str], in_the_way: set[str], record: bytes, check: Callable[[], None]) -> None:
        """Put the record in place, then remove the marker and what goes with it."""
        put_object(f"{self.root}/{RECORD}", record, self.options)
        self.remove(stage_name(self.token))

    def give_up(self) -> None:
        """Leave what was put, with the marker: the same command replaces it."""
