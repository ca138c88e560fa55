"""Where a run takes place: Ray or this process, which device, how many replicas."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cam_ops.errors import MachineError, UsageError
from cluster.apart import build
from cluster.console import say
from cluster.request import Device
from cluster.rundir import RunDir

if TYPE_CHECKING:
    from cluster.inline import InlineExecutor
    from cluster.pool import RayExecutor

ExecutorName = Literal["ray", "inline"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
CompileChoice = Literal["auto", "always", "never"]
DeviceChoice = Literal["auto", "cuda", "cpu"]

FETCH_THREADS = 4  # of a replica on a CPU; they wait for storage, decoding has the replica's own thread
MAX_PER_GPU = 8
UNIT: dict[Device, str] = {"cpu": "CPU", "cuda": "GPU"}


def check_execution(executor: ExecutorName, replicas: int | None, shard_timeout_s: float | None) -> None:
    """Raise UsageError for flags on where a run takes place that mean nothing."""
    if replicas is not None and replicas < 1:
        raise UsageError(f"--replicas expects a number of at least 1, got {replicas}")
    if shard_timeout_s is not None and not shard_timeout_s > 0:
        raise UsageError(f"--shard-timeout expects seconds above 0, got {shard_timeout_s}")
    if executor == "inline" and (replicas or 1) > 1:
        raise UsageError("--executor inline is one replica; use --executor ray for more")


def open_executor(name: ExecutorName, ray_address: str | None) -> "InlineExecutor | RayExecutor":
    """Return what runs the shards; the caller closes it."""
    if name == "inline":  # it does without ray
        from cluster.inline import InlineExecutor

        return InlineExecutor()
    from cluster.pool import RayExecutor

    return RayExecutor(ray_address)


def choose_device(asked: DeviceChoice, before: Device | None, executor: "InlineExecutor | RayExecutor") -> Device:
    """Return the device asked for; for `auto` that of the run in place, or cuda where there are GPUs, which is said."""
    if asked != "auto":
        return asked
    if before:
        return before
    device: Device = "cuda" if executor.num_gpus else "cpu"
    say(f"device: {device}, because there are {executor.num_gpus} GPU(s)")
    return device


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas to start with; where no number was asked for, more as the cluster grows."""

    number: int
    asked: bool


def choose_replicas(asked: int | None, device: Device, executor: "InlineExecutor | RayExecutor") -> Replicas:
    """Return how many replicas to start: on a cluster that may grow those asked for, whether or not it has room yet.

    Raises MachineError where there is room for none, or not for those asked for and never will be.
    """
    available, unit = executor.num_gpus if device == "cuda" else executor.num_cpus, UNIT[device]
    if not available:
        raise MachineError(f"the run needs device {device}, there is no {unit}; add a node with one, or use --device")
    num_replicas = asked or available
    most = available * (MAX_PER_GPU if device == "cuda" else 1)
    if num_replicas > most:
        found = f"asked for {num_replicas} replicas, the cluster has {available} {unit}s, which is room for {most}"
        if not executor.can_grow:
            raise MachineError(f"{found}; use --replicas {most}")
        say(f"{found}: the others begin when it has more")
    return Replicas(num_replicas, asked is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What replicas do with the shards of a run; can be pickled.

    ``MODULE:FACTORY``, called with `arguments` and the number of threads that load pictures, gives what has
    `run_shard(shard, number, deaths)`: see `cluster.worker`.
    """

    run_dir: RunDir
    device: Device
    factory: str
    arguments: tuple[Any, ...]

    def replica(self, num_threads: int) -> Any:
        """Call the factory."""
        return build(self.factory, (*self.arguments, num_threads))


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica has of the cluster."""

    cpus: float
    gpus: float
    threads: int  # that load pictures


def replica_share(device: Device, num_replicas: int, num_cpus: int, num_gpus: int) -> Share:
    """Divide a cluster: a core each on CPUs; on GPUs an equal part of a GPU, and of the cores, which then decode.

    Replicas for which there is no room yet get as much of what is added.
    """
    if device == "cpu":
        return Share(1, 0, FETCH_THREADS)
    per_gpu = min(MAX_PER_GPU, math.ceil(num_replicas / num_gpus))
    cpus = num_cpus / (num_gpus * per_gpu)
    threads = max(1, math.floor(cpus))
    return Share(min(cpus, threads), 1 / per_gpu, threads)
