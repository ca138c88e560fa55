"""Split what lies above a threshold at the peaks of the map: objects that touch become boxes of their own.

A watershed from h-maxima. Each pixel climbs to its highest 8-neighbour until it stands on a maximum; the pixels of a
maximum are its basin. A maximum's dynamics is how far one must come down from it on the way to a higher one. A basin
whose dynamics is below h goes to the higher one beyond its highest saddle (Grimaud 1992; Meyer 1994). Letters: Y, X
height and width of a map, H, W the window of it that is looked at, E pairs of neighbouring basins, N pieces. A pixel's
number is its place in the window, row by row.
"""

import cv2
import numpy as np

from cam_ops.arrays import F64, I64, Bools
from cam_ops.boxes.regions import regions_above

MIN_DYNAMICS = 0.3  # h, of the map's peak
MIN_PEAK = 0.3  # of the map's peak: lower pieces are left out
TOLERANCE = 1e-9  # of the map's peak, for rounding
MOST_MAXIMA = 12  # to look at one by one
NEIGHBOURS = (  # each pair of 8-neighbours once
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[:-1], np.s_[1:]),
    (np.s_[:-1, :-1], np.s_[1:, 1:]),
    (np.s_[:-1, 1:], np.s_[1:, :-1]),
)


def pieces_above(map_YX: F64, threshold: float) -> tuple[I64, I64, F64]:
    """Bound each piece of the regions of `regions_above`, split where two maxima have a dynamics of h or more.

    Returns half-open bounds in map pixels, int64 (N, 4), each piece's pixel count and its peak, in no order. Pieces
    whose peak is below `MIN_PEAK` of the map's are left out. Where no region is split, the pieces are the regions.
    """
    regions_N4, sizes_N, peak_N = regions_above(map_YX, threshold)
    if not len(peak_N):
        return regions_N4, sizes_N, peak_N
    peak = peak_N.max()
    x0, y0 = regions_N4[:, :2].min(0)
    x1, y1 = regions_N4[:, 2:].max(0)
    window_HW = map_YX[y0:y1, x0:x1]
    if _may_split(window_HW, threshold * peak, MIN_DYNAMICS * peak, TOLERANCE * peak):
        regions_N4, sizes_N, peak_N = _split(window_HW, window_HW >= threshold * peak, MIN_DYNAMICS * peak)
        regions_N4 += np.array([x0, y0, x0, y0])
    kept_N = peak_N >= MIN_PEAK * peak
    return regions_N4[kept_N], sizes_N[kept_N], peak_N[kept_N]


def _may_split(map_HW: F64, floor: float, least: float, slack: float) -> bool:
    """Say whether a maximum but the highest has a dynamics of `least` above `floor`, give or take `slack`.

    Most maps end here, in a fraction of the time that their basins would take.
    """
    is_maximum_HW = map_HW == cv2.dilate(map_HW, np.ones((3, 3), np.uint8))
    row_N, column_N = np.nonzero(is_maximum_HW & (map_HW >= floor + least - slack))
    if not 1 < len(row_N) <= MOST_MAXIMA:
        return len(row_N) > 1
    order_N = np.argsort(-map_HW[row_N, column_N], kind="stable")
    row_N, column_N = row_N[order_N], column_N[order_N]
    for number in range(1, len(row_N)):
        row, column, rows, columns = row_N[number], column_N[number], row_N[:number], column_N[:number]
        if ((np.abs(rows - row) <= 1) & (np.abs(columns - column) <= 1)).any():
            continue  # two pixels of one maximum
        near_HW = (map_HW > map_HW[row, column] - least + slack).view(np.uint8)
        _, label_HW = cv2.connectedComponents(near_HW)
        if label_HW[row, column] not in label_HW[rows, columns]:
            return True
    return False


def _split(map_HW: F64, above_HW: Bools, least: float) -> tuple[I64, I64, F64]:
    """Return the bounds, pixel counts and peaks of the basins above, those of a dynamics below `least` merged."""
    value = map_HW.ravel()
    maximum_HW = _maxima(np.where(above_HW, map_HW, -np.inf))
    maximum_HW[~above_HW] = -1
    owner = {number: number for number in np.flatnonzero(maximum_HW.ravel() == np.arange(len(value))).tolist()}
    for one, other, saddle in _saddles(map_HW, maximum_HW):
        both = _owner_of(owner, one), _owner_of(owner, other)
        low, high = sorted(both, key=lambda number: (value[number], -number))
        if value[low] - saddle < least:
            owner[low] = high
    peaks = [number for number in owner if owner[number] == number]
    peak_of = np.full(len(value) + 1, -1)  # the last one is that of -1
    peak_of[list(owner)] = [_owner_of(owner, number) for number in owner]
    peak_HW = peak_of[maximum_HW]
    insides = [(peak_HW == number).view(np.uint8) for number in peaks]
    bounds = [cv2.boundingRect(inside_HW) for inside_HW in insides]
    regions_N4 = np.array([[x, y, x + columns, y + rows] for x, y, columns, rows in bounds], np.int64)
    return regions_N4, np.array([cv2.countNonZero(inside_HW) for inside_HW in insides]), value[peaks]


def _maxima(map_HW: F64) -> I64:
    """Return the number of the maximum that each pixel climbs to; of equal pixels the first one counts as higher."""
    best_HW, next_HW = map_HW, np.arange(map_HW.size).reshape(map_HW.shape)
    for later, earlier in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):  # along rows, then along columns
        around_HW, number_HW = best_HW.copy(), next_HW.copy()
        for here, there, is_higher in ((later, earlier, np.greater_equal), (earlier, later, np.greater)):
            higher = is_higher(best_HW[there], around_HW[here])
            np.copyto(around_HW[here], best_HW[there], where=higher)
            np.copyto(number_HW[here], next_HW[there], where=higher)
        best_HW, next_HW = around_HW, number_HW
    next_of = next_HW.ravel()
    while not np.array_equal(next_of, further_of := next_of[next_of]):
        next_of = further_of
    return next_of.reshape(map_HW.shape)


def _saddles(map_HW: F64, maximum_HW: I64) -> list[tuple[int, int, float]]:
    """Return the pairs of maxima whose basins touch, each once, with its highest saddle, the highest saddle first.

    Of equal saddles that of the higher maximum is first. Pixels of no basin have -1 in `maximum_HW`.
    """
    pairs, saddles = [], []
    for here, there in NEIGHBOURS:
        at = np.nonzero(maximum_HW[here] != maximum_HW[there])
        pairs.append(np.stack([maximum_HW[here][at], maximum_HW[there][at]], axis=1))
        saddles.append(np.minimum(map_HW[here][at], map_HW[there][at]))
    pair_E2, saddle_E = np.sort(np.concatenate(pairs), axis=1), np.concatenate(saddles)
    is_inside_E = pair_E2[:, 0] >= 0
    pair_E2, saddle_E = pair_E2[is_inside_E], saddle_E[is_inside_E]
    higher_E = map_HW.ravel()[pair_E2].max(1)
    order_E = np.lexsort((pair_E2[:, 1], pair_E2[:, 0], -higher_E, -saddle_E))  # the last counts first
    pair_E2, saddle_E = pair_E2[order_E], saddle_E[order_E]
    _, first_E = np.unique(pair_E2[:, 0] * map_HW.size + pair_E2[:, 1], return_index=True)
    first_E.sort()
    return [(*pair_E2[place].tolist(), float(saddle_E[place])) for place in first_E]


def _owner_of(owner: dict[int, int], number: int) -> int:
    while owner[number] != number:
        number = owner[number]
    return number
