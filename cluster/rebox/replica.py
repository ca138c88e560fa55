"""One replica of `rebox`: the number of a shard in, its boxes and images tables out. It needs no torch."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pyarrow as pa

from cam_ops.tables import IMAGES
from cluster.executors.laps import Laps
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.runs.plan import read_shard
from cluster.runs.reading import corners_of, damaged, maps_problems, raw_maps, read_table
from cluster.runs.record import maps_of
from cluster.runs.writing import Pairs, box_maps, boxes_file, table_file


class ReboxReplica:
    """Reads a shard's maps while the one before has the core."""

    def __init__(self, run_dir: RunDir, fingerprint: str, num_threads: int = 1) -> None:
        """Check that this machine sees the run and its maps; `num_threads` fetch files. Raises StorageError."""
        self.membership = Membership(run_dir, fingerprint)
        self.run_dir, self.run = run_dir, self.membership.run
        self.maps_dir, self.maps_run = maps_of(run_dir, self.run)
        self.num_threads = num_threads
        self.turns = Turns()
        cv2.setNumThreads(0)

    def run_shard(self, shard: int, number: int, deaths: int = 0) -> ShardReport:
        """Box the maps of one shard and publish its tables, the images table last: that commits the shard.

        `number` counts the calls from 0 on; in that order shards take their turn. `deaths` of replicas at this shard
        change nothing. Raises StorageError where its maps are damaged.

        The report's seconds: `read`, mostly while the shard before has its turn; `boxes` and `publish` (tables to
        files) are the turn.
        """
        laps = Laps()
        with self.turns.take(number, partial(self._read, shard, laps)) as (planned, images, heatmaps):
            laps.start()
            pairs = self._pairs(images, heatmaps)
            laps.end("boxes")
            self.membership.publish(shard, self._tables(planned, images, pairs))
            laps.end("publish")
        statuses = Counter(images["status"].to_pylist())
        return ShardReport(shard=shard, statuses=dict(statuses), seconds=laps.seconds)

    def _read(self, shard: int, laps: Laps) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Return a shard's rows of the plan, and what the run with the maps says of it."""
        reach(f"fetch-{shard}")
        with ThreadPoolExecutor(self.num_threads) as pool:
            images = pool.submit(read_table, self.maps_dir, self.maps_run, "images", shard)
            heatmaps = pool.submit(read_table, self.maps_dir, self.maps_run, "heatmaps", shard)
            planned = read_shard(self.run_dir, shard)
        read = planned, images.result(), heatmaps.result()
        if problems := maps_problems(self.maps_run, *read):
            raise damaged(self.maps_dir, self.maps_run, shard, problems[0])
        laps.end("read")
        return read

    def _pairs(self, images: pa.Table, heatmaps: pa.Table) -> Pairs:
        """Box the maps."""
        row_P = heatmaps["row"].to_numpy().astype(np.int64)
        size_B2 = np.stack([images[name].to_numpy() for name in ("width", "height")], axis=1).astype(np.int64)
        class_P = heatmaps["class_id"].to_numpy()
        return Pairs(
            row_P=row_P,
            class_P=class_P,
            score_P=heatmaps["score"].to_numpy(),
            boxes=box_maps(self.run.request, class_P, raw_maps(heatmaps), corners_of(heatmaps), size_B2[row_P]),
        )

    def _tables(self, planned: pa.Table, images: pa.Table, pairs: Pairs) -> dict[str, bytes]:
        """Return the bytes of the two files, in the order of publication."""
        columns = {name: images[name].combine_chunks() for name in images.column_names}
        columns["num_boxes"] = pairs.counts(len(images), self.run.request)[1]
        return {
            "boxes": boxes_file(self.run, planned, pairs),
            "images": table_file(self.run, "images", self.run.plan.extended(IMAGES), columns),
        }
