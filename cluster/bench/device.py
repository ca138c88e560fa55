"""A GPU, or the CPU in its place: agreement with the CPU, the forward pass, whole replicas; each part in its time."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cam_ops.errors import CamrayError
from cam_ops.settings import Precision
from cluster.bench.config import BenchConfig
from cluster.bench.figures import Figure
from cluster.bench.inputs import label_flags, model_of
from cluster.bench.runs import run_label
from cluster.process.apart import Apart
from cluster.process.console import PREFIX

MEASURED_S = 2.0  # of each rate
SHARD_SIZE = 512
MIN_SHARDS = 4
LABEL_S = 90.0
NO_TIME = "no time left; use a longer --seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A method of `cluster.bench.gpu.Gpu` with its arguments, and how long it may take."""

    words: Figure
    method: str
    arguments: tuple[Any, ...]
    most_s: float


def gpu(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Measure the parts of all models in turn, the cheapest first, within --seconds; a part that fails says so.

    Raises MachineError where there is no GPU to use.
    """
    end_s = time.monotonic() + config.seconds
    with closing(Apart("cluster.bench.gpu:Machine", config.device)) as machine:
        yield {"section": "gpu", "device": machine.call("described")}
    measured = [_Measured(config, scratch, model) for model in config.models]
    try:
        for one in measured:
            yield one.whole_run(end_s)
        for part in _parts(config):
            for one in measured:
                yield one.figure(part, end_s)
    finally:
        for one in measured:
            one.end()


def _parts(config: BenchConfig) -> list[_Part]:
    sizes, all_cores = config.batch_sizes, len(os.sched_getaffinity(0))
    middle = sizes[len(sizes) // 2]
    parts = [
        _Part(words={"precision": precision}, method="agreement", arguments=(precision,), most_s=60.0)
        for precision in get_args(Precision)
    ]
    for size in sizes:
        parts.append(_forward(size, False, 40.0))
        parts.append(_replica(size, False, all_cores, 40.0))
    parts += [_replica(middle, False, number, 40.0) for number in (1, 4)]
    return [*parts, _forward(middle, True, 180.0), _replica(middle, True, all_cores, 40.0)]


def _forward(batch_size: int, compiled: bool, most_s: float) -> _Part:
    words = {"batch": batch_size, "compiled": compiled}
    return _Part(words=words, method="forward", arguments=(batch_size, compiled, MEASURED_S), most_s=most_s)


def _replica(batch_size: int, compiled: bool, num_processes: int, most_s: float) -> _Part:
    words = {"batch": batch_size, "compiled": compiled, "decoding processes": num_processes}
    arguments = (batch_size, compiled, num_processes, MEASURED_S)
    return _Part(words=words, method="replica", arguments=arguments, most_s=most_s)


class _Measured:
    """A network: a run of `label` with it on the device, and the process that measures parts; a fresh one after each
    part that failed.
    """

    def __init__(self, config: BenchConfig, scratch: Path, model: str) -> None:
        self.config, self.scratch, self.model = config, scratch, model
        self.out = scratch / f"gpu-{model}"
        self.process: Apart | None = None
        self.has_run = False

    def whole_run(self, end_s: float) -> Figure:
        """Run `label`, in place; return the seconds to its first commit, and to its end."""
        config = self.config
        shard_size = min(SHARD_SIZE, -(-config.num_images // MIN_SHARDS))
        flags = [*label_flags(config, self.scratch, self.model), "--compile", "never", "--device", config.device]
        flags += ["--executor", "inline", "--shard-size", str(shard_size), "--max-error-rate", "1"]
        figure: Figure = {"section": "gpu, label", "model": self.model}
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return {**figure, "failed": NO_TIME}
        start_s = time.monotonic()
        try:
            measured = run_label(flags, self.out, 1, min(LABEL_S, left_s))
        except (CamrayError, RuntimeError) as error:
            return {**figure, "failed": _reason(str(error))}
        self.has_run = True
        return {**figure, "first_commit_s": f"{measured.first_commit_s:.1f}", "s": f"{time.monotonic() - start_s:.1f}"}

    def figure(self, part: _Part, end_s: float) -> Figure:
        """Measure a part, or say why not."""
        figure = {"section": f"gpu, {part.method}", "model": self.model, **part.words}
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return {**figure, "failed": NO_TIME}
        if not self.has_run:
            return {**figure, "failed": "there is no run to measure with"}
        if self.process is None:
            self.process = Apart("cluster.bench.gpu:Gpu", str(self.out), model_of(self.model))
        try:
            return {**figure, **self.process.call(part.method, *part.arguments, timeout_s=min(part.most_s, left_s))}
        except (CamrayError, RuntimeError) as error:
            self.end()
            return {**figure, "failed": _reason(str(error))}

    def end(self) -> None:
        """End the process that measures, if there is one."""
        if self.process is not None:
            self.process.close()
            self.process = None


def _reason(text: str) -> str:
    """Return the line of an error, or of what a command has printed, that says why."""
    lines = text.strip().splitlines()
    return next((line for line in lines if line.startswith(f"{PREFIX}error: ")), lines[0])
