"""The 8-connected regions of a map above a fraction of its peak.

Letters: Y, X height and width of the map, N regions.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F64, I32, I64
from cam_ops.boxes.kernels import least_at, regions_of

Window = tuple[int, int, int, int]  # y0, x0, y1, x1, half-open


class Workspace:
    """Memory for maps of one size, (Y, X)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        height, width = shape
        self.whole: Window = (0, 0, height, width)
        self.row_X = np.empty(width)
        self.run_5R: I32 = np.empty((5, height * (width // 2 + 1)), np.int32)


@dataclass(frozen=True, slots=True)
class Levels:
    """A map in a window, whose value ``v`` stands for ``(v - base) / unit``; outside it stands for 0."""

    map_YX: F64
    window: Window
    base: float
    unit: float
    high: float  # the greatest value in the window

    def above(self, threshold: float, workspace: Workspace) -> tuple[I64, I64, F64]:
        """Return the regions above a fraction of the peak; see `regions_above`."""
        peak = (self.high - self.base) / self.unit
        if not peak > 0:
            return np.zeros((0, 4), np.int64), np.zeros(0, np.int64), np.zeros(0)
        if not threshold * peak > 0:
            _, _, height, width = workspace.whole
            return np.array([[0, 0, width, height]]), np.array([height * width]), np.array([peak])
        least = least_at(threshold * peak, self.base, self.unit, self.high)
        region_N5, peak_N = regions_of(self.map_YX, least, self.high, *self.window, workspace.run_5R)
        return region_N5[:, :4], region_N5[:, 4], (peak_N - self.base) / self.unit


def regions_above(map_YX: F64, threshold: float) -> tuple[I64, I64, F64]:
    """Bound each 8-connected region where ``map_YX >= threshold * map_YX.max()``.

    Returns half-open bounds in map pixels, int64 (N, 4), each region's pixel count and its peak. A map without a
    positive value, or with a NaN, has no regions: N is 0.
    """
    workspace = Workspace(map_YX.shape)
    return Levels(map_YX, workspace.whole, 0.0, 1.0, float(map_YX.max())).above(threshold, workspace)
