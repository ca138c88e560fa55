"""One replica of `audit`: the number of a part in, its rows to files, its counts in the report. It needs no torch."""

from collections import Counter

import cv2
import pyarrow as pa

from cam_ops.metrics.counts import Split, no_counts
from cluster.audit.judge import ShardAudit
from cluster.audit.shard import ShardTables
from cluster.audit.tables import DETECTIONS, PER_IMAGE
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.runs.plan import read_shard
from cluster.runs.reading import damaged, maps_problems, read_table
from cluster.runs.record import maps_of
from cluster.storage.parquet import encode
from cluster.truth.prepare import read_truth_shard


def part_of(table: str, part: int) -> str:
    """Return the name of a part of one of the audit's tables, below its folder; the driver joins them."""
    return f"parts/{table}-{part:05d}.parquet"


class AuditReplica:
    """Audits parts: so many shards of the run, one after the other."""

    def __init__(
        self,
        run_dir: RunDir,
        fingerprint: str,
        audit_dir: RunDir,
        parts: tuple[range, ...],
        split: Split,
        truth: tuple[bool, bool],
        num_threads: int = 1,
    ) -> None:
        """Check that this machine sees the run; `truth` says whether there is any, and whether it has masks."""
        self.run_dir, self.audit_dir, self.parts, self.split = run_dir, audit_dir, parts, split
        self.run = Membership(run_dir, fingerprint).run
        self.maps_dir, self.maps_run = maps_of(run_dir, self.run)
        self.has_truth = truth[0]
        self.audit = ShardAudit(self.run, split, has_masks=truth[1])
        self.turns = Turns()
        cv2.setNumThreads(0)

    def run_shard(self, part: int, number: int, deaths: int = 0) -> ShardReport:
        """Audit one part; `number` counts the calls from 0 on. Raises StorageError where the run is damaged."""
        with self.turns.take(number, lambda: None):
            counts, statuses = no_counts(self.split), Counter[str]()
            per_image, detections = [PER_IMAGE.empty_table()], [DETECTIONS.empty_table()]
            for shard in self.parts[part]:
                found = self.audit.audit(self._read(shard))
                counts += found.counts
                per_image.append(found.per_image)
                detections.append(found.detections)
                statuses.update(found.per_image["status"].to_pylist())
            self.audit_dir.publish(part_of("per_image", part), encode(pa.concat_tables(per_image)))
            self.audit_dir.publish(part_of("detections", part), encode(pa.concat_tables(detections)))
            return ShardReport(shard=part, statuses=dict(statuses), findings=counts)

    def _read(self, shard: int) -> ShardTables:
        images = read_table(self.run_dir, self.run, "images", shard)
        heatmaps = read_table(self.maps_dir, self.maps_run, "heatmaps", shard)
        if problems := maps_problems(self.run, read_shard(self.run_dir, shard), images, heatmaps):
            raise damaged(self.run_dir, self.run, shard, problems[0])
        return ShardTables(
            images=images,
            heatmaps=heatmaps,
            boxes=read_table(self.run_dir, self.run, "boxes", shard),
            truth=read_truth_shard(self.audit_dir, shard) if self.has_truth else None,
        )
