"""What `bench` measures: stages of a replica alone, all cores at once, whole runs by the command, plans.

Rates are images per second; stages are milliseconds per image in one thread.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.classes import numbered_classes
from cluster.apart import Apart
from cluster.dispatch import BEGINS
from cluster.labels import find_labels, label_images
from cluster.listing import Listing
from cluster.plan import Plan, read_shard, write_plan
from cluster.request import existing_run
from cluster.rows import ShardRows
from cluster.rundir import TABLES, open_run_dir, shard_name
from cluster.sources import decode_for_input, open_listing, read_image, source_address

MAX_HELD = 64  # pictures held in memory


class Replica:
    """One replica's parts, alone, for a run in place; lives in a process of its own (`cluster.apart`)."""

    def __init__(self, out: str, model: Any) -> None:
        from cluster.worker import CamWorker  # with torch, which the driver does without

        run_dir = open_run_dir(out)
        run = existing_run(run_dir)
        self.worker = CamWorker(run_dir, model, run.request.fingerprint())
        self.planned = read_shard(self.worker.run_dir, 0).slice(0, MAX_HELD)
        self.rows = self.planned.to_pylist()
        self.encoded = [read_image(row["uri"], row["offset"], row["size"]) for row in self.rows]
        self.batches = list(self.worker.loader.open(self.planned))

    def forward(self, seconds: float) -> float:
        """Return the rate of the bare forward pass, on batches of pixels in memory."""
        import torch

        view = self.worker.mapper.views[0]
        inputs = [pixels_BSS3.to(self.worker.device).permute(0, 3, 1, 2) for pixels_BSS3, _ in self.batches]

        def run(number: int) -> None:
            with torch.no_grad():
                view.run(inputs[number % len(inputs)]).logits_BK.sum().item()

        return len(inputs[0]) * _rate(run, seconds)

    def decode(self, seconds: float) -> float:
        """Return the rate of bare decoding and resizing, of files in memory."""
        from cluster.decoding import decode_and_fit

        loader = self.worker.loader

        def run(number: int) -> None:
            place = number % len(self.rows)
            decode_and_fit(self.rows[place], self.encoded[place], loader.input)

        return _rate(run, seconds)

    def stages(self) -> dict[str, float]:
        """Return the milliseconds per image of each stage, once over the pictures held."""
        from cam_ops.fit import fit

        worker, loader, count = self.worker, self.worker.loader, len(self.rows)
        spent: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            start_s = time.perf_counter()
            done = work()
            spent[stage] = spent.get(stage, 0) + (time.perf_counter() - start_s) / count * 1e3
            return done

        timed("fetch", lambda: [read_image(row["uri"], row["offset"], row["size"]) for row in self.rows])
        pairs = list(zip(self.rows, self.encoded, strict=True))
        decoded = timed("decode", lambda: [decode_for_input(row, encoded, loader.input) for row, encoded in pairs])
        timed("resize", lambda: [fit(picture, loader.input) for picture in decoded])
        rows = ShardRows(worker.run, self.planned)
        for pixels_BSS3, pictures in self.batches:
            maps = timed("forward and map", partial(worker.explain, pixels_BSS3, pictures))
            rows.add(pictures, maps)
        boxes = timed("boxes", rows.box)
        tables = timed("tables", partial(rows.tables, boxes))
        for table in TABLES:
            timed("publish", partial(worker.run_dir.publish, f"{table}/bench.parquet", tables[table]))
            worker.run_dir.remove(f"{table}/bench.parquet")
        return spent


def _rate(run: Callable[[int], None], seconds: float) -> float:
    """Return calls per second, after one that does not count."""
    run(0)
    start_s = time.perf_counter()
    for number in itertools.count(1):
        run(number)
        if (spent_s := time.perf_counter() - start_s) >= seconds:
            return number / spent_s
    raise AssertionError


