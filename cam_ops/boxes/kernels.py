"""The loops over pixels: a map enlarged, measured, cut at a level into connected regions.

Letters: h, w the network's own grid, Y, X height and width of the enlarged map, R runs of pixels in a row, N regions.
"""

from functools import lru_cache

import numpy as np

from cam_ops.arrays import F32, F64, I32, I64
from cam_ops.compiled import compiled, vectorised


@lru_cache(maxsize=64)
def cubic_taps(num_from: int, num_to: int) -> tuple[I64, F64]:
    """Return the four places that each new one is made of, and their weights, both (num_to, 4).

    As OpenCV's INTER_CUBIC has them: Keys' kernel with a = -0.75, in float32, the edges repeated.
    """
    place_N = ((np.arange(num_to) + 0.5) * (1 / (num_to / num_from)) - 0.5).astype(np.float32)
    first_N = np.floor(place_N)
    x_N = place_N - first_N
    one = np.float32(1)
    far_N = _polynomial(x_N + one, -0.75, 3.75, -6, 3)
    middle_N, next_N = (_polynomial(side_N, 1.25, -2.25, 0, 1) for side_N in (x_N, one - x_N))
    weight_N4 = np.stack([far_N, middle_N, next_N, one - far_N - middle_N - next_N], 1).astype(np.float64)
    place_N4 = np.clip(first_N[:, None].astype(np.int64) + np.arange(-1, 3), 0, num_from - 1)
    return place_N4, weight_N4


def _polynomial(x_N: F32, *coefficients: float) -> F32:
    value_N = np.zeros_like(x_N)
    for coefficient in coefficients:
        value_N = value_N * x_N + np.float32(coefficient)
    return value_N


@vectorised
def enlarge(
    raw_hw: F32, place_Y4: I64, weight_Y4: F64, place_X4: I64, weight_X4: F64, wide_hX: F64, enlarged_YX: F64
) -> None:
    """Write the map enlarged by the taps of its rows and columns, to `wide_hX` its rows alone: OpenCV's numbers."""
    for row in range(raw_hw.shape[0]):
        for x in range(enlarged_YX.shape[1]):
            wide_hX[row, x] = (
                raw_hw[row, place_X4[x, 0]] * weight_X4[x, 0]
                + raw_hw[row, place_X4[x, 1]] * weight_X4[x, 1]
                + raw_hw[row, place_X4[x, 2]] * weight_X4[x, 2]
                + raw_hw[row, place_X4[x, 3]] * weight_X4[x, 3]
            )
    for y in range(enlarged_YX.shape[0]):
        a_X, b_X = wide_hX[place_Y4[y, 0]], wide_hX[place_Y4[y, 1]]
        c_X, d_X = wide_hX[place_Y4[y, 2]], wide_hX[place_Y4[y, 3]]
        a, b, c, d = weight_Y4[y, 0], weight_Y4[y, 1], weight_Y4[y, 2], weight_Y4[y, 3]
        row_X = enlarged_YX[y]
        for x in range(enlarged_YX.shape[1]):
            row_X[x] = a_X[x] * a + b_X[x] * b + c_X[x] * c + d_X[x] * d


@vectorised
def highest(map_YX: F64, y0: int, x0: int, y1: int, x1: int, work_X: F64) -> np.float64:
    """Return the greatest value of a window that is not empty; the last is memory to work in."""
    high_X = work_X[: x1 - x0]
    high_X[:] = map_YX[y0][x0:x1]
    for y in range(y0, y1):
        row_X = map_YX[y][x0:x1]
        for x in range(row_X.size):
            high_X[x] = row_X[x] if row_X[x] > high_X[x] else high_X[x]
    high: np.float64 = high_X[0]
    for x in range(high_X.size):
        high = high_X[x] if high_X[x] > high else high
    return high


@vectorised
def mass(map_YX: F64, y0: int, x0: int, y1: int, x1: int, work_X: F64) -> float:
    """Return the sum of what is positive in a window; the last is memory to work in."""
    sum_X = work_X[: x1 - x0]
    sum_X[:] = 0.0
    for y in range(y0, y1):
        row_X = map_YX[y][x0:x1]
        for x in range(row_X.size):
            sum_X[x] += row_X[x] if row_X[x] > 0.0 else 0.0
    total = 0.0
    for x in range(sum_X.size):
        total += sum_X[x]
    return total


