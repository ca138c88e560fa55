"""What `bench` measures of commands that take a run's maps: on copies of one shard, in a process without torch."""

import itertools
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.arrays import F64, I64
from cam_ops.metrics import wsol
from cam_ops.metrics.level_sets import LevelSets
from cam_ops.tables import CORNERS, LABELLED
from cluster.audit.config import AuditConfig
from cluster.audit.driver import audit
from cluster.export.config import ExportConfig, FormatName
from cluster.export.driver import export
from cluster.rebox.config import ReboxConfig
from cluster.rebox.driver import rebox
from cluster.report.config import ReportConfig
from cluster.report.driver import report
from cluster.runs.directory import open_run_dir
from cluster.runs.names import TABLES, shard_name
from cluster.runs.plan import write_plan
from cluster.runs.reading import raw_maps, read_table
from cluster.runs.record import existing_run, publish_run
from cluster.runs.resume import finish
from cluster.storage.parquet import encode
from cluster.truth.prepare import TruthConfig

AT_ONCE = 8  # copies


class Copies:
    """Copies of a run's first shard, and commands that take its maps, without torch, in a process of its own."""

    def __init__(self, source: str, out: str, num_maps: int) -> None:
        """Write the copies to `out`, `num_maps` or a few more in all."""
        self.out, self.num_maps = out, _copy_shard(source, out, num_maps)
        cv2.setNumThreads(0)

    def made(self) -> tuple[str, int]:
        """Return the run of the copies, and how many maps it has."""
        return self.out, self.num_maps

    def truth(self) -> str:
        """Return a truth that says the run's own boxes."""
        path = f"{self.out}/truth.parquet"
        if not os.path.exists(path):
            run_dir = open_run_dir(self.out)
            run = existing_run(run_dir)
            boxes = [read_table(run_dir, run, "boxes", shard) for shard in range(run.plan.num_shards)]
            pq.write_table(pa.concat_tables(boxes).select(["image_id", *CORNERS, "class_id"]), path)
        return path

    def audit(self, bootstrap: int) -> tuple[float, float]:
        """Return what `rebox` does, of an audit against the run's own boxes as true ones."""
        truth = self.truth()
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        audit(AuditConfig(run=self.out, truth=TruthConfig(truth=truth), bootstrap=bootstrap, executor="inline"))
        return self.num_maps / (time.perf_counter() - start_s), self.num_maps / (time.process_time() - start_cpu_s)

    def score_maps(self, number: int) -> tuple[float, float, float]:
        """Return maps per second of the processor's time: camray's boxes at all levels, and wsolevaluation's loop.

        The loop once with the largest contour and once with all; `camray` finds both at once.
        """
        run_dir = open_run_dir(self.out)
        maps = read_table(run_dir, existing_run(run_dir), "heatmaps", 0)
        raw_Phw = raw_maps(maps)[:number]
        truth_G4 = np.array([[40, 40, 180, 200]])
        levels = LevelSets(wsol.SIDE)

        def scores() -> Iterator[F64]:
            for raw_hw in raw_Phw:
                yield wsol.score_map(wsol.enlarged_map(raw_hw, np.array([0, 0, 1, 1], np.float32), 1, 1))

        def rate(boxes_of: Callable[[F64], object]) -> float:
            start_s = time.process_time()
            for score_SS in scores():
                boxes_of(score_SS)
            return len(raw_Phw) / (time.process_time() - start_s)

        levels.overlaps(next(scores()), truth_G4)  # compiles
        return (
            rate(lambda score_SS: levels.overlaps(score_SS, truth_G4)),
            rate(lambda score_SS: _evaluate(score_SS, truth_G4, all_contours=False)),
            rate(lambda score_SS: _evaluate(score_SS, truth_G4, all_contours=True)),
        )

    def rebox(self, out: str) -> tuple[float, float]:
        """Return maps per second by the clock, and of the processor's time, to which other work does not count."""
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        rebox(ReboxConfig(run=self.out, out=out, threshold=(0.3,), executor="inline"))
        return self.num_maps / (time.perf_counter() - start_s), self.num_maps / (time.process_time() - start_cpu_s)


