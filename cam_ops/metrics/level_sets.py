"""The regions of a score map above each of 255 levels, and their holes, at once: those that OpenCV would trace.

wsolevaluation quantises a map to 0..255, thresholds it at up to 1,000 values and traces the contours of each mask. Here
every pixel is followed uphill (8 neighbours) to a maximum and downhill (4 neighbours) to a minimum. Those pixels of
such a basin that lie above (below) a level are connected, so that the regions above every level, and the holes in
them, are unions of basins, joined as soon as two of them touch: a merge tree of some ten basins instead of 255 masks
of 50,000 pixels. A mask is traced only where two of its regions are too alike in area for what is known of them.

Letters: S the map's side, P = S + 2 the side with a frame of one pixel, flat where it stands once; L = 255 levels, a
pixel being inside at level t where its quantised value exceeds t; N basins, G true boxes. Boxes are wsolevaluation's:
int64 (x0, y0, x1, y1), x1 and y1 being x + width and y + height of `cv2.boundingRect`, at most S - 1; their overlap
counts both ends as inside.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cam_ops.arrays import F64, I32, I64
from cam_ops.compiled import compiled

NUM_LEVELS = 255
FRACTION_BITS = 15  # of a level, by which equal values are told apart
FRAME = -1  # below all values
NOTHING = 2**30
ONE, TWO, THREE, FOUR, SIX = (np.int32(i) for i in (1, 2, 3, 4, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOverlaps:
    """How well the boxes of each level meet the true ones."""

    largest_L: F64  # IoU of the box of the largest region with the true box that it meets best
    all_L: F64  # best IoU of any contour's box, those of holes included, with any true box
    box_L4: I64  # of the largest region


class LevelSets:
    """Finds the regions of maps of one size in memory that it keeps."""

    def __init__(self, side: int) -> None:
        num_padded = (side + 2) ** 2
        self.side = side
        self.key_P, self.row_P = np.empty(num_padded, np.int32), np.empty(num_padded, np.int32)
        self.code_P, self.label_P = np.empty(num_padded, np.int32), np.empty(num_padded, np.int32)
        self.path_P = np.empty(num_padded, np.int32)
        self.links_P3 = np.empty((4 * num_padded, 3), np.int32)

    def overlaps(self, score_SS: F64, truth_G4: I64) -> LevelOverlaps:
        """Return the overlaps of a map's boxes with at least one true box of the map's own pixels.

        `score_SS` lies in 0..1 and reaches 1, or is 0 everywhere; then its box is (0, 0, 0, 0) at every level.
        """
        if not score_SS.max() > 0:
            nothing_L4 = np.zeros((NUM_LEVELS, 4), np.int64)
            overlap_L = np.full(NUM_LEVELS, best_overlap(nothing_L4[0], truth_G4))
            return LevelOverlaps(largest_L=overlap_L, all_L=overlap_L.copy(), box_L4=nothing_L4)
        _quantise(score_SS, self.key_P)
        all_L, hole_area_L = np.zeros(NUM_LEVELS), np.zeros(NUM_LEVELS, np.int64)
        num_minima = _minima(self.key_P, self.side, self.row_P, self.code_P, self.label_P, self.path_P)
        if num_minima > 1:
            _holes(self.key_P, self.side, self.label_P, num_minima, self.links_P3, truth_G4, all_L, hole_area_L)
        num_maxima = _maxima(self.key_P, self.side, self.row_P, self.code_P, self.label_P, self.path_P)
        box_L4 = np.empty((NUM_LEVELS, 4), np.int64)
        doubtful_L = np.zeros(NUM_LEVELS, np.bool_)
        _regions(
            self.key_P,
            self.side,
            self.label_P,
            num_maxima,
            self.links_P3,
            truth_G4,
            hole_area_L,
            all_L,
            box_L4,
            doubtful_L,
        )
        if doubtful_L.any():
            quantised_SS = (score_SS * NUM_LEVELS).astype(np.uint8)
            for level in np.flatnonzero(doubtful_L):
                box_L4[level] = _traced_box(quantised_SS, int(level))
        largest_L = np.empty(NUM_LEVELS)
        _overlaps(box_L4, truth_G4, largest_L)
        return LevelOverlaps(largest_L=largest_L, all_L=all_L, box_L4=box_L4)


def _traced_box(quantised_SS: np.ndarray, level: int) -> I64:
    """Return the box of the contour of largest area, the first of those that are equal."""
    _, mask_SS = cv2.threshold(quantised_SS, float(level), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(mask_SS, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    side = len(quantised_SS)
    return np.array([x, y, min(x + width, side - 1), min(y + height, side - 1)])


@compiled
def best_overlap(box_4: I64, truth_G4: I64) -> float:
    """Return the largest IoU of a box with true boxes, both ends of each being inside."""
    best = 0.0
    area = (box_4[2] - box_4[0] + 1) * (box_4[3] - box_4[1] + 1)
    for g in range(len(truth_G4)):
        width = min(box_4[2], truth_G4[g, 2]) - max(box_4[0], truth_G4[g, 0]) + 1
        height = min(box_4[3], truth_G4[g, 3]) - max(box_4[1], truth_G4[g, 1]) + 1
        if width <= 0 or height <= 0:
            continue
        truth_area = (truth_G4[g, 2] - truth_G4[g, 0] + 1) * (truth_G4[g, 3] - truth_G4[g, 1] + 1)
        union = area + truth_area - width * height
        if union > 0:
            best = max(best, width * height / union)
    return best


@compiled
def _overlaps(box_L4: I64, truth_G4: I64, overlap_L: F64) -> None:
    for level in range(len(box_L4)):
        overlap_L[level] = best_overlap(box_L4[level], truth_G4)


@compiled
def _quantise(score_SS: F64, key_P: I32) -> None:
    """Write each pixel's value in units of 2**-FRACTION_BITS levels, the level itself being exact, inside a frame."""
    side = len(score_SS)
    key_P[:] = FRAME
    scale = 2.0**FRACTION_BITS
    for y in range(side):
        start = (y + 1) * (side + 2) + 1
        for x in range(side):
            key_P[start + x] = np.int32(score_SS[y, x] * 255.0 * scale)


