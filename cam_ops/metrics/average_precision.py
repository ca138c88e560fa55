"""COCO's average precision of boxes, in two steps that can be spread over actors: match by image, then rank by class.

The first step leaves two bit masks a detection, the second is one sort over all images of a class. Both follow
pycocotools' `COCOeval` (bbox, area `all`, 100 detections an image and class) to the last tie. Boxes are half-open
``x0, y0, x1, y1``, that is COCO's ``x, y, x1 - x0, y1 - y0``. Letters: N detections, M truth boxes, B weightings, T the
ten IoU thresholds .5, .55, ... .95; bit t of a mask is threshold t.
"""

import numpy as np
from numpy.typing import NDArray

from cam_ops.arrays import F32, F64, I64, Bools
from cam_ops.metrics.localization import areas, intersections

U16 = NDArray[np.uint16]

MAX_DETECTIONS = 100  # of an image and class
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AT_50, AT_75 = 0, 5  # their places
RECALLS = np.linspace(0, 1, 101)
BITS_T = np.uint16(1) << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


def match_image(boxes_N4: F32 | F64, truth_M4: F64, crowd_M: Bools) -> tuple[U16, U16, int]:
    """Match the detections of one image and class, best first, to its truth boxes.

    Each detection in turn takes the free truth box that it overlaps most, the later of equals; where none reaches the
    threshold, a crowd, which is never used up. Returns for each of the first `MAX_DETECTIONS` a mask of the thresholds
    at which it matched, one of those at which a crowd excuses it, and the number of truth boxes that are no crowds.
    """
    boxes_N4 = boxes_N4[:MAX_DETECTIONS]
    matched_NT = np.zeros((len(boxes_N4), len(BITS_T)), np.bool_)
    ignored_NT = np.zeros_like(matched_NT)
    if len(truth_M4):
        iou_NM = _overlaps(boxes_N4.astype(np.float64), truth_M4, crowd_M)
        free_TM = np.repeat(~crowd_M[None], len(BITS_T), axis=0)
        for n, iou_M in enumerate(iou_NM):
            reaches_TM = iou_M >= IOU_THRESHOLDS[:, None]
            matched_NT[n] = _take_best(iou_M, reaches_TM & free_TM, free_TM)
            ignored_NT[n] = ~matched_NT[n] & (reaches_TM & crowd_M).any(1)
    return matched_NT @ BITS_T, ignored_NT @ BITS_T, int(np.count_nonzero(~crowd_M))


def _overlaps(boxes_N4: F64, truth_M4: F64, crowd_M: Bools) -> F64:
    """Return the IoU of each pair, (N, M); with a crowd the share of the detection that lies inside."""
    shared_NM = intersections(boxes_N4, truth_M4)
    area_N1, area_M = areas(boxes_N4)[:, None], areas(truth_M4)
    whole_NM = np.where(crowd_M, area_N1, area_N1 + area_M - shared_NM)
    iou_NM: F64 = np.divide(shared_NM, whole_NM, out=np.zeros_like(shared_NM), where=shared_NM > 0)
    return iou_NM


def _take_best(iou_M: F64, candidates_TM: Bools, free_TM: Bools) -> Bools:
    """Strike the best candidate of each threshold, the last of equals, off `free_TM`; return which had one."""
    found_T: Bools = np.any(candidates_TM, axis=1)
    last = iou_M.size - 1
    best_T = last - np.where(candidates_TM, iou_M, -1.0)[:, ::-1].argmax(1)
    free_TM[np.flatnonzero(found_T), best_T[found_T]] = False
    return found_T


def weighted_average_precision(
    score_N: F32 | F64, matched_N: U16, ignored_N: U16, weight_BN: I64, num_truth_B: I64
) -> F64:
    """Return the average precision of one class at each IoU threshold, (B, T), for each row of its detections' weights.

    Detections of all images stand image by image, best first; of equal scores the earlier counts first. NaN without
    truth boxes: COCO leaves such classes out of its means. `ap` is the mean over thresholds and classes, AP50 and AP75
    over classes.

    The weight of a detection is that of its image, a whole number as in a bootstrap; `num_truth_B` are weighted sums.
    It is the average precision over as many copies of the images, each detection's copies side by side. Memory is a few
    float64 a weight: for many detections give few rows at a time.
    """
    order_N = np.argsort(-score_N, kind="stable")
    matched_N, excused_N, weight_BN = matched_N[order_N], (matched_N | ignored_N)[order_N], weight_BN[:, order_N]
    masks = (((matched_N & bit) > 0, (excused_N & bit) == 0) for bit in BITS_T)
    return np.stack([_of_threshold(*hit_and_miss, weight_BN, num_truth_B) for hit_and_miss in masks], axis=1)


def _of_threshold(is_hit_N: Bools, is_miss_N: Bools, weight_BN: I64, num_truth_B: I64) -> F64:
    """Return the average precision of sorted detections at one threshold, (B,)."""
    hits_BN = np.cumsum(weight_BN * is_hit_N, axis=1).astype(np.float64)
    found_BN = hits_BN + np.cumsum(weight_BN * is_miss_N, axis=1)
    precision_BN = hits_BN / (found_BN + np.spacing(1))
    envelope_BN = np.maximum.accumulate(precision_BN[:, ::-1], axis=1)[:, ::-1]
    truth_B1 = np.where(num_truth_B > 0, num_truth_B, np.nan)[:, None]
    reached_BN = np.searchsorted(RECALLS, np.nan_to_num(hits_BN / truth_B1), side="right")
    new_BN = np.diff(reached_BN, axis=1, prepend=0)  # recall points that this detection is the first to reach
    ap_B: F64 = (envelope_BN * new_BN).sum(1) / len(RECALLS)
    ap_B[num_truth_B <= 0] = np.nan
    return ap_B
