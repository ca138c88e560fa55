"""Where an export goes: a folder, or a prefix on a store, that looks whole only when it is.

While an export goes on its place has a stage, `.camray-export-TOKEN`, with a marker; at the end comes `export.json`.
Who finds a marker knows of an export that did not end, what it was asked for, and what in the place is an export's. Who
made it stops where another one removed it.
"""

import os
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO

from cam_ops.errors import RefusedError, StorageError
from cluster.export.marks import (
    MARKER,
    RECORD,
    Document,
    described,
    document_of,
    entries_of,
    is_empty,
    is_record,
    stage_name,
)
from cluster.export.place_folder import FolderPlace
from cluster.export.place_store import StorePlace
from cluster.process.console import say, shown
from cluster.process.failpoints import reach
from cluster.runs.directory import open_run_dir
from cluster.storage.documents import document_bytes
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions

OF_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints"}


def destination_at(text: str, options: StorageOptions) -> "Destination":
    """Return the destination at a path or address, for one export. Raises UsageError."""
    return Destination(root=open_run_dir(text, options).root, options=options, token=uuid.uuid4().hex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A folder or prefix, for one export; can be pickled. Methods raise StorageError."""

    root: str
    options: StorageOptions = field(repr=False)
    token: str

    @property
    def is_store(self) -> bool:
        """Whether it is on a store, where there are no links."""
        return is_store(self.root)

    @property
    def place(self) -> FolderPlace | StorePlace:
        """What it is."""
        return StorePlace(self.root, self.token, self.options) if self.is_store else FolderPlace(self.root, self.token)

    def finished(self, asked: Document) -> Document | None:
        """Return the record of an export that is here, whole, and is the one asked for; None where there is none."""
        stages, others = self.place.found()
        record = self._document(RECORD) if RECORD in others and not stages else None
        return record if record is not None and is_record(record) and record["asked"] == asked else None

    def begin(self, asked: Document, entries: tuple[str, ...], *, overwrite: bool) -> set[str]:
        """Put the marker in place; return the names of what earlier exports left, which are in the way of this one.

        `asked` says what the export is, `entries` what it may make. Raises RefusedError where the place is not free.
        """
        place = self.place
        stages, others = place.found()
        if any(map(place.is_held, stages)):
            raise RefusedError(f"another export writes to {self.root} now; let it end, or give another --out")
        in_the_way = self._ours(asked, stages, others, overwrite=overwrite) & others
        self._refuse_strange(others - in_the_way, {*entries, RECORD}, overwrite=overwrite)
        if stages:
            say(f"{self.root} holds an export that did not end, it is made anew")
        reach("begin")
        marker = {"asked": asked, "entries": sorted({*entries, *in_the_way})}
        place.start(document_bytes(marker, MARKER))
        if place.found() != (sorted([*stages, stage_name(self.token)]), others):
            place.remove(stage_name(self.token))
            raise RefusedError(
                f"{self.root} changed while this export began: another one writes there; let it end, or give "
                "another --out"
            )
        for name in stages:
            place.remove(f"{name}/{MARKER}")  # first: who finds its own has still all of its files
            place.remove(name)
        return place.clear(in_the_way)

    def _ours(self, asked: Document, stages: list[str], others: set[str], *, overwrite: bool) -> set[str]:
        """Return what earlier exports may have made. Raises RefusedError where it is of another one, and is to stay."""
        markers = {name: self._document(f"{name}/{MARKER}") for name in stages}
        other = next((name for name, marker in markers.items() if marker and marker.get("asked") != asked), None)
        if other and not overwrite:
            raise RefusedError(
                f"in {self.root} another export did not end ({other}/{MARKER} says which); type that command again, "
                "give another --out, or --overwrite"
            )
        ours = {name for marker in markers.values() for name in entries_of(marker)}
        if RECORD in others and is_record(record := self._document(RECORD)):
            if not overwrite and not is_empty(record):
                raise RefusedError(
                    f"{self.root} holds an export, {described(record)}; give another --out, or --overwrite to "
                    "replace it"
                )
            ours |= {RECORD, *entries_of(record)}
        return ours

    def _refuse_strange(self, names: set[str], made: set[str], *, overwrite: bool) -> None:
        """Raise RefusedError where there is what no export made."""
        strange = sorted(names - OF_SYSTEMS)
        if strange and not overwrite:
            raise RefusedError(
                f"{self.root} is not empty, it holds {shown(strange[0])}; give another --out, or --overwrite to write "
                "beside what is there"
            )
        if clash := sorted({*strange} & made):
            raise RefusedError(
                f"{self.root} holds {clash[0]}, which no export made; move it away, or give another --out"
            )

    def check(self) -> None:
        """Raise StorageError where this machine does not see the marker: another export has removed it."""
        if self._document(f"{stage_name(self.token)}/{MARKER}") is None:
            raise StorageError(
                f"{self.root} is not the export's any more: another one replaced it, or the node "
                f"{os.uname().nodename} does not see it; a local --out must be shared by all nodes"
            )

    def put(self, name: str, content: bytes) -> None:
        """Put a file of the export in place."""
        try:
            self.place.put(name, content)
        except StorageError:
            self.check()
            raise

    def link(self, name: str, path: str) -> None:
        """Put a link to a local file in place, hard if the file systems allow it, else symbolic; not on a store."""
        place = self.place
        assert isinstance(place, FolderPlace)
        try:
            place.link(name, path)
        except StorageError:
            self.check()
            raise

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file of the export, which is put in place where nothing was raised."""
        return self.place.open(name)

    def put_part(self, name: str, content: bytes) -> None:
        """Put a file in place that goes with the marker."""
        self.place.put_part(name, content)

    def part(self, name: str) -> bytes:
        """Return such a file's content, nothing where there is none."""
        return self.place.part(name)

    def prepare(self, in_the_way: set[str]) -> None:
        """Have all on disk. Raises StorageError where `finish` would replace more than what is `in_the_way`."""
        self.check()
        self.place.sync(in_the_way)
        self.check()

    def finish(self, record: Document, in_the_way: set[str]) -> Document:
        """Give the export its names, and return the record as written; `in_the_way` goes.

        Fails it in the middle, it leaves the marker.
        """
        made = self.place.made({*record["entries"]})
        entries = [name for name in record["entries"] if name in made]
        record = {**record, "entries": entries}
        self.place.finish(made, in_the_way, document_bytes(record, RECORD), self.check)
        return record

    def give_up(self) -> None:
        """Remove what was made, where that is possible: an export that fails leaves nothing."""
        self.place.give_up()

    def _document(self, name: str) -> Document | None:
        """Return a small JSON document; None where it is none, or not there."""
        return document_of(self.place.read(name))
