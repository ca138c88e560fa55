"""Where a run takes place, and how: Ray or this process, which device, number format, how many replicas."""

import math
import time
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from cam_ops.errors import MachineError, UsageError
from cam_ops.views import Mapper
from cluster.console import say
from cluster.inline import InlineExecutor
from cluster.request import DTYPES, Device, Precision

if TYPE_CHECKING:
    from cluster.pool import RayExecutor

ExecutorName = Literal["ray", "inline"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
DeviceChoice = Literal["auto", "cuda", "cpu"]

WORTHWHILE = 1.5
UNIT: dict[Device, str] = {"cpu": "CPU", "cuda": "GPU"}


def open_executor(name: ExecutorName, ray_address: str | None) -> "InlineExecutor | RayExecutor":
    """Return what runs the shards; the caller closes it."""
    if name == "inline":
        return InlineExecutor()
    from cluster.pool import RayExecutor  # inline does without ray, which takes a second to import

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


def choose_precision(asked: PrecisionChoice, device: Device, mapper: Mapper) -> tuple[Precision, str]:
    """Return the number format asked for; for `auto` one that `device` is fast in, fp32 where the network fails in it.

    On CUDA that is fp16, nearer to fp32 than bf16; on the CPU bf16 if this machine's own convolutions gain by it, which
    the workers' CPUs are taken to be like. Also returns why. Raises UsageError if the network fails in what was asked.
    """
    if asked != "auto":
        mapper.check(DTYPES[asked])
        return asked, "as asked"
    precision, why = _fast_precision(device)
    try:
        mapper.check(DTYPES[precision])
    except UsageError as error:
        if precision == "fp32":
            raise
        mapper.check(DTYPES["fp32"])
        return "fp32", f"auto, as {error}"
    return precision, why


def _fast_precision(device: Device) -> tuple[Precision, str]:
    if device == "cuda":
        return "fp16", "auto on cuda"
    gain = _gain_of_bf16()
    return "bf16" if gain >= WORTHWHILE else "fp32", f"auto: convolutions in bf16 run {gain:.1f}x as fast on this CPU"


def _gain_of_bf16() -> float:
    """Return the speed of a convolution in bf16 as a multiple of that in fp32: best of five each, milliseconds."""
    seconds: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.ones(4, 128, 28, 28, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        seconds[dtype] = math.inf
        for _ in range(5):
            start = time.perf_counter()
            functional.conv2d(features, weight, padding=1)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def choose_replicas(asked: int | None, device: Device, executor: "InlineExecutor | RayExecutor") -> int:
    """Return how many replicas to start. Raises MachineError where the cluster lacks what was asked for."""
    available, unit = executor.num_gpus if device == "cuda" else executor.num_cpus, UNIT[device]
    if not available:
        raise MachineError(f"the run needs device {device}, there is no {unit}; add a node with one, or use --device")
    num_replicas = 1 if isinstance(executor, InlineExecutor) else asked or available
    if num_replicas > available:
        raise MachineError(
            f"asked for {num_replicas} replicas with 1 {unit} each, the cluster has {available} {unit}s; "
            f"use --replicas {available}"
        )
    return num_replicas
