"""A normalised map at the pixels of its picture, some rows at a time: large pictures have no room for floats.

Rectangles are half-open pixels of the picture, x0, y0, x1, y1. A pixel lies where its centre does. Letters: Y, X height
and width of the map, R some rows of pixels, W all columns.
"""

from collections.abc import Iterator

import numpy as np

from cam_ops.arrays import F32, F64, I64, Bools

PIXELS_AT_ONCE = 2**17  # memory that stays in use: fresh pages cost as much as the arithmetic


def strips(width: int, height: int) -> Iterator[range]:
    """Yield all rows of a picture, some at a time."""
    step = max(1, PIXELS_AT_ONCE // width)
    for first in range(0, height, step):
        yield range(first, min(first + step, height))


def at_pixels(map_YX: F64, rectangle_4: F32, rows: range, width: int) -> F64:
    """Return the map's values at some rows of pixels, (R, W); `rectangle_4` is what the map covers.

    Bilinear between the centres of the map's cells, as `cv2.resize` where the rectangle is the whole picture; from the
    outermost centres on the values stay as they are, beyond the rectangle too.
    """
    x0, y0, x1, y1 = rectangle_4.tolist()
    left_W, right_W, share_W = _places(map_YX.shape[1], x0, x1, range(width))
    top_R, bottom_R, share_R = _places(map_YX.shape[0], y0, y1, rows)
    first, end = top_R[0], bottom_R[-1] + 1
    wide_YW = _between(map_YX[first:end, left_W], map_YX[first:end, right_W], share_W)
    return _between(wide_YW[top_R - first], wide_YW[bottom_R - first], share_R[:, None])


def inside(rectangle_4: F32, rows: range, width: int) -> Bools:
    """Say which pixels of some rows lie in a rectangle, (R, W)."""
    x0, y0, x1, y1 = rectangle_4.tolist()
    x_W, y_R = np.arange(width) + 0.5, np.arange(rows.start, rows.stop) + 0.5
    is_inside_RW: Bools = ((y_R > y0) & (y_R < y1))[:, None] & (x_W > x0) & (x_W < x1)
    return is_inside_RW


def _places(cells: int, start: float, end: float, pixels: range) -> tuple[I64, I64, F64]:
    """Return the two cells that each pixel lies between, and its share of the way from the first to the second."""
    at_N = np.arange(pixels.start, pixels.stop) + 0.5
    cell_N = np.clip((at_N - start) * (cells / (end - start)) - 0.5, 0, cells - 1)
    first_N = cell_N.astype(np.int64)
    return first_N, np.minimum(first_N + 1, cells - 1), cell_N - first_N


def _between(first: F64, second: F64, share: F64) -> F64:
    """Return values between two; `second` is overwritten."""
    second -= first
    second *= share
    second += first
    return second
