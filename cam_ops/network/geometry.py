"""Whether features lie over the picture: the maps of a network that crops, mirrors or turns its input lie elsewhere.

Corners of a picture of noise are replaced, its borders, and its halves, and it is mirrored: what changes in the
features, and where, says how they lie.

Letters: B batch, C channels, H, W grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.errors import UsageError
from cam_ops.network.grids import shown, spatial_view
from cam_ops.network.watch import Place, Seen, Watch

ALL = slice(None)
NAMES: dict[Callable[..., Any], tuple[str, ...]] = {
    functional.pad: ("input", "pad"),
    functional.conv2d: ("input", "weight", "bias", "stride"),
    torch.roll: ("input", "shifts", "dims"),
    Tensor.roll: ("input", "shifts", "dims"),
}
SIDES = ("left", "right", "top", "bottom")
BORDER = 16  # a network that reads all of the picture reads more than this part of its sides' ends
CORNER = 4
MIRRORED = 1e-3  # of the difference that another picture makes: rounding errors
LEAST_ORDER = -0.1
"""Of the grid's sides: networks measure +0.005 to +1, those with random weights on 2x2 cells -0.04 at the least."""

SHUFFLED = 0.5
"""Correlation of a cell's change with whether its half of the picture was replaced: networks measure 0.68 to 1 where
the changes vary as much as VARIED; cells in the order of windows or of a path to and fro 0."""
FEW = 12  # cells, of which chance makes a correlation: networks with random weights measure 0.42 at the least
VARIED = 0.25  # standard deviation; 0.5 if half of the cells change wholly, and the others not at all
ALIKE = 1e-5  # of features: cells that differ by rounding alone, as of LeViT with random weights, in any order
LEAST_CONTRAST = 0.05
"""Of tokens, between the halves: vision transformers and mixers measure 0.2 to 1, tokens that each look at all of the
picture, as queries do, 0.01."""


