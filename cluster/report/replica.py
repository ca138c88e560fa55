"""One replica of `report`: the number of a part in, its digest in the report. It needs no torch."""

from collections import Counter

import cv2

from cluster.audit.shard import ShardTables
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.report.digest import digest_shard, no_digest
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.runs.reading import read_whole
from cluster.runs.record import maps_of


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
                whole = read_whole(self.run_dir, self.run, self.maps_dir, self.maps_run, shard)
                digest += digest_shard(self.run, ShardTables(**whole), self.most)
                statuses.update(whole["images"]["status"].to_pylist())
            return ShardReport(shard=part, statuses=dict(statuses), findings=digest)
