"""From pixels to logits and features: the part of a network's work that takes nearly all the time, and can be compiled.

It is compiled ahead of time for one batch size, picture size, number format and kind of machine, with the weights
inside: a file that any process loads in a tenth of a second (`torch._inductor.aot_compile`). torch.compile would trace
and lower the network again in each process: 9 s for ResNet-18.

Letters: B batch, S side of the picture, C channels, H, W grid, K classes.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cam_ops.errors import MachineError, UsageError
from cam_ops.explain import Explainer

Compiled = Callable[[Tensor], list[Tensor]]


class Forward(nn.Module):
    """A network with its normalisation in front: pixels, (B, 3, S, S), to logits (B, K) and features (B, C, H, W).

    Pixels are 0..255, uint8, or float32 where they were resampled. Logits and features are float32, in whatever number
    format the network runs.
    """

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, explainer: Explainer, mean_3: Tensor, std_3: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = explainer.network  # so that its weights are found
        self.explainer = explainer
        self.dtype = dtype
        self.register_buffer("mean_311", mean_3[:, None, None])
        self.register_buffer("std_311", std_3[:, None, None])

    def normalised(self, pixels_BCSS: Tensor) -> Tensor:
        """Return the network's input."""
        images_BCSS = (pixels_BCSS.float() / 255 - self.mean_311) / self.std_311
        return images_BCSS.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, and the features at each place of the cut."""
        passed = self.explainer.run(self.normalised(pixels_BCSS))
        return passed.logits_BK, *passed.features


def compile_to(path: Path, forward: Forward, pixels_BCSS: Tensor) -> None:
    """Compile for pixels of this shape, dtype and layout, and for one thread; write a shared library to `path`.

    Raises MachineError where the compiler fails, UsageError where the network cannot be traced, OSError where the
    library cannot be written.
    """
    with torch.no_grad():
        try:
            traced = torch.export.export(forward, (pixels_BCSS,)).module()
        except Exception as error:
            raise UsageError(
                f"the network cannot be compiled: torch.export fails ({type(error).__name__}: {_first_line(error)}); "
                "use --compile never"
            ) from error
        options = {"freezing": True, "aot_inductor.output_path": str(path)}
        try:
            torch._inductor.aot_compile(traced, (pixels_BCSS,), options=options)
        except OSError:  # of the disk, not of the network
            raise
        except Exception as error:
            raise MachineError(
                f"the network cannot be compiled on this machine ({type(error).__name__}: {_first_line(error)}); "
                "use --compile never"
            ) from error


def load_compiled(path: Path, device: torch.device) -> Compiled:
    """Load what `compile_to` wrote: native code, which must come from a folder that only its user can write."""
    if device.type == "cuda":
        on_cuda = torch._C._aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device))
        return lambda pixels_BCSS: on_cuda.run([pixels_BCSS])
    on_cpu = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    return lambda pixels_BCSS: on_cpu.run([pixels_BCSS])


def disagreement(compiled: Compiled, forward: Forward, pixels_BCSS: Tensor) -> float:
    """Return the largest difference of a compiled network's logits and features from the network's own.

    Each relative to the largest absolute value of its kind; on the first two pictures of the batch.
    """
    with torch.no_grad():
        found, expected = compiled(pixels_BCSS), forward(pixels_BCSS[:2])
    return max(
        float((a[:2] - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(found, expected, strict=True)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
