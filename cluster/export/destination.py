"""Where an export goes: a folder, or a prefix on a store, that looks whole only when it is.

In a folder all is made in `.camray-export-TOKEN`, which lies in it, and moved out of there at the end. On a store,
where nothing can be moved, a marker of that name is there until the end. In both `export.json` comes last. Who finds a
marker knows of an export that did not end, what it was asked for, and what in the place is an export's. Who made it
stops where another one removed it.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from cam_ops.errors import RefusedError, StorageError, UsageError
from cluster.export.kinds import EXPORTS
from cluster.process.console import say, shown
from cluster.process.failpoints import reach
from cluster.runs.directory import open_run_dir
from cluster.storage.objects import is_store, list_level, list_objects, put_object, read_object, remove_object
from cluster.storage.options import StorageOptions

STAGE = ".camray-export-"
STAGES = re.compile(re.escape(STAGE) + "[0-9a-f]{32}")
MARKER, LOCK, TMP, PARTS, OUT, OLD = "marker.json", "lock", "tmp", "parts", "out", "old"
RECORD = "export.json"
ENTRIES = {RECORD, *(name for form in EXPORTS.values() for name in (*form.entries, form.folder))}
"""All that exports ever make: a record from elsewhere cannot give away anything else."""
MAX_RECORD_BYTES = 2**20
HELD: dict[str, int] = {}
"""Descriptors of the locks of this process, by token."""
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
        """Whether it is on a store."""
        return is_store(self.root)

    @property
    def stage(self) -> str:
        """Where the marker is."""
        return f"{self.root}/{STAGE}{self.token}"

    def begin(self, asked: dict[str, Any], entries: tuple[str, ...], *, overwrite: bool) -> set[str]:
        """Put the marker in place; return the names of what earlier exports left, which are in the way of this one.

        `asked` says what the export is, `entries` what it may make. Raises RefusedError where the place is not free.
        """
        stages, others = self._found()
        if any(map(self._is_held, stages)):
            raise RefusedError(f"another export writes to {self.root} now; let it end, or give another --out")
        left = {name: self._document(f"{name}/{MARKER}") for name in stages}
        other = next((name for name, marker in left.items() if marker and marker.get("asked") != asked), None)
        if other and not overwrite:
            raise RefusedError(
                f"in {self.root} another export did not end ({other}/{MARKER} says which); type that command again, "
                "give another --out, or --overwrite"
            )
        ours = {name for marker in left.values() for name in _entries_of(marker)}
        if RECORD in others and _is_record(record := self._document(RECORD)):
            if not overwrite and not _is_empty(record):
                raise RefusedError(
                    f"{self.root} holds an export, {_described(record)}; give another --out, or --overwrite to "
                    "replace it"
                )
            ours |= {RECORD, *_entries_of(record)}
        strange = sorted(others - ours - OF_SYSTEMS)
        if strange and not overwrite:
            raise RefusedError(
                f"{self.root} is not empty, it holds {shown(strange[0])}; give another --out, or --overwrite to write "
                "beside what is there"
            )
        if clash := sorted({*strange} & {*entries, RECORD}):
            raise RefusedError(
                f"{self.root} holds {clash[0]}, which no export made; move it away, or give another --out"
            )
        if stages:
            say(f"{self.root} holds an export that did not end, it is made anew")
        reach("begin")
        in_the_way = ours & others
        marker = {"asked": asked, "entries": sorted({*entries, *in_the_way})}
        with self._said("write", self.root):
            if not self.is_store:
                for folder in (TMP, PARTS, OUT, OLD):
                    os.makedirs(f"{self.stage}/{folder}")
                self._hold()
            self._write(f"{self.stage}/{MARKER}", json.dumps(marker, indent=1).encode())
            if self._found() != (sorted([*stages, f"{STAGE}{self.token}"]), others):
                self._remove(f"{STAGE}{self.token}")
                raise RefusedError(
                    f"{self.root} changed while this export began: another one writes there; let it end, or give "
                    "another --out"
                )
            for name in stages:
                self._remove(f"{name}/{MARKER}")  # first: who finds its own has still all of its files
                self._remove(name)
        if self.is_store:
            for name in sorted(in_the_way, key=lambda name: name != RECORD):
                self._remove(name)
            return set()
        return in_the_way

    def finished(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Return the record of an export that is here, whole, and is the one asked for; None where there is none."""
        stages, others = self._found()
        record = self._document(RECORD) if RECORD in others and not stages else None
        return record if record is not None and _is_record(record) and record["asked"] == asked else None

    def _hold(self) -> None:
        """Lock the stage while this process lives, where the file system has locks."""
        descriptor = HELD[self.token] = os.open(f"{self.stage}/{LOCK}", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_held(self, stage: str) -> bool:
        """Say whether the export of a stage goes on; of one on a store nobody knows."""
        if self.is_store:
            return False
        try:
            with open(f"{self.root}/{stage}/{LOCK}", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is none, or no locks here
            return False
        return False

    def _let_go(self) -> None:
        if self.token in HELD:
            os.close(HELD.pop(self.token))

    def check(self) -> None:
        """Raise StorageError where this machine does not see the marker: another export has removed it."""
        if self._document(f"{STAGE}{self.token}/{MARKER}") is None:
            raise StorageError(
                f"{self.root} is not the export's any more: another one replaced it, or the node "
                f"{os.uname().nodename} does not see it; a local --out must be shared by all nodes"
            )

    def put(self, name: str, content: bytes) -> None:
        """Put a file of the export in place."""
        self._put(f"{OUT}/{name}", name, content)

    def put_part(self, name: str, content: bytes) -> None:
        """Put a file in place that goes with the marker."""
        self._put(f"{PARTS}/{name}", f"{STAGE}{self.token}/{PARTS}/{name}", content)

    def part(self, name: str) -> bytes:
        """Return such a file's content, nothing where there is none."""
        path = f"{self.stage}/{PARTS}/{name}"
        if self.is_store:
            return read_object(path, self.options) or b""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from None

    def link(self, name: str, path: str) -> None:
        """Put a link to a local file in place, hard if the file systems allow it, else symbolic; not on a store."""
        assert not self.is_store
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
        if self.is_store:
            with self._said("write", tempfile.gettempdir()), tempfile.NamedTemporaryFile(prefix="camray-") as file:
                yield cast(IO[bytes], file)
                file.flush()
                empty = not file.tell()
                content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                put_object(f"{self.root}/{name}", content, self.options)
            return
        scratch = self._scratch()
        with self._said("write", self.root):
            try:
                with open(scratch, "xb") as file:
                    yield file
                self._move(scratch, f"{self.stage}/{OUT}/{name}")
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(scratch)

    def prepare(self, in_the_way: set[str]) -> None:
        """Have all on disk. Raises StorageError where `finish` would replace more than what is `in_the_way`."""
        self.check()
        if self.is_store:
            return
        os.sync()  # the files, once, instead of each
        self.check()
        names = {*os.listdir(f"{self.stage}/{OUT}"), RECORD} - in_the_way
        if new := sorted(name for name in names if os.path.lexists(f"{self.root}/{name}")):
            raise StorageError(
                f"{self.root} holds {new[0]}, which was not there when this export began; move it away, or give "
                "another --out"
            )

    def finish(self, record: dict[str, Any], in_the_way: set[str]) -> None:
        """Give the export its names; `in_the_way` goes. Fails in the middle, it leaves the marker."""
        with self._said("write", self.root):
            made = self._made({*record["entries"]})
            entries = [name for name in record["entries"] if name in made]
            content = json.dumps({**record, "entries": entries}, indent=1).encode()
            if self.is_store:
                self._write(f"{self.root}/{RECORD}", content)
                self._remove(f"{STAGE}{self.token}")
                return
            for name in sorted(in_the_way, key=lambda name: (name != RECORD, name)):
                os.rename(f"{self.root}/{name}", f"{self.stage}/{OLD}/{name}")
                reach(f"taken-{name}")
            for name in sorted(made, reverse=True):  # labels before pictures
                os.rename(f"{self.stage}/{OUT}/{name}", f"{self.root}/{name}")
                reach(f"moved-{name}")
            self.check()
            self._write(f"{self.root}/{RECORD}", content)
            os.unlink(f"{self.stage}/{MARKER}")
            shutil.rmtree(self.stage)
            self._let_go()

    def _made(self, entries: set[str]) -> set[str]:
        """Return which of its entries the export has made."""
        if self.root.startswith("gs://"):  # whose client would list all objects below: these may be millions
            return entries
        return self._found()[1] & entries if self.is_store else {*os.listdir(f"{self.stage}/{OUT}")}

    def give_up(self) -> None:
        """Remove what was made, where that is possible: an export that fails leaves nothing."""
        with contextlib.suppress(StorageError, OSError):
            if not self.is_store:
                self._remove(f"{STAGE}{self.token}")
        self._let_go()

    def _found(self) -> tuple[list[str], set[str]]:
        """Return the markers that there are, and the names of all else."""
        if self.is_store:
            files, folders = list_level(self.root, self.options)
            names = {*(name for name, _ in files), *folders}
        else:
            try:
                names = {*os.listdir(self.root)}
            except FileNotFoundError:
                names = set()
            except NotADirectoryError:
                raise UsageError(f"--out expects a folder, {self.root} is none") from None
            except OSError as error:
                raise StorageError(f"cannot list {self.root}: {error.strerror}; check --out") from None
        stages = [name for name in sorted(names) if STAGES.fullmatch(name)]
        if not self.is_store:  # a link leads to what is somebody else's
            stages = [name for name in stages if not os.path.islink(f"{self.root}/{name}")]
        return stages, names - {*stages}

    def _document(self, name: str) -> dict[str, Any] | None:
        """Return a small JSON document; None where it is none, or not there."""
        path = f"{self.root}/{name}"
        if not self.is_store and not os.path.isfile(path):
            return None
        try:
            if self.is_store:
                content = read_object(path, self.options, max_bytes=MAX_RECORD_BYTES)
            else:
                with open(path, "rb") as file:
                    content = file.read(MAX_RECORD_BYTES)
            document = json.loads(content or b"")
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; check --out") from None
        return document if isinstance(document, dict) else None

    def _put(self, name: str, on_store: str, content: bytes) -> None:
        if self.is_store:
            put_object(f"{self.root}/{on_store}", content, self.options)
            return

        def make(scratch: str) -> None:
            with open(scratch, "xb") as file:
                file.write(content)

        self._place(name, make)

    def _place(self, name: str, make: Callable[[str], None]) -> None:
        """Make a file below the stage, which appears whole."""
        scratch = self._scratch()
        with self._said("write", self.root):
            try:
                make(scratch)
                self._move(scratch, f"{self.stage}/{name}")
            except FileNotFoundError:
                self.check()
                raise
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(scratch)

    def _scratch(self) -> str:
        """Return a new name in a folder that only `begin` makes: with the stage gone, nothing can be written."""
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
        if self.is_store:
            put_object(path, content, self.options)
        else:
            scratch = self._scratch()
            with open(scratch, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)

    def _remove(self, name: str) -> None:
        """Remove a file or a folder of this place, with all that is in it."""
        path = f"{self.root}/{name}"
        if self.is_store:
            for below, _ in list_objects(path, self.options):
                remove_object(f"{path}/{below}", self.options)
            remove_object(path, self.options)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    @contextmanager
    def _said(self, what: str, where: str) -> Iterator[None]:
        """Turn an OSError into a StorageError."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = "free some space" if full else "check --out and its permissions"
            raise StorageError(f"cannot {what} in {where}: {error.strerror or error}; {cure}") from None


def _is_record(document: dict[str, Any] | None) -> bool:
    """Say whether an export.json is one of ours: other tools have such, too."""
    return document is not None and document.get("command") == "export" and isinstance(document.get("asked"), dict)


def _is_empty(record: dict[str, Any] | None) -> bool:
    """Say whether an export has no image: who mends its filters need not say that it may go."""
    counts = (record or {}).get("counts")
    return isinstance(counts, dict) and counts.get("images") == 0


def _described(record: dict[str, Any] | None) -> str:
    """Say what a record is of, for people."""
    asked = (record or {}).get("asked", {})
    return f"--to {shown(str(asked.get('to')))} of {shown(str(asked.get('run')))}"


def _entries_of(document: dict[str, Any] | None) -> set[str]:
    """Return the names that a marker or a record says an export made; a document from elsewhere may say anything."""
    entries = (document or {}).get("entries")
    names = entries if isinstance(entries, list) else []
    return {name for name in names if isinstance(name, str)} & ENTRIES
