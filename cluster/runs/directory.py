"""A run directory, local or on an object store."""

import os
from dataclasses import dataclass

from cam_ops.errors import UsageError
from cam_ops.foreign import HALF, whole
from cluster.process.console import public
from cluster.runs.names import RUN, SHARD_FILE, SUMMARY, SUSPECTS, WRITTEN, plan_name
from cluster.storage.files import Files
from cluster.storage.objects import is_store, store_address
from cluster.storage.options import NO_OPTIONS, StorageOptions


@dataclass(frozen=True, slots=True)
class RunDir(Files):
    """The files of a run. The options are for the source's pictures, too: where this goes, they go."""

    def shards(self, table: str) -> set[int]:
        """Return the numbers of the shards that have a file in `table`."""
        return {int(match[1]) for name in self.names(table) if (match := SHARD_FILE.fullmatch(name))}

    def remove_plan_from(self, part: int) -> None:
        """Remove the parts of a plan from number `part` on."""
        while self.exists(plan_name(part)):
            self.remove(plan_name(part))
            part += 1


def refuse_run_file(path: str, flag: str) -> None:
    """Raise UsageError where a file to write would replace one that `label` or `rebox` has written, of any run."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    is_of_run = name in (RUN, SUMMARY, SUSPECTS) and os.path.exists(f"{folder}/{RUN}")
    is_below = os.path.basename(folder) in WRITTEN and os.path.exists(f"{os.path.dirname(folder)}/{RUN}")
    if os.path.exists(target) and (is_of_run or is_below):
        raise UsageError(f"{flag} {path} is a file of a run, which it would replace; give another file")


def open_run_dir(text: str, options: StorageOptions = NO_OPTIONS) -> RunDir:
    """Return the run directory at a local path or at an s3:// or gs:// address."""
    if not text:
        raise UsageError("expected a path for the run directory, got an empty text")
    if is_store(text):
        return RunDir(store_address(text, "the run directory"), options)
    if "://" in text:
        raise UsageError(f"expected a local path, s3://... or gs://... for the run directory, got {public(text)}")
    root = os.path.abspath(os.path.expanduser(text))
    if HALF.search(root):  # no library reads tables there
        raise UsageError(f"expected a path in UTF-8 for the run directory, got {whole(root)}; choose another")
    return RunDir(root, options)
