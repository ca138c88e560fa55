"""Which number format the forward pass runs in."""

import math
import time

import torch
from torch import Tensor
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.settings import Device, Precision, PrecisionChoice

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTHWHILE = 1.5
ROUNDS = 20


def choose_precision(asked: PrecisionChoice, device: Device, mapper: Mapper) -> tuple[Precision, str]:
    """Return the number format asked for; for `auto` one that `device` is fast in, fp32 where the network fails in it.

    On CUDA that is fp16, nearer to fp32 than bf16; on the CPU bf16 if this machine's own convolutions gain by it, which
    the replicas' CPUs are taken to be like. Also returns why. Raises UsageError if the network fails in what was asked.
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
    """Return the speed of a convolution in bf16 as a multiple of that in fp32: the best of many each, milliseconds.

    In turn, so that what else the machine does slows both.
    """
    inputs = {dtype: _convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds = dict.fromkeys(inputs, math.inf)
    for _ in range(ROUNDS):
        for dtype, (features, weight) in inputs.items():
            start = time.perf_counter()
            functional.conv2d(features, weight, padding=1)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _convolution(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    features = torch.ones(4, 128, 28, 28, dtype=dtype).to(memory_format=torch.channels_last)
    return features, torch.ones(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
