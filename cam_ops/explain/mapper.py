"""Map a batch: find where the network is cut, run it on each view of the pictures, average the views' maps.

A view is a picture at a scale, mirrored or not. The first view, unmirrored at the first scale, decides which classes
are explained, and with which logits; the others only add their maps, each refined if maps are, flipped back and laid on
the finest grid.

Letters: B batch, Y, X height and width of the largest view, K classes, P explained (image, class) pairs, H, W the maps'
grid, h, w their grid before they are refined.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.attention import find_blocks
from cam_ops.explain.explainer import Explainer, completeness_residuals, mean_on_finest_grid
from cam_ops.explain.forward import Compiled, Forward
from cam_ops.explain.methods import FROM_CELL_SHARES, check_method
from cam_ops.explain.passes import Pass, Ranks, ranks_of
from cam_ops.explain.refine import rounded
from cam_ops.network.grids import Grid
from cam_ops.network.heads import Head, find_head
from cam_ops.network.stages import find_stages
from cam_ops.network.takes import Normalisation
from cam_ops.network.weights.moving import check_runs_there, move
from cam_ops.settings import (
    ATTENTION,
    DECOMPOSABLE,
    ExplainConfig,
    Method,
    PerChannel,
    RefineConfig,
    Refinement,
    Size,
    height_and_width,
)

MAX_SIDE = 4096
LOGITS_TOLERANCE = 0.25  # of the largest, between number formats; EfficientNet-Lite0 measures 0.03 in bfloat16
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
NOT_REFINED = RefineConfig(refine="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    size: Grid  # height and width of its pictures
    flipped: bool
    forward: Forward
    compiled: Compiled | None = None

    @property
    def explainer(self) -> Explainer:
        """The network, its head and the method."""
        return self.forward.explainer

    @property
    def weight(self) -> int:
        """What brings maps of several scales to one unit: gradients are of a cell's share, 1 / N of the whole.

        Fused maps of several layers have none.
        """
        height, width = self.explainer.grid
        is_fused = len(self.explainer.head.places) > 1
        return height * width if self.explainer.method in FROM_CELL_SHARES and not is_fused else 1

    def of(self, pixels_BCYX: Tensor) -> Tensor:
        """Return this view of the largest pictures; resampled ones are float32."""
        if pixels_BCYX.shape[2:] != self.size:
            pixels_BCYX = functional.interpolate(
                pixels_BCYX.float(), self.size, mode="bilinear", align_corners=False, antialias=True
            )
        if self.flipped:
            pixels_BCYX = pixels_BCYX.flip(3)
        return pixels_BCYX.contiguous(memory_format=torch.channels_last)

    def mirrored(self, inside_B4: Tensor) -> Tensor:
        """Return where the pictures lie in this view, from where they lie in the input: x0, y0, x1, y1 in its units."""
        x0_B, y0_B, x1_B, y1_B = inside_B4.unbind(1)
        return torch.stack([1 - x1_B, y0_B, 1 - x0_B, y1_B], 1) if self.flipped else inside_B4

    def unrefined(self) -> "_View":
        """Return the view without what its maps are refined from."""
        forward = self.forward
        explainer = replace(forward.explainer, stages=None)
        return replace(
            self, forward=Forward(explainer, forward.mean_C11[:, 0, 0], forward.std_C11[:, 0, 0], forward.dtype)
        )

    @property
    def engine(self) -> Forward | Compiled:
        """What runs the network."""
        return self.compiled or self.forward

    def run(self, pixels_BCYX: Tensor, inside_B4: Tensor) -> Pass:
        """Run the network on this view of the largest pictures."""
        return self.engine.run(self.of(pixels_BCYX), inside_B4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The maps of a batch."""

    logits_BK: Tensor  # of the first view, float32
    image_P: Tensor  # where they were chosen
    class_P: Tensor
    maps_PHW: Tensor  # float32, raw: signed, or refined
    cams_Phw: Tensor  # float32, before they were refined; the same where they are not
    residual_P: Tensor | None  # the largest of the views; None where the head has no decomposition


