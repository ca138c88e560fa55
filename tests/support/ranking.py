"""Which column ranks boxes: the area under the risk-coverage curve of audited runs, the best box of each true class.

`python -m tests.support.ranking RUN ...`. The risk of a coverage is the share of the boxes kept, those of the highest
values, whose IoU is below .5 (Geifman & El-Yaniv 2017). Letters: N boxes, R = 1 + B: all once, then B replicates.
"""

import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from cam_ops.arrays import F64, Bools

NUM_REPLICATES = 1000
BOXES = """
SELECT b.image_id, b.class_id, b.score::DOUBLE AS score, b.energy::DOUBLE AS energy, b.peak::DOUBLE AS peak,
    b.area_fraction::DOUBLE AS area, a.iou >= 0.5 AS is_right, a.border_mass::DOUBLE AS border,
    a.concentration::DOUBLE AS concentration, a.entropy::DOUBLE AS entropy, m.logit::DOUBLE AS logit, m.heatmap
FROM '{run}/boxes/*.parquet' b JOIN '{run}/audit/per_image.parquet' a USING (image_id)
JOIN '{run}/heatmaps/*.parquet' m ON m.image_id = b.image_id AND m.class_id = b.class_id
WHERE b.rank = 0 AND b.class_id = a.true_class AND a.iou IS NOT NULL ORDER BY b.image_id
"""
CANDIDATES = (
    "score",
    "energy",
    "peak",
    "area",
    "-area",
    "logit",
    "top",  # the map's highest value
    "concentration",
    "-entropy",
    "-border",
    "energy / area",
    "energy * (1 - area)",
    "area * (1 - area)",
    "score * energy",
    "score * area",
    "score * (1 - area)",
    "score * top",
    "score * concentration",
    "score * (1 - border)",
    "score * energy * (1 - border)",
    "cbrt(score) * energy * (1 - border)",
)


def main(runs: list[str]) -> None:
    """Print a row for each candidate: its area in percent in each run, and what it has over `score`."""
    for run in runs:
        boxes = duckdb.sql(BOXES.format(run=Path(run))).to_arrow_table()
        print(f"\n{run}: {len(boxes)} boxes")
        print_run(boxes)


def print_run(boxes: pa.Table) -> None:
    right_N = boxes["is_right"].to_numpy()
    wrong_N = np.sort(~right_N).astype(np.float64)
    best = (wrong_N.cumsum() / np.arange(1, len(wrong_N) + 1)).mean()
    print(f"by chance {100 * wrong_N.mean():.1f}, at best {100 * best:.1f}")
    weights_RN = np.random.default_rng(0).poisson(1, (1 + NUM_REPLICATES, len(right_N)))
    weights_RN[0] = 1
    top_N = np.array([max(heatmap) for heatmap in boxes["heatmap"].to_pylist()])
    ranked = boxes.drop(["heatmap"]).append_column("top", pa.array(top_N))  # noqa: F841, DuckDB reads it by its name
    base_R = None
    for formula in CANDIDATES:
        value_N = duckdb.sql(f"SELECT {formula} AS value FROM ranked").to_arrow_table()["value"].to_numpy()
        area_R = 100 * risk_coverage(value_N, right_N, weights_RN)
        base_R = area_R if base_R is None else base_R
        print(f"{formula:36} {_shown(area_R)}   {_shown(area_R - base_R)}")


def _shown(value_R: F64) -> str:
    return "{:5.1f} ({:.1f} to {:.1f})".format(value_R[0], *np.percentile(value_R[1:], (2.5, 97.5)))


def risk_coverage(value_N: F64, right_N: Bools, weights_RN: F64) -> F64:
    """Return the area under the curve in each row, (R,); each of several boxes of equal value is as their mean."""
    order_N = np.argsort(-value_N, kind="stable")
    begins_N = np.diff(value_N[order_N], prepend=np.nan) != 0
    group_N = np.cumsum(begins_N) - 1
    first_G = np.flatnonzero(begins_N)
    weights_RN = weights_RN[:, order_N].astype(np.float64)
    wrong_RG, weight_RG = (
        np.add.reduceat(values_RN, first_G, axis=1) for values_RN in (weights_RN * ~right_N[order_N], weights_RN)
    )
    rate_RG = wrong_RG / np.maximum(weight_RG, 1)
    kept_RN, wrong_RN = weights_RN.cumsum(1), (weights_RN * rate_RG[:, group_N]).cumsum(1)
    risk_RN = wrong_RN / np.maximum(kept_RN, 1)
    area_R: F64 = (risk_RN * weights_RN).sum(1) / weights_RN.sum(1)
    return area_R


if __name__ == "__main__":
    main(sys.argv[1:])
