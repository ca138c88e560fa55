"""From pixels to logits and features: the part of a network's work that takes nearly all the time, and can be compiled.

It is compiled ahead of time for one batch size, picture size, number format and kind of machine, with the weights
inside: a file that any process loads in a tenth of a second (`torch._inductor.aot_compile`). torch.compile would trace
and lower the network again in each process: 9 s for ResNet-18.

Letters: B batch, S side of the picture, C channels, H, W grid, K classes.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cam_ops.errors import MachineError, UsageError
from cam_ops.explain.explainer import Explainer

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

    def on(self, device: torch.device, dtype: torch.dtype) -> "Forward":
        """Return a copy that runs there and in `dtype`, channels last."""
        explainer = deepcopy(self.explainer)
        explainer.network.to(device, dtype).to(memory_format=torch.channels_last)
        return Forward(explainer.on(device), self.mean_311[:, 0, 0].to(device), self.std_311[:, 0, 0].to(device), dtype)

    def normalised(self, pixels_BCSS: Tensor) -> Tensor:
        """Return the network's input."""
        images_BCSS = (pixels_BCSS.float() / 255 - self.mean_311) / self.std_311
        return images_BCSS.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def forward(self, pixels_BCSS: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, and the features at each place of the cut."""
        passed = self.explainer.run(self.normalised(pixels_BCSS))
        return passed.logits_BK, *passed.features


def compile_to(path: Path, forward: Forward, pixels_BCSS: Tensor, device: torch.device, dtype: torch.dtype) -> None:
    """Compile for pixels of this shape, dtype and layout, and for one thread; write a shared library to `path`.

    `forward` and pixels are on the CPU, the former in float32; what is compiled runs on `device` in `dtype`.
    Raises MachineError where the compiler fails, UsageError where the network cannot be traced, OSError where the
    library cannot be written.
    """
    pixels_BCSS = pixels_BCSS.to(device)
    with torch.no_grad():
        try:
            traced = torch.export.export(forward.on(device, dtype), (pixels_BCSS,)).module()
        except Exception as error:
            raise UsageError(
                f"the network cannot be compiled: torch.export fails ({type(error).__name__}: {_first_line(error)}); "
                "use --compile never"
            ) from error
        if dtype != torch.float32:
            _fold_norms(traced, forward.state_dict())
        options: dict[str, Any] = {"freezing": True, "aot_inductor.output_path": str(path)}
        if device.type == "cuda":
            options["aot_inductor.embed_kernel_binary"] = True  # or its kernels are files that the library names
        try:
            torch._inductor.aot_compile(traced, (pixels_BCSS,), options=options)
        except OSError:  # of the disk, not of the network
            raise
        except Exception as error:
            raise MachineError(
                f"the network cannot be compiled on this machine ({type(error).__name__}: {_first_line(error)}); "
                "use --compile never"
            ) from error


def _fold_norms(traced: fx.GraphModule, exact: dict[str, Tensor]) -> None:
    """Fold batch norms into the convolutions before them, from weights in float32, so that those are rounded once.

    The compiler would fold weights that are rounded already, and round them again. `exact` has float32 weights by
    their names in the traced network.
    """
    operators = torch.ops.aten
    for number, norm in enumerate(traced.graph.find_nodes(op="call_function", target=operators.batch_norm.default)):
        conv, *affine_and_statistics, _, _, eps, _ = norm.args
        if conv.target is not operators.conv2d.default or len(conv.users) > 1:
            continue
        images, weight, bias, *geometry = (*conv.args, None)[: max(3, len(conv.args))]
        places = (weight, bias, *affine_and_statistics)
        if any(place is not None and place.target not in exact for place in places):
            continue  # weights that are computed
        values: list[Any] = [None if place is None else exact[place.target] for place in places]
        conv_weight, conv_bias, gamma, beta, mean, variance = values
        folded = fuse_conv_bn_weights(conv_weight, conv_bias, mean, variance, eps, gamma, beta)
        names = f"folded_weight_{number}", f"folded_bias_{number}"
        for name, value in zip(names, folded, strict=True):
            traced.register_buffer(name, value.detach().to(attrgetter(weight.target)(traced)))
        with traced.graph.inserting_before(conv):
            conv.args = (images, *map(traced.graph.get_attr, names), *geometry)
        norm.replace_all_uses_with(conv)
        traced.graph.erase_node(norm)
    traced.recompile()


def load_compiled(path: Path, device: torch.device) -> Compiled:
    """Load what `compile_to` wrote: native code, which must come from a folder that only its user can write."""
    if device.type == "cuda":
        on_cuda = torch._C._aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device))
        return lambda pixels_BCSS: on_cuda.run([pixels_BCSS])
    on_cpu = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    return lambda pixels_BCSS: on_cpu.run([pixels_BCSS])


def distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return the largest difference of logits and features from the exact ones of the batch's first pictures.

    Each relative to the largest absolute value of its kind; NaN where anything found is.
    """
    pairs = [(a[: len(b)].to(b.device), b) for a, b in zip(found, exact, strict=True)]
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1e-30) for a, b in pairs]).max())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
