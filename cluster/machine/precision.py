"""Which number format the forward pass runs in."""

import torch

from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.settings import Device, Precision, PrecisionChoice

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FAST_BF16 = ("amx_bf16", "avx512_bf16")  # instructions without which bf16 is emulated, at a tenth of the speed


def choose_precision(asked: PrecisionChoice, device: Device, mapper: Mapper) -> tuple[Precision, str]:
    """Return the number format asked for; for `auto` one that `device` is fast in, fp32 where the network fails in it.

    On CUDA that is fp16, nearer to fp32 than bf16; on the CPU bf16 if this machine's has instructions for it, which the
    replicas' CPUs are taken to be like. Also returns why. Raises UsageError if the network fails in what was asked.
    """
    if asked != "auto":
        mapper.check(DTYPES[asked], may_overflow=True)
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
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in FAST_BF16 if capabilities.get(name)]
    if found:
        return "bf16", f"auto, as this CPU has {found[0]}"
    return "fp32", f"auto, as this CPU has neither {' nor '.join(FAST_BF16)}"
