"""Choose where a run takes place: Ray or this process, which device, how many replicas."""

from collections.abc import Callable
from typing import Literal

from cam_ops.errors import MachineError, UsageError
from cam_ops.settings import Device, DeviceChoice
from cluster.executors.work import MAX_PER_GPU, Executor, Replicas
from cluster.process.console import say
from cluster.process.interrupts import held

ExecutorName = Literal["ray", "inline"]

UNIT: dict[Device, str] = {"cpu": "CPU", "cuda": "GPU"}


def check_execution(executor: ExecutorName, replicas: int | None, shard_timeout_s: float | None) -> None:
    """Raise UsageError for flags on where a run takes place that mean nothing."""
    if replicas is not None and replicas < 1:
        raise UsageError(f"--replicas expects a number of at least 1, got {replicas}")
    if shard_timeout_s is not None and not shard_timeout_s > 0:
        raise UsageError(f"--shard-timeout expects seconds above 0, got {shard_timeout_s}")
    if executor == "inline" and (replicas or 1) > 1:
        raise UsageError("--executor inline is one replica; use --executor ray for more")


def no_gpus() -> int:
    """Count none: for work that runs on CPUs, whatever there is."""
    return 0


def open_executor(name: ExecutorName, ray_address: str | None, count_gpus: Callable[[], int]) -> Executor:
    """Return what runs the shards; the caller closes it.

    `count_gpus` is called for those of this process, where they matter: Ray counts its own.
    """
    if name == "inline":  # it does without ray
        from cluster.executors.inline import InlineExecutor

        return InlineExecutor(count_gpus)
    with held():
        from cluster.executors.ray_actors import RayExecutor

    return RayExecutor(ray_address)


def choose_device(asked: DeviceChoice, before: Device | None, executor: Executor) -> Device:
    """Return the device asked for; for `auto` that of the run in place, or cuda where there are GPUs, which is said."""
    if asked != "auto":
        return asked
    if before:
        return before
    device: Device = "cuda" if executor.num_gpus else "cpu"
    say(f"device: {device}, because there are {executor.num_gpus} GPU(s)")
    return device


def choose_replicas(asked: int | None, device: Device, executor: Executor) -> Replicas:
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
