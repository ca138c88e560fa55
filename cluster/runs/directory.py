"""A run directory, local or on an object store."""

import os
from dataclasses import dataclass

from cam_ops.errors import UsageError
from cam_ops.foreign import HALF, whole
from cluster.process.console import public
from cluster.runs.names import SHARD_FILE, plan_name
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
