"""Sources and the run directory, as a machine sees them."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cam_ops.errors import CamrayError, StorageError
from cluster.doctor.findings import Finding, fail, ok
from cluster.runs.directory import RunDir
from cluster.sources.several import check_sources
from cluster.storage.files import Files
from cluster.storage.folder import SCRATCH
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions

PROBES = ".camray-doctor"
CONTENT = b"camray doctor: this file may be removed\n"


def look_at_sources(addresses: Sequence[str], options: StorageOptions) -> list[Finding]:
    """Check that each source can be reached."""
    found = []
    for address in addresses:
        try:
            check_sources([address], options)
            found.append(ok("images", f"{address} can be reached"))
        except CamrayError as error:
            found.append(fail("images", str(error), "check --images, the mount or the credentials on this machine"))
    return found


@contextmanager
def marked(run_dir: RunDir) -> Iterator[str]:
    """Leave a file in the run directory that other machines must see, and remove it, and folders made for it.

    Yields its name. Raises StorageError where it cannot be written.
    """
    new = None if is_store(run_dir.root) else _first_new(Path(run_dir.root))
    files, name = run_dir.below(PROBES), uuid.uuid4().hex
    try:
        files.publish(name, CONTENT)
        yield name
    finally:
        with contextlib.suppress(StorageError):
            files.remove(name)
        if not is_store(run_dir.root):
            _remove_empty(Path(run_dir.root), new)


def look_at_out(run_dir: RunDir, mark: str) -> list[Finding]:
    """Check that the mark is seen, and that a file of our own can be written, listed, read and removed."""
    files = run_dir.below(PROBES)
    try:
        if not files.exists(mark):
            cure = "mount the same folder there under the same path, or give an s3:// or gs:// address"
            return [fail("out", f"{run_dir.root} is not the folder that the driver sees", cure)]
        _write_read_remove(files)
    except StorageError as error:
        return [fail("out", str(error), "check --out, its permissions and the credentials on this machine")]
    return [ok("out", f"{run_dir.root} can be written, listed and read")]


def _write_read_remove(files: Files) -> None:
    name = uuid.uuid4().hex
    try:
        files.publish(name, CONTENT)
        if name not in files.names(""):
            raise StorageError(f"{files.where(name)} was written and is not listed")
        if files.read(name) != CONTENT:
            raise StorageError(f"{files.where(name)} was written and reads otherwise")
    finally:
        files.remove(name)


def _first_new(folder: Path) -> Path | None:
    """Return the uppermost folder that would have to be made, None where it is there."""
    new = None
    while not folder.exists():
        new, folder = folder, folder.parent
    return new


def _remove_empty(root: Path, new: Path | None) -> None:
    """Remove the folders of probes, and upwards those that were made for them, as far as they are empty."""
    probes = root / PROBES
    for folder in (probes / SCRATCH, probes):
        with contextlib.suppress(OSError):
            folder.rmdir()
    if new is not None:
        for folder in (root, *root.parents):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            if folder == new:
                break
