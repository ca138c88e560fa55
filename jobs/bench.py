"""`bench`: measure this machine: stages, whole runs against the hardware's limit and against peers, plans, memory."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from cam_ops.errors import StorageError
from cluster.bench import device, scale, speed
from cluster.bench.config import BenchConfig, Section
from cluster.bench.figures import Figure
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_unwritable_file

MEASURES: dict[Section, Callable[[BenchConfig, Path], Iterator[Figure]]] = {
    "stages": speed.stages,
    "limit": speed.limit,
    "host": speed.host,
    "gpu": device.gpu,
    "refine": speed.refine,
    "executors": speed.executors,
    "peers": speed.peers,
    "start": speed.start,
    "dispatch": scale.dispatch,
    "plan": scale.plan,
    "memory": speed.memory,
    "rebox": scale.rebox,
    "audit": scale.audit,
    "export": scale.export,
    "report": scale.report,
    "shards": scale.shards,
}


def run(arguments: list[str]) -> Outcome:
    """Measure the sections one after the other; a figure is printed as soon as it is there."""
    config = parse(BenchConfig, arguments, "bench")
    if not os.path.isdir(config.images):
        raise StorageError(f"there is no folder {config.images}; check --images")
    if config.out is not None:
        refuse_unwritable_file(str(config.out), "--out")
    print_lines([f"{_now()}  {_commit()}  {_machine()}"])
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="camray-bench-") as scratch:
        for section in config.sections:
            for figure in MEASURES[section](config, Path(scratch)):
                figures.append({"date": _now(), "commit": _commit(), "machine": _machine(), **figure})
                if config.out:
                    _append(config.out, figures[-1])
                print_lines([_line(figure)])
    return Outcome(out=str(config.out) if config.out else None, document={"figures": figures})


def _line(figure: Figure) -> str:
    return "  ".join(f"{name} {value}" if name != "section" else f"{value}:" for name, value in figure.items())


def _append(path: Path, document: Figure) -> None:
    with path.open("a") as file:
        file.write(json.dumps(document) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return found.stdout.strip() or "no commit"


def _machine() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} x {name}"
