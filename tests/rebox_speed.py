"""`python -m tests.rebox_speed RUN`: the speed of `rebox` in one process, on copies of the first shard of a run.

Says maps per second by the clock and by the processor's time (other work beside it does not count there), then a
profile of another pass.
"""

import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from cam_ops.tables import LABELLED
from cluster.parquet import encode
from cluster.plan import write_plan
from cluster.reboxing import ReboxConfig, rebox
from cluster.request import existing_run, publish_run
from cluster.rundir import TABLES, open_run_dir, shard_name
from cluster.verify import read_table

NUM_MAPS, ROUNDS = 20_000, 5


def copy_shard(source: str, out: str) -> int:
    """Write a run of copies of a run's first shard, NUM_MAPS or a few more in all; return how many maps it has."""
    source_dir, run_dir = open_run_dir(source), open_run_dir(out)
    run = existing_run(source_dir)
    tables = {table: read_table(source_dir, run, table, 0) for table in TABLES}
    num_copies = -(-NUM_MAPS // len(tables["heatmaps"]))

    def copied(table: pa.Table, number: int) -> pa.Table:
        ids = [f"{number:04d}/{image_id}" for image_id in table["image_id"].to_pylist()]
        table = table.set_column(0, table.schema.field(0), pa.array(ids))
        return table.set_column(1, table.schema.field(1), pa.array([number] * len(table), pa.int32()))

    rows = [copied(tables["images"], number).select(LABELLED.names).to_batches()[0] for number in range(num_copies)]
    plan = write_plan(run_dir, (batch.cast(LABELLED) for batch in rows), len(tables["images"]))
    for number in range(num_copies):
        for name, table in tables.items():
            run_dir.publish(shard_name(name, number), encode(copied(table, number)))
    publish_run(run_dir, replace(run, plan=plan), {})
    return num_copies * len(tables["heatmaps"])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a call takes, by the clock and by the processor's time."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


def main(source: str) -> None:
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "copies")
        num_maps = copy_shard(source, out)

        def work(number: int) -> None:
            rebox(ReboxConfig(run=out, out=f"{folder}/{number}", threshold=(0.3,), executor="inline"))

        for number in range(ROUNDS):
            wall_s, cpu_s = timed(lambda number=number: work(number))  # type: ignore[misc]
            print(f"{num_maps} maps: {num_maps / wall_s:.0f} maps/s, {num_maps / cpu_s:.0f} per second of processor")
        profile = cProfile.Profile()
        profile.runcall(work, ROUNDS)
        pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main(sys.argv[1])