@compiled
def least_at(level: float, base: float, unit: float, high: float) -> float:
    """Return the least number of which ``(number - base) / unit >= level``, as rounded; that holds for `high`."""
    low = base  # for this it does not hold, as the level is above 0
    while True:
        middle = low + (high - low) / 2
        if not low < middle < high:
            return high
        if (middle - base) / unit >= level:
            high = middle
        else:
            low = middle


@vectorised
def _count(row_X: F64, least: float) -> int:
    number = 0
    for x in range(row_X.size):
        number += 1 if row_X[x] >= least else 0
    return number


@vectorised
def _peak(run_X: F64) -> np.float64:
    peak: np.float64 = run_X[0]
    for x in range(run_X.size):
        peak = run_X[x] if run_X[x] > peak else peak
    return peak


@compiled
def _root(parent_R: I32, run: int) -> int:
    while parent_R[run] != run:
        parent_R[run] = parent_R[parent_R[run]]
        run = parent_R[run]
    return run


@compiled
def regions_of(
    map_YX: F64, least: float, high: float, y0: int, x0: int, y1: int, x1: int, run_5R: I32
) -> tuple[I64, F64]:
    """Return the 8-connected regions of a window's pixels of `least` or more, `high` being its greatest value.

    Bounds and pixel counts are int64 (N, 5), half-open, and peaks (N,), in the order of OpenCV's labels: that of the
    blocks of 2 x 2 pixels in which regions begin. The last is memory to work in, for every second pixel.
    """
    num_runs, before = 0, 0  # the first run of the row before that may touch
    start_R, end_R, row_R, parent_R, order_R = run_5R[0], run_5R[1], run_5R[2], run_5R[3], run_5R[4]
    for y in range(y0, y1):
        first, above, x = num_runs, before, 0
        row_X = map_YX[y][x0:x1]
        left = _count(row_X, least)
        while left > 0 and x < row_X.size:
            if not row_X[x] >= least:
                x += 1
                continue
            start, x = x, min(x + left, row_X.size)
            if _count(row_X[start:x], least) < left:  # this run is not all of them, as it mostly is
                x = start + 1
                while x < row_X.size and row_X[x] >= least:
                    x += 1
            left -= x - start
            start_R[num_runs], end_R[num_runs] = x0 + start, x0 + x
            row_R[num_runs], parent_R[num_runs] = y, num_runs
            while above < first and end_R[above] < x0 + start:
                above += 1
            touching = above
            while touching < first and start_R[touching] <= x0 + x:
                one, other = _root(parent_R, touching), _root(parent_R, num_runs)
                parent_R[max(one, other)] = min(one, other)
                touching += 1
            num_runs += 1
        before = first
    return _joined(map_YX, high, start_R, end_R, row_R, parent_R, order_R, num_runs)


@compiled
def _joined(
    map_YX: F64, high: float, start_R: I32, end_R: I32, row_R: I32, parent_R: I32, order_R: I32, num_runs: int
) -> tuple[I64, F64]:
    """Join the runs of each region."""
    number = 0
    for run in range(num_runs):  # a root comes before what hangs on it
        if parent_R[run] == run:
            order_R[run] = number
            number += 1
        else:
            order_R[run] = order_R[_root(parent_R, run)]
    region_N5, peak_N, block_N = np.zeros((number, 5), np.int64), np.empty(number), np.empty(number, np.int64)
    for run in range(num_runs):
        block = (row_R[run] >> 1) * map_YX.shape[1] + (start_R[run] >> 1)
        peak = high if number == 1 else _peak(map_YX[row_R[run]][start_R[run] : end_R[run]])
        at = order_R[run]
        region = region_N5[at]
        if parent_R[run] == run:
            region[0], region[1], region[2] = start_R[run], row_R[run], end_R[run]
            peak_N[at], block_N[at] = peak, block
        region[0], region[2] = min(region[0], start_R[run]), max(region[2], end_R[run])
        region[3] = row_R[run] + 1
        region[4] += end_R[run] - start_R[run]
        peak_N[at], block_N[at] = max(peak_N[at], peak), min(block_N[at], block)
    if number < 2:
        return region_N5, peak_N
    order_N = np.argsort(block_N)
    return region_N5[order_N], peak_N[order_N]
