"""A shard's tables as an audit looks at them: maps and boxes by image and class.

Letters: P maps, h, w their grid, N boxes, G true boxes of an image.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, F64, I64
from cam_ops.tables import CORNERS
from cluster.runs.reading import corners_of, first_boxes, raw_maps
from cluster.runs.record import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTables:
    """A shard as it was published; `truth` is None where there is none."""

    images: pa.Table
    heatmaps: pa.Table
    boxes: pa.Table
    truth: pa.Table | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a shard's tables show, by the row of the image and the class."""

    tables: ShardTables
    raw_Phw: F32
    rectangle_P4: F32
    row_P: I64
    class_P: I64
    place: dict[tuple[int, int], int]  # of the map
    boxes: dict[tuple[int, int], slice]  # of the first threshold, or their class's own, best first
    found_classes: dict[int, list[int]]  # of an image's boxes
    boxes_N4: F32
    box_score_N: F32
    box_area_N: F32


def shown_by(run: Run, tables: ShardTables) -> Shown:
    """Find maps and boxes by image and class; boxes of one image and class stand together, best first."""
    row_P, class_P = (tables.heatmaps[name].to_numpy().astype(np.int64) for name in ("row", "class_id"))
    boxes = first_boxes(run.request, tables.boxes)
    row_N, class_N = boxes["row"].to_numpy(), boxes["class_id"].to_numpy()
    starts = np.flatnonzero(np.diff(row_N, prepend=-1) | np.diff(class_N, prepend=-1)).tolist()
    ends = [*starts[1:], *([len(row_N)] if starts else [])]
    found_classes: dict[int, list[int]] = defaultdict(list)
    for start in starts:
        found_classes[int(row_N[start])].append(int(class_N[start]))
    return Shown(
        tables=tables,
        raw_Phw=raw_maps(tables.heatmaps),
        rectangle_P4=corners_of(tables.heatmaps),
        row_P=row_P,
        class_P=class_P,
        place={key: p for p, key in enumerate(zip(row_P.tolist(), class_P.tolist(), strict=True))},
        boxes={(int(row_N[i]), int(class_N[i])): slice(i, end) for i, end in zip(starts, ends, strict=True)},
        found_classes=found_classes,
        boxes_N4=corners_of(boxes),
        box_score_N=boxes["score"].to_numpy(),
        box_area_N=boxes["area_fraction"].to_numpy(),
    )


def true_corners(boxes: list[dict[str, Any]]) -> F64:
    """Return true boxes as half-open pixels of the picture, (G, 4)."""
    return np.array([[box[name] for name in CORNERS] for box in boxes], np.float64).reshape(-1, 4)
