"""What shards come to: distributions, sums by class, and which images the galleries would show.

All counts are whole numbers and all choices follow from ids: in whichever order parts are added, the sum is the same.
Boxes are those of the first threshold, or of their class's own. Letters: I images, P maps, N boxes, M images with a
map, K classes.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, F64, I64
from cam_ops.metrics.signals import DENSITY_SIDE, ClassSums, class_sums
from cluster.audit.shard import ShardIndex, ShardTables, index_shard
from cluster.audit.signals import signal_columns
from cluster.export.filters import labels_of
from cluster.report.galleries import Found, Looks, find, nothing_found
from cluster.runs.reading import first_boxes
from cluster.runs.record import Run

STEPS = 2**20  # of a number between 0 and 1, in sums
EDGES: dict[str, F64] = {
    "boxes_per_image": np.arange(-0.5, 21.5),
    "area": np.linspace(0, 1, 41),
    "aspect": np.linspace(-4, 4, 41),  # log2 of width over height
    "score": np.linspace(0, 1, 41),
    "energy": np.linspace(0, 1, 41),
    "peak": np.linspace(0, 1, 41),
    "probability": np.linspace(0, 1, 41),
}
"""Edges of the bins; what lies beyond the outer ones is counted in the outer bins."""
BY_CLASS = ("labelled", "agreed", "predicted", "maps", "boxes", "empty", "score_steps", "area_steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What some shards come to."""

    histograms: dict[str, I64]  # counts, by the name of EDGES
    by_class: dict[str, I64]  # (K,), by the name of BY_CLASS
    sums: ClassSums  # mean maps and where boxes lie
    found: dict[str, Found]  # by the key of a gallery

    def __add__(self, other: "Digest") -> "Digest":
        """Add that of other shards."""
        return Digest(
            histograms={name: counts + other.histograms[name] for name, counts in self.histograms.items()},
            by_class={name: counts_K + other.by_class[name] for name, counts_K in self.by_class.items()},
            sums=self.sums + other.sums,
            found={key: found + other.found[key] for key, found in self.found.items()},
        )


def no_digest(run: Run, most: int) -> Digest:
    """Return that of no shard."""
    num_classes = len(run.class_names)
    return Digest(
        histograms={name: np.zeros(len(edges) - 1, np.int64) for name, edges in EDGES.items()},
        by_class={name: np.zeros(num_classes, np.int64) for name in BY_CLASS},
        sums=ClassSums(
            class_C=np.zeros(0, np.int64),
            maps_Chw=np.zeros((0, *run.grid), np.int64),
            num_maps_C=np.zeros(0, np.int64),
            density_CGG=np.zeros((0, DENSITY_SIDE, DENSITY_SIDE), np.int64),
        ),
        found={key: nothing_found(most) for key in find(_no_looks(), most)},
    )


def _no_looks() -> Looks:
    nothing = np.zeros(0)
    whole = np.zeros(0, np.int64)
    return Looks(
        image_ids=[],
        shard_M=whole,
        row_M=whole,
        score_M=nothing,
        num_components_M=whole,
        box_area_M=nothing,
        attention_M=nothing,
        is_unlike_M=nothing.astype(np.bool_),
    )


def digest_shard(run: Run, tables: ShardTables, most: int) -> Digest:
    """Return what one shard comes to; each gallery keeps `most` images. The tables must fit each other."""
    index = index_shard(run, tables)
    labels_I, is_unlike_I = _labels(tables.images)
    return Digest(
        histograms=_histograms(run, tables, index),
        by_class=_by_class(run, tables, index, labels_I),
        sums=class_sums(index.class_P, index.raw_Phw, index.box_class_N, index.boxes_N4, index.sizes(index.box_row_N)),
        found=find(_looks(run, index, is_unlike_I), most),
    )


def _labels(images: pa.Table) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Return the labels of each image, and whether it has some and the best class is none of them."""
    labels_I = labels_of(images)
    best_I = [top[0] if top else None for top in images["top_classes"].to_pylist()]
    unlike = [
        bool(labels) and best is not None and best not in labels for labels, best in zip(labels_I, best_I, strict=True)
    ]
    return labels_I, np.array(unlike, np.bool_)


def _histograms(run: Run, tables: ShardTables, index: ShardIndex) -> dict[str, I64]:
    boxes = first_boxes(run.request, tables.boxes)
    has_map_I = tables.images["num_maps"].to_numpy() > 0
    width_N, height_N = (np.maximum(index.boxes_N4[:, at + 2] - index.boxes_N4[:, at], 1e-6) for at in (0, 1))
    values = {
        "boxes_per_image": tables.images["num_boxes"].to_numpy()[has_map_I],
        "area": index.box_area_N,
        "aspect": np.log2(width_N / height_N),
        "score": tables.heatmaps["score"].to_numpy(),
        "energy": boxes["energy"].to_numpy(),
        "peak": boxes["peak"].to_numpy(),
        "probability": boxes["probability"].to_numpy() if "probability" in boxes.column_names else np.zeros(0),
    }
    return {
        name: np.histogram(np.clip(np.nan_to_num(values[name]), edges[0], edges[-1]), edges)[0].astype(np.int64)
        for name, edges in EDGES.items()
    }


def _by_class(run: Run, tables: ShardTables, index: ShardIndex, labels_I: list[tuple[int, ...]]) -> dict[str, I64]:
    num_classes = len(run.class_names)

    def count(classes: np.ndarray, weights: np.ndarray | None = None) -> I64:
        counts = np.bincount(classes.astype(np.int64), weights, num_classes)
        return counts.astype(np.int64)  # sums of steps are exact: below 2**53

    best_I = [top[0] if top else -1 for top in tables.images["top_classes"].to_pylist()]
    pairs = [(label, best) for labels, best in zip(labels_I, best_I, strict=True) for label in labels]
    label_F, best_F = np.array(pairs, np.int64).reshape(-1, 2).T
    best = np.array([class_id for class_id in best_I if class_id >= 0], np.int64)
    with_box = np.array([class_id for _, class_id in index.boxes_at], np.int64)
    return {
        "labelled": count(label_F),
        "agreed": count(label_F[label_F == best_F]),
        "predicted": count(best),
        "maps": count(index.class_P),
        "boxes": count(index.box_class_N),
        "empty": count(index.class_P) - count(with_box),
        "score_steps": count(index.class_P, _steps(tables.heatmaps["score"].to_numpy())),
        "area_steps": count(index.box_class_N, _steps(index.box_area_N)),
    }


def _steps(share_N: F32) -> F64:
    """Return numbers between 0 and 1 in whole steps; what rounding has made of them beyond is taken to them."""
    steps_N: F64 = np.rint(np.clip(share_N.astype(np.float64), 0, 1) * STEPS)
    return steps_N


def _looks(run: Run, index: ShardIndex, is_unlike_I: np.ndarray) -> Looks:
    images = index.tables.images
    rows, columns = signal_columns(run.request, index, [None] * len(images))
    row_M = np.array(rows, np.int64)
    return Looks(
        image_ids=images["image_id"].take(pa.array(row_M)).to_pylist(),
        shard_M=images["shard"].to_numpy()[row_M].astype(np.int64),
        row_M=row_M,
        score_M=columns["score"].astype(np.float64),
        num_components_M=columns["num_components"].astype(np.int64),
        box_area_M=columns["box_area"].astype(np.float64),
        attention_M=columns["attention"].astype(np.float64),
        is_unlike_M=is_unlike_I[row_M],
    )
