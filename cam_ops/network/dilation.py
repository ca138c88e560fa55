"""Run a network's last stage at twice the resolution, without retraining: its stride becomes dilation.

Chen et al. 2018 (DeepLab, section 3.1), there "atrous". Which convolutions form the last stage is read off one dry run:
no layer names, no table of architectures. The surgery is proven on the spot: at every second position the dilated
network's last features are the original's. Letters: B batch, C channels, H, W grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.takes import IDENTITY, Normalisation
from cam_ops.network.trial import first_run, trial_pictures
from cam_ops.settings import Size, height_and_width

TOLERANCE = 1e-4  # relative, float32; ResNets measure 1e-6
PROBE_SCALES = (1.0, 1e3, 1e6, 1e9)  # random weights make signals vanish, and squeeze-and-excitation a constant
CURE = "--dilate is for networks like ResNet, whose last stage begins with convolutions of stride 2; leave it out"

Grid = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One call of a convolution, and the grids of its input and output."""

    conv: nn.Conv2d
    given: Grid
    returned: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class _DryRun:
    """The calls of convolutions in their order, and the last output of a module that is more than one position."""

    calls: list[_Call]
    features_BCHW: Tensor

    @property
    def grid(self) -> Grid:
        """H and W of the features."""
        return _grid(self.features_BCHW)


def dilate_last_stage(network: nn.Module, image_size: Size, normalisation: Normalisation = IDENTITY) -> None:
    """Double, in place, the grid that `network` ends on; it is in eval mode, float32, on the CPU.

    The convolutions of stride 2 that make the last grid get stride 1. Those that work on that grid after them get twice
    the dilation and padding, so that each weight still meets the neighbour that it was trained on. Of a ResNet-50 this
    makes what torchvision's replace_stride_with_dilation=[False, False, True] builds; it does the same to BasicBlocks.

    Costs two forward passes on seeded noise of that size. Raises UsageError if no convolution of
    stride 2 makes the last grid, or if the features change at the positions that the original has; the network is then
    not to be used.
    """
    noise_1CHW = trial_pictures(network, image_size, 1, normalisation)
    images_BCHW = torch.cat([scale * noise_1CHW for scale in PROBE_SCALES])
    height, width = height_and_width(image_size)
    before = _dry_run(network, images_BCHW, first_run)
    if any(tuple(call.conv.stride) != (1, 1) and call.returned == (1, 1) for call in before.calls):
        raise UsageError(
            f"--dilate expects a last stage of at least 2x2 positions, of pictures of {width}x{height} pixels "
            "the network keeps a single one; give a larger --image-size"
        )
    expected = _replace_stride(before)
    try:
        after = _dry_run(network, images_BCHW, nn.Module.__call__)
    except (RuntimeError, ValueError, AssertionError) as error:  # shapes that no longer fit
        raise UsageError(
            "the network does not run once the convolutions that make its last grid have stride 1, as another layer "
            f"has a stride beside them or expects that grid ({type(error).__name__}: {error}); {CURE}"
        ) from error
    _check_same_features(before, after, expected)


def _dry_run(network: nn.Module, images_BCHW: Tensor, run: Callable[[nn.Module, Tensor], Any]) -> _DryRun:
    """Run `network` once, by `run`, and watch its modules."""
    calls: list[_Call] = []
    maps = [images_BCHW]

    def record(module: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
        if not isinstance(returned, Tensor) or returned.ndim != 4:
            return
        if isinstance(module, nn.Conv2d):
            calls.append(_Call(conv=module, given=_grid(given[0]), returned=_grid(returned)))
        if _grid(returned) != (1, 1):
            maps[:] = [returned]

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    try:
        with torch.no_grad():
            run(network, images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return _DryRun(calls=calls, features_BCHW=maps[0])


def _grid(features_BCHW: Tensor) -> Grid:
    height, width = features_BCHW.shape[2:]
    return height, width


def _replace_stride(run: _DryRun) -> Grid:
    """Take the stride from the convolutions that make the last grid, and dilate those that work on it after them.

    Returns the grid that the last stage should keep from now on, that of its input.
    """
    shrinks = [tuple(c.conv.stride) == (2, 2) and c.returned == run.grid and c.given != run.grid for c in run.calls]
    if not any(shrinks):
        raise UsageError(f"no convolution of stride 2 makes the network's last grid, {_text(run.grid)}; {CURE}")
    strided = {call.conv for call, shrink in zip(run.calls, shrinks, strict=True) if shrink}
    on_grid = {call.conv for call in run.calls[shrinks.index(True) :] if call.given == run.grid}
    for conv in strided:
        conv.stride = (1, 1)
    for conv in on_grid - strided:
        if max(conv.kernel_size) > 1:
            conv.dilation = _doubled(conv.dilation)
            if not isinstance(conv.padding, str):  # "same" and "valid" follow the dilation by themselves
                conv.padding = _doubled(conv.padding)
    return run.calls[shrinks.index(True)].given


def _doubled(pair: tuple[int, ...]) -> tuple[int, int]:
    vertical, horizontal = pair
    return 2 * vertical, 2 * horizontal


def _check_same_features(before: _DryRun, after: _DryRun, expected: Grid) -> None:
    """Refuse a network that is not the original at every second position."""
    sampled_BCHW = after.features_BCHW[..., ::2, ::2]
    if after.grid != expected or sampled_BCHW.shape != before.features_BCHW.shape:
        raise UsageError(
            f"expected dilation to keep the grid of the last stage's input, {_text(expected)}, "
            f"it became {_text(after.grid)}; {CURE}"
        )
    change_B = (sampled_BCHW - before.features_BCHW).flatten(1).norm(dim=1)
    change = float((change_B / before.features_BCHW.flatten(1).norm(dim=1)).max())
    if not change <= TOLERANCE:
        raise UsageError(
            f"dilation changes the network's features by {change:.1e} of their norm where at most {TOLERANCE:.0e} is "
            f"expected, as squeeze-and-excitation, attention and uneven padding make it do; {CURE}"
        )


def _text(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
