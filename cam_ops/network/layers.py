"""Which modules of a network return grids, and what of them the logits see: where `heads` may cut by name.

Letters: B batch, C channels, H, W grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cam_ops.network.grids import spatial_view
from cam_ops.network.watch import Seen, Watch

INVARIANCE_TOLERANCE = 1e-4  # a cell's sum_k g_k A_k, of its terms' length: 1e-6 before a layer norm, about 1 elsewhere
NO_GRID = (nn.Softmax, nn.Flatten, torch.jit.ScriptModule)  # attention weights; channels by cells; takes no hook
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Identity, nn.Dropout)


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
