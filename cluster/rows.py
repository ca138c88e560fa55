"""The rows of a shard's three tables as they grow, and their files."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32
from cam_ops.boxes import boxes_from_heatmap
from cam_ops.classes import parse_class_choice
from cam_ops.tables import BOXES, IMAGES, heatmaps_schema, with_metadata
from cluster.parquet import encode
from cluster.request import Run
from cluster.rundir import TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of a shard."""

    shard: int
    statuses: dict[str, int]  # images by status
    num_maps: int
    num_boxes: int


@dataclass(slots=True, kw_only=True)
class Picture:
    """One planned image on its way through the worker."""

    row: dict[str, Any]  # as planned
    width: int = 0
    height: int = 0
    status: str = "ok"
    error: str | None = None
    rectangle: F32 = field(default_factory=lambda: np.zeros(4, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMap:
    """One explained class of an image."""

    class_id: int
    raw_hw: F32
    score: float
    logit: float
    residual: float | None


class ShardRows:
    """Columns of the three tables; images come in the order of the plan, each with its maps before it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.labels_are_mapped = parse_class_choice(run.request.classes).label
        self.schemas = {"heatmaps": heatmaps_schema(run.grid), "boxes": BOXES, "images": IMAGES}
        self.columns: dict[str, dict[str, list[Any]]] = {
            table: {name: [] for name in schema.names} for table, schema in self.schemas.items()
        }

    def add_image(self, picture: Picture, top_classes: list[int], top_scores: list[float], maps: list[RawMap]) -> None:
        """Add an image, its maps and the boxes of each map."""
        num_boxes = sum(self._add_map(picture, raw) for raw in maps)
        self._add(
            "images",
            picture.row,
            {
                "width": picture.width,
                "height": picture.height,
                "status": picture.status,
                "error": picture.error,
                "top_classes": top_classes,
                "top_scores": top_scores,
                "num_maps": len(maps),
                "num_boxes": num_boxes,
            },
        )

    def tables(self) -> dict[str, bytes]:
        """Return the bytes of the three files, in the order of publication."""
        columns: dict[str, Any] = {**self.columns}
        columns["heatmaps"] = {**self.columns["heatmaps"], "heatmap": self._tensors()}
        document = self.run.request.document
        return {
            table: encode(
                pa.Table.from_pydict(columns[table], schema=with_metadata(self.schemas[table], document(table)))
            )
            for table in TABLES
        }

    def report(self, shard: int) -> ShardReport:
        """Count the rows."""
        return ShardReport(
            shard=shard,
            statuses=dict(Counter(self.columns["images"]["status"])),
            num_maps=len(self.columns["heatmaps"]["row"]),
            num_boxes=len(self.columns["boxes"]["row"]),
        )

    def _add_map(self, picture: Picture, raw: RawMap) -> int:
        """Add one map's row and its boxes' rows; return the number of boxes."""
        request = self.run.request
        found = boxes_from_heatmap(
            raw.raw_hw,
            picture.rectangle,
            picture.width,
            picture.height,
            request.preprocessing.image_size,
            request.maps,
            request.boxes,
        )
        explained = {"class_id": raw.class_id, "score": raw.score}
        self._add(
            "heatmaps",
            picture.row,
            explained,
            _corners(picture.rectangle),
            {
                "method": request.explain.method,
                "heatmap": raw.raw_hw,
                "logit": raw.logit,
                "residual": raw.residual,
            },
        )
        from_label = self.labels_are_mapped and picture.row["label"] == raw.class_id
        for rank in range(len(found.boxes_N4)):
            self._add(
                "boxes",
                picture.row,
                explained,
                _corners(found.boxes_N4[rank]),
                {
                    "class_name": self.run.class_names[raw.class_id],
                    "class_source": "label" if from_label else "predicted",
                    "peak": found.peak_N[rank],
                    "energy": found.energy_N[rank],
                    "area_fraction": found.area_fraction_N[rank],
                    "rank": rank,
                    "threshold": request.boxes.threshold,
                },
            )
        return len(found.boxes_N4)

    def _add(self, table: str, *parts: dict[str, Any]) -> None:
        row = {name: value for part in parts for name, value in part.items()}
        for name, values in self.columns[table].items():
            values.append(row[name])

    def _tensors(self) -> pa.Array:
        """Return the heat maps as one fixed-shape tensor array, also where there are none."""
        kind = self.schemas["heatmaps"].field("heatmap").type
        raw_PHW = np.array(self.columns["heatmaps"]["heatmap"], np.float32)
        storage = pa.FixedSizeListArray.from_arrays(raw_PHW.ravel(), self.run.grid[0] * self.run.grid[1])
        return pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type))


def _corners(box_4: F32) -> dict[str, Any]:
    return dict(zip(("x0", "y0", "x1", "y1"), box_4, strict=True))
