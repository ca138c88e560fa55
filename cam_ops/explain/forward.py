"""From pixels to logits and features, and to refined maps: what takes nearly all the time, and can be compiled.

It is compiled ahead of time for one batch size, picture size, number format and kind of machine, with the weights
inside: a file that any process loads in a tenth of a second (`torch._inductor.aot_compile`), and a second one for the
refined maps, which are made when the classes are known. torch.compile would trace and lower the network again in each
process: 9 s for ResNet-18.

Letters: B batch, Y, X height and width of the picture, C channels, H, W grid, h, w grid of the refined maps, K classes,
P explained (image, class) pairs.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cam_ops.errors import MachineError, UsageError
from cam_ops.explain.explainer import Explainer
from cam_ops.explain.joint import Part, split
from cam_ops.explain.passes import Pass, Ranks, ranks_of
from cam_ops.network.weights.moving import move

Library = Callable[[list[Tensor]], list[Tensor]]


class Forward(nn.Module):
    """A network with its normalisation in front: pixels, (B, 3, Y, X), to logits (B, K) and features (B, C, H, W).

    Pixels are RGB, 0..255, uint8, or float32 where they were resampled. With one mean the network takes their
    luminance: ITU-R 601, which OpenCV and Pillow's `L` round. It is linear: resampled before or after is the same.
    Logits and features are float32, in whatever number format the network runs.
    """

    mean_C11: Tensor
    std_C11: Tensor
    centre_C11: Tensor
    slope_C11: Tensor

    def __init__(self, explainer: Explainer, mean_C: Tensor, std_C: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = explainer.network  # so that its weights are found
        self.explainer = explainer
        self.dtype = dtype
        self.register_buffer("mean_C11", mean_C[:, None, None])
        self.register_buffer("std_C11", std_C[:, None, None])
        self.register_buffer("centre_C11", 255 * self.mean_C11)
        self.register_buffer("slope_C11", 1 / (255 * self.std_C11))
        self.needs_no_division = self._needs_no_division()
        self._kept_BCYX: Tensor | None = None  # memory of the network's input, on a CPU

    def on(self, device: torch.device, dtype: torch.dtype) -> "Forward":
        """Return a copy that runs there and in `dtype`, channels last."""
        explainer = deepcopy(self.explainer)
        move(explainer.network, device, dtype).to(memory_format=torch.channels_last)
        return Forward(explainer.on(device), self.mean_C11[:, 0, 0].to(device), self.std_C11[:, 0, 0].to(device), dtype)

    def normalised(self, pixels_BCYX: Tensor) -> Tensor:
        """Return the network's input.

        Where pixels lie beside each other a row is one vector: a core adds three numbers at a time as slowly as one.
        Divisions are as slow; where a multiplication gives the same for each of the 256 values of a byte it is done.
        """
        pixels_BYXC = pixels_BCYX.permute(0, 2, 3, 1)
        if len(self.mean_C11) == 1:
            red_BYX, green_BYX, blue_BYX = pixels_BCYX.float().unbind(1)
            pixels_BYXC = (0.299 * red_BYX + 0.587 * green_BYX + 0.114 * blue_BYX)[..., None]
        width, rows_BYV = pixels_BYXC.shape[2], pixels_BYXC.flatten(2).float()
        if self.needs_no_division and pixels_BYXC.dtype == torch.uint8:
            centre_V, slope_V = (values_C11.flatten().repeat(width) for values_C11 in (self.centre_C11, self.slope_C11))
            images_BYV = (rows_BYV - centre_V) * slope_V
        else:
            mean_V, std_V = (values_C11.flatten().repeat(width) for values_C11 in (self.mean_C11, self.std_C11))
            images_BYV = (rows_BYV / 255 - mean_V) / std_V
        images_BCYX = images_BYV.to(self.dtype).view(pixels_BYXC.shape).permute(0, 3, 1, 2)
        return images_BCYX.contiguous(memory_format=torch.channels_last)

    def _needs_no_division(self) -> bool:
        byte_V = torch.arange(256, dtype=torch.float32, device=self.mean_C11.device)
        divided_C1V = ((byte_V / 255 - self.mean_C11) / self.std_C11).to(self.dtype)
        return divided_C1V.equal(((byte_V - self.centre_C11) * self.slope_C11).to(self.dtype))

    def _kept(self, pixels_BCYX: Tensor) -> Tensor:
        """Return the network's input in memory that the next call uses again.

        Picture by picture it stays in a core's caches: new memory for a whole batch, five times, costs six times that.
        """
        shape = (len(pixels_BCYX), len(self.mean_C11), *pixels_BCYX.shape[2:])
        if self._kept_BCYX is None or (self._kept_BCYX.shape, self._kept_BCYX.dtype) != (shape, self.dtype):
            self._kept_BCYX = torch.empty(shape, dtype=self.dtype, memory_format=torch.channels_last)
        for place in range(len(pixels_BCYX)):
            self._kept_BCYX[place : place + 1] = self.normalised(pixels_BCYX[place : place + 1])
        return self._kept_BCYX

    def forward(self, pixels_BCYX: Tensor) -> tuple[Tensor, ...]:
        """Return logits, the features at each place of the cut, and those that maps are refined from: for a trace."""
        passed = self.explainer.run(self.normalised(pixels_BCYX), traced=True)
        stages = () if passed.refinable is None else (passed.refinable.leaf, passed.refinable.fine_BDQV)
        return passed.logits_BK, *passed.features, *stages

    def run(self, pixels_BCYX: Tensor, inside_B4: Tensor) -> Pass:
        """Run the network; see `Mapper.explain` for `inside_B4`."""
        is_on_cpu = self.mean_C11.device.type == "cpu"
        return self.explainer.run(self._kept(pixels_BCYX) if is_on_cpu else self.normalised(pixels_BCYX))

    def refined(
        self,
        passed: Pass,
        maps_PHW: Tensor,
        image_P: Tensor,
        class_P: Tensor,
        inside_B4: Tensor,
        ranks: Ranks | None = None,
    ) -> Tensor:
        """Return the maps refined, float32 (P, h, w)."""
        return self.explainer.refined(passed, maps_PHW, image_P, class_P, inside_B4, ranks)

    @property
    def num_libraries(self) -> int:
        """How many files it is compiled to."""
        return 1 if self.explainer.stages is None else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled network, for batches of one size; it does what `Forward` does."""

    explainer: Explainer  # on the device; its network is not used
    libraries: Sequence[Library]

    def run(self, pixels_BCYX: Tensor, inside_B4: Tensor) -> Pass:
        """Run the network; see `Mapper.explain` for `inside_B4`."""
        inputs = [pixels_BCYX] if len(self.libraries) == 1 else [pixels_BCYX, inside_B4]
        logits_BK, *others = self.libraries[0](inputs)
        num_places = len(self.explainer.head.places)
        return Pass(
            images_BCHW=pixels_BCYX,
            logits_BK=logits_BK,
            features=tuple(others[:num_places]),
            handed=tuple(others[num_places:]),
        )

    def refined(
        self,
        passed: Pass,
        maps_PHW: Tensor,
        image_P: Tensor,
        class_P: Tensor,
        inside_B4: Tensor,
        ranks: Ranks | None = None,
    ) -> Tensor:
        """Return the maps refined, float32 (P, h, w): one class of each image at a time."""
        ranks = ranks or ranks_of(image_P)
        refined_Phw = maps_PHW.new_empty(len(maps_PHW), *self.explainer.refined_grid)
        for rank in range(ranks.num):
            pairs = ranks.pairs(rank)
            images = image_P[pairs]
            cotangent_BK = torch.zeros_like(passed.logits_BK)
            cotangent_BK[images, class_P[pairs]] = 1
            maps_BHW = maps_PHW.new_zeros(len(cotangent_BK), *maps_PHW.shape[1:])
            maps_BHW[images] = maps_PHW[pairs]
            (refined_Bhw,) = self.libraries[1]([cotangent_BK, maps_BHW, inside_B4, *passed.handed])
            refined_Phw[pairs] = refined_Bhw[images]
        return refined_Phw


