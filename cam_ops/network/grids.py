"""Which axes of a result are the grid that lies over the picture: of (B, C, H, W), (B, H, W, C) or tokens (B, T, C).

A grid has the proportions of the network's input, which tells these layouts apart. Over a square input it is square.
Over another its rows are to its columns as the input's height to its width, but for rounding and for the border that
convolutions without padding cut off; of two layouts that fit then it is the one that fits without rounding, or none. Of
tokens it is the input cut into whole squares.

Letters: B batch, C channels, H, W grid, T tokens.
"""

from collections.abc import Sequence
from math import isqrt, prod

from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns: of a grid, or pixels of an input."""

MAX_PREFIX = 8  # class, distillation and register tokens before the grid's
ROUNDING = 1.5  # cells along the shorter side, by which both sides' rounding may differ from the input's proportions
BORDER = 1.5  # cells that may be missing on either side, as in Inception and SqueezeNet


def fits(grid: Grid, size: Sequence[int]) -> bool:
    """Has a grid the proportions of an input of `size`, height and width?"""
    height, width = size
    if height == width:
        return grid[0] == grid[1]
    shorter, longer = sorted((height, width))
    tolerance = ROUNDING + BORDER * (1 - shorter / longer)
    return abs(grid[0] / height - grid[1] / width) * shorter <= tolerance


def shown(grid: Grid) -> str:
    """Return rows and columns as they are said."""
    return f"{grid[0]}x{grid[1]}"


def token_grid(num_tokens: int, size: Sequence[int], max_prefix: int = MAX_PREFIX) -> Grid | None:
    """Return the grid of the last tokens, behind at most `max_prefix` others, as few as can be; None if there is none.

    A rectangle must be a whole number of squares. Where squares that are no whole number, in all rows and columns that
    are begun or in those that are full, would leave fewer tokens before the grid, it is none: it has two readings.
    """
    height, width = size
    if height == width:
        side = isqrt(num_tokens)
        return (side, side) if num_tokens - side * side <= max_prefix else None
    sides = range(1, max(height, width) + 1)
    grids = {(height // side, width // side) for side in sides} | {
        (-(-height // side), -(-width // side)) for side in sides
    }
    most = max((prod(grid) for grid in grids if num_tokens - max_prefix <= prod(grid) <= num_tokens), default=0)
    found = [grid for grid in grids if prod(grid) == most > 0]
    if len(found) != 1:
        return None
    ((rows, columns),) = found
    is_whole = height % rows == width % columns == 0 and height // rows == width // columns
    return (rows, columns) if is_whole else None


def on_grid(tokens_BCT: Tensor, size: Sequence[int]) -> Tensor | None:
    """Return (B, C, T) as a grid (B, C, H, W), None if T is none."""
    grid = token_grid(tokens_BCT.shape[2], size, max_prefix=0)
    return None if grid is None else tokens_BCT.reshape(*tokens_BCT.shape[:2], *grid)


def spatial_view(output: Tensor, batch: int, size: Sequence[int]) -> Tensor | None:
    """Return a module's output as (B, C, H, W), None where it is not spatial; `size` is that of the network's input.

    Tokens are some prefix tokens and then those of the grid.
    """
    if not output.is_floating_point() or output.shape[0] != batch:
        return None
    axis = channel_axis(output, size)
    if axis is None:
        return None
    if output.ndim == 3:
        grid = token_grid(output.shape[1], size)
        assert grid is not None
        view_BCHW = output[:, output.shape[1] - prod(grid) :].transpose(1, 2).reshape(batch, output.shape[2], *grid)
    else:
        view_BCHW = output.movedim(axis, 1)
    return view_BCHW if prod(view_BCHW.shape[2:]) > 1 else None


def channel_axis(output: Tensor, size: Sequence[int]) -> int | None:
    """Return the axis of a spatial output's channels, None where it is not spatial."""
    if output.ndim == 3:
        return None if token_grid(output.shape[1], size) is None else 2
    if output.ndim != 4:
        return None
    first, second, third = output.shape[1:]
    fitting = {axis: grid for axis, grid in ((1, (second, third)), (3, (first, second))) if fits(grid, size)}
    if len(fitting) > 1 and size[0] != size[1]:
        height, width = size
        fitting = {axis: grid for axis, grid in fitting.items() if grid[0] * width == grid[1] * height}
        if len(fitting) > 1:
            return None
    return next(iter(fitting), None)
