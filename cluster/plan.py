"""The plan: every input image with its shard and row, written once and never changed.

Shard s holds `shard_size` consecutive rows of the sorted listing, the last shard the rest. A part file holds
`SHARDS_PER_PART` shards, one row group each, so that a worker finds its rows without reading the others.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.errors import StorageError
from cam_ops.tables import PLAN, SCHEMA_VERSION, with_metadata
from cluster.parquet import encode
from cluster.rundir import RunDir, plan_name

SHARDS_PER_PART = 1000
MAX_SHARD_SIZE = 512
SHARDS_PER_REPLICA = 4
DOCUMENT = {"schema_version": SCHEMA_VERSION, "table": "plan"}
MIN_REPLICAS = 8  # small jobs are cut as if for eight replicas, so that up to eight give the very same files


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What run.json says of the plan."""

    num_images: int
    num_shards: int
    shard_size: int
    digest: str  # sha256 over the parts' bytes


def auto_batch_size(num_images: int, largest: int) -> int:
    """Return the batch size of a job: `largest`, less for a job of a few images."""
    return max(1, min(largest, -(-num_images // MIN_REPLICAS)))


def auto_shard_size(num_images: int, num_replicas: int, batch_size: int) -> int:
    """Return 512, or less where the job is small: four shards for each replica, in whole batches."""
    num_shards = SHARDS_PER_REPLICA * max(MIN_REPLICAS, num_replicas)
    batches = -(-num_images // (num_shards * batch_size))
    return max(batch_size, min(MAX_SHARD_SIZE // batch_size, batches) * batch_size)


def write_plan(run_dir: RunDir, listing: pa.Table, labels: pa.Array, shard_size: int) -> Plan:
    """Cut a listing into shards and publish the parts of the plan.

    Their bytes depend on listing, labels and shard size alone: two drivers that plan the same images at the same moment
    replace each other's parts with equal ones, whatever else they were asked for.
    """
    position = np.arange(len(listing))
    table = pa.table(
        {
            **{name: listing[name] for name in listing.column_names},
            "shard": pa.array(position // shard_size, pa.int32()),
            "row": pa.array(position % shard_size, pa.int32()),
            "label": labels,
        }
    ).select(PLAN.names)
    table = table.cast(with_metadata(PLAN, DOCUMENT))
    per_part = SHARDS_PER_PART * shard_size
    digest = hashlib.sha256()
    starts = range(0, len(table), per_part)
    for part, start in enumerate(starts):
        content = encode(table.slice(start, per_part), row_group_size=shard_size)
        digest.update(content)
        run_dir.publish(plan_name(part), content)
    run_dir.remove_plan_from(len(starts))
    return Plan(
        num_images=len(table),
        num_shards=-(-len(table) // shard_size),
        shard_size=shard_size,
        digest=digest.hexdigest(),
    )


def read_shard(run_dir: RunDir, shard: int) -> pa.Table:
    """Return the rows of one shard, schema `cam_ops.tables.PLAN`."""
    part, row_group = divmod(shard, SHARDS_PER_PART)
    path = run_dir.path(plan_name(part))
    try:
        with pq.ParquetFile(path) as opened:
            return opened.read_row_group(row_group)
    except (OSError, IndexError, pa.ArrowException) as error:
        raise _broken_plan(path, error) from None


def find_image(run_dir: RunDir, plan: Plan, image_id: str) -> tuple[int, int] | None:
    """Return the shard and row of an image, None if it was not planned. Row group statistics narrow the search."""
    for part in range(-(-plan.num_shards // SHARDS_PER_PART)):
        path = run_dir.path(plan_name(part))
        try:
            found = pq.read_table(path, columns=["shard", "row"], filters=pc.field("image_id") == image_id)
        except (OSError, pa.ArrowException) as error:
            raise _broken_plan(path, error) from None
        if len(found):
            return found["shard"][0].as_py(), found["row"][0].as_py()
    return None


def _broken_plan(path: Path, error: Exception) -> StorageError:
    return StorageError(f"cannot read the plan {path}: {error}; see `verify`, a damaged plan needs a new run")


def plan_digest(run_dir: RunDir, plan: Plan) -> str:
    """Return the sha256 over the parts as they are now; a missing part counts as empty."""
    digest = hashlib.sha256()
    for part in range(-(-plan.num_shards // SHARDS_PER_PART)):
        digest.update(run_dir.read(plan_name(part)) or b"")
    return digest.hexdigest()
