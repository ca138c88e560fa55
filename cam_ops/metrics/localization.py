"""How well boxes as written meet true ones, image by image: overlap, pointing, energy, what can be reached, failures.

Boxes are half-open (x0, y0, x1, y1) in pixels of the original picture. Letters: N boxes, G true boxes, S side of a map.
"""

from typing import Literal

import numpy as np

from cam_ops.arrays import F32, F64, I64, U8, Objects

Failure = Literal["unreachable", "wrong_class", "several_in_one", "too_large", "part", "missed"]
FAILURES: tuple[Failure, ...] = ("wrong_class", "part", "too_large", "several_in_one", "missed", "unreachable")
CORRECT_IOU = 0.5
MOSTLY = 0.5  # share of a box inside another from which on it is mostly there
CENTRE_MARGIN = 0.1  # the centred box has 0.8 of each side
SMALL, MEDIUM = 32**2, 96**2  # COCO's sizes, in pixels of the original picture


def intersections(boxes_N4: F32 | F64, truth_G4: F64) -> F64:
    """Return the areas that boxes share, float64 (N, G)."""
    boxes_N4 = boxes_N4.astype(np.float64)
    ends_NG2 = np.minimum(boxes_N4[:, None, 2:], truth_G4[None, :, 2:])
    sides_NG2 = np.maximum(ends_NG2 - np.maximum(boxes_N4[:, None, :2], truth_G4[None, :, :2]), 0)
    shared: F64 = sides_NG2.prod(2)
    return shared


def areas(boxes_N4: F32 | F64) -> F64:
    """Return width times height, float64 (N,)."""
    area_N: F64 = (boxes_N4[:, 2:].astype(np.float64) - boxes_N4[:, :2]).prod(1)
    return area_N


def overlaps(boxes_N4: F32 | F64, truth_G4: F64) -> F64:
    """Return the IoU of each pair, float64 (N, G); 0 where both are empty."""
    shared_NG = intersections(boxes_N4, truth_G4)
    union_NG = areas(boxes_N4)[:, None] + areas(truth_G4) - shared_NG
    return np.divide(shared_NG, union_NG, out=np.zeros_like(shared_NG), where=union_NG > 0)


def best_overlaps(boxes_N4: F32, map_N: I64, truth_P: F64 | Objects) -> F64:
    """Return each box's largest IoU with the true boxes (M, 4) of its map; 0 with boxes of zeros."""
    best_N = np.zeros(len(boxes_N4))
    for place in np.unique(map_N):
        of_map_N = map_N == place
        best_N[of_map_N] = overlaps(boxes_N4[of_map_N], truth_P[place]).max(1, initial=0)
    return best_N


def reachable_overlap(truth_G4: F64, rectangle_4: F32) -> float:
    """Return the best IoU of any box inside `rectangle_4`, the part of the picture that the network saw."""
    visible_G = intersections(rectangle_4[None], truth_G4)[0]
    area_G = areas(truth_G4)
    return float(np.divide(visible_G, area_G, out=np.zeros_like(area_G), where=area_G > 0).max())


def failure_of(box_N4: F32, truth_G4: F64, reachable: float, is_top: bool | None) -> Failure | None:
    """Say why an image is not localized, None where it is; `box_N4` is its one box, or none.

    Not reachable: no box in what the network saw has an IoU of .5. Else, where the box has less: it holds most of
    several true boxes, or most of one and is larger, or lies mostly inside one (part), or none of these (missed). Where
    it has .5, the class may still be wrong; `is_top` is None where that is not known.
    """
    if reachable < CORRECT_IOU:
        return "unreachable"
    if not len(box_N4):
        return "missed"
    if overlaps(box_N4, truth_G4).max() >= CORRECT_IOU:
        return "wrong_class" if is_top is False else None
    shared_G = intersections(box_N4, truth_G4)[0]
    covers_G = shared_G >= MOSTLY * areas(truth_G4)
    if covers_G.sum() > 1:
        return "several_in_one"
    if covers_G.any():
        return "too_large"
    return "part" if shared_G.max() >= MOSTLY * areas(box_N4)[0] else "missed"


def points_inside(map_SS: F64, mask_SS: U8) -> bool:
    """Pointing game (Zhang et al. 2016, without a margin): the map's highest pixel, the first of equals, is inside."""
    return bool(mask_SS.ravel()[map_SS.argmax()])


def energy_inside(map_SS: F64, mask_SS: U8) -> float:
    """Energy-based pointing game (Wang et al. 2020): share of the map's positive mass inside, 0 where it has none."""
    positive_SS = np.maximum(map_SS, 0)
    total = positive_SS.sum()
    return float((positive_SS * mask_SS).sum() / total) if total > 0 else 0.0


def trivial_boxes(side: int) -> I64:
    """Return the centred box and the whole picture, in wsolevaluation's convention, int64 (2, 4)."""
    low, high = int(CENTRE_MARGIN * side), int((1 - CENTRE_MARGIN) * side)
    return np.array([[low, low, high, high], [0, 0, side - 1, side - 1]])


def size_name(area: float) -> str:
    """Return COCO's word for an object's size, by its area in pixels of the original picture."""
    return "small" if area < SMALL else "medium" if area < MEDIUM else "large"
