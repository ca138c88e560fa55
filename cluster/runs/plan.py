"""The plan: every input image with its shard and row, written once and never changed.

Shard s holds `shard_size` consecutive rows of the sorted listing, the last shard the rest. A part file holds
`SHARDS_PER_PART` shards, one row group each, so that a replica finds its rows without reading the others. The listing
passes through as a stream, one part in memory at a time.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError
from cam_ops.tables import LABELLED, LABELS, PLAN, SCHEMA_VERSION, Kept, with_kept, with_labels, with_metadata
from cluster.runs.directory import RunDir
from cluster.runs.names import plan_name
from cluster.storage.parquet import encode, read_row_group, row_groups_with

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
    several_labels: bool = False  # whether plan and images tables have the column `labels`
    kept: Kept = ()  # further columns of both tables

    def fields(self) -> dict[str, Any]:
        """Return the plan as documents have it; what came later is left out where it is not used."""
        fields = asdict(self)
        if not self.several_labels:
            del fields["several_labels"]
        if not self.kept:
            del fields["kept"]
        return fields

    def size_of(self, shard: int) -> int:
        """Return how many images a shard has: the last one may have fewer than the others."""
        return min(self.shard_size, self.num_images - shard * self.shard_size)

    def extended(self, schema: pa.Schema) -> pa.Schema:
        """Return PLAN or IMAGES as this plan has it."""
        return with_kept(with_labels(schema, self.several_labels), self.kept)


def auto_batch_size(num_images: int, largest: int) -> int:
    """Return the batch size of a job: `largest`, less for a job of a few images."""
    return max(1, min(largest, -(-num_images // MIN_REPLICAS)))


def auto_shard_size(num_images: int, num_replicas: int, batch_size: int) -> int:
    """Return 512, or less where the job is small: four shards for each replica, in whole batches."""
    num_shards = SHARDS_PER_REPLICA * max(MIN_REPLICAS, num_replicas)
    batches = -(-num_images // (num_shards * batch_size))
    return max(batch_size, min(MAX_SHARD_SIZE // batch_size, batches) * batch_size)


def write_plan(run_dir: RunDir, labelled: Iterable[pa.RecordBatch], shard_size: int) -> Plan:
    """Cut a labelled listing into shards and publish the parts of the plan.

    Batches have the schema LABELLED, perhaps LABELS after it, and then further columns.

    They have a digest, and no checksums of pages, so that plans of before keep theirs. Their bytes depend on the rows
    and the shard size alone: two drivers that plan the same images at the same moment replace each other's parts with
    equal ones, whatever else they were asked for.
    """
    digest = hashlib.sha256()
    num_parts = num_images = 0
    several_labels, kept = False, _kept_in(PLAN)
    for rows in _parts(labelled, SHARDS_PER_PART * shard_size):
        content = encode(_planned(rows, num_images, shard_size), row_group_size=shard_size, checksums=False)
        digest.update(content)
        run_dir.publish(plan_name(num_parts), content)
        num_parts, num_images = num_parts + 1, num_images + len(rows)
        several_labels, kept = LABELS.name in rows.column_names, _kept_in(rows.schema)
    run_dir.remove_plan_from(num_parts)
    plan = planned(num_images, shard_size)
    return replace(plan, digest=digest.hexdigest(), several_labels=several_labels, kept=kept)


def planned(num_images: int, shard_size: int) -> Plan:
    """Return a plan that is not written yet."""
    return Plan(num_images=num_images, num_shards=-(-num_images // shard_size), shard_size=shard_size, digest="")


def _kept_in(schema: pa.Schema) -> Kept:
    known = {*LABELLED.names, *PLAN.names, LABELS.name}
    return tuple((field.name, str(field.type)) for field in schema if field.name not in known)


def _parts(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Yield the batches' rows as tables of `num_rows`, the last one of what is left."""
    held: list[pa.RecordBatch] = []
    missing = num_rows
    for batch in batches:
        while len(batch) >= missing:
            yield pa.Table.from_batches([*held, batch.slice(0, missing)])
            batch, held, missing = batch.slice(missing), [], num_rows
        held.append(batch)
        missing -= len(batch)
    if missing < num_rows:
        yield pa.Table.from_batches(held)


def _planned(rows: pa.Table, start: int, shard_size: int) -> pa.Table:
    """Give rows their shard and row, `start` being the place of the first in the listing; schema PLAN, extended.

    One chunk, as the layout of a Parquet file follows that of the chunks.
    """
    position_N = np.arange(start, start + len(rows))
    columns = {
        **{name: rows[name] for name in rows.column_names},
        "shard": pa.array(position_N // shard_size, pa.int32()),
        "row": pa.array(position_N % shard_size, pa.int32()),
    }
    schema = with_kept(with_labels(PLAN, LABELS.name in rows.column_names), _kept_in(rows.schema))
    return pa.table(
        {name: columns[name] for name in schema.names}, schema=with_metadata(schema, DOCUMENT)
    ).combine_chunks()


def read_shard(run_dir: RunDir, shard: int) -> pa.Table:
    """Return the rows of one shard, schema `cam_ops.tables.PLAN`, as far as that goes."""
    part, row_group = divmod(shard, SHARDS_PER_PART)
    name = plan_name(part)
    try:
        return read_row_group(run_dir, name, row_group, PLAN)
    except (OSError, IndexError, pa.ArrowException) as error:
        raise _broken_plan(run_dir.where(name), error) from None


def find_images(run_dir: RunDir, plan: Plan, image_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return the shard and row of each image that was planned. Row group statistics narrow the search."""
    places: dict[str, tuple[int, int]] = {}
    for part in range(-(-plan.num_shards // SHARDS_PER_PART)):
        missing = {*image_ids} - places.keys()
        if not missing:
            break
        name = plan_name(part)
        try:
            groups = row_groups_with(run_dir, name, "image_id", missing)
        except (OSError, pa.ArrowException) as error:
            raise _broken_plan(run_dir.where(name), error) from None
        for group in groups:
            rows = read_shard(run_dir, part * SHARDS_PER_PART + group)
            found = rows.filter(pc.is_in(rows["image_id"], pa.array([*missing])))
            keys = zip(*(found[column].to_pylist() for column in ("shard", "row")), strict=True)
            places.update(zip(found["image_id"].to_pylist(), keys, strict=True))
    return places


def _broken_plan(where: str, error: Exception) -> StorageError:
    return StorageError(f"cannot read the plan {where}: {error}; see `verify`, a damaged plan needs a new run")


def plan_digest(run_dir: RunDir, plan: Plan) -> str:
    """Return the sha256 over the parts as they are now; a missing part counts as empty."""
    digest = hashlib.sha256()
    for part in range(-(-plan.num_shards // SHARDS_PER_PART)):
        digest.update(run_dir.read(plan_name(part)) or b"")
    return digest.hexdigest()


def copy_plan(source_dir: RunDir, run_dir: RunDir, plan: Plan) -> None:
    """Give a run the plan of another."""
    num_parts = -(-plan.num_shards // SHARDS_PER_PART)
    for part in range(num_parts):
        run_dir.publish(plan_name(part), source_dir.read(plan_name(part)) or b"")
    run_dir.remove_plan_from(num_parts)


def check_plan(run_dir: RunDir, plan: Plan) -> None:
    """Raise StorageError unless the parts are those that run.json was written for."""
    if plan_digest(run_dir, plan) != plan.digest:
        raise StorageError(
            f"the plan in {run_dir.root} is not the one that run.json was written for: it is damaged, or another "
            "driver wrote its own over it; begin again with --overwrite, or in another --out"
        )
