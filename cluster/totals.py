"""What a run holds so far, added up from its images files."""

import json
from dataclasses import asdict, dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.errors import StorageError
from cluster.parquet import document_of
from cluster.rundir import RunDir, shard_name


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
    statuses: dict[str, int] = {}
    maps = boxes = 0
    for shard in shards:
        path = run_dir.path(shard_name("images", shard))
        try:
            table = pq.read_table(path, columns=["status", "num_maps", "num_boxes"])
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {path}: {error}; run `verify` on the run directory") from None
        if document_of(table.schema).get("fingerprint") != fingerprint:
            raise StorageError(f"{path} belongs to another request; run `verify` on the run directory")
        for entry in pc.value_counts(table["status"]).to_pylist():
            statuses[entry["values"]] = statuses.get(entry["values"], 0) + entry["counts"]
        maps += pc.sum(table["num_maps"]).as_py()
        boxes += pc.sum(table["num_boxes"]).as_py()
    return Totals(images=sum(statuses.values()), statuses=dict(sorted(statuses.items())), maps=maps, boxes=boxes)


def summary_of(fingerprint: str, totals: Totals) -> bytes:
    """Return the content of summary.json."""
    return json.dumps({"fingerprint": fingerprint, **asdict(totals)}, indent=1).encode()
