"""An image's boxes matched to its true ones, class by class: what average precision and CorLoc are made from.

Letters: N boxes and G true boxes of an image and class, R rows of weights, J matches.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cam_ops.arrays import I64
from cam_ops.metrics import localization
from cam_ops.metrics.average_precision import match_image
from cam_ops.metrics.counts import Split
from cam_ops.metrics.localization import CORRECT_IOU
from cluster.audit.shard import Shown, true_corners


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An image's true boxes and detections of one class."""

    class_id: int
    seed: int
    is_found: bool | None  # the best box meets a true one; None where the run has no map, or the truth no box
    rows: list[dict[str, Any]]  # DETECTIONS_SCHEMA


def matches_of(shown: Shown, row: int, truth: dict[str, Any], seed: int) -> list[Match]:
    """Match an image's detections to its true boxes, class by class."""
    known = {box["class_id"] for box in truth["boxes"]} - {None}
    detected = shown.found_classes.get(row, [])
    return [_match(shown, row, class_id, truth, seed) for class_id in sorted(known.union(detected))]


def _match(shown: Shown, row: int, class_id: int, truth: dict[str, Any], seed: int) -> Match:
    objects = [box for box in truth["boxes"] if box["class_id"] == class_id]
    crowd_G = np.array([box["crowd"] for box in objects], np.bool_)
    truth_G4 = true_corners(objects)
    at = shown.boxes.get((row, class_id), slice(0, 0))
    boxes_N4 = shown.boxes_N4[at]
    matched_N, ignored_N, num_truth = match_image(boxes_N4, truth_G4, crowd_G)
    has_map = (row, class_id) in shown.place
    is_found = bool(localization.overlaps(boxes_N4[:1], truth_G4[~crowd_G]).max(initial=0) >= CORRECT_IOU)
    entry = {"class_id": class_id, "seed": seed, "score": None, "matched": None, "ignored": None}
    scores = shown.box_score_N[at].tolist()
    detections = zip(scores, matched_N.tolist(), ignored_N.tolist(), strict=False)  # COCO counts a hundred
    return Match(
        class_id=class_id,
        seed=seed,
        is_found=is_found if has_map and num_truth else None,
        rows=[
            {**entry, "num_truth": num_truth},
            *(
                {**entry, "score": score, "matched": matched, "ignored": ignored, "num_truth": 0}
                for score, matched, ignored in detections
            ),
        ],
    )


def corloc_of(matches: list[Match], split: Split) -> dict[int, I64]:
    """Count, by class, the images whose best box of it is right, and the images, in each row of weights."""
    judged = [match for match in matches if match.is_found is not None]
    weight_RJ = split.weights(np.array([match.seed for match in judged], np.uint64))
    class_J = np.array([match.class_id for match in judged], np.int64)
    found_J2 = np.array([[bool(match.is_found), True] for match in judged], np.float64).reshape(-1, 2)
    return {
        class_id: (weight_RJ[:, class_J == class_id] @ found_J2[class_J == class_id]).astype(np.int64)
        for class_id in np.unique(class_J).tolist()
    }