@compiled
def _maxima(key_P: I32, side: int, row_P: I32, code_P: I32, label_P: I32, path_P: I32) -> int:
    """Label each pixel with the maximum that it leads to, -1 outside; return their number.

    The highest of the 8 neighbours and the pixel itself is next; of equal ones the last in reading order.
    """
    padded = side + 2
    left_Q, middle_Q, right_Q, inner_Q = key_P[:-2], key_P[1:-1], key_P[2:], row_P[1:-1]
    for i in range(len(inner_Q)):  # slices, as indices that may be negative keep a loop from being vectorised
        inner_Q[i] = max(max(left_Q[i] << FOUR, middle_Q[i] << FOUR | ONE), right_Q[i] << FOUR | TWO)
    up_Q, same_Q, down_Q, inner_Q = (
        row_P[: -2 * padded],
        row_P[padded:-padded],
        row_P[2 * padded :],
        code_P[padded:-padded],
    )
    for i in range(len(inner_Q)):
        inner_Q[i] = max(max(up_Q[i], same_Q[i] + THREE), down_Q[i] + SIX)
    steps = np.array([-padded - 1, -padded, -padded + 1, -1, 0, 1, padded - 1, padded, padded + 1], np.int32)
    label_P[:] = -1
    return _follow(code_P, steps, 4, side, label_P, path_P, 0)


@compiled
def _minima(key_P: I32, side: int, row_P: I32, code_P: I32, label_P: I32, path_P: I32) -> int:
    """Label each pixel with the minimum that it leads to, 0 being the outside; return their number.

    The lowest of the 4 neighbours and the pixel itself is next; of equal ones the first in reading order.
    """
    padded = side + 2
    left_Q, middle_Q, right_Q, inner_Q = key_P[:-2], key_P[1:-1], key_P[2:], row_P[1:-1]
    for i in range(len(inner_Q)):
        inner_Q[i] = min(min(left_Q[i] << FOUR | ONE, middle_Q[i] << FOUR | TWO), right_Q[i] << FOUR | THREE)
    up_Q, same_Q, down_Q, inner_Q = (
        key_P[: -2 * padded],
        row_P[padded:-padded],
        key_P[2 * padded :],
        code_P[padded:-padded],
    )
    for i in range(len(inner_Q)):
        inner_Q[i] = min(min(up_Q[i] << FOUR, same_Q[i]), down_Q[i] << FOUR | FOUR)
    steps = np.array([-padded, -1, 0, 1, padded], np.int32)
    label_P[:] = -1
    label_P[:padded] = 0
    label_P[-padded:] = 0
    for y in range(padded):
        label_P[y * padded] = 0
        label_P[y * padded + padded - 1] = 0
    return _follow(code_P, steps, 2, side, label_P, path_P, 1)


