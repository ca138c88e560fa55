"""GPUs: how many there are, and their failures in the dispatch loop's terms: one replica's, or its machine's fault."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cam_ops.errors import MachineError


def num_gpus() -> int:
    """Return how many GPUs torch sees on this machine."""
    return torch.cuda.device_count()


def held_bytes(device: torch.device) -> int:
    """Return the most memory of the GPU that this process's torch has held so far, 0 where there is none."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def on_host(*tensors: Tensor) -> list[Tensor]:
    """Return tensors in the host's memory: of a GPU's, copies into page-locked memory, waited for once."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    if tensors[0].is_cuda:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        done.synchronize()
    return copies


def page_lock(tensor: Tensor) -> None:
    """Lock a tensor's memory, so that copies of it go on beside other work. Raises MachineError if that cannot be."""
    code = int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0))  # type: ignore[no-untyped-call]
    if code:
        raise MachineError(
            f"the GPU's driver cannot lock {tensor.nbytes / 2**20:.0f} MiB of memory for a batch (CUDA error {code}); "
            "free some of the machine's memory, or use a smaller --batch-size"
        )


def page_unlock(tensor: Tensor) -> None:
    """Undo `page_lock`, which has to be before the memory is given back."""
    torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())  # type: ignore[no-untyped-call]


@contextmanager
def loading(device: torch.device, model: str) -> Iterator[None]:
    """Around what brings a network to the device: MachineError where there is no use of it, or too little memory."""
    if device.type == "cuda":
        _use_first(device)
    try:
        with computing(device):
            yield
    except torch.OutOfMemoryError:
        raise MachineError(
            f"the GPU has not the memory for {model}; use a GPU with more, or fewer replicas per GPU"
        ) from None


def _use_first(device: torch.device) -> None:
    try:
        torch.zeros(1, device=device)
    except torch.AcceleratorError:
        raise
    except (RuntimeError, AssertionError) as error:  # no driver, an old one, a GPU that is gone, torch without CUDA
        reason = str(error).strip().splitlines()[0]
        raise MachineError(f"the GPU cannot be used: {reason}; check its driver, or use --device cpu") from None


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Around what computes on the device: torch's AcceleratorError where a GPU is lost, whichever library saw it first.

    cuDNN, cuBLAS and compiled networks say so in a RuntimeError with words of their own. Once it is lost, all that is
    asked of it fails as torch says it.
    """
    try:
        yield
    except RuntimeError:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        raise
