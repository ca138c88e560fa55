"""An image's boxes matched to its true ones, class by class: what average precision and CorLoc are made from.

Letters: N boxes and G true boxes of an image and class, R rows of weights, J matches.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import I64
from cam_ops.metrics import localization
from cam_ops.metrics.average_precision import match_image
from cam_ops.metrics.counts import Split
from cam_ops.metrics.localization import CORRECT_IOU
from cluster.audit.shard import ShardIndex, true_corners
from cluster.audit.tables import DETECTIONS_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One box; bit t of `matched` and `ignored` is for threshold t, see `match_image`."""

    score: float
    matched: int
    ignored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The boxes of one image and class against its true ones."""

    class_id: int
    seed: int  # of the image's weights
    num_truth: int  # true boxes that count: no crowds
    is_found: bool | None  # the best box meets a true one; None where the run has no map, or the truth no box
    detections: list[Detection]  # best first, as many as COCO counts


def matches_of(index: ShardIndex, row: int, truth: dict[str, Any], seed: int) -> list[Match]:
    """Match an image's boxes to those of its row of TRUTH, class by class: every class that either has."""
    known = {box["class_id"] for box in truth["boxes"]} - {None}
    return [
        _match(index, row, class_id, truth, seed) for class_id in sorted(known.union(index.box_classes.get(row, [])))
    ]


def _match(index: ShardIndex, row: int, class_id: int, truth: dict[str, Any], seed: int) -> Match:
    objects = [box for box in truth["boxes"] if box["class_id"] == class_id]
    crowd_G = np.array([box["crowd"] for box in objects], np.bool_)
    truth_G4 = true_corners(objects)
    at = index.boxes_of(row, class_id)
    boxes_N4 = index.boxes_N4[at]
    matched_N, ignored_N, num_truth = match_image(boxes_N4, truth_G4, crowd_G)
    is_found = bool(localization.overlaps(boxes_N4[:1], truth_G4[~crowd_G]).max(initial=0) >= CORRECT_IOU)
    columns = index.box_score_N[at].tolist(), matched_N.tolist(), ignored_N.tolist()
    return Match(
        class_id=class_id,
        seed=seed,
        num_truth=num_truth,
        is_found=is_found if num_truth and (row, class_id) in index.map_at else None,
        detections=[
            Detection(score=score, matched=matched, ignored=ignored)
            for score, matched, ignored in zip(*columns, strict=False)  # match_image leaves out those beyond a hundred
        ],
    )


def detections_table(matches: list[Match]) -> pa.Table:
    """Return matches as rows of schema DETECTIONS_SCHEMA: of each its true boxes first, then its detections."""
    rows: list[dict[str, Any]] = []
    for match in matches:
        key = {"class_id": match.class_id, "seed": match.seed}
        rows.append({**key, "score": None, "matched": None, "ignored": None, "num_truth": match.num_truth})
        for found in match.detections:
            detection = {"score": found.score, "matched": found.matched, "ignored": found.ignored}
            rows.append({**key, **detection, "num_truth": 0})
    return pa.Table.from_pylist(rows, schema=DETECTIONS_SCHEMA)


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