def on_all(replicas: Sequence[Apart], method: str, *arguments: Any) -> list[Any]:
    """Call a method of all replicas at the same time; return what each returns."""
    with ThreadPoolExecutor(len(replicas)) as pool:
        return list(pool.map(lambda replica: replica.call(method, *arguments), replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run of `label` by its command, from outside."""

    first_commit_s: float
    rate: float  # total
    steady: float  # between the moments when the first replica has, and the last one still has, a further shard
    bytes_per_image: float
    max_rss_mib: float  # of the driver
    later_rss_mib: list[float]  # of the driver, every now and then from the first commit on


def run_label(flags: Sequence[str], out: Path, num_replicas: int) -> Measured:
    """Run `label` into `out`, a new folder, and measure it. Raises RuntimeError with its output if it fails."""
    command = [sys.executable, "-m", "jobs", "label", "--out", str(out), *flags]
    start_s, wall_s = time.perf_counter(), time.time()
    sizes: list[tuple[float, float]] = []
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            sizes.append((time.time(), resident_mib(process.pid)))
            time.sleep(0.05)
        seconds = time.perf_counter() - start_s
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{said.read()}")
    commits = sorted((path.stat().st_mtime, _num_rows(path)) for path in out.glob("images/*.parquet"))
    num_images = sum(count for _, count in commits)
    return Measured(
        first_commit_s=commits[0][0] - wall_s,
        rate=num_images / seconds,
        steady=_steady(commits, num_replicas),
        bytes_per_image=sum(path.stat().st_size for table in TABLES for path in (out / table).iterdir()) / num_images,
        max_rss_mib=max(size for _, size in sizes),
        later_rss_mib=[size for moment, size in sizes if moment >= commits[0][0] and size],
    )


def seconds_to_work(flags: Sequence[str], out: Path) -> float:
    """Run `label` into `out` until a replica begins to work, and return how long that took; the run is cut off then.

    Raises RuntimeError with its output if it ends before.
    """
    command = [sys.executable, "-m", "jobs", "label", "--out", str(out), *flags]
    start_s = time.perf_counter()
    said = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            said.append(line)
            if BEGINS in line:
                seconds = time.perf_counter() - start_s
                process.terminate()
                process.communicate()
                return seconds
    raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{''.join(said)}")


def pretend_committed(out: Path, num_shards: int) -> None:
    """Leave the first shards of a run as if they were committed, and no other: a resume looks at names alone."""
    shutil.rmtree(out / "images", ignore_errors=True)
    (out / "images").mkdir()
    for shard in range(num_shards):
        (out / shard_name("images", shard)).touch()


def resident_mib(pid: int) -> float:
    """Return a process's resident size, 0 where it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """Return this process's largest resident size; `ru_maxrss` begins with that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def _num_rows(path: Path) -> int:
    return int(pq.ParquetFile(path).metadata.num_rows)


def _steady(commits: list[tuple[float, int]], num_replicas: int) -> float:
    """Return the rate between the commits when all replicas have one behind them, and when all have one to do."""
    inner = commits[num_replicas - 1 : len(commits) - num_replicas + 1]
    if len(inner) < 3:
        return float("nan")
    return sum(count for _, count in inner[1:]) / (inner[-1][0] - inner[0][0])


def write_manifest(folder: str, num_images: int, path: Path) -> None:
    """List the pictures of a folder again and again, each time by other ids, until there are enough."""
    with open_listing(source_address(folder), None) as listing:
        uris = [uri for batch in listing.batches() for uri in batch["uri"].to_pylist()]
    rows = list(itertools.islice(itertools.cycle(uris), num_images))
    ids = [f"{number:08d}" for number in range(num_images)]
    pq.write_table(pa.table({"uri": rows, "image_id": ids}), path)


def write_large_manifest(num_rows: int, path: Path) -> None:
    """Write a manifest of pictures that do not exist, in no order, with labels 0..999."""
    schema = pa.schema([("uri", pa.string()), ("label", pa.int64())])
    step = 7_368_787  # prime to any round number: each row once, shuffled
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 1_000_000):
            numbers = [i * step % num_rows for i in range(start, min(start + 1_000_000, num_rows))]
            uris = [f"/data/imagenet/train/n{n % 1000:08d}/n{n % 1000:08d}_{n:010d}.JPEG" for n in numbers]
            writer.write_table(pa.table({"uri": uris, "label": [n % 1000 for n in numbers]}, schema=schema))


class Planner:
    """Plans a manifest, without torch, in a process of its own."""

    def plan(self, manifest: str, out: str, num_classes: int) -> tuple[Plan, float, float]:
        """Return the plan, the seconds it took, and this process's largest resident size in MiB."""
        start_s = time.perf_counter()

        def planned(listing: Listing) -> Plan:
            labels_of = find_labels(listing, "manifest", numbered_classes(num_classes), lambda sentence: None)
            return write_plan(open_run_dir(out), label_images(listing, labels_of), 512)

        with open_listing(manifest, None) as listing:
            plan = planned(listing)
        return plan, time.perf_counter() - start_s, peak_mib()
