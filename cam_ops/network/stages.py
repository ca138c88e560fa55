"""Find the features that maps are refined from: what a network makes before the last two reductions of its grid.

`coarse` is the last result on the grid before the last reduction (ResNet: layer3, 14x14), `fine` that before the one
before (layer2, 28x28); the ratio of the grids need not be 2. Results inside of a module that reduces the grid do not
count: they are parts of a block; nor does padding, nor attention, nor any but the last result of a module that runs
often, as its name would not say which. A network with one grid (a vision transformer) has the results of its blocks at
three quarters and at half of its depth instead. That the logits see nothing of the picture but `coarse` is proven by
the swap test, as for a head; so is `fine`.

Letters: B batch, C channels.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from math import prod
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.grids import Grid, shown, spatial_view
from cam_ops.network.heads import dry_run, swap_test
from cam_ops.network.layers import check_gradients, named_modules, spatial_calls
from cam_ops.network.takes import IDENTITY, Normalisation
from cam_ops.network.trial import in_a_sentence
from cam_ops.network.watch import Place
from cam_ops.settings import Size

MAX_PAIRS = 2**22  # of cells of the two grids: 16 MiB of float32 a picture
NO_GRID: Grid = (0, 0)
MAX_TRIES = 8  # swap tests on one grid
MIN_BLOCKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The two results, as calls of named modules."""

    coarse: Place
    fine: Place
    coarse_grid: Grid
    fine_grid: Grid

    @property
    def layers(self) -> tuple[str, str]:
        """Names of the modules, the deeper one first."""
        return self.coarse.name, self.fine.name


@dataclass(slots=True)
class _Call:
    """One call of a module in the dry run."""

    place: Place
    around: tuple["_Call", ...]  # calls that it is part of
    given: Grid  # of what it got
    num_tokens: int  # that it got, 0 where these are no tokens
    returned: Grid = NO_GRID
    grids: set[Grid] = field(default_factory=set)  # of its parts

    @property
    def is_padding(self) -> bool:
        """Is the grid larger than before?"""
        return self.returned > self.given > NO_GRID

    def is_a_step(self) -> bool:
        """Is this a step of a block that goes from this very grid to a smaller one, or does it but pad?"""
        return self.is_padding or any(call.given == self.returned and call.reduces_once() for call in self.around)

    def reduces_once(self) -> bool:
        """Does it go to a smaller grid, with none between? Else it is no block, but holds blocks."""
        return self.given > self.returned > NO_GRID and not any(
            self.returned < grid < self.given for grid in self.grids
        )


@in_a_sentence
def find_stages(
    network: nn.Module, image_size: Size, layers: tuple[str, ...] = (), normalisation: Normalisation = IDENTITY
) -> Stages:
    """Find the features that maps of `network`, in eval mode, float32, are refined from; `layers` names two instead.

    Costs some forward passes on noise of that size, seeded. Raises UsageError with the reason where
    there are none.
    """
    images_BCHW, logits_BK, _ = dry_run(network, image_size, normalisation)
    calls = [call for call in _calls(network, images_BCHW) if call.returned > NO_GRID]

    @cache
    def is_all(place: Place) -> bool:
        return swap_test(network, images_BCHW, logits_BK, place)

    if layers:
        coarse, fine = _named(network, calls, layers)
    else:
        last = {call.place.name: call for call in calls}
        counted = [call for call in last.values() if not call.is_a_step()]
        grids = sorted({call.returned for call in counted})
        if len(grids) == 1:
            coarse, fine = _at_depths(network, counted)
        elif len(grids) > 2:
            coarse, fine = (_last(counted, grid, is_all) for grid in grids[1:3])
        else:
            raise UsageError(f"the network reduces its grid {max(0, len(grids) - 1)} time(s), two are needed")
    for call in (coarse,) if layers else (coarse, fine):
        if not is_all(call.place):
            raise UsageError(f"the logits see more of the picture than what {call.place.name} returns")
    with_gradient = spatial_calls(network, images_BCHW, [coarse.place.name]).get(coarse.place.name)
    if with_gradient is None or not with_gradient.reached:
        raise UsageError(f"the gradient of the logits does not reach {coarse.place.name}")
    check_gradients(network, images_BCHW, [coarse.place])
    if prod(coarse.returned) * prod(fine.returned) > MAX_PAIRS:
        raise UsageError(
            f"grids of {shown(coarse.returned)} and {shown(fine.returned)} are too fine for it; "
            "use a smaller --image-size"
        )
    return Stages(coarse=coarse.place, fine=fine.place, coarse_grid=coarse.returned, fine_grid=fine.returned)


