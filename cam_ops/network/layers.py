"""Which modules of a network return grids, and what of them the logits see: where `heads` may cut by name.

Whether gradients there are those of the logits is tried by values: a step along the gradient g changes a score by |g|.

Letters: B batch, C channels, H, W grid, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.grids import spatial_view
from cam_ops.network.watch import Place, Seen, Watch, run_from

INVARIANCE_TOLERANCE = 1e-4  # a cell's sum_k g_k A_k, of its terms' length: 1e-6 before a layer norm, about 1 elsewhere
NO_GRID = (nn.Softmax, nn.Flatten, torch.jit.ScriptModule)  # attention weights; channels by cells; takes no hook
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Identity, nn.Dropout)
STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-2, 1e-1)
"""Of the features' length: networks with random weights may curve much, others drown small steps in rounding."""

SLOPES = 0.5, 2.0  # of scores, by the gradient's length: torchvision's networks with random weights measure 0.7 to 1
TOLD = 1e-4  # of the scores' length: what changes less is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Spatial:
    """The last call of a module whose output is a grid."""

    seen: Seen
    grid: tuple[int, int]
    num_channels: int
    reached: bool  # by the logits' gradient, in at least half of the cells
    is_invariant: bool  # to the length of each cell's vector, as before a layer norm
    is_pooling: bool


def spatial_calls(network: nn.Module, images_BCHW: Tensor, names: list[str]) -> dict[str, Spatial]:
    """Run the network once, with gradients; return the modules with spatial outputs, in order of their last call."""
    batch_and_size = len(images_BCHW), images_BCHW.shape[2:]
    kept: dict[str, tuple[Seen, Tensor]] = {}
    pooled: dict[int, Tensor] = {}  # by id, what a pooling module returned: its container may return the same

    def keep(seen: Seen) -> Tensor:
        name = seen.place.name
        if not name or not seen.returned.requires_grad or spatial_view(seen.returned, *batch_and_size) is None:
            return seen.returned
        output = seen.returned
        kept.pop(name, None)  # so that the order is that of the last calls
        kept[name] = replace(seen, returned=output.detach()), output
        passed_on = output.clone()  # what is done in place to this leaves `output` as it is
        if isinstance(network.get_submodule(name), POOLING) or id(output) in pooled:
            pooled.update({id(output): output, id(passed_on): passed_on})
        return passed_on

    leaf_BCHW = images_BCHW.clone().requires_grad_()
    with torch.enable_grad(), Watch(network, keep, images_BCHW.shape[2:], names):
        logits_BK = network(leaf_BCHW)
    direction_BK = torch.randn(logits_BK.shape, generator=torch.Generator().manual_seed(2)).to(logits_BK)
    outputs = [output for _, output in kept.values()]
    gradients: Sequence[Tensor | None] = [None] * len(outputs)
    if outputs and logits_BK.requires_grad:  # the network may run its end without gradients
        gradients = torch.autograd.grad(logits_BK, outputs, direction_BK, allow_unused=True)
    found: dict[str, Spatial] = {}
    for (name, (seen, output)), gradient in zip(kept.items(), gradients, strict=True):
        view_BCHW = spatial_view(output, *batch_and_size)
        assert view_BCHW is not None
        reached = is_invariant = False
        if gradient is not None:
            gradient_BCHW = spatial_view(gradient, *batch_and_size)
            assert gradient_BCHW is not None
            reached = bool((gradient_BCHW != 0).any(1).flatten(1).float().mean(1).min() >= 0.5)
            explained_BCHW = gradient_BCHW * view_BCHW
            is_invariant = bool(explained_BCHW.sum(1).norm() < INVARIANCE_TOLERANCE * explained_BCHW.norm())
        found[name] = Spatial(
            seen=seen,
            grid=(view_BCHW.shape[2], view_BCHW.shape[3]),
            num_channels=view_BCHW.shape[1],
            reached=reached,
            is_invariant=is_invariant,
            is_pooling=id(output) in pooled,
        )
    return found


def named_modules(network: nn.Module) -> list[str]:
    """Name the modules whose results may be grids."""
    return [name for name, module in network.named_modules() if name and not isinstance(module, NO_GRID)]


def behind_norm(calls: list[Spatial]) -> Spatial:
    """Return the first of the calls, in their order, or the first later one on its grid whose cells' lengths matter.

    In a transformer a layer norm follows, whose result does not depend on a cell's length: sum_k g_k A_k would be 0 in
    every cell, whatever the picture shows.
    """
    return next((call for call in calls if call.grid == calls[0].grid and not call.is_invariant), calls[0])


def check_gradients(network: nn.Module, images_BCHW: Tensor, places: Sequence[Place]) -> None:
    """Raise UsageError where the logits do not follow their own gradient at one of the places.

    Networks that are trained for several domains reverse gradients, others stop them, or have a backward of their own.
    """
    for place in places:
        others: list[float] = []
        for slope in _slopes(network, images_BCHW, place):
            if SLOPES[0] <= slope <= SLOPES[1]:
                break
            others.append(slope)
        else:
            if others:
                raise UsageError(
                    f"the gradient of the network's logits at {place.name or 'its global average'} is not theirs: "
                    f"along it they change by {others[0]:.2g} of what it says, as behind a layer that reverses or "
                    "stops gradients; leave that out of its forward in eval mode"
                )


def _slopes(network: nn.Module, images_BCHW: Tensor, place: Place) -> Iterator[float]:
    """Yield, per step along the gradient that tells, the change of a sum of logits over what the gradient says.

    Nothing where the gradient is 0, or where all changes drown in rounding.
    """
    kept: list[Tensor] = []

    def keep(seen: Seen) -> Tensor:
        if seen.place != place:
            return seen.returned
        kept.append(seen.returned.detach().clone().requires_grad_())
        return kept[-1].clone()

    names = [place.name] if place.name else []
    with torch.enable_grad(), Watch(network, keep, images_BCHW.shape[2:], names):
        logits_BK = network(images_BCHW)
    leaf, at = kept[-1], kept[-1].detach()
    direction_BK = torch.randn(logits_BK.shape, generator=torch.Generator().manual_seed(5)).to(logits_BK)
    (gradient,) = torch.autograd.grad(logits_BK, leaf, direction_BK, allow_unused=True)
    length = 0.0 if gradient is None else float(gradient.norm())
    if gradient is None or not 0 < length < float("inf"):
        return
    scores_length = float((direction_BK * logits_BK.detach()).norm())
    for step in STEPS:
        size = step * float(at.norm())
        with torch.no_grad():
            up_BK, down_BK = (
                run_from(network, images_BCHW, place, at + sign * size / length * gradient) for sign in (1, -1)
            )
        change, said = float((direction_BK * (up_BK - down_BK)).sum()), 2 * size * length
        if max(abs(change), said) > TOLD * scores_length:
            yield change / said
