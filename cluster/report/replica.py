"""One replica of `report`: the number of a part in, its digest in the report. It needs no torch."""

from collections import Counter
from collections.abc import Iterator

import cv2
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.tables import LABELS
from cluster.audit.shard import ShardTables
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.report.digest import digest_shard, no_digest
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.runs.plan import read_shard
from cluster.runs.reading import (
    damaged,
    first_boxes,
    inside,
    maps_problems,
    pairs_of,
    read_table,
    row_problems,
    rows_fit,
)
from cluster.runs.record import Run, maps_of


class ReportReplica:
    """Digests parts: so many shards of the run, one after the other."""

    def __init__(
        self, run_dir: RunDir, fingerprint: str, parts: tuple[tuple[int, ...], ...], most: int, num_threads: int = 1
    ) -> None:
        """Check that this machine sees the run; each gallery keeps `most` images of a part."""
        self.run_dir, self.parts, self.most = run_dir, parts, most
        self.run = Membership(run_dir, fingerprint).run
        self.maps_dir, self.maps_run = maps_of(run_dir, self.run)
        self.turns = Turns()
        cv2.setNumThreads(0)

    def run_shard(self, part: int, number: int, deaths: int = 0) -> ShardReport:
        """Digest one part; `number` counts the calls from 0 on. Raises StorageError where the run is damaged."""
        with self.turns.take(number, lambda: None):
            digest, statuses = no_digest(self.run, self.most), Counter[str]()
            for shard in self.parts[part]:
                tables = read_whole(self.run_dir, self.run, self.maps_dir, self.maps_run, shard)
                digest += digest_shard(self.run, tables, self.most)
                statuses.update(tables.images["status"].to_pylist())
            return ShardReport(shard=part, statuses=dict(statuses), findings=digest)


def read_whole(run_dir: RunDir, run: Run, maps_dir: RunDir, maps_run: Run, shard: int) -> ShardTables:
    """Read a shard whose tables fit each other; raises StorageError where they do not."""
    images, boxes = (read_table(run_dir, run, name, shard) for name in ("images", "boxes"))
    heatmaps = read_table(maps_dir, maps_run, "heatmaps", shard)
    problems = maps_problems(run, read_shard(run_dir, shard), images, heatmaps)
    if problems := problems or list(_box_problems(run, images, heatmaps, boxes)):
        raise damaged(run_dir, run, shard, problems[0])
    return ShardTables(images=images, heatmaps=heatmaps, boxes=boxes, truth=None)


def _box_problems(run: Run, images: pa.Table, heatmaps: pa.Table, boxes: pa.Table) -> Iterator[str]:
    """Yield what is wrong with a shard's boxes and classes; what follows one may not be asked."""
    if not rows_fit(images, boxes):
        yield "its boxes name rows that the shard has not"
    elif not _are_classes(run, images, boxes):
        yield "it names classes that the run has not, or without their scores"
    elif not inside(boxes, images).all():
        yield "a box is empty or reaches outside its image"
    elif not pairs_of(boxes) <= pairs_of(heatmaps):
        yield "a box has no map"
    else:
        yield from row_problems("boxes", images, boxes, first_boxes(run.request, boxes))


def _are_classes(run: Run, images: pa.Table, boxes: pa.Table) -> bool:
    """Say whether all class numbers are those of classes, and the best ones have a score each."""
    lists = [name for name in ("top_classes", LABELS.name) if name in images.column_names]
    columns = [images["label"], boxes["class_id"], *(pc.list_flatten(images[name]) for name in lists)]
    bounds = [pc.min_max(column).as_py() for column in columns]
    lengths, scores = (pc.list_value_length(images[f"top_{name}"]) for name in ("classes", "scores"))
    has_nulls = any(column.null_count for column in columns[1:])
    return (
        not has_nulls
        and lengths.equals(scores)
        and all(each["min"] is None or 0 <= each["min"] <= each["max"] < len(run.class_names) for each in bounds)
    )
