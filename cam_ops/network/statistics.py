"""How far a network's input lies from what it was trained on: its first batch norm remembers mean and variance.

A wrong --mean and --std, pixels divided by 255 twice or not at all, change what comes there by orders of magnitude, and
the classes with it, of which nothing else tells where there are no labels.

Letters: B batch, C channels, H, W the picture, N pictures and cells together.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEAST_SPREAD, MOST_SPREAD, MOST_SHIFT = 0.05, 8.0, 3.0
"""Eight photographs measure spreads of 0.2 to 1.2 and shifts of 0.1 to 0.6; scaled to 0..255 10,000 and 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """What a batch norm gets, in units of its running statistics."""

    layer: str
    spread: float  # its variance, of the median channel
    shift: float  # its mean, in standard deviations: root mean square over channels

    @property
    def is_far(self) -> bool:
        """Is it another kind of input than it was trained on?"""
        return not (LEAST_SPREAD <= self.spread <= MOST_SPREAD and self.shift <= MOST_SHIFT)


class _Enough(Exception):
    """The first batch norm has been seen: what lies behind it need not run."""


def has_statistics(network: nn.Module) -> bool:
    """Say whether a network has a batch norm that was trained."""
    return any(isinstance(module, nn.BatchNorm2d) and _is_trained(module) for module in network.modules())


def _is_trained(norm: nn.BatchNorm2d) -> bool:
    mean_C, variance_C = norm.running_mean, norm.running_var
    return mean_C is not None and variance_C is not None and (bool(mean_C.any()) or not bool((variance_C == 1).all()))


def distance_from_training(network: nn.Module, images_BCHW: Tensor) -> Distance | None:
    """Compare what the first batch norm gets of some normalised pictures, no fewer than two, with its statistics.

    None where it has none that was trained.
    """
    found: list[Distance] = []

    def compare(name: str, norm: nn.BatchNorm2d, given_BCHW: Tensor) -> None:
        if found:
            return
        mean_C, variance_C = norm.running_mean, norm.running_var
        assert mean_C is not None
        assert variance_C is not None
        given_CN = given_BCHW.float().transpose(0, 1).flatten(1)
        spread_C = given_CN.var(1) / (variance_C + norm.eps)
        shift_C = (given_CN.mean(1) - mean_C) / (variance_C + norm.eps).sqrt()
        shift = float(shift_C.square().mean().sqrt())
        found.append(Distance(layer=name, spread=float(spread_C.median()), shift=shift))
        raise _Enough

    handles = [
        module.register_forward_pre_hook(lambda norm, given, name=name: compare(name, norm, given[0]))
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and _is_trained(module)
    ]
    try:
        with torch.no_grad(), suppress(_Enough):
            network(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
