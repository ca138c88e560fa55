"""What is known of a shard's images as it grows batch by batch, and the three tables that it becomes.

What the plan knows of an image is taken from the plan's own columns; the rest grows as one array a batch. Letters: B
images of a batch, T best classes, P explained (image, class) pairs, h, w the grid, k, l that of maps before they are
refined.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, I32, I64, Bools
from cam_ops.boxes.extract import MapBoxes
from cam_ops.tables import IMAGES, heatmaps_schema
from cluster.executors.work import ShardReport
from cluster.runs.record import Run
from cluster.runs.writing import Pairs, box_maps, boxes_file, corner_columns, place_columns, table_file


@dataclass(slots=True, kw_only=True)
class Picture:
    """One planned image on its way through the replica."""

    image_id: str
    labels: tuple[int, ...] = ()
    width: int = 0
    height: int = 0
    status: str = "ok"
    error: str | None = None
    rectangle: F32 = field(default_factory=lambda: np.zeros(4, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMaps:
    """What the network says of a batch: the best classes of each image, and the explained pairs by image."""

    top_class_BT: I32
    top_score_BT: F32
    image_P: I64  # place in the batch
    class_P: I32
    raw_Phw: F32
    cam_Pkl: F32 | None  # before they were refined; None where they are not kept
    score_P: F32
    logit_P: F32
    residual_P: F32 | None


def no_maps(num_images: int, num_top: int, grid: tuple[int, int], cam_grid: tuple[int, int] | None = None) -> BatchMaps:
    """Return what the network says where it was not run."""
    none = np.zeros(0, np.float32)
    return BatchMaps(
        top_class_BT=np.zeros((num_images, num_top), np.int32),
        top_score_BT=np.zeros((num_images, num_top), np.float32),
        image_P=np.zeros(0, np.int64),
        class_P=np.zeros(0, np.int32),
        raw_Phw=np.zeros((0, *grid), np.float32),
        cam_Pkl=None if cam_grid is None else np.zeros((0, *cam_grid), np.float32),
        score_P=none,
        logit_P=none,
        residual_P=none,
    )


def maps_of(maps: BatchMaps, is_meant_B: Bools) -> BatchMaps:
    """Return the maps of some images of a batch."""
    is_meant_P = is_meant_B[maps.image_P]
    return replace(
        maps,
        image_P=maps.image_P[is_meant_P],
        class_P=maps.class_P[is_meant_P],
        raw_Phw=maps.raw_Phw[is_meant_P],
        cam_Pkl=None if maps.cam_Pkl is None else maps.cam_Pkl[is_meant_P],
        score_P=maps.score_P[is_meant_P],
        logit_P=maps.logit_P[is_meant_P],
        residual_P=None if maps.residual_P is None else maps.residual_P[is_meant_P],
    )


def joined_maps(parts: list[tuple[int, BatchMaps]]) -> BatchMaps:
    """Join what the network says of parts of a batch, each with the place of its first image, in order."""
    all_maps = [maps for _, maps in parts]
    cams = [maps.cam_Pkl for maps in all_maps if maps.cam_Pkl is not None]
    residuals = [maps.residual_P for maps in all_maps if maps.residual_P is not None]
    has_residuals = all(maps.residual_P is not None for maps in all_maps)
    return BatchMaps(
        top_class_BT=np.concatenate([maps.top_class_BT for maps in all_maps]),
        top_score_BT=np.concatenate([maps.top_score_BT for maps in all_maps]),
        image_P=np.concatenate([first + maps.image_P for first, maps in parts]),
        class_P=np.concatenate([maps.class_P for maps in all_maps]),
        raw_Phw=np.concatenate([maps.raw_Phw for maps in all_maps]),
        cam_Pkl=np.concatenate(cams) if cams else None,
        score_P=np.concatenate([maps.score_P for maps in all_maps]),
        logit_P=np.concatenate([maps.logit_P for maps in all_maps]),
        residual_P=np.concatenate(residuals) if has_residuals else None,
    )


class ShardRows:
    """What is known of a shard's images, batch after batch in the order of the plan."""

    def __init__(self, run: Run, planned: pa.Table) -> None:
        self.run, self.planned = run, planned
        self.pictures: list[Picture] = []
        self.top: list[tuple[list[int], list[float]]] = []
        self.batches: list[tuple[int, BatchMaps]] = []  # with the row of the batch's first image

    def add(self, pictures: list[Picture], maps: BatchMaps) -> None:
        """Add a batch."""
        first_row = len(self.pictures)
        self.pictures += pictures
        top = zip(pictures, maps.top_class_BT.tolist(), maps.top_score_BT.tolist(), strict=False)
        self.top += [(classes, scores) if picture.status == "ok" else ([], []) for picture, classes, scores in top]
        self.batches.append((first_row, maps))

    def box(self) -> MapBoxes:
        """Box all maps."""
        maps = joined_maps(self.batches)
        size_P2 = np.array([(picture.width, picture.height) for picture in self.pictures])[maps.image_P]
        return box_maps(self.run.request, maps.class_P, maps.raw_Phw, self._rectangles()[maps.image_P], size_P2)

    def tables(self, boxes: MapBoxes) -> dict[str, bytes]:
        """Return the bytes of the three files, in the order of publication."""
        assert len(self.pictures) == len(self.planned)
        maps = joined_maps(self.batches)
        pairs = Pairs(row_P=maps.image_P, class_P=maps.class_P, score_P=maps.score_P, boxes=boxes)
        return {
            "heatmaps": table_file(self.run, "heatmaps", self._heatmaps_schema, self._heatmaps(maps)),
            "boxes": boxes_file(self.run, self.planned, pairs),
            "images": table_file(self.run, "images", self._images_schema, self._images(pairs)),
        }

    def report(self, shard: int, seconds: dict[str, float]) -> ShardReport:
        """Count the rows."""
        statuses = Counter(picture.status for picture in self.pictures)
        return ShardReport(shard=shard, statuses=dict(statuses), seconds=seconds)

    def _rectangles(self) -> F32:
        return np.array([picture.rectangle for picture in self.pictures], np.float32)

    @property
    def _heatmaps_schema(self) -> pa.Schema:
        return heatmaps_schema(self.run.grid, self.run.request.kept_cam_grid)

    @property
    def _images_schema(self) -> pa.Schema:
        return self.run.plan.extended(IMAGES)

    def _heatmaps(self, maps: BatchMaps) -> dict[str, object]:
        schema = self._heatmaps_schema
        cams = {} if maps.cam_Pkl is None else {"cam": _tensors(maps.cam_Pkl, schema.field("cam").type)}
        return {
            **place_columns(self.planned, maps.image_P),
            "class_id": maps.class_P,
            "method": pa.repeat(self.run.request.explain.method, len(maps.image_P)),
            "heatmap": _tensors(maps.raw_Phw, schema.field("heatmap").type),
            **corner_columns(self._rectangles()[maps.image_P]),
            "score": maps.score_P,
            "logit": maps.logit_P,
            "residual": pa.nulls(len(maps.image_P), pa.float32()) if maps.residual_P is None else maps.residual_P,
            **cams,
        }

    def _images(self, pairs: Pairs) -> dict[str, object]:
        num_maps, num_boxes = pairs.counts(len(self.pictures), self.run.request)
        return {
            **{name: self.planned[name] for name in self.planned.column_names},
            "width": [picture.width for picture in self.pictures],
            "height": [picture.height for picture in self.pictures],
            "status": [picture.status for picture in self.pictures],
            "error": [picture.error for picture in self.pictures],
            "top_classes": [classes for classes, _ in self.top],
            "top_scores": [scores for _, scores in self.top],
            "num_maps": num_maps,
            "num_boxes": num_boxes,
        }


def _tensors(maps_Phw: F32, kind: pa.FixedShapeTensorType) -> pa.ExtensionArray:
    storage = pa.FixedSizeListArray.from_arrays(maps_Phw.ravel(), maps_Phw.shape[1] * maps_Phw.shape[2])
    return pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type))
