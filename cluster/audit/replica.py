"""One replica of `audit`: the number of a part in, its rows to files, its counts in the report. It needs no torch."""

from collections import Counter

import cv2

from cam_ops.metrics.counts import Split, no_counts
from cluster.audit.judge import ShardJudge
from cluster.audit.parts import publish_part
from cluster.audit.shard import ShardTables, true_boxes_of
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.runs.reading import read_whole
from cluster.runs.record import maps_of
from cluster.storage.files import Files
from cluster.truth.prepare import TruthReport, read_truth_shard


class AuditReplica:
    """Audits parts: so many shards of the run, one after the other."""

    def __init__(
        self,
        run_dir: RunDir,
        fingerprint: str,
        working: Files,
        parts: tuple[tuple[int, ...], ...],
        split: Split,
        truth: TruthReport | None,
        num_threads: int = 1,
    ) -> None:
        """Check that this machine sees the run; `working` holds the truth, if there is any, and takes the parts."""
        self.run_dir, self.working, self.parts, self.split, self.truth = run_dir, working, parts, split, truth
        self.run = Membership(run_dir, fingerprint).run
        self.maps_dir, self.maps_run = maps_of(run_dir, self.run)
        self.judge = ShardJudge(self.run, split, has_masks=truth is not None and truth.has_masks)
        self.turns = Turns()
        cv2.setNumThreads(0)

    def run_shard(self, part: int, number: int, deaths: int = 0) -> ShardReport:
        """Audit one part; `number` counts the calls from 0 on. Raises StorageError where the run is damaged."""
        with self.turns.take(number, lambda: None):
            counts, statuses = no_counts(self.split), Counter[str]()
            per_image, detections, true_boxes = [], [], []  # not the shards' counts, which are megabytes each
            for shard in self.parts[part]:
                tables = self._read(shard)
                found = self.judge.judge(tables)
                counts += found.counts
                per_image.append(found.per_image)
                detections.append(found.detections)
                if tables.truth is not None:
                    true_boxes.append(true_boxes_of(tables.images, tables.truth))
                statuses.update(found.per_image["status"].to_pylist())
            publish_part(self.working, "per_image", part, per_image)
            publish_part(self.working, "detections", part, detections)
            publish_part(self.working, "truth", part, true_boxes)
            return ShardReport(shard=part, statuses=dict(statuses), findings=counts)

    def _read(self, shard: int) -> ShardTables:
        whole = read_whole(self.run_dir, self.run, self.maps_dir, self.maps_run, shard)
        return ShardTables(**whole, truth=None if self.truth is None else read_truth_shard(self.working, shard))
