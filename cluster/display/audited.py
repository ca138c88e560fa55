"""What a run's audit says of some of its images, where there is one."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from cam_ops.errors import StorageError
from cluster.audit.files import TrueBox, read_per_image, read_truth
from cluster.audit.named import find_audit
from cluster.display.choosing import Place
from cluster.process.console import say
from cluster.runs.directory import RunDir
from cluster.runs.record import Run

COLUMNS = ["image_id", "shard", "row", "true_class", "iou", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Rows of per_image.parquet, and true boxes, by place; nothing where the audit does not say it."""

    rows: dict[Place, dict[str, Any]] = field(default_factory=dict)  # COLUMNS
    truth: dict[Place, list[TrueBox]] = field(default_factory=dict)


def read_audited(run_dir: RunDir, run: Run, places: Collection[Place], name: str | None = None) -> Audited:
    """Read what the audit of that name says; one that cannot be read is said, and is as none: it can be made again."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for shard, row in places:
        wanted[shard].add(row)
    try:
        files, metrics = find_audit(run_dir, run, name)
        if metrics is None:
            return Audited()
        rows = {
            (row["shard"], row["row"]): row
            for table in read_per_image(files, COLUMNS, wanted)
            for row in table.to_pylist()
        }
    except StorageError as error:
        say(f"without the audit: {error}")
        return Audited()
    try:
        return Audited(rows=rows, truth=read_truth(files, wanted) or {})
    except StorageError as error:
        say(f"without the true boxes: {error}")
        return Audited(rows=rows)
