"""The box of an object that is given by its outline or its pixels: polygons, and COCO's run lengths.

A mask's runs alternate between outside and inside, column by column, beginning outside. Compressed, each is written in
groups of five bits, as a difference to the run two before it from the fourth on (maskApi.c of COCO's API).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cam_ops.arrays import I64
from cam_ops.outside import RAISE, raised
from cluster.formats.entries import number_of, size_of

Box = tuple[float, float, float, float]
MIN_POINTS = 3
FIRST_SIGN, LAST_SIGN = 48, 48 + 63
VALUE, MORE, BITS = 0x1F, 0x20, 5
MAX_GROUPS = 12  # of a run: 60 bits
MAX_COUNTS = 2**22  # runs, or signs of them


def box_of_points(points: Sequence[tuple[object, object]]) -> Box:
    """Return the box of a polygon's points, (x, y) each. Raises ValueError where it is none."""
    numbers = [(number_of(x), number_of(y)) for x, y in points]
    x_N, y_N = [x for x, _ in numbers if x is not None], [y for _, y in numbers if y is not None]
    if len(points) < MIN_POINTS or len(x_N) < len(points) or len(y_N) < len(points):
        raise ValueError(f"its polygon has not {MIN_POINTS} points of two numbers each")
    return min(x_N), min(y_N), max(x_N), max(y_N)


def box_of_segmentation(segmentation: object) -> tuple[Box, tuple[int, int] | None]:
    """Return the box of a COCO `segmentation`, half-open, and the width and height that it is drawn in, if it says so.

    It is a polygon, a list of such, or the run lengths of a mask. Raises ValueError with what is wrong.
    """
    if isinstance(segmentation, dict):
        return _box_of_runs(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no box and no segmentation")
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    boxes = [_box_of_polygon(part) for part in parts]
    lows, highs = [box[:2] for box in boxes], [box[2:] for box in boxes]
    (x0, y0), (x1, y1) = (map(min, zip(*lows, strict=True)), map(max, zip(*highs, strict=True)))
    return (x0, y0, x1, y1), None


def _box_of_polygon(part: object) -> Box:
    if not isinstance(part, list) or len(part) % 2:
        raise ValueError("its polygon is no list of x, y, x, y, ...")
    return box_of_points(list(zip(part[::2], part[1::2], strict=True)))


def _box_of_runs(mask: dict[str, Any]) -> tuple[Box, tuple[int, int]]:
    size = mask.get("size")
    width, height = size_of(*reversed(size)) if isinstance(size, list) and len(size) == 2 else (None, None)
    if width is None or height is None:
        raise ValueError("its mask has no size of two whole numbers")
    counts = mask.get("counts")
    if isinstance(counts, (list, str)) and len(counts) > (most := raised(MAX_COUNTS)):
        raise ValueError(f"its mask has more than {most} counts; give its box, {RAISE}")
    runs_N = _runs(counts)
    ends_N = np.cumsum(runs_N)
    if not len(runs_N) or runs_N.min() < 0 or runs_N.max() > width * height or ends_N[-1] != width * height:
        raise ValueError(f"its mask's counts do not add up to {width} x {height} pixels")
    is_inside_N = (np.arange(len(runs_N)) % 2 == 1) & (runs_N > 0)
    if not is_inside_N.any():
        raise ValueError("its mask is empty")
    first_N, last_N = ends_N[is_inside_N] - runs_N[is_inside_N], ends_N[is_inside_N] - 1
    x0, x1 = int(first_N.min() // height), int(last_N.max() // height) + 1
    if np.any(first_N // height != last_N // height):  # a run that goes on in the next column has been at both ends
        return (x0, 0, x1, height), (width, height)
    return (x0, int((first_N % height).min()), x1, int((last_N % height).max()) + 1), (width, height)


def _runs(counts: object) -> I64:
    if isinstance(counts, str):
        return _decompressed(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        raise ValueError("its mask has no counts, a list of whole numbers or a text")
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise ValueError("its mask's counts are too large") from None


def _decompressed(counts: str) -> I64:
    """Return the runs of a compressed mask."""
    signs_N = np.frombuffer(counts.encode("utf-32-le"), np.uint32).astype(np.int64)
    if not len(signs_N) or signs_N.min() < FIRST_SIGN or signs_N.max() > LAST_SIGN:
        raise ValueError("its mask's counts have signs that compressed ones have not")
    groups_N = signs_N - FIRST_SIGN
    is_last_N = (groups_N & MORE) == 0
    starts_R = np.flatnonzero(np.r_[True, is_last_N[:-1]])
    lengths_R = np.diff(np.r_[starts_R, len(groups_N)])
    if not is_last_N[-1] or lengths_R.max() > MAX_GROUPS:
        raise ValueError("its mask's counts end inside a number")
    at_N = np.arange(len(groups_N)) - np.repeat(starts_R, lengths_R)
    values_R = np.add.reduceat((groups_N & VALUE) << (BITS * at_N), starts_R)
    is_negative_R = (groups_N[is_last_N] & (MORE >> 1)) > 0
    values_R -= np.where(is_negative_R, np.int64(1) << (BITS * lengths_R), 0)
    values_R[1::2] = np.cumsum(values_R[1::2])
    values_R[2::2] = np.cumsum(values_R[2::2])
    return values_R