class Mapper:
    """A network with all that is needed to map pictures with it.

    Attributes: `head` and `method` of the first view, `grid` (H, W) of the maps, `cam_grid` (h, w) of them before they
    are refined, `refinement` from which features, None where they are not, and `why_not` then, `size` of the pictures
    that it takes, height and width in pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ExplainConfig,
        image_size: Size,
        mean: PerChannel = (0.0, 0.0, 0.0),
        std: PerChannel = (1.0, 1.0, 1.0),
        refine: RefineConfig = NOT_REFINED,
    ) -> None:
        """Find the network's head at each scale; it is in eval mode, float32, frozen, and on the CPU.

        There, and not on the device that it will run on: so all machines find the same. `mean` and `std` are for RGB
        scaled to 0..1, or of one number each: then the network takes one channel, gray.

        Raises UsageError where the network, its method or its layers do not go together.
        """
        self.network = network
        self.mean_C, self.std_C = torch.tensor(mean), torch.tensor(std)
        self.normalisation = Normalisation(mean=mean, std=std)
        self.refine, self.why_not = refine, "as asked"
        self.views: list[_View] = []
        for scale in config.scales:
            size = self._size(image_size, scale)
            if size in [view.size for view in self.views]:
                raise UsageError(f"--scales {scale} makes inputs of {_pixels(size)} like another scale; leave it out")
            try:
                explainer = self._refining(self._explainer(config, size), size)
            except UsageError as error:
                if scale == 1:
                    raise
                raise UsageError(f"--scales {scale}: {error}") from error
            forward = Forward(explainer, self.mean_C, self.std_C, torch.float32)
            self.views += [
                _View(size=size, flipped=flipped, forward=forward) for flipped in (False, True)[: 1 + config.flip]
            ]
        self.head: Head = self.views[0].explainer.head
        self.method: Method = self.views[0].explainer.method
        self.cam_grid = max(view.explainer.grid for view in self.views)
        self.grid = max(view.explainer.refined_grid for view in self.views)
        stages = self.views[0].explainer.stages
        self.refinement: Refinement | None = None
        if stages is not None:
            self.refinement = Refinement(layers=stages.layers, cam_grid=self.cam_grid, keep_cam=refine.keep_cam)
        self.size: Grid = self._largest()

    def _size(self, image_size: Size, scale: float) -> Grid:
        """Return the sides of a scale, in whole cells of the first view's grid, so that all grids cover the picture."""
        height, width = (round(side * scale) for side in height_and_width(image_size))
        if self.views:
            first = self.views[0]
            sides = zip((height, width), first.size, first.explainer.grid, strict=True)
            height, width = (_in_cells(side, *of_first) for side, *of_first in sides)
        for side in (height, width):
            if not 8 <= side <= MAX_SIDE:
                raise UsageError(f"--scales {scale} makes inputs of {side} pixels, expected 8 to {MAX_SIDE}")
        return height, width

    def _largest(self) -> Grid:
        """Return the size that all views are made from: with the first one's proportions, as large as the largest."""
        height, width = self.views[0].size
        most = max(max(view.size[0] / height, view.size[1] / width) for view in self.views)
        return round(height * most), round(width * most)

    def _explainer(self, config: ExplainConfig, size: Grid) -> Explainer:
        head = find_head(self.network, size, config.layer, self.normalisation)
        if config.method == "auto":
            return self._suitable(head, config.layer, size)
        check_method(config.method, head)
        blocks = find_blocks(self.network, size, self.normalisation) if config.method in ATTENTION else None
        return Explainer(network=self.network, head=head, method=config.method, blocks=blocks)

    def _suitable(self, head: Head, layer: tuple[str, ...], size: Grid) -> Explainer:
        """Resolve `auto` by what the head is."""
        method: Method = "cam" if head.kind in DECOMPOSABLE else "gradcam" if head.kind == "pooled" else "layercam"
        if head.kind == "layer" and not layer:
            with suppress(UsageError):
                blocks = find_blocks(self.network, size, self.normalisation)
                return Explainer(network=self.network, head=head, method="legrad", blocks=blocks)
        return Explainer(network=self.network, head=head, method=method)

    def _refining(self, explainer: Explainer, size: Grid) -> Explainer:
        """Find what the maps of pictures of that size are refined from: on all sizes the same layers, or none."""
        layers = self.refine.refine_layers
        if self.views:
            first = self.views[0].explainer.stages
            if first is None:
                return explainer
            layers = first.layers
        elif self.refine.refine == "none":
            return explainer
        try:
            return replace(explainer, stages=find_stages(self.network, size, layers, self.normalisation))
        except UsageError as error:
            if self.refine.refine == "affinity" or self.refine.refine_layers:
                raise UsageError(f"--refine affinity: {error}; or use --refine none") from None
            self.why_not = f"auto, as {error}"
            self.views = [view.unrefined() for view in self.views]
            return explainer

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Run the network there and in `dtype`, channels last, from now on; maps are float32 all the same.

        Raises UsageError where the network fails there, as its tensors are on several devices.
        """
        move(self.network, device, dtype).to(memory_format=torch.channels_last)
        if device.type != "cpu":
            check_runs_there(self.network, self.views[0].size, self.normalisation, device, dtype)
        mean_C, std_C = self.mean_C.to(device), self.std_C.to(device)
        self.views = [
            replace(view, forward=Forward(view.explainer.on(device), mean_C, std_C, dtype)) for view in self.views
        ]

    @property
    def can_compile(self) -> bool:
        """Does the method take nothing but what a compiled pass gives?"""
        return self.views[0].explainer.is_forward_only

    def compile(self, compiled: Callable[[Forward, Tensor], Compiled], batch_size: int) -> None:
        """Let `compiled(forward, noise pixels)` run the network from now on, once for all views of one size.

        Before `to`: it gets the float32 network on the CPU.
        """
        of_size: dict[Grid, Compiled] = {}
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, *self.size, 3)
        noise_BCYX = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
        for view in self.views:
            if view.size not in of_size:
                of_size[view.size] = compiled(view.forward, view.of(noise_BCYX))
        self.views = [replace(view, compiled=of_size[view.size]) for view in self.views]

    def forget_compiled(self) -> None:
        """Run the network itself from now on, which takes batches of any size."""
        self.views = [replace(view, compiled=None) for view in self.views]

    def check(self, dtype: torch.dtype, may_overflow: bool = False) -> None:
        """Map two classes of one picture of noise in `dtype`, on a copy of the network.

        Raises UsageError where that fails, or gives logits far from those of float32; such as are not finite are left
        to the run, which counts these pictures, where it `may_overflow`.
        """
        if self.method == "scorecam":
            return  # a pass for each channel, and nothing that the search for the head has not tried
        try:
            _, found_1K = self._try(dtype)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:  # of another dtype, or of no gradient
            raise UsageError(
                f"--method {self.method} fails on this network in {str(dtype).removeprefix('torch.')} "
                f"({type(error).__name__}: {error}); try --precision fp32, or another --method"
            ) from error
        if dtype != torch.float32 and not (may_overflow and not found_1K.isfinite().all()):
            with torch.no_grad():
                exact_1K = self.views[0].forward.run(self._noise(), WHOLE).logits_BK
            far = float((found_1K - exact_1K).abs().max() / exact_1K.abs().max())
            if not far <= LOGITS_TOLERANCE:  # nor NaN
                shown = str(dtype).removeprefix("torch.")
                raise UsageError(
                    f"the network gives other logits in {shown}, by {far:.2g} of the largest; try --precision fp32"
                )

    def seconds_per_picture(self, dtype: torch.dtype) -> float:
        """Return how long one thread takes to map one picture in `dtype`, not compiled."""
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        seconds, _ = self._try(dtype)
        torch.set_num_threads(num_threads)
        return seconds

    def _try(self, dtype: torch.dtype) -> tuple[float, Tensor]:
        """Map two classes of one picture of noise twice, on a copy of the network.

        Return the seconds that the second time took, and the logits (1, K).
        """
        trial = deepcopy(self)
        noise_1CYX = self._noise()
        pairs = torch.tensor([0, 0]), torch.tensor([0, self.head.num_classes - 1])
        trial.to(torch.device("cpu"), dtype)
        trial.explain(noise_1CYX, lambda logits_BK: pairs)
        start_s = time.perf_counter()
        explained = trial.explain(noise_1CYX, lambda logits_BK: pairs)
        return time.perf_counter() - start_s, explained.logits_BK

    def _noise(self) -> Tensor:
        return 255 * torch.rand(1, 3, *self.size, generator=torch.Generator().manual_seed(0))

    def explain(
        self,
        pixels_BCYX: Tensor,
        choose: Callable[[Tensor], tuple[Tensor, Tensor]],
        inside_B4: Tensor | None = None,
    ) -> Explained:
        """Map the (image, class) pairs that `choose(logits_BK)` returns; pixels are 0..255, uint8 or float32.

        Pairs in the host's memory are brought to a GPU in one copy; for `cam`, refined or not, and one forward pass a
        view nothing else is copied, and the host does not wait but in `choose`.

        `inside_B4`, float32, are x0, y0, x1, y1 of each picture in units of the input, by default all of it:
        maps are refined from what lies there.
        """
        chosen: Any = None
        image_P: Any = None
        class_P: Any = None
        maps: list[Tensor] = []
        cams: list[Tensor] = []
        residuals: list[Tensor] = []
        logits_BK: Any = None
        ranks: Any = None
        if inside_B4 is None:
            inside_B4 = pixels_BCYX.new_tensor([0, 0, 1, 1], dtype=torch.float32).expand(len(pixels_BCYX), 4)
        for view in self.views:
            inside_of_view_B4 = view.mirrored(inside_B4)
            with torch.no_grad():
                passed = view.run(pixels_BCYX, inside_of_view_B4)
                if not maps:
                    logits_BK = passed.logits_BK
                    chosen = choose(logits_BK)
                    image_P, class_P, ranks = _placed(chosen, logits_BK.device)
                cams_Phw = view.explainer.maps(passed, image_P, class_P, ranks)
                whole_Phw = cams_Phw if self.method == "cam" else None
                residual_P = completeness_residuals(passed, view.explainer.head, image_P, class_P, whole_Phw)
                maps_PHW = cams_Phw
                if self.refinement is not None:
                    maps_PHW = view.engine.refined(passed, cams_Phw, image_P, class_P, inside_of_view_B4, ranks)
            cams.append(self._aligned(cams_Phw, view))
            maps.append(self._aligned(maps_PHW, view))
            residuals += [] if residual_P is None else [residual_P]
        mean_PHW = mean_on_finest_grid(maps)
        return Explained(
            logits_BK=logits_BK,
            image_P=chosen[0],
            class_P=chosen[1],
            maps_PHW=mean_PHW if self.refinement is None else rounded(mean_PHW),
            cams_Phw=mean_on_finest_grid(cams),
            residual_P=torch.stack(residuals).amax(0) if residuals else None,
        )

    def _aligned(self, maps_PHW: Tensor, view: _View) -> Tensor:
        """Return a view's maps in the first view's unit, and as the picture lies."""
        maps_PHW = maps_PHW * (view.weight / self.views[0].weight)
        return maps_PHW.flip(2) if view.flipped else maps_PHW


def _placed(chosen: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor, Ranks]:
    """Bring pairs to the device, with their ranks, in one copy."""
    image_P, class_P = (one_P.cpu() for one_P in chosen)
    ranks = ranks_of(image_P)
    packed_4P = torch.stack([image_P, class_P, ranks.rank_P, ranks.by_rank_P]).to(device, non_blocking=True)
    image_P, class_P, rank_P, by_rank_P = packed_4P.unbind()
    return image_P, class_P, replace(ranks, rank_P=rank_P, by_rank_P=by_rank_P)


def _in_cells(side: int, of_first: int, cells: int) -> int:
    """Round a side to whole cells of the first view, where its cells are whole pixels."""
    cell, rest = divmod(of_first, cells)
    return side if rest else max(1, round(side / cell)) * cell


def _pixels(size: Grid) -> str:
    height, width = size
    return f"{height} pixels" if height == width else f"{width}x{height} pixels"
