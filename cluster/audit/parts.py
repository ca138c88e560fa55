"""An audit's working folder, gone when the audit ends: its truth, and the parts of tables that replicas leave in it.

A part is what a replica makes of some shards that follow each other. The driver reads the parts in the order of the
plan.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pyarrow as pa

from cam_ops.errors import StorageError
from cluster.audit.tables import DETECTIONS_SCHEMA, PER_IMAGE_SCHEMA, TRUE_BOXES_SCHEMA
from cluster.storage.files import Files
from cluster.storage.objects import is_store
from cluster.storage.parquet import decode, encode
from cluster.truth.prepare import TRUTH_FOLDER

PARTS_FOLDER = "parts"
PartTable = Literal["per_image", "detections", "truth"]
SCHEMAS: dict[PartTable, pa.Schema] = {
    "per_image": PER_IMAGE_SCHEMA,
    "detections": DETECTIONS_SCHEMA,
    "truth": TRUE_BOXES_SCHEMA,
}


@contextmanager
def working_files(audit_files: Files) -> Iterator[Files]:
    """Give an audit a folder to itself, as two may run at once, and remove it at its end."""
    working = audit_files.below(f"audit-{uuid.uuid4().hex}")
    try:
        yield working
    finally:
        for folder in (TRUTH_FOLDER, PARTS_FOLDER):
            for name in working.names(folder):
                working.remove(f"{folder}/{name}")
        if not is_store(working.root):
            shutil.rmtree(working.root, ignore_errors=True)  # what is empty, and scratch


def publish_part(working: Files, name: PartTable, part: int, tables: list[pa.Table]) -> None:
    """Put one part of a table in place: the rows of some shards, none where there is no shard."""
    rows = pa.concat_tables([SCHEMAS[name].empty_table(), *tables])
    working.publish(_file_name(name, part), encode(rows))


def read_parts(working: Files, name: PartTable, num_parts: int) -> Iterator[pa.Table]:
    """Yield the parts of a table in order. Raises StorageError where one is gone."""
    for part in range(num_parts):
        file_name = _file_name(name, part)
        content, where = working.read(file_name), working.where(file_name)
        if content is None:
            raise StorageError(f"{where} is gone; run the same command again")
        yield decode(content, where).cast(SCHEMAS[name])


def _file_name(name: PartTable, part: int) -> str:
    return f"{PARTS_FOLDER}/{name}-{part:05d}.parquet"
