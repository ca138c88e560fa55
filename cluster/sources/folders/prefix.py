"""A folder on an object store: the pictures below a prefix, by their suffix."""

from collections.abc import Iterator

import pyarrow as pa

from cam_ops.pictures.formats import suffix_of
from cluster.process.console import shown
from cluster.runs.names import RUN, plan_name
from cluster.sources.folders.folder import RUNS, Instead, batched
from cluster.sources.folders.names import HIDDEN_FOLDERS, expected, is_hidden_file, is_hidden_folder, is_picture
from cluster.sources.listing import Remarks, image_id_of, remark
from cluster.sources.sorting import sorted_listing
from cluster.sources.source import Source
from cluster.storage.objects import check_prefix, is_store, list_objects
from cluster.storage.options import StorageOptions

BARE = "keys without a suffix are left out, as no object is opened to see what it is; a manifest may name them"


def prefix_source(instead: Instead) -> Source:
    """Return the kind of source that any address on an object store is."""
    return Source(
        means=is_store,
        check=check_prefix,
        open=lambda address, asked: sorted_listing(
            address, _prefix_batches(address, asked.skip, asked.options, instead), asked.limit
        ),
    )


def _prefix_batches(address: str, skip: str, options: StorageOptions, instead: Instead) -> Iterator[pa.RecordBatch]:
    """Find the pictures below an address on an object store, in no order; an id is the key's rest.

    Keys below the address `skip` and in run directories are left out. Raises StorageError if it cannot be listed or
    holds no picture.
    """
    objects = list_objects(address, options)
    names = {name for name, _ in objects if name.endswith((RUN, plan_name(0)))}
    runs = tuple(sorted({at for at in map(_folder_of_run, names) if {at + RUN, at + plan_name(0)} <= names}))
    remarks: Remarks = {}
    for name in runs:
        if f"{address}/{name}" != f"{skip}/":
            remark(remarks, RUNS, shown(f"{address}/{name}"))
    rows = (
        (image_id_of(name), f"{address}/{name}", size)
        for name, size in objects
        if not f"{address}/{name}".startswith(f"{skip}/")
        and not name.startswith(runs)
        and _is_picture(address, name, remarks)
    )
    kinds = f"{expected()} below {address}"
    yield from batched(rows, kinds, remarks, lambda: instead(address, [name for name, _ in objects]))


def _is_picture(address: str, key: str, remarks: Remarks) -> bool:
    """Say whether a key's name means a picture in a folder that is not hidden, and note what else it is."""
    *folders, name = key.split("/")
    where = f"{address}/{key}"
    if any(map(is_hidden_folder, folders)):
        remark(remarks, HIDDEN_FOLDERS, shown(where))
        return False
    if name and not suffix_of(name) and not is_hidden_file(name):
        remark(remarks, BARE, shown(where))
    return is_picture(name, where, remarks)


def _folder_of_run(name: str) -> str:
    """Return the part of a key before run.json or the first part of a plan, with its `/`."""
    return name.removesuffix(RUN).removesuffix(plan_name(0))
