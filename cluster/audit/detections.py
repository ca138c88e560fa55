"""Average precision of a run's boxes, class by class, from the matches of all images (DETECTIONS_SCHEMA).

Letters: N detections of a class, R = 1 + B rows of weights, T ten IoU thresholds, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from cam_ops.arrays import F64, I64
from cam_ops.metrics.average_precision import AT_50, AT_75, BITS_T, weighted_average_precision
from cam_ops.metrics.counts import Split
from cam_ops.metrics.figures import Figure
from cluster.audit.tables import DETECTIONS_SCHEMA
from cluster.storage.scratch import load, open_database

PRECISION = ("ap", "ap_50", "ap_75", "instance_precision", "instance_recall")
MAX_WEIGHTED = 10**6  # detections; above, replicates would take hours
MAX_CELLS = 2 * 10**6  # detections, or true boxes' images, times rows that are computed at once: a few arrays of them
COCO = "classes with true boxes, 100 detections an image and class, as COCO counts"
TOO_MANY = f"no interval: more than {MAX_WEIGHTED} detections"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionFigures:
    """Figures of detections, and the average precision of each class in percent."""

    figures: dict[str, Figure]
    ap_of: dict[int, float]


def precision_of(batches: Iterator[pa.RecordBatch], split: Split) -> DetectionFigures:
    """Return COCO's `ap`, `ap_50`, `ap_75`, and precision and recall of instances at IoU .5.

    `batches` stand in the order of the plan, which decides between equal scores. Above MAX_WEIGHTED detections there
    are no replicates: rows from 1 on are NaN.
    """
    with open_database() as database:
        load(database, "detections", DETECTIONS_SCHEMA, batches)
        num_images, num_detections = _numbers(database, "SELECT count(DISTINCT seed), count(score) FROM detections")
        is_weighted = num_detections <= MAX_WEIGHTED
        num_rows = len(split.rows)
        classes = database.execute(
            "SELECT class_id FROM detections GROUP BY class_id HAVING sum(num_truth) > 0 ORDER BY class_id"
        ).fetchall()
        ap_CRT = np.full((len(classes), num_rows, len(BITS_T)), np.nan)
        sums_R3 = np.zeros((num_rows, 3), np.int64)
        for c, (class_id,) in enumerate(classes):
            class_split = split if is_weighted else Split(num_replicates=0)
            ap_RT, counted_R3 = _of_class(database, class_id, class_split)
            ap_CRT[c, : len(ap_RT)] = ap_RT
            sums_R3[: len(counted_R3)] += counted_R3
    ap_RT = _mean_known(ap_CRT)
    hits_R, found_R, truth_R = sums_R3.T
    values = {
        "ap": ap_RT.mean(1),
        "ap_50": ap_RT[:, AT_50],
        "ap_75": ap_RT[:, AT_75],
        "instance_precision": _ratio(hits_R, found_R),
        "instance_recall": _ratio(hits_R, truth_R),
    }
    note = COCO if is_weighted else f"{COCO}; {TOO_MANY}"
    return DetectionFigures(
        figures={name: Figure(value_R=100 * row, images=num_images, note=note) for name, row in values.items()},
        ap_of={class_id: 100 * float(ap_CRT[c, 0].mean()) for c, (class_id,) in enumerate(classes)},
    )


def _numbers(database: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    """Return the numbers of a query's one row, 0 for null."""
    found = database.execute(query).fetchone()
    assert found is not None
    return tuple(int(number or 0) for number in found)


def _of_class(database: duckdb.DuckDBPyConnection, class_id: int, split: Split) -> tuple[F64, I64]:
    """Return a class's average precision in each row of weights, (R, T), and hits, detections and truth, (R, 3)."""
    query = "SELECT seed, score, matched, ignored, num_truth FROM detections WHERE class_id = ? ORDER BY rowid"
    table = database.sql(query, params=[class_id]).to_arrow_table()
    truth = table.filter(table["score"].is_null())
    found = table.filter(table["score"].is_valid())
    score_N, matched_N, ignored_N = (found[name].to_numpy() for name in ("score", "matched", "ignored"))
    is_hit_N = (matched_N & BITS_T[AT_50]) > 0
    is_counted_N = is_hit_N | ((ignored_N & BITS_T[AT_50]) == 0)
    truth_seed_M, num_truth_M, seed_N = (
        column.to_numpy() for column in (truth["seed"], truth["num_truth"], found["seed"])
    )
    step = max(1, MAX_CELLS // max(1, len(score_N), len(truth)))
    ap, counted = [], []
    for rows in (split.rows[first : first + step] for first in split.rows[::step]):
        num_truth_R = split.weights(truth_seed_M, rows).astype(np.int64) @ num_truth_M.astype(np.int64)
        weight_RN = split.weights(seed_N, rows).astype(np.int64)
        ap.append(weighted_average_precision(score_N, matched_N, ignored_N, weight_RN, num_truth_R))
        counted.append(np.stack([weight_RN @ is_hit_N, weight_RN @ is_counted_N, num_truth_R], axis=1))
    return np.concatenate(ap), np.concatenate(counted)


def _mean_known(ap_CRT: F64) -> F64:
    """Return the mean over the classes that a row has, (R, T); NaN where it has none."""
    known_CRT = np.isfinite(ap_CRT)
    number_RT = known_CRT.sum(0)
    total_RT = np.where(known_CRT, ap_CRT, 0).sum(0)
    mean_RT: F64 = np.divide(total_RT, number_RT, out=np.full_like(total_RT, np.nan), where=number_RT > 0)
    return mean_RT


def _ratio(part_R: I64, whole_R: I64) -> F64:
    ratio_R: F64 = np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0)
    return ratio_R