class Exports:
    """Exports of a run, in a process of its own."""

    def export(self, run: str, form: FormatName, out: str) -> tuple[int, float, float]:
        """Return the number of boxes, the seconds by the clock, and the process's largest resident size in MiB."""
        start_s = time.perf_counter()
        done, _ = export(ExportConfig(run=run, to=form, out=out, executor="inline"))
        seconds = time.perf_counter() - start_s
        return done.counts.boxes, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Reports:
    """Reports of a run, in a process of its own."""

    def report(self, run: str, out: str) -> tuple[int, float, float]:
        """Return the page's bytes, the seconds by the clock, and the process's largest resident size in MiB."""
        start_s = time.perf_counter()
        done = report(ReportConfig(run=run, out=out, executor="inline"))
        seconds = time.perf_counter() - start_s
        return done.num_bytes, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _copy_shard(source: str, out: str, num_maps: int) -> int:
    source_dir, run_dir = open_run_dir(source), open_run_dir(out)
    run = existing_run(source_dir)
    tables = {table: read_table(source_dir, run, table, 0) for table in TABLES}
    num_copies = -(-num_maps // len(tables["heatmaps"]))

    def copied(table: pa.Table, number: int) -> pa.Table:
        ids = [f"{number:06d}/{image_id}" for image_id in table["image_id"].to_pylist()]
        table = table.set_column(0, table.schema.field(0), pa.array(ids))
        return table.set_column(1, table.schema.field(1), pa.array([number] * len(table), pa.int32()))

    rows = [copied(tables["images"], number).select(LABELLED.names).to_batches()[0] for number in range(num_copies)]
    plan = write_plan(run_dir, (batch.cast(LABELLED) for batch in rows), len(tables["images"]))

    def publish(number: int) -> None:
        for name, table in tables.items():
            run_dir.publish(shard_name(name, number), encode(copied(table, number)))

    with ThreadPoolExecutor(AT_ONCE) as pool:  # the disk takes longer than the tables
        deque(pool.map(publish, range(num_copies)), maxlen=0)
    publish_run(run_dir, replace(run, plan=plan))
    finish(run_dir, existing_run(run_dir))
    return num_copies * len(tables["heatmaps"])


def _evaluate(score_SS: F64, truth_G4: I64, *, all_contours: bool) -> list[float]:
    """Do for a map what wsolevaluation's BoxEvaluator does, as it does it: 1,000 masks, contours, boxes, overlaps."""
    quantised_SS1 = np.expand_dims((score_SS * 255).astype(np.uint8), 2)
    boxes: list[I64] = []
    for threshold in wsol.THRESHOLD_T.tolist():
        level = int(threshold * np.max(quantised_SS1))
        _, mask_SS = cv2.threshold(quantised_SS1, level, 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(mask_SS, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        chosen = contours if all_contours else [max(contours, key=cv2.contourArea)]
        bounds = [cv2.boundingRect(contour) for contour in chosen]
        last = wsol.SIDE - 1
        boxes.append(
            np.asarray([[x, y, min(x + width, last), min(y + height, last)] for x, y, width, height in bounds])
        )
    boxes_N4 = np.vstack(boxes)
    ends_NG2 = np.minimum(boxes_N4[:, None, 2:], truth_G4[:, 2:])
    sides_NG2 = np.maximum(0, ends_NG2 - np.maximum(boxes_N4[:, None, :2], truth_G4[:, :2]) + 1)
    shared_NG = sides_NG2.prod(2)
    areas_NG = [np.prod(ends[:, 2:] - ends[:, :2] + 1, axis=1) for ends in (boxes_N4, truth_G4)]
    overlap_NG = shared_NG / (areas_NG[0][:, None] + areas_NG[1] - shared_NG)
    starts = np.cumsum([0, *map(len, boxes)])
    return [float(overlap_NG[start:end].max()) for start, end in itertools.pairwise(starts)]
