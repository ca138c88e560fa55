"""One shard's published tables, an index of them, the maps and boxes of an image and class, and its true boxes.

Letters: P maps, h, w their grid, N boxes, G true boxes of an image.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import F32, F64, I64
from cam_ops.tables import CORNERS
from cluster.audit.tables import TRUE_BOXES_SCHEMA
from cluster.runs.reading import corners_of, first_boxes, raw_maps
from cluster.runs.record import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTables:
    """A shard as it was published; `truth`, schema TRUTH, is None where there is none."""

    images: pa.Table
    heatmaps: pa.Table
    boxes: pa.Table
    truth: pa.Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """A shard's maps and boxes. Keys are an image's row in the shard and a class: (row, class_id).

    Boxes are those of the first threshold, or of their class's own; the ones of a key stand together, best first.
    """

    tables: ShardTables
    raw_Phw: F32
    rectangle_P4: F32  # the part of the picture that the grid covers
    row_P: I64
    class_P: I64
    map_at: dict[tuple[int, int], int]
    boxes_at: dict[tuple[int, int], slice]
    box_classes: dict[int, list[int]]  # by row
    boxes_N4: F32
    box_row_N: I64
    box_class_N: I64
    box_score_N: F32
    box_area_N: F32  # share of the picture

    def boxes_of(self, row: int, class_id: int) -> slice:
        """Return where the boxes of an image and class stand among the N, an empty slice where it has none."""
        return self.boxes_at.get((row, class_id), slice(0, 0))

    def sizes(self, rows: list[int] | I64) -> I64:
        """Return width and height of the pictures in these rows, (len(rows), 2)."""
        width_I, height_I = (self.tables.images[name].to_numpy() for name in ("width", "height"))
        return np.stack([width_I, height_I], axis=1).astype(np.int64)[rows]


def index_shard(run: Run, tables: ShardTables) -> ShardIndex:
    """Index a shard; in its tables the boxes of an image and class stand together, best first."""
    row_P, class_P = (tables.heatmaps[name].to_numpy().astype(np.int64) for name in ("row", "class_id"))
    boxes = first_boxes(run.request, tables.boxes)
    row_N, class_N = (boxes[name].to_numpy().astype(np.int64) for name in ("row", "class_id"))
    starts = np.flatnonzero(np.diff(row_N, prepend=-1) | np.diff(class_N, prepend=-1)).tolist()
    ends = [*starts[1:], *([len(row_N)] if starts else [])]
    box_classes: dict[int, list[int]] = defaultdict(list)
    for start in starts:
        box_classes[int(row_N[start])].append(int(class_N[start]))
    return ShardIndex(
        tables=tables,
        raw_Phw=raw_maps(tables.heatmaps),
        rectangle_P4=corners_of(tables.heatmaps),
        row_P=row_P,
        class_P=class_P,
        map_at={key: p for p, key in enumerate(zip(row_P.tolist(), class_P.tolist(), strict=True))},
        boxes_at={(int(row_N[i]), int(class_N[i])): slice(i, end) for i, end in zip(starts, ends, strict=True)},
        box_classes=box_classes,
        boxes_N4=corners_of(boxes),
        box_row_N=row_N,
        box_class_N=class_N,
        box_score_N=boxes["score"].to_numpy(),
        box_area_N=boxes["area_fraction"].to_numpy(),
    )


def true_corners(boxes: list[dict[str, Any]]) -> F64:
    """Return boxes of TRUTH as half-open pixels of the picture, (G, 4)."""
    return np.array([[box[name] for name in CORNERS] for box in boxes], np.float64).reshape(-1, 4)


def true_integers(boxes: list[dict[str, Any]]) -> I64:
    """Return boxes of TRUTH as wsolevaluation's integers, both ends inside, (G, 4)."""
    return np.array([[box[f"w{name}"] for name in CORNERS] for box in boxes], np.int64).reshape(-1, 4)


def true_boxes_of(images: pa.Table, truth: pa.Table) -> pa.Table:
    """Return all true boxes of a shard, tables IMAGES and TRUTH, schema TRUE_BOXES_SCHEMA."""
    lists = truth["boxes"].combine_chunks()
    at_G, boxes = pc.list_parent_indices(lists), pc.list_flatten(lists)
    named = images.select(["image_id", "shard", "row"]).take(at_G)
    columns = [*named.columns, *(pc.struct_field(boxes, name) for name in ("class_id", *CORNERS, "crowd"))]
    return pa.table(columns, TRUE_BOXES_SCHEMA.names).cast(TRUE_BOXES_SCHEMA, safe=False)  # float64 to float32