def results_of(engine: Forward | Compiled, explainer: Explainer, pixels_BCYX: Tensor, class_P: Tensor) -> list[Tensor]:
    """Return logits, features and, where maps are refined, these of one class of each of the first images."""
    inside_B4 = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=pixels_BCYX.device).repeat(len(pixels_BCYX), 1)
    passed = engine.run(pixels_BCYX, inside_B4)
    if explainer.stages is None:
        return [passed.logits_BK, *passed.features]
    image_P, class_P = torch.arange(len(class_P), device=pixels_BCYX.device), class_P.to(pixels_BCYX.device)
    maps_PHW = explainer.maps(passed, image_P, class_P)
    return [passed.logits_BK, *passed.features, engine.refined(passed, maps_PHW, image_P, class_P, inside_B4)]


def compile_to(
    paths: Sequence[Path], forward: Forward, pixels_BCYX: Tensor, device: torch.device, dtype: torch.dtype
) -> None:
    """Compile for pixels of this shape, dtype and layout, and for one thread; write `num_libraries` files to `paths`.

    `forward` and pixels are on the CPU, the former in float32; what is compiled runs on `device` in `dtype`.
    Raises MachineError where the compiler fails, UsageError where the network cannot be traced, OSError where a
    library cannot be written.
    """
    pixels_BCYX = pixels_BCYX.to(device)
    with torch.no_grad():
        try:
            parts = _traced(forward, pixels_BCYX, device, dtype)
        except Exception as error:
            raise UsageError(
                f"the network cannot be compiled: torch.export fails ({type(error).__name__}: {_first_line(error)}); "
                "use --compile never"
            ) from error
        for part, path in zip(parts, paths, strict=True):
            options: dict[str, Any] = {"freezing": True, "aot_inductor.output_path": str(path)}
            if device.type == "cuda":
                options["aot_inductor.embed_kernel_binary"] = True  # or its kernels are files that the library names
            try:
                torch._inductor.aot_compile(part.graph, part.inputs, options=options)
            except OSError:  # of the disk, not of the network
                raise
            except Exception as error:
                raise MachineError(
                    f"the network cannot be compiled on this machine ({type(error).__name__}: {_first_line(error)}); "
                    "use --compile never"
                ) from error


