"""What a run holds so far, added up from its images files."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError
from cam_ops.tables import IMAGES
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.storage.parquet import decode, document_of

COUNTED = pa.schema([IMAGES.field(name) for name in ("status", "num_maps", "num_boxes")])
NUM_READERS = 8  # opening a file is waiting where OUT is on a network


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run holds, as in summary.json."""

    images: int
    statuses: dict[str, int]
    maps: int
    boxes: int

    @property
    def errors(self) -> int:
        """Images that are not ok."""
        return self.images - self.statuses.get("ok", 0)


def count_rows(run_dir: RunDir, fingerprint: str, shards: list[int]) -> Totals:
    """Add up the committed shards."""
    statuses: Counter[str] = Counter()
    maps = boxes = 0
    names = [shard_name("images", shard) for shard in shards]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for counted in pool.map(partial(_count_file, run_dir, fingerprint), names):
            statuses.update(counted.statuses)
            maps += counted.maps
            boxes += counted.boxes
    return Totals(images=statuses.total(), statuses=dict(sorted(statuses.items())), maps=maps, boxes=boxes)


def _count_file(run_dir: RunDir, fingerprint: str, name: str) -> Totals:
    where, content = run_dir.where(name), run_dir.read(name)
    if content is None:
        raise StorageError(f"{where} is gone; run `verify` on the run directory")
    table = decode(content, where, COUNTED.names)
    if document_of(table.schema).get("fingerprint") != fingerprint:
        raise StorageError(f"{where} belongs to another request; run `verify` on the run directory")
    if not table.schema.equals(COUNTED):
        raise StorageError(f"{where} has not the columns of an images table; run `verify` on the run directory")
    return Totals(
        images=len(table),
        statuses={entry["values"]: entry["counts"] for entry in pc.value_counts(table["status"]).to_pylist()},
        maps=pc.sum(table["num_maps"]).as_py(),
        boxes=pc.sum(table["num_boxes"]).as_py(),
    )


def summary_of(fingerprint: str, totals: Totals) -> bytes:
    """Return the content of summary.json."""
    return json.dumps({"fingerprint": fingerprint, **asdict(totals)}, indent=1).encode()
