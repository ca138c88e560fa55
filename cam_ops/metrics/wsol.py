"""wsolevaluation's protocol (Choe et al. 2020, clovaai/wsolevaluation), bit for bit: score maps, boxes, curves, PxAP.

A raw map is enlarged to 224x224 (bicubic, float64), scaled by min-max, quantised to 0..255 by truncation and
thresholded at t = 0, 0.001, ..., 0.999. True boxes are integers (x0, y0, x1, y1) with both ends inside, scaled to
224x224 by truncation. All counts are integers: sums over images, in any order and grouping.

Letters: h, w the network's grid, S = 224, T = 1000 thresholds, L = 255 levels that they fall on, D = 3 IoUs, G true
boxes, E = 1002 bins of scores.
"""

import cv2
import numpy as np

from cam_ops.arrays import F32, F64, I64, U8, Bools
from cam_ops.compiled import compiled
from cam_ops.metrics.level_sets import NUM_LEVELS

SIDE = 224
THRESHOLD_T: F64 = np.arange(0, 1, 0.001)
LEVEL_T: I64 = (THRESHOLD_T * NUM_LEVELS).astype(np.int64)
IOU_D: F64 = np.array([30, 50, 70]) / 100
EDGES: F64 = np.append(THRESHOLD_T, [1.0, 2.0, 3.0])
NUM_BINS = len(EDGES) - 1
INSIDE, IGNORED = 1, 255


def enlarged_map(raw_hw: F32, rectangle_4: F32, width: int, height: int) -> F64:
    """Return a raw map over the whole picture, float64 (S, S).

    `rectangle_4` is the part of a picture of `width` x `height` that the map's grid covers. Where it is the whole, as
    in wsolevaluation, this is `cv2.resize`. Elsewhere each of the S x S pixels takes the value at its own place, by the
    same cubic; beyond the grid it takes the map's least value within the picture.
    """
    x0, y0, x1, y1 = rectangle_4.tolist()
    if (x0, y0, x1, y1) == (0, 0, width, height):
        whole_SS: F64 = np.empty((SIDE, SIDE))
        cv2.resize(raw_hw.astype(np.float64), (SIDE, SIDE), dst=whole_SS, interpolation=cv2.INTER_CUBIC)
        return whole_SS
    weight_Sh, seen_y = _cubic_weights(raw_hw.shape[0], y0, y1, height)
    weight_Sw, seen_x = _cubic_weights(raw_hw.shape[1], x0, x1, width)
    map_SS: F64 = weight_Sh @ raw_hw.astype(np.float64) @ weight_Sw.T
    seen_SS = seen_y[:, None] & seen_x
    if not seen_SS.all():
        map_SS[~seen_SS] = map_SS[seen_SS].min() if seen_SS.any() else 0
    return map_SS


def _cubic_weights(cells: int, start: float, end: float, size: int) -> tuple[F64, Bools]:
    """Return the weights of a grid's cells at S places across a picture, and which of the places the grid covers.

    OpenCV's cubic: a = -0.75, cells at their centres, those at the ends repeated.
    """
    at_S = (np.arange(SIDE) + 0.5) / SIDE * size
    cell_S = (at_S - start) / (end - start) * cells - 0.5
    first_S = np.floor(cell_S).astype(np.int64)
    weight_SC = np.zeros((SIDE, cells))
    for offset in (-1, 0, 1, 2):
        place_S = np.clip(first_S + offset, 0, cells - 1)
        np.add.at(weight_SC, (np.arange(SIDE), place_S), _cubic(np.abs(cell_S - (first_S + offset))))
    return weight_SC, (at_S > start) & (at_S < end)


def _cubic(distance_S: F64, a: float = -0.75) -> F64:
    near = ((a + 2) * distance_S - (a + 3)) * distance_S**2 + 1
    far = ((a * distance_S - 5 * a) * distance_S + 8 * a) * distance_S - 4 * a
    weight_S: F64 = np.where(distance_S <= 1, near, np.where(distance_S < 2, far, 0))
    return weight_S


def score_map(map_SS: F64) -> F64:
    """Scale an enlarged map to 0..1 by min-max; one that is constant or holds a NaN becomes 0."""
    low, high = map_SS.min(), map_SS.max()
    if not high > low:  # also where one of them is NaN
        return np.zeros_like(map_SS)
    scaled_SS: F64 = map_SS - low
    scaled_SS /= scaled_SS.max()
    return scaled_SS


def resized_boxes(truth_G4: I64, width: int, height: int) -> I64:
    """Return true boxes in pixels of the S x S map: each end times 224 / size, truncated."""
    scaled: I64 = (truth_G4 * float(SIDE) / np.array([width, height, width, height])).astype(np.int64)
    return scaled


def filled(boxes_G4: I64) -> U8:
    """Return the mask of the pixels in any of the boxes, S x S."""
    mask_SS = np.zeros((SIDE, SIDE), np.uint8)
    for x0, y0, x1, y1 in boxes_G4:
        mask_SS[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = INSIDE
    return mask_SS


def score_histograms(score_SS: F64, mask_SS: U8) -> I64:
    """Count the scores inside and outside a mask in each bin of EDGES, int64 (2, E); IGNORED pixels are left out."""
    counts_2E = np.zeros((2, NUM_BINS), np.int64)
    _count_scores(score_SS, mask_SS, EDGES, counts_2E)
    return counts_2E


@compiled
def _count_scores(score_SS: F64, mask_SS: U8, edges: F64, counts_2E: I64) -> None:
    for y in range(score_SS.shape[0]):
        for x in range(score_SS.shape[1]):
            if mask_SS[y, x] == IGNORED:
                continue
            score = score_SS[y, x]
            place = int(score * 1000)
            if edges[place] > score:
                place -= 1
            elif edges[place + 1] <= score:
                place += 1
            counts_2E[0 if mask_SS[y, x] == INSIDE else 1, place] += 1


def pixel_curve(counts_2E: I64) -> tuple[F64, F64]:
    """Return precision and recall of the pixels at or above each edge, (E,), NaN where there are none."""
    true_E, false_E = counts_2E[:, ::-1].cumsum(1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return true_E / (true_E + false_E), true_E / true_E[-1]


def pixel_average_precision(counts_2E: I64) -> float:
    """Return PxAP in percent, NaN where no pixel is inside."""
    if not counts_2E[0].any():
        return float("nan")
    precision_E, recall_E = pixel_curve(counts_2E)
    gains = precision_E[1:] * np.diff(recall_E)
    return float(100 * gains[~np.isnan(precision_E[1:])].sum())