@compiled
def _follow(code_P: I32, steps: I32, stay: int, side: int, label_P: I32, path_P: I32, count: int) -> int:
    """Follow each pixel to its end, whose label is a new one; `count` labels are given already.

    The codes are replaced by the place of the next pixel.
    """
    padded = side + 2
    for y in range(1, side + 1):  # what leads back, then what leads on: most
        start = y * padded + 1
        row_S, label_S = code_P[start : start + side], label_P[start : start + side]
        for x in range(side):
            if row_S[x] & 15 == stay:
                label_S[x] = count
                count += 1
        for x in range(side):
            row_S[x] = np.int32(start + x) + steps[row_S[x] & 15]
        for x in range(side):
            label_S[x] = label_P[np.uint32(row_S[x])]
    for y in range(side, 0, -1):
        start = y * padded + 1
        row_S, label_S = code_P[start : start + side], label_P[start : start + side]
        for x in range(side - 1, -1, -1):
            label_S[x] = label_P[np.uint32(row_S[x])]
    for y in range(1, side + 1):
        for start in range(y * padded + 1, y * padded + side + 1):
            if label_P[start] >= 0:
                continue
            length = 0
            at = start
            while label_P[at] < 0:
                path_P[length] = at
                length += 1
                at = code_P[at]
            label = label_P[at]
            for i in range(length):
                label_P[path_P[i]] = label
    return count


@compiled
def _find(parent_N: I32, basin: int) -> int:
    while parent_N[basin] != basin:
        parent_N[basin] = parent_N[parent_N[basin]]
        basin = parent_N[basin]
    return basin


@compiled
def _extents(key_P: I32, side: int, label_P: I32, num_basins: int, first: int) -> I32:
    """Return the extents (x0, y0, x1, y1, both ends inside) of each basin's pixels of each value, int32 (N, 256, 4).

    Basins before the `first` are left out.
    """
    extent_NV4 = np.empty((num_basins, 256, 4), np.int32)
    extent_NV4[:, :, :2] = NOTHING
    extent_NV4[:, :, 2:] = -1
    padded = side + 2
    for y in range(side):
        start = (y + 1) * padded + 1
        label_S, key_S = label_P[start : start + side], key_P[start : start + side]
        for x in range(side):
            if label_S[x] < first:
                continue
            extent = extent_NV4[label_S[x], key_S[x] >> FRACTION_BITS]
            if x < extent[0]:
                extent[0] = x
            if y < extent[1]:
                extent[1] = y
            if x > extent[2]:
                extent[2] = x
            extent[3] = y
    return extent_NV4


@compiled
def _widen(extent_4: I32, other_4: I32) -> None:
    extent_4[0] = min(extent_4[0], other_4[0])
    extent_4[1] = min(extent_4[1], other_4[1])
    extent_4[2] = max(extent_4[2], other_4[2])
    extent_4[3] = max(extent_4[3], other_4[3])


@compiled
def _holes(
    key_P: I32, side: int, label_P: I32, num_basins: int, links_P3: I32, truth_G4: I64, best_L: F64, area_L: I64
) -> None:
    """Write the best overlap of a hole's box at each level, and twice a bound of the area that holes cover."""
    padded = side + 2
    first_V = np.full(256, -1, np.int32)
    count = 0
    for y in range(1, side + 1):
        start = y * padded + 1
        here, right = label_P[start : start + side], label_P[start + 1 : start + side + 1]
        down = label_P[start + padded : start + padded + side]
        for x in range(side):
            label = here[x]
            if ((right[x] ^ label) | (down[x] ^ label)) == 0:
                continue
            i = start + x
            for other in (i + 1, i + padded):
                if label_P[other] != label and key_P[other] != FRAME:
                    value = max(key_P[i], key_P[other]) >> FRACTION_BITS
                    links_P3[count, 0], links_P3[count, 1], links_P3[count, 2] = label, label_P[other], first_V[value]
                    first_V[value] = count
                    count += 1
    extent_NV4 = _extents(key_P, side, label_P, num_basins, 1)
    parent_N = np.arange(num_basins).astype(np.int32)
    whole_N4 = np.empty((num_basins, 4), np.int32)
    whole_N4[:, :2] = NOTHING
    whole_N4[:, 2:] = -1
    box_4 = np.empty(4, np.int64)
    for level in range(NUM_LEVELS):
        for basin in range(1, num_basins):
            _widen(whole_N4[_find(parent_N, basin)], extent_NV4[basin, level])
        link = first_V[level]
        while link >= 0:
            a, b = _find(parent_N, links_P3[link, 0]), _find(parent_N, links_P3[link, 1])
            if a != b:
                a, b = min(a, b), max(a, b)  # the outside stays the outside
                parent_N[b] = a
                _widen(whole_N4[a], whole_N4[b])
            link = links_P3[link, 2]
        for basin in range(1, num_basins):
            if parent_N[basin] != basin or whole_N4[basin, 2] < 0:
                continue
            x0, y0, x1, y1 = whole_N4[basin]  # of the hole; its contour runs around it
            area_L[level] += 2 * (x1 - x0 + 2) * (y1 - y0 + 2)
            box_4[0], box_4[1], box_4[2], box_4[3] = x0 - 1, y0 - 1, min(x1 + 2, side - 1), min(y1 + 2, side - 1)
            best_L[level] = max(best_L[level], best_overlap(box_4, truth_G4))


