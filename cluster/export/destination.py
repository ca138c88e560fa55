"""Where an export goes: a folder, or a prefix on a store, that looks whole only when it is.

In a folder all is made in `.camray-export-TOKEN`, which lies in it, and moved out of there at the end. On a store,
where nothing can be moved, a marker of that name is there until the end. In both `export.json` comes last. Who finds a
marker knows of an export that did not end, and what it was asked for. Who made it stops where another one removed it.
"""

import contextlib
import errno
import json
import mmap
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, cast

from cam_ops.errors import RefusedError, StorageError, UsageError
from cluster.process.console import say
from cluster.runs.directory import open_run_dir
from cluster.storage.objects import is_store, list_level, list_objects, put_object, read_object, remove_object
from cluster.storage.options import StorageOptions

STAGE = ".camray-export-"
MARKER, TMP, PARTS, OUT = "marker.json", "tmp", "parts", "out"
RECORD = "export.json"
MAX_RECORD_BYTES = 2**20
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
        left = {name: self._document(f"{name}/{MARKER}") for name in stages}
        other = next((name for name, marker in left.items() if marker and marker.get("asked") != asked), None)
        if other and not overwrite:
            raise RefusedError(
                f"in {self.root} another export did not end ({other}/{MARKER} says which); type that command again, "
                "give another --out, or --overwrite"
            )
        ours = {name for marker in left.values() for name in _entries_of(marker)}
        if RECORD in others:
            if not overwrite:
                raise RefusedError(f"{self.root} holds an export; give another --out, or --overwrite to replace it")
            ours |= {RECORD, *_entries_of(self._document(RECORD))}
        strange = sorted(others - ours - OF_SYSTEMS)
        if strange and not overwrite:
            raise RefusedError(
                f"{self.root} is not empty, it holds {strange[0]}; give another --out, or --overwrite to write beside "
                "what is there"
            )
        if clash := sorted({*strange} & {*entries, RECORD}):
            raise RefusedError(
                f"{self.root} holds {clash[0]}, which no export made; move it away, or give another --out"
            )
        if stages:
            say(f"{self.root} holds an export that did not end, it is made anew")
        with self._said("write", self.root):
            if not self.is_store:
                for folder in (TMP, PARTS, OUT):
                    os.makedirs(f"{self.stage}/{folder}")
            self._write(f"{self.stage}/{MARKER}", json.dumps({"asked": asked, "entries": entries}, indent=1).encode())
            for name in stages:
                self._remove(name)
        in_the_way = ours & others
        if self.is_store:
            for name in sorted(in_the_way, key=lambda name: name != RECORD):
                self._remove(name)
            return set()
        return in_the_way

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
        target = f"{self.stage}/{OUT}/{name}"
        with self._said("link", self.root):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            real = os.path.realpath(path)  # a link to a relative link would lead nowhere
            for make in (os.link, os.symlink):
                try:
                    make(real, target)
                except FileExistsError:  # of an attempt before this one
                    return
                except OSError:
                    if make is os.symlink:
                        raise
                else:
                    return

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file of the export, which is put in place where nothing was raised."""
        if self.is_store:
            with NamedTemporaryFile(prefix="camray-") as file:
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

    def finish(self, record: dict[str, Any], in_the_way: set[str]) -> None:
        """Give the export its names; `in_the_way` goes."""
        self.check()
        content = json.dumps(record, indent=1).encode()
        with self._said("write", self.root):
            if self.is_store:
                self._write(f"{self.root}/{RECORD}", content)
                self._remove(f"{STAGE}{self.token}")
                return
            os.sync()  # the files, once, instead of each
            for name in sorted(in_the_way, key=lambda name: name != RECORD):
                self._remove(name)
            for name in sorted(os.listdir(f"{self.stage}/{OUT}")):
                os.rename(f"{self.stage}/{OUT}/{name}", f"{self.root}/{name}")
            self._write(f"{self.root}/{RECORD}", content)
            os.unlink(f"{self.stage}/{MARKER}")
            shutil.rmtree(self.stage)

    def give_up(self) -> None:
        """Remove what was made, where that is possible: an export that fails leaves nothing."""
        with contextlib.suppress(StorageError, OSError):
            if not self.is_store:
                self._remove(f"{STAGE}{self.token}")

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
        stages = sorted(name for name in names if name.startswith(STAGE))
        return stages, names - {*stages}

    def _document(self, name: str) -> dict[str, Any] | None:
        """Return a small JSON document; None where it is none, or not there."""
        path = f"{self.root}/{name}"
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
        with self._said("write", self.root):
            scratch = self._scratch()
            try:
                with open(scratch, "xb") as file:
                    file.write(content)
                self._move(scratch, f"{self.stage}/{name}")
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
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(scratch, target)

    def _write(self, path: str, content: bytes) -> None:
        if self.is_store:
            put_object(path, content, self.options)
        else:
            with open(f"{path}.tmp", "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.tmp", path)

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


def _entries_of(document: dict[str, Any] | None) -> set[str]:
    """Return the names that a marker or a record says an export made; a document from elsewhere may say anything."""
    entries = (document or {}).get("entries")
    names = entries if isinstance(entries, list) else []
    return {
        name for name in names if isinstance(name, str) and name.strip(".") and "/" not in name and "\0" not in name
    }
