"""A replica that labels a few images in a scratch folder on its own machine, with a clock.

Shard 0 is a batch to warm up, the next ones are a batch each, and the last is none: it measures what is left.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from tempfile import TemporaryDirectory
from threading import Barrier, BrokenBarrierError, Condition, Event
from typing import Any

import pyarrow as pa
import torch

from cam_ops.settings import ModelConfig
from cluster.executors.work import ShardReport
from cluster.label.replica import LabelReplica, open_replica
from cluster.machine.compilation import cache_folder
from cluster.machine.network import load_mapper
from cluster.plan.findings import Aside, Bad, Group, Sizes
from cluster.plan.headers import NAMED, look_at_headers
from cluster.process.apart import Apart
from cluster.process.memory import available_mib, peak_mib
from cluster.runs.directory import RunDir
from cluster.runs.names import TABLES, shard_name
from cluster.runs.plan import write_plan
from cluster.runs.reading import read_table
from cluster.runs.record import Run, publish_run
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import encode


def open_pilot(
    run: Run,
    rows: pa.Table,
    others: pa.Table,
    group_size: int,
    model: ModelConfig,
    options: StorageOptions,
    crowd: int,
    scratch_in: str | None = None,
    num_threads: int = 1,
) -> "Pilot":
    """Begin the run anew in a scratch folder, with these rows alone, `group_size` of them in a shard; join it.

    That folder is made in `scratch_in`, else where temporary ones are.

    `others` are rows whose headers are looked at; `crowd` is the number of replicas that a machine will have.

    Raises what `cluster.label.replica.open_replica` raises.
    """
    start_s = time.monotonic()
    scratch = TemporaryDirectory(prefix="camray-", dir=scratch_in)
    run_dir = RunDir(scratch.name, options)
    try:
        run = replace(run, plan=write_plan(run_dir, iter(rows.to_batches()), group_size))
        publish_run(run_dir, run)
        before = _compiled(run)
        replica = open_replica(run_dir, model, run.request.fingerprint(), num_threads)
        is_new = _compiled(run) != before
    except BaseException:
        scratch.cleanup()
        raise
    alone = (run, rows, others.slice(0, 0), group_size, model, options, 1, scratch_in, num_threads)
    return Pilot(scratch, replica, model, others, time.monotonic() - start_s, is_new, alone, crowd)


def _compiled(run: Run) -> set[str]:
    """Return which compiled networks this machine keeps; none where the run does without."""
    return set(os.listdir(cache_folder())) if run.request.compiled else set()


class Pilot:
    """A `LabelReplica` in a scratch folder, which goes with it."""

    def __init__(
        self,
        scratch: "TemporaryDirectory[str]",
        replica: LabelReplica,
        model: ModelConfig,
        others: pa.Table,
        load_s: float,
        is_new: bool,
        alone: tuple[Any, ...],
        crowd: int,
    ) -> None:
        """`alone` are the arguments of `open_pilot` for one more of its kind."""
        self.scratch, self.replica, self.model, self.others = scratch, replica, model, others
        self.load_s, self.is_new, self.alone, self.crowd = load_s, is_new, alone, crowd
        self.warm_up: Group | None = None
        self.publish_s: dict[int, float] = {}  # by shard
        self.changed = Condition()  # guards what follows
        self.begun = self.ended = 0

    def ready(self) -> None:
        """Return once there is a replica."""

    def run_shard(self, shard: int, number: int, deaths: int = 0) -> ShardReport:
        """Label a shard, as `LabelReplica.run_shard`; measure what is left where there is none of that number.

        The findings are a `Group`, or an `Aside`, with which the scratch folder goes.
        """
        if shard == self.replica.run.plan.num_shards:  # the last one
            with self.replica.turns.take(number, lambda: None), self.changed:
                self.changed.wait_for(lambda: self.ended == self.begun)
            try:
                return ShardReport(shard=shard, statuses={}, findings=self._aside(number + 1))
            finally:
                self.clean()
        with self.changed:
            self.begun += 1
        try:
            report, group = self._timed(shard, number, deaths)
        finally:
            with self.changed:
                self.ended += 1
                self.changed.notify_all()
        self.publish_s[shard] = report.seconds["publish"]
        if shard == 0:
            self.warm_up = group
        return replace(report, findings=group)

    def _timed(self, shard: int, number: int, deaths: int = 0) -> tuple[ShardReport, Group]:
        start_s = time.thread_time()
        report = self.replica.run_shard(shard, number, deaths)
        group = Group(
            num_images=sum(report.statuses.values()),
            seconds=report.seconds,
            cpu_s=time.thread_time() - start_s,
            statuses=report.statuses,
        )
        return report, group

    def clean(self) -> None:
        """Remove the scratch folder."""
        self.scratch.cleanup()

    def _aside(self, number: int) -> Aside:
        """Measure the rest; the next call of the replica has that number."""
        run_dir, run = self.replica.run_dir, self.replica.run
        peak, gpu = peak_mib(), None
        if self.replica.device.type == "cuda":
            gpu = torch.cuda.max_memory_reserved() / 2**20
        shards = sorted(run_dir.shards("images") - {0})  # fewer where another replica died of some
        tables = {table: [read_table(run_dir, run, table, shard) for shard in shards] for table in TABLES}
        parts = [
            Sizes(num_images=len(images), num_bytes=self._bytes_of(shard), seconds=self.publish_s[shard])
            for shard, images in zip(shards, tables["images"], strict=True)
        ]
        bad = [
            Bad(image_id=row["image_id"], status=row["status"], error=row["error"])
            for images in tables["images"]
            for row in images.select(["image_id", "status", "error"]).to_pylist()
            if row["status"] != "ok"
        ]
        joined = self._join(tables) if len(shards) > 1 else None
        crowd = self._crowd(peak)
        crowded = self._among(crowd, shards, number) if crowd > 1 else []
        headers = look_at_headers(self.others.to_pylist(), run_dir.options)
        return Aside(
            host=os.uname().nodename,
            load_s=self.load_s,
            compiled_s=max(0.0, self.load_s - self._loads_again_s()) if self.is_new else 0.0,
            warm_up=self.warm_up or Group(num_images=0, seconds={}, cpu_s=0.0, statuses={}),
            parts=parts,
            joined=joined,
            crowd=crowd,
            crowded=crowded,
            bad=bad[:NAMED],
            headers=headers,
            peak_mib=peak,
            gpu_mib=gpu,
        )

    def _bytes_of(self, shard: int) -> int:
        return sum(os.path.getsize(self.replica.run_dir.where(shard_name(table, shard))) for table in TABLES)

    def _join(self, tables: dict[str, list[pa.Table]]) -> Sizes:
        """Write the tables of all shards as those of one, and measure that."""
        start_s = time.perf_counter()
        num_bytes = 0
        for table, parts in tables.items():
            content = encode(pa.concat_tables(parts).combine_chunks())
            self.replica.run_dir.publish(f"joined/{table}.parquet", content)
            num_bytes += len(content)
        return Sizes(
            num_images=sum(map(len, tables["images"])), num_bytes=num_bytes, seconds=time.perf_counter() - start_s
        )

    def _crowd(self, peak: float) -> int:
        """Return how many replicas can be at work at once here, of those that will be."""
        room = int(available_mib() / peak)
        return max(1, min(self.crowd, len(os.sched_getaffinity(0)), 1 + room))

    def _among(self, crowd: int, shards: list[int], number: int) -> list[Group]:
        """Label the groups again while others of its kind do the same, each in a process of its own."""
        with ExitStack() as opened, ThreadPoolExecutor(crowd - 1) as pool:
            others = [
                opened.enter_context(closing(Apart("cluster.plan.pilot:open_pilot", *self.alone)))
                for _ in range(crowd - 1)
            ]
            warm, over = Barrier(crowd), Event()
            busy = [pool.submit(_keep_busy, other, shards, warm, over) for other in others]
            try:
                warm.wait()
                groups = [self._timed(shard, number + i)[1] for i, shard in enumerate(shards)]
            except BrokenBarrierError:
                groups = []
            finally:
                over.set()
            for one in busy:
                one.result()
        return groups

    def _loads_again_s(self) -> float:
        """Load the network once more, now that it is compiled."""
        start_s = time.monotonic()
        load_mapper(self.replica.run.request, self.model)
        return time.monotonic() - start_s


def _keep_busy(other: Apart, shards: list[int], warm: Barrier, over: Event) -> None:
    """Have another pilot label a batch, say that it is warm, and label on until it is over."""
    try:
        other.call("run_shard", 0, 0)
    except BaseException:
        warm.abort()
        raise
    warm.wait()
    number = 1
    while not over.is_set():
        other.call("run_shard", shards[number % len(shards)], number)
        number += 1
    other.call("clean")
