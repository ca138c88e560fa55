"""Map a batch: find where the network is cut, run it on each view of the pictures, average the views' maps.

A view is a picture at a scale, mirrored or not. The first view, unmirrored at the first scale, decides which classes
are explained, and with which logits; the others only add their maps, each flipped back and laid on the finest grid.

Letters: B batch, S side of the largest view, K classes, P explained (image, class) pairs, H, W the maps' grid.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.attention import find_blocks
from cam_ops.errors import UsageError
from cam_ops.explain import Explainer, completeness_residuals, mean_on_finest_grid
from cam_ops.heads import Head, find_head
from cam_ops.methods import FROM_CELL_SHARES, check_method
from cam_ops.settings import ATTENTION, DECOMPOSABLE, ExplainConfig, Method

MAX_SIDE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    side: int
    flipped: bool
    explainer: Explainer

    @property
    def weight(self) -> int:
        """What brings maps of several scales to one unit: gradients are of a cell's share, 1 / N of the whole."""
        height, width = self.explainer.grid
        return height * width if self.explainer.method in FROM_CELL_SHARES else 1

    def of(self, images_BCSS: Tensor, dtype: torch.dtype) -> Tensor:
        """Return this view of the largest pictures."""
        if images_BCSS.shape[2] != self.side:
            images_BCSS = functional.interpolate(
                images_BCSS, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
            )
        if self.flipped:
            images_BCSS = images_BCSS.flip(3)
        return images_BCSS.to(dtype).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The maps of a batch."""

    logits_BK: Tensor  # of the first view, float32
    image_P: Tensor
    class_P: Tensor
    maps_PHW: Tensor  # float32, raw, signed
    residual_P: Tensor | None  # the largest of the views; None where the head has no decomposition


class Mapper:
    """A network with all that is needed to map pictures with it.

    Attributes: `head` and `method` of the first view, `grid` (h, w) of the maps, `side` in pixels of the pictures that
    it takes.
    """

    def __init__(self, network: nn.Module, config: ExplainConfig, image_size: int) -> None:
        """Find the network's head on the side of each scale; it is in eval mode, float32, frozen, and on the CPU.

        There, and not on the device that it will run on: so all machines find the same.

        Raises UsageError where the network, its method or its layers do not go together.
        """
        self.network = network
        self.dtype = torch.float32
        self.views: list[_View] = []
        for scale in config.scales:
            side = self._side(image_size, scale)
            if side in [view.side for view in self.views]:
                raise UsageError(f"--scales {scale} makes inputs of {side} pixels like another scale; leave it out")
            explainer = self._explainer(config, side)
            self.views += [
                _View(side=side, flipped=flipped, explainer=explainer) for flipped in (False, True)[: 1 + config.flip]
            ]
        self.head: Head = self.views[0].explainer.head
        self.method: Method = self.views[0].explainer.method
        self.grid = max(view.explainer.grid for view in self.views)
        self.side = max(view.side for view in self.views)

    def _side(self, image_size: int, scale: float) -> int:
        """Return the side of a scale, in whole cells of the first view's grid, so that all grids cover the picture."""
        side = round(image_size * scale)
        if self.views:
            first = self.views[0]
            cell, rest = divmod(first.side, first.explainer.grid[0])
            side = side if rest else max(1, round(side / cell)) * cell
        if not 8 <= side <= MAX_SIDE:
            raise UsageError(f"--scales {scale} makes inputs of {side} pixels, expected 8 to {MAX_SIDE}")
        return side

    def _explainer(self, config: ExplainConfig, side: int) -> Explainer:
        head = find_head(self.network, side, config.layer)
        if config.method == "auto":
            return self._suitable(head, config.layer, side)
        check_method(config.method, head, config.layer)
        blocks = find_blocks(self.network, side) if config.method in ATTENTION else None
        return Explainer(network=self.network, head=head, method=config.method, blocks=blocks)

    def _suitable(self, head: Head, layer: tuple[str, ...], side: int) -> Explainer:
        """Resolve `auto` by what the head is."""
        method: Method = "cam" if head.kind in DECOMPOSABLE else "gradcam" if head.kind == "pooled" else "layercam"
        if head.kind == "layer" and not layer:
            with suppress(UsageError):
                blocks = find_blocks(self.network, side)
                return Explainer(network=self.network, head=head, method="legrad", blocks=blocks)
        return Explainer(network=self.network, head=head, method=method)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Run the network there and in `dtype`, channels last, from now on; maps are float32 all the same."""
        self.dtype = dtype
        self.network.to(device, dtype).to(memory_format=torch.channels_last)
        self.views = [replace(view, explainer=view.explainer.on(device)) for view in self.views]

    def check(self, dtype: torch.dtype) -> None:
        """Map two classes of one picture of noise in `dtype`, on a copy of the network; UsageError where that fails."""
        if self.method == "scorecam":
            return  # a pass for each channel, and nothing that the search for the head has not tried
        trial = deepcopy(self)
        noise_1CSS = torch.randn(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))
        pairs = torch.tensor([0, 0]), torch.tensor([0, self.head.num_classes - 1])
        try:
            trial.to(torch.device("cpu"), dtype)
            trial.explain(noise_1CSS, lambda logits_BK: pairs)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:  # of another dtype, or of no gradient
            raise UsageError(
                f"--method {self.method} fails on this network in {str(dtype).removeprefix('torch.')} "
                f"({type(error).__name__}: {error}); try --precision fp32, or another --method"
            ) from error

    def explain(self, images_BCSS: Tensor, choose: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Explained:
        """Map the (image, class) pairs that `choose(logits_BK)` returns; pictures are float32, normalised."""
        image_P: Any = None
        class_P: Any = None
        maps: list[Tensor] = []
        residuals: list[Tensor] = []
        logits_BK: Any = None
        for view in self.views:
            with torch.no_grad():
                passed = view.explainer.run(view.of(images_BCSS, self.dtype))
                if not maps:
                    logits_BK = passed.logits_BK
                    image_P, class_P = choose(logits_BK)
                maps_PHW = view.explainer.maps(passed, image_P, class_P)
                residual_P = completeness_residuals(passed, view.explainer.head, image_P, class_P)
            maps_PHW = maps_PHW * (view.weight / self.views[0].weight)
            maps.append(maps_PHW.flip(2) if view.flipped else maps_PHW)
            residuals += [] if residual_P is None else [residual_P]
        return Explained(
            logits_BK=logits_BK,
            image_P=image_P,
            class_P=class_P,
            maps_PHW=mean_on_finest_grid(maps),
            residual_P=torch.stack(residuals).amax(0) if residuals else None,
        )
