"""Whole runs of `label` by its command, measured from outside."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pyarrow.parquet as pq

from cam_ops.errors import CamrayError
from cluster.executors.dispatch import BEGINS
from cluster.process.apart import Apart
from cluster.runs.names import TABLES, shard_name

RESULT = "CAMRAY_RESULT "  # begins a command's last line


def on_all(replicas: Sequence[Apart], method: str, *arguments: Any) -> list[Any]:
    """Call a method of all replicas at the same time; return what each returns."""
    with ThreadPoolExecutor(len(replicas)) as pool:
        return list(pool.map(lambda replica: replica.call(method, *arguments), replicas))


class CommandFailed(CamrayError):
    """A measured command that ended as its exit code says: folder, network or machine are at fault, not the bench."""

    def __init__(self, command: str, exit_code: int, status: str, why: str) -> None:
        super().__init__(f"`{command}`, which is measured, ended with exit code {exit_code}: {why}")
        self.exit_code, self.status = exit_code, status


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run of `label` by its command, from outside."""

    first_commit_s: float
    rate: float  # total
    steady: float  # between the moments when the first replica has, and the last one still has, a further shard
    bytes_per_image: float
    max_rss_mib: float  # of the driver
    later_rss_mib: list[float]  # of the driver, every now and then from the first commit on


def run_label(flags: Sequence[str], out: Path, num_replicas: int, most_s: float = math.inf) -> Measured:
    """Run `label` into `out`, a new folder, and measure it.

    Raises CommandFailed where it says why it ended; RuntimeError with its output if it fails otherwise, or is ended as
    it has taken `most_s`.
    """
    command = [sys.executable, "-m", "jobs", "label", "--out", str(out), *flags]
    start_s, wall_s = time.perf_counter(), time.time()
    sizes: list[tuple[float, float]] = []
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            sizes.append((time.time(), resident_mib(process.pid)))
            time.sleep(0.05)
            if time.perf_counter() - start_s > most_s:
                process.kill()
        seconds = time.perf_counter() - start_s
        if process.returncode:
            said.seek(0)
            raise _failure(command, process.returncode, said.read())
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

    Raises CommandFailed or RuntimeError, as `run_label`, if it ends before.
    """
    command = [sys.executable, "-m", "jobs", "label", "--out", str(out), *flags]
    start_s = time.perf_counter()
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if BEGINS in line:
                seconds = time.perf_counter() - start_s
                process.terminate()
                process.communicate()
                return seconds
    raise _failure(command, process.returncode, "".join(said))


def run_command(words: Sequence[str]) -> tuple[float, float]:
    """Run a command; return the seconds that it takes and its largest resident size, in MiB.

    Raises CommandFailed or RuntimeError if it ends otherwise than well.
    """
    command = [sys.executable, "-m", "jobs", *words]
    start_s, most_mib = time.perf_counter(), 0.0
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:  # what the system says after its end counts what this process has, too
            most_mib = max(most_mib, resident_mib(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start_s
        if process.returncode:
            said.seek(0)
            raise _failure(command, process.returncode, said.read())
    return seconds, most_mib


def _failure(command: Sequence[str], exit_code: int, said: str) -> Exception:
    """Return the error of a run that ended with an exit code, by what it printed."""
    last = next((line for line in reversed(said.splitlines()) if line.startswith(RESULT)), RESULT + "{}")
    result = json.loads(last.removeprefix(RESULT))
    if exit_code > 1 and "error" in result:
        return CommandFailed(result["command"], exit_code, result["status"], result["error"])
    return RuntimeError(f"{' '.join(command)} ended with exit code {exit_code}:\n{said}")


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


def _num_rows(path: Path) -> int:
    return int(pq.ParquetFile(path).metadata.num_rows)


def _steady(commits: list[tuple[float, int]], num_replicas: int) -> float:
    """Return the rate between the commits when all replicas have one behind them, and when all have one to do."""
    inner = commits[num_replicas - 1 : len(commits) - num_replicas + 1]
    if len(inner) < 3:
        return float("nan")
    return sum(count for _, count in inner[1:]) / (inner[-1][0] - inner[0][0])
