"""A folder on an object store: the pictures below a prefix, by their suffix."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from cam_ops.pictures.formats import suffix_of
from cluster.process.console import shown
from cluster.runs.names import RUN, plan_name
from cluster.sources.folders.folder import RUNS, Instead, batched
from cluster.sources.folders.names import HIDDEN_FOLDERS, expected, is_hidden_file, is_hidden_folder, is_picture
from cluster.sources.listing import Remarks, image_id_of, remark
from cluster.sources.sorting import sorted_listing
from cluster.sources.source import Asked, Source
from cluster.storage.listings import Part, walk_objects
from cluster.storage.objects import check_prefix, is_store, object_version

PLAN = plan_name(0)
BARE = "keys without a suffix are left out, as no object is opened to see what it is; a manifest may name them"
MAX_OTHERS = 1000


def prefix_source(instead: Instead) -> Source:
    """Return the kind of source that any address on an object store is."""
    return Source(
        means=is_store,
        check=check_prefix,
        open=lambda address, asked: sorted_listing(address, _prefix_batches(address, asked, instead), asked.limit),
    )


def _prefix_batches(address: str, asked: Asked, instead: Instead) -> Iterator[pa.RecordBatch]:
    """Find the pictures below an address on an object store, in no order; an id is the key's rest.

    Keys below the address `asked.skip`, in run directories and in hidden folders are left out. Raises StorageError if
    it cannot be listed or holds no picture.
    """
    search = _Search(address, asked)
    rows = (row for part in walk_objects(address, asked.options, search.enter) for row in search.rows(part))
    kinds = f"{expected()} below {address}"
    yield from batched(rows, kinds, search.remarks, lambda: instead(address, list(search.others.values())))


class _Search:
    """Tells pictures from other keys, and notes these."""

    def __init__(self, address: str, asked: Asked) -> None:
        self.address, self.asked = address, asked
        self.remarks: Remarks = {}
        self.others: dict[str, str] = {}  # a key for each suffix that is none of a picture
        self.hidden: set[str] = set()  # folders, with `/`
        self.runs: set[str] = set()  # the same
        self.has_run: dict[str, bool] = {}  # what the store said of folders, with `/`

    def enter(self, part: Part) -> Sequence[str]:
        """Return the folders in a folder that are searched."""
        folders = [name for name in part.folders or () if not self._is_hidden(part.folder, name)]
        folders = [name for name in folders if f"{self.address}/{part.folder}{name}" != self.asked.skip]
        return [] if self._is_run(part) else folders

    def rows(self, part: Part) -> Iterator[tuple[str, str, int]]:
        """Yield id, address and size of each picture of a part."""
        runs = self._runs(part)
        for name, size in zip(part.files["name"].to_pylist(), part.files["size"].to_pylist(), strict=True):
            where = f"{self.address}/{name}"
            if not where.startswith(f"{self.asked.skip}/") and not name.startswith(runs) and self._is_picture(name):
                yield image_id_of(name), where, size

    def _runs(self, part: Part) -> tuple[str, ...]:
        """Return the run directories in a part, with `/`, and note them."""
        if part.folders is not None:
            runs = [part.folder] if self._is_run(part) else []
        else:
            ends = (RUN, PLAN)
            found = {name for name in part.files["name"].to_pylist() if name.endswith(ends)}
            places = {name.removesuffix(RUN).removesuffix(PLAN) for name in found}
            cut = {at for at in part.cut if self._has_run(at)}
            runs = sorted(cut | {at for at in places if {at + RUN, at + PLAN} <= found})
        for at in set(runs) - self.runs:
            self.runs.add(at)
            if f"{self.address}/{at}" != f"{self.asked.skip}/":
                remark(self.remarks, RUNS, shown(f"{self.address}/{at}"))
        return tuple(runs)

    def _is_run(self, part: Part) -> bool:
        """Say whether what lies right in a folder is a run."""
        if "plan" not in (part.folders or ()):
            return False
        may_be = part.cut or f"{part.folder}{RUN}" in part.files["name"].to_pylist()
        return bool(may_be) and self._has_run(part.folder)

    def _has_run(self, folder: str) -> bool:
        """Ask the store whether a folder is a run."""
        if folder not in self.has_run:
            places = (f"{self.address}/{folder}{name}" for name in (RUN, PLAN))
            self.has_run[folder] = all(object_version(place, self.asked.options) is not None for place in places)
        return self.has_run[folder]

    def _is_picture(self, key: str) -> bool:
        """Say whether a key's name means a picture in a folder that is not hidden, and note what else it is."""
        *folders, name = key.split("/")
        at = ""
        for folder in folders:
            if self._is_hidden(at, folder):
                return False
            at += f"{folder}/"
        where = f"{self.address}/{key}"
        suffix = suffix_of(name)
        if name and not suffix and not is_hidden_file(name):
            remark(self.remarks, BARE, shown(where))
        found = is_picture(name, where, self.remarks)
        if not found and len(self.others) < MAX_OTHERS:
            self.others.setdefault(suffix, key)
        return found

    def _is_hidden(self, above: str, folder: str) -> bool:
        """Say whether a folder is hidden; each is noted once."""
        if not is_hidden_folder(folder):
            return False
        if f"{above}{folder}/" not in self.hidden:
            self.hidden.add(f"{above}{folder}/")
            remark(self.remarks, HIDDEN_FOLDERS, shown(f"{self.address}/{above}{folder}"))
        return True