@compiled
def _regions(
    key_P: I32,
    side: int,
    label_P: I32,
    num_basins: int,
    links_P3: I32,
    truth_G4: I64,
    hole_area_L: I64,
    best_L: F64,
    box_L4: I64,
    doubtful_L: Any,
) -> None:
    """Raise `best_L` to the best overlap of a region's box; write the box of the largest, or that it is in doubt."""
    padded = side + 2
    first_V = np.full(256, -1, np.int32)
    area_NV = np.zeros((num_basins, 257), np.int64)  # twice the area that a basin adds below each value
    count = 0
    for y in range(1, side + 1):
        start = y * padded + 1
        here, right = label_P[start : start + side], label_P[start + 1 : start + side + 1]
        below = label_P[start + padded - 1 : start + padded + side + 1]
        for x in range(side):
            label = here[x]
            if ((right[x] ^ label) | (below[x] ^ label) | (below[x + 1] ^ label) | (below[x + 2] ^ label)) == 0:
                continue
            i = start + x
            for other in (i + 1, i + padded - 1, i + padded, i + padded + 1):
                if label_P[other] != label and label_P[other] >= 0:
                    value = min(key_P[i], key_P[other]) >> FRACTION_BITS
                    links_P3[count, 0], links_P3[count, 1], links_P3[count, 2] = label, label_P[other], first_V[value]
                    first_V[value] = count
                    count += 1
    _areas(key_P, side, label_P, area_NV)
    extent_NV4 = _extents(key_P, side, label_P, num_basins, 0)
    parent_N = np.arange(num_basins).astype(np.int32)
    area_N = np.zeros(num_basins, np.int64)
    whole_N4 = np.empty((num_basins, 4), np.int32)
    whole_N4[:, :2] = NOTHING
    whole_N4[:, 2:] = -1
    box_4 = np.empty(4, np.int64)
    for level in range(NUM_LEVELS - 1, -1, -1):
        value = level + 1
        for basin in range(num_basins):
            root = _find(parent_N, basin)
            _widen(whole_N4[root], extent_NV4[basin, value])
            area_N[root] += area_NV[basin, value]
        link = first_V[value]
        while link >= 0:
            a, b = _find(parent_N, links_P3[link, 0]), _find(parent_N, links_P3[link, 1])
            if a != b:
                parent_N[b] = a
                _widen(whole_N4[a], whole_N4[b])
                area_N[a] += area_N[b]
            link = links_P3[link, 2]
        largest, second = -1, -1  # twice the areas, without those of their holes
        for basin in range(num_basins):
            if parent_N[basin] != basin or whole_N4[basin, 2] < 0:
                continue
            x0, y0, x1, y1 = whole_N4[basin]
            box_4[0], box_4[1], box_4[2], box_4[3] = x0, y0, min(x1 + 1, side - 1), min(y1 + 1, side - 1)
            best_L[level] = max(best_L[level], best_overlap(box_4, truth_G4))
            if area_N[basin] > largest:
                largest, second = area_N[basin], largest
                box_L4[level] = box_4
            else:
                second = max(second, area_N[basin])
        doubtful_L[level] = second >= 0 and second + hole_area_L[level] >= largest


@compiled
def _areas(key_P: I32, side: int, label_P: I32, area_NV: I64) -> None:
    """Add what each square of four pixel centres gives to twice a contour's area, at the value where it begins to.

    Three of them inside are half of it, four are all of it.
    """
    padded = side + 2
    third, fourth, owner = np.empty(side - 1, np.int32), np.empty(side - 1, np.int32), np.empty(side - 1, np.int32)
    for y in range(1, side):
        start = y * padded + 1
        a, b = key_P[start : start + side - 1], key_P[start + 1 : start + side]
        c, d = key_P[start + padded : start + padded + side - 1], key_P[start + padded + 1 : start + padded + side]
        label, next_label = label_P[start : start + side - 1], label_P[start + 1 : start + side]
        for x in range(side - 1):
            low, low_2 = min(a[x], b[x]), min(c[x], d[x])
            fourth[x] = min(low, low_2)
            third[x] = min(max(low, low_2), min(max(a[x], b[x]), max(c[x], d[x])))
            owner[x] = next_label[x] if a[x] == fourth[x] else label[x]
        for x in range(side - 1):
            area_NV[owner[x], third[x] >> FRACTION_BITS] += 1
            area_NV[owner[x], fourth[x] >> FRACTION_BITS] += 1