def _traced(forward: Forward, pixels_BCYX: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Part, ...]:
    """Trace the network, in one part, or where its maps are refined in two."""
    traced = torch.export.export(forward.on(device, dtype), (pixels_BCYX,)).module()
    explainer = forward.explainer
    if dtype != torch.float32 or explainer.stages is not None:
        _fold_norms(traced, forward.state_dict())
    if explainer.stages is None:
        return (Part(graph=traced, inputs=(pixels_BCYX,)),)
    parts = split(traced, pixels_BCYX, explainer.grid, explainer.stages.fine_grid)
    return tuple(
        Part(graph=torch.export.export(part.graph, part.inputs).module(), inputs=part.inputs) for part in parts
    )


def _fold_norms(traced: fx.GraphModule, exact: dict[str, Tensor]) -> None:
    """Fold batch norms into the convolutions before them, from weights in float32, so that those are rounded once.

    The compiler would fold weights that are rounded already, and round them again, and none in a backward pass. `exact`
    has float32 weights by their names in the traced network.
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


def load_compiled(paths: Sequence[Path], explainer: Explainer, device: torch.device) -> Compiled:
    """Load what `compile_to` wrote: native code, which must come from a folder that only its user can write."""
    libraries: list[Library] = []
    for path in paths:
        if device.type == "cuda":
            libraries.append(torch._C._aoti.AOTIModelContainerRunnerCuda(str(path), 1, str(device)).run)
        else:
            libraries.append(torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run)
    return Compiled(explainer=explainer.on(device), libraries=libraries)


def distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return the largest difference of results from the exact ones of the batch's first pictures.

    Each relative to the largest absolute value of its kind; NaN where anything found is.
    """
    pairs = [(a[: len(b)].to(b.device), b) for a, b in zip(found, exact, strict=True)]
    return float(torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1e-30) for a, b in pairs]).max())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