def _calls(network: nn.Module, images_BCHW: Tensor) -> list[_Call]:
    """Run the network; return the calls of its modules in the order in which they end."""
    inside: list[_Call] = []
    ended: list[_Call] = []
    counts: dict[str, int] = {}

    def enter(name: str, module: nn.Module, given: Any) -> None:
        index = counts.get(name, 0)
        counts[name] = index + 1
        first = next(iter(given), None)
        num_tokens = first.shape[1] if isinstance(first, Tensor) and first.ndim == 3 else 0
        inside.append(_Call(Place("module", index, name), tuple(inside), _grid(first, images_BCHW), num_tokens))

    def leave(module: nn.Module, given: Any, returned: Any) -> None:
        call = inside.pop()
        call.returned = _grid(returned, images_BCHW)
        is_square = call.returned > NO_GRID and returned.ndim == 4
        if is_square and call.returned in {(around.num_tokens, around.num_tokens) for around in call.around}:
            call.returned = NO_GRID  # tokens by tokens: attention, and no grid
        if not call.is_padding:
            for around in call.around:
                around.grids.add(call.returned)
        ended.append(call)

    with ExitStack() as hooks, torch.no_grad():
        for name in named_modules(network):
            module = network.get_submodule(name)
            hooks.callback(module.register_forward_pre_hook(partial(enter, name)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        network(images_BCHW)
    return ended


def _grid(value: Any, images_BCHW: Tensor) -> Grid:
    if not isinstance(value, Tensor) or not value.ndim:
        return NO_GRID
    view_BCHW = spatial_view(value, len(images_BCHW), images_BCHW.shape[2:])
    return NO_GRID if view_BCHW is None else (view_BCHW.shape[2], view_BCHW.shape[3])


def _last(calls: list[_Call], grid: Grid, is_all: Callable[[Place], bool]) -> _Call:
    """Return the last call with a grid that is all the logits see; the last of all where none of some is."""
    on_grid = [call for call in calls if call.returned == grid][::-1]
    return next((call for call in on_grid[:MAX_TRIES] if is_all(call.place)), on_grid[0])


def _at_depths(network: nn.Module, calls: list[_Call]) -> tuple[_Call, _Call]:
    """Return the blocks at three quarters and half of the depth: the most modules of one kind, with parts, in a row."""
    alike: dict[tuple[str, type], list[_Call]] = {}
    for call in calls:
        module = network.get_submodule(call.place.name)
        if any(True for _ in module.children()):
            alike.setdefault((call.place.name.rpartition(".")[0], type(module)), []).append(call)
    blocks = max(alike.values(), key=len, default=[])
    if len(blocks) < MIN_BLOCKS:
        raise UsageError(f"the network does not reduce its grid, and has less than {MIN_BLOCKS} blocks on it")
    return blocks[-(-3 * len(blocks) // 4) - 1], blocks[len(blocks) // 2 - 1]


def _named(network: nn.Module, calls: list[_Call], layers: tuple[str, ...]) -> tuple[_Call, _Call]:
    """Return the last calls of the two named modules, the deeper one first."""
    known = named_modules(network)
    for layer in layers:
        if layer not in known:
            close = get_close_matches(layer, known, 3) or known[-3:]
            raise UsageError(
                f"--refine-layers {layer}: the network has no such module; similar names are {', '.join(close)}"
            )
    last = {call.place.name: (number, call) for number, call in enumerate(calls)}
    for layer in layers:
        if layer not in last:
            raise UsageError(f"--refine-layers {layer} gives no spatial features")
    (_, fine), (_, coarse) = sorted((last[layer] for layer in layers), key=itemgetter(0))
    if coarse.returned > fine.returned:
        raise UsageError(
            f"--refine-layers {' '.join(layers)}: the deeper one has the finer grid, {shown(coarse.returned)}"
        )
    return coarse, fine
