"""Sources and the run directory, as a machine sees them."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from cam_ops.errors import BadImage, CamrayError, StorageError
from cluster.doctor.findings import Finding, fail, failed, ok, warn
from cluster.runs.directory import RunDir
from cluster.sources.folders.names import is_named_as_picture
from cluster.sources.folders.patterns import fixed_part
from cluster.sources.reading import read_image
from cluster.sources.several import check_sources
from cluster.storage.folder import SCRATCH
from cluster.storage.listings import walk_objects
from cluster.storage.objects import is_object, is_store, object_version
from cluster.storage.options import StorageOptions

PROBES = ".camray-doctor"
LEFT_S = 3600.0  # age of a probe whose doctor was killed
MOST_LOOKED_AT = 10_000  # files and folders, for one that is named as a picture
START_BYTES = 1024
CONTENT = b"camray doctor: this file may be removed\n"


def first_files(addresses: Sequence[str], options: StorageOptions) -> dict[str, str]:
    """Return a file of each source that nodes are to read, none of those where there is none, or that have no list."""
    found = {}
    for address in addresses:
        with contextlib.suppress(CamrayError, OSError):
            if first := _first_file(address, options):
                found[address] = first
    return found


def _first_file(address: str, options: StorageOptions) -> str | None:
    place = fixed_part(address) or "/"
    if is_store(place):
        if is_object(place) and object_version(place, options):
            return place
        parts = walk_objects(place, options, lambda part: (part.folders or ())[:1])
        names = (name for part in parts for name in part.files["name"].to_pylist())
        first = next((name for name in names if is_named_as_picture(name)), None)
        return first and f"{place}/{first}"
    if os.path.isfile(place):
        return os.path.abspath(place)
    looked_at = islice(_entries(place), MOST_LOOKED_AT)
    return next((entry.path for entry in looked_at if is_named_as_picture(entry.name) and not entry.is_dir()), None)


def _entries(place: str) -> Iterator["os.DirEntry[str]"]:
    """Yield what is below a folder, one at a time: one of them may hold millions."""
    folders = [place]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                yield entry


def look_at_sources(addresses: Sequence[str], firsts: Mapping[str, str], options: StorageOptions) -> list[Finding]:
    """Check that each source can be reached, and the file of it in `firsts` be read."""
    found = []
    for address in addresses:
        first = firsts.get(address)
        try:
            check_sources([address], options)
            if first is not None:
                read_image(first, 0, START_BYTES, options)
            if first is None and _is_folder_here(address):
                says = f"{address} can be reached; no picture was found in its first {MOST_LOOKED_AT} files"
                found.append(warn("images", says, "check --images; of tar files or tables name the files: 'DIR/*.tar'"))
                continue
            read = "" if first is None else f", {first} read"
            found.append(ok("images", f"{address} can be reached{read}"))
        except BadImage as bad:
            cure = "check its permissions: it is listed and cannot be read"
            found.append(fail("images", f"{first} is {bad.status}: {bad}", cure))
        except CamrayError as error:
            found.append(failed("images", error, "check --images, the mount or the credentials on this machine"))
    return found


def _is_folder_here(address: str) -> bool:
    return not is_store(address) and os.path.isdir(address)


@contextmanager
def marked(run_dir: RunDir) -> Iterator[str]:
    """Leave a file in the run directory that other machines must see; remove it, what they left, and new folders.

    Yields its name. Raises StorageError where it cannot be written.
    """
    new = [] if is_store(run_dir.root) else _new_folders(Path(run_dir.root))
    mark = uuid.uuid4().hex
    try:
        run_dir.publish(f"{PROBES}/{mark}", CONTENT)
        yield f"{PROBES}/{mark}"
    finally:
        with contextlib.suppress(StorageError):
            _remove_probes(run_dir, mark)
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _remove_probes(run_dir: RunDir, mark: str) -> None:
    """Remove the mark, the probes beside it of machines that were cut off, and those of doctors that were."""
    old_s = time.time() - LEFT_S
    for name, time_s in run_dir.times(PROBES).items():
        if name.startswith(mark) or time_s < old_s:
            run_dir.remove(f"{PROBES}/{name}")


def look_at_out(run_dir: RunDir, mark: str) -> list[Finding]:
    """Check that the mark is seen, and that a file of our own can be written, listed, read and removed."""
    try:
        if not run_dir.exists(mark):
            cure = "mount the same folder there under the same path, or give an s3:// or gs:// address"
            return [fail("out", f"{run_dir.root} is not the folder that the driver sees", cure)]
        _write_read_remove(run_dir, mark)
    except StorageError as error:
        return [failed("out", error, "check --out, its permissions and the credentials on this machine")]
    return [ok("out", f"{run_dir.root} can be written, listed and read")]


def _write_read_remove(run_dir: RunDir, mark: str) -> None:
    name = f"{mark}-{uuid.uuid4().hex}"
    try:
        run_dir.publish(name, CONTENT)
        if name.removeprefix(f"{PROBES}/") not in run_dir.names(PROBES):
            raise StorageError(f"{run_dir.where(name)} was written and is not listed")
        if run_dir.read(name) != CONTENT:
            raise StorageError(f"{run_dir.where(name)} was written and reads otherwise")
    finally:
        run_dir.remove(name)


def _new_folders(root: Path) -> list[Path]:
    """Return the folders that probes in `root` will have made, the innermost first."""
    return [folder for folder in (root / PROBES, root / SCRATCH, root, *root.parents) if not folder.exists()]