def check_lies_over(network: nn.Module, images_BCHW: Tensor, places: Sequence[Place]) -> None:
    """Raise UsageError where features at the places do not lie over the picture as its pixels do."""
    height, width = images_BCHW.shape[2:]
    picture_CHW, other_CHW = images_BCHW[0], images_BCHW[1]
    y, x = height // CORNER, width // CORNER
    top, bottom, left, right = slice(0, y), slice(height - y, height), slice(0, x), slice(width - x, width)
    tokens: set[Place] = set()
    with _Moves((height, width)) as moves:
        found = [_features(network, torch.stack((picture_CHW, other_CHW)), places, tokens)]
    _refuse_moves(moves)
    cells = min(min(features_BCHW.shape[2:]) for features_BCHW in found[0].values())
    parts = [(top, left), (top, right), (bottom, left), *_borders(height, width, cells)]
    parts += [(ALL, slice(width // 2, width)), (slice(height // 2, height), ALL)]
    variants = [picture_CHW.flip(2), picture_CHW.flip(1)]
    for rows, columns in parts:
        variants.append(picture_CHW.clone())
        variants[-1][:, rows, columns] = other_CHW[:, rows, columns]
    y, x = max(1, height // BORDER), max(1, width // BORDER)
    variants.append(other_CHW.clone())
    variants[-1][:, y : height - y, x : width - x] = picture_CHW[:, y : height - y, x : width - x]
    found += [
        _features(network, torch.stack(variants[first : first + 2]), places, tokens)
        for first in range(0, len(variants), 2)
    ]
    for place in places:
        features_BCHW = torch.cat([some[place] for some in found])
        change_NHW = (features_BCHW[1:] - features_BCHW[:1]).abs().sum(1)
        whole_HW, across_HW, down_HW, *corners = change_NHW[:6]
        *strips, right_HW, low_HW, frame_HW = change_NHW[6:]
        if not whole_HW.any():  # they are the same for all pictures
            continue
        where = f" at {place.name}" if place.name else ""
        if not frame_HW.any():
            raise UsageError(
                f"the network's features{where} do not depend on the borders of its input, as of one that crops it, so "
                "that its maps lie elsewhere; let it take the whole input, and crop with --resize center-crop"
            )
        if unseen := [side for side, strip_HW in zip(SIDES, strips, strict=True) if not strip_HW.any()]:
            raise UsageError(
                f"the network's features{where} do not depend on the {' and '.join(unseen)} of its input, as of one "
                "that crops it or leaves over what is no whole patch, so that its maps lie elsewhere; let it take the "
                "whole input, or give an --image-size that its patches fill"
            )
        edges = whole_HW[0], whole_HW[-1], whole_HW[:, 0], whole_HW[:, -1]
        if min(whole_HW.shape) > 2 and not all(edge.any() for edge in edges):
            raise UsageError(
                f"the network's features{where} have cells along a border that no picture changes, as padding, so that "
                "its maps lie elsewhere; give --layer with a module before that, or leave it out of its forward"
            )
        for changed_HW, sides, cells in ((across_HW, "left and right", 1), (down_HW, "top and bottom", 0)):
            if changed_HW.shape[cells] > 1 and changed_HW.max() <= MIRRORED * whole_HW.max():
                raise UsageError(
                    f"the network's features{where} are the same for a picture and its mirror image, so that its maps "
                    f"cannot tell {sides}; leave the mirroring out of its forward, and see --flip"
                )
        halves = ((right_HW, whole_HW), (low_HW.T, whole_HW.T))
        from_mean_BCHW = features_BCHW - features_BCHW.mean((2, 3), keepdim=True)
        are_alike = bool(from_mean_BCHW.abs().max() <= ALIKE * features_BCHW.abs().max())
        follows = are_alike or all(_follows(half_HW, all_HW, place in tokens) for half_HW, all_HW in halves)
        is_in_order = not all(corner_HW.any() for corner_HW in corners) or _is_in_order(torch.stack(corners))
        if not is_in_order and place not in tokens:
            raise UsageError(
                f"the network's features{where} lie mirrored or turned over its input, and so do its maps; leave that "
                "out of its forward"
            )
        if not (is_in_order and follows):
            raise UsageError(
                f"the network's features{where}, {whole_HW.numel()} by number, do not lie over its input as a grid of "
                f"{shown((whole_HW.shape[0], whole_HW.shape[1]))}, as tokens in another order, queries, or several "
                "views of a picture; give --layer with a module before them, or leave that out of its forward"
            )


def _borders(height: int, width: int, cells: int) -> list[tuple[slice, slice]]:
    """Return the strips at `SIDES` that a network sees all of which sees something.

    One whose blocks begin as the identity sees one pixel a cell, and so nothing of the last cell's rest.
    """
    y, x = (max(1, side // BORDER, side // cells) for side in (height, width))
    return [
        (ALL, slice(0, x)),
        (ALL, slice(width - x, width)),
        (slice(0, y), ALL),
        (slice(height - y, height), ALL),
    ]


class _Moves(TorchFunctionMode):
    """While entered, keeps by how much what has the picture's size is padded, (left, right, top, bottom), and rolled.

    What a convolution behind the padding takes off again is no padding: `larger` are rows and columns that stay.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.padded: list[tuple[int, ...]] = []
        self.larger: dict[tuple[int, ...], tuple[int, int]] = {}  # by the size that they make
        self.rolled = [0, 0]

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if func not in NAMES:
            return returned
        named = dict(zip(NAMES[func], args, strict=False)) | (kwargs or {})
        given = named["input"]
        if given.ndim != 4:
            return returned
        size = tuple(given.shape[2:])
        if func is functional.conv2d:
            self._convolved(size, tuple(returned.shape[2:]), named.get("stride", 1))
        elif size == self.size and func is functional.pad:
            left, right, top, bottom = (*named["pad"], 0, 0, 0, 0)[:4]
            self.padded.append((left, right, top, bottom))
            self.larger[tuple(returned.shape[2:])] = top + bottom, left + right
        elif size == self.size:
            dims = named.get("dims")
            for shift, dim in zip(_each(named["shifts"], 1), _each(3 if dims in (None, ()) else dims, 1), strict=True):
                if dim % 4 > 1:
                    self.rolled[dim % 4 - 2] += shift
        return returned

    def _convolved(self, size: tuple[int, ...], grid: tuple[int, ...], stride: Any) -> None:
        """Note by how much a convolution's grid, in the pixels of its input, is larger than the picture."""
        if size == self.size or size in self.larger:
            sides = zip(self.larger.get(size, (0, 0)), size, grid, _each(stride, 2), strict=True)
            high, wide = (larger + _grown(side, cells * step, step) for larger, side, cells, step in sides)
            self.larger[size] = high, wide


def _grown(side: int, covered: int, step: int) -> int:
    """Return by how much more is covered than a side; less than a step is no more, but the last step's rest."""
    return covered - side if covered <= side else max(0, covered - side - step + 1)


def _each(value: int | Sequence[int], times: int) -> Sequence[int]:
    """Return the numbers that one may stand for."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * times if len(given) == 1 else given


def _refuse_moves(moves: _Moves) -> None:
    """Raise UsageError where the network pads the picture far more on one side than on the other, or far, or rolls it.

    Then maps lie elsewhere by a share of the picture's side.
    """
    height, width = moves.size
    for left, right, top, bottom in moves.padded:
        if abs(left - right) * BORDER > width or abs(top - bottom) * BORDER > height:
            raise UsageError(_padded(moves.size, top + bottom, left + right, ", on one side more than on the other"))
    for high, wide in moves.larger.values():
        if high * BORDER > height or wide * BORDER > width:
            raise UsageError(_padded(moves.size, high, wide, ""))
    if any(shift % side for shift, side in zip(moves.rolled, moves.size, strict=True)):
        raise UsageError("the network rolls its input, so that its maps lie elsewhere; leave that out of its forward")


def _padded(size: tuple[int, int], high: int, wide: int, how: str) -> str:
    height, width = size
    return (
        f"the network pads its input of {width}x{height} pixels to {width + wide}x{height + high}{how}, so that its "
        f"maps lie elsewhere; give --image-size {height + high} {width + wide} if it then pads nothing, or leave the "
        "padding out of its forward"
    )


def _features(
    network: nn.Module, images_BCHW: Tensor, places: Sequence[Place], tokens: set[Place]
) -> dict[Place, Tensor]:
    """Return the features at the places; those that are tokens are added to `tokens`."""
    found: dict[Place, Tensor] = {}

    def keep(seen: Seen) -> Tensor:
        if seen.place in places:
            is_pool = seen.place.cut == "pool"
            view = seen.given if is_pool else spatial_view(seen.given, len(images_BCHW), images_BCHW.shape[2:])
            assert view is not None
            found[seen.place] = view.detach().float().clone()
            if seen.is_of_tokens:
                tokens.add(seen.place)
        return seen.returned

    names = [place.name for place in places if place.name]
    with torch.no_grad(), Watch(network, keep, images_BCHW.shape[2:], names):
        network(images_BCHW)
    return found


def _is_in_order(change_3HW: Tensor) -> bool:
    """Say whether the top right corner's change lies to the right of the others', and the bottom left one's below."""
    share_3HW = change_3HW / change_3HW.sum((1, 2), keepdim=True)
    height, width = change_3HW.shape[1:]
    y_3 = (share_3HW.sum(2) * torch.linspace(0, 1, height, device=share_3HW.device)).sum(1)
    x_3 = (share_3HW.sum(1) * torch.linspace(0, 1, width, device=share_3HW.device)).sum(1)
    orders = (x_3[1] - x_3[0], x_3[1] - x_3[2], y_3[2] - y_3[0], y_3[2] - y_3[1])
    return min(map(float, orders)) > LEAST_ORDER


def _follows(change_HW: Tensor, whole_HW: Tensor, are_tokens: bool) -> bool:
    """Say whether the right half's cells change as those that lie over the half of the picture that was replaced.

    Changes are taken as shares of those that another picture makes, at most 1. Where those of a grid that is no tokens'
    are about the same everywhere, nothing can be said, and it is taken to be in order.
    """
    half = change_HW.shape[1] // 2
    share_HW, changes_HW = (change_HW / whole_HW).clamp(max=1), whole_HW > 0
    left_N, right_N = share_HW[:, :half][changes_HW[:, :half]], share_HW[:, -half:][changes_HW[:, -half:]]
    if half == 0 or len(left_N) == 0 or len(right_N) == 0:
        return True
    contrast = float(right_N.mean() - left_N.mean())
    deviation = float(torch.cat((left_N, right_N)).std(correction=0))
    if not are_tokens and deviation <= VARIED:
        return True
    least = SHUFFLED if are_tokens or len(left_N) + len(right_N) >= FEW else 0
    return contrast >= 2 * least * deviation and not (are_tokens and contrast <= LEAST_CONTRAST)
