"""Which boxes of a run go into an export: the filters, one after the other, each with what it took away.

Letters: N boxes of a shard, at the first threshold; B its images.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cam_ops.arrays import I64, Bools
from cam_ops.tables import LABELS

LEAST = {"min_score": "score", "min_probability": "probability", "min_energy": "energy", "min_area": "area_fraction"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is asked of a box; None asks nothing."""

    min_score: float | None = None
    min_probability: float | None = None
    min_energy: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    only_classes: tuple[int, ...] | None = None
    labels_only: bool = False
    like: tuple[int, ...] | None = None  # classes that --like has
    top: int | None = None

    def apply(self, images: pa.Table, boxes: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the rows of a shard's boxes that are left, and how many each filter took, by its flag."""
        rows, taken = boxes, Counter[str]()
        for flag, column in LEAST.items():
            if (least := getattr(self, flag)) is not None:
                rows = _kept(rows, rows[column].to_numpy() >= least, flag, taken)
        if self.max_area is not None:
            rows = _kept(rows, rows["area_fraction"].to_numpy() <= self.max_area, "max_area", taken)
        for flag in ("only_classes", "like"):
            if (classes := getattr(self, flag)) is not None:
                rows = _kept(rows, np.isin(rows["class_id"].to_numpy(), classes), flag, taken)
        if self.labels_only:
            rows = _kept(rows, _are_of_labels(images, rows), "labels_only", taken)
        if self.top is not None:
            rows = _kept(rows, _places(rows) < self.top, "top", taken)
        return rows, taken


def _kept(rows: pa.Table, is_kept_N: Bools, flag: str, taken: Counter[str]) -> pa.Table:
    if lost := int((~is_kept_N).sum()):
        taken[f"--{flag.replace('_', '-')}"] += lost
    return rows.filter(pa.array(is_kept_N))


def labels_of(images: pa.Table) -> list[tuple[int, ...]]:
    """Return the labels of each image of a shard."""
    single = images["label"].to_pylist()
    several = images[LABELS.name].to_pylist() if LABELS.name in images.column_names else [None] * len(single)
    return [
        tuple(labels) if labels else () if label is None else (label,)
        for label, labels in zip(single, several, strict=True)
    ]


def _are_of_labels(images: pa.Table, rows: pa.Table) -> Bools:
    labels_B = labels_of(images)
    pairs = zip(rows["row"].to_pylist(), rows["class_id"].to_pylist(), strict=True)
    return np.array([class_id in labels_B[row] for row, class_id in pairs], np.bool_)


def _places(rows: pa.Table) -> I64:
    """Return the place of each box among those of its image, from 0: by probability or else score, then by rank."""
    surest = "probability" if "probability" in rows.column_names else "score"
    row_N = rows["row"].to_numpy().astype(np.int64)
    order_N = np.lexsort((rows["rank"].to_numpy(), -rows[surest].to_numpy(), row_N))
    sorted_N = row_N[order_N]
    starts_N = np.searchsorted(sorted_N, sorted_N, side="left")
    place_N = np.empty(len(row_N), np.int64)
    place_N[order_N] = np.arange(len(row_N)) - starts_N
    return place_N
