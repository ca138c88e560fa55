"""The rows of a shard's three tables as they grow batch by batch, and their files.

What the plan knows of an image is taken from the plan's own columns; the rest grows as one array a batch. Letters: B
images of a batch, T best classes, P explained (image, class) pairs, h, w the grid, N boxes.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, I32, I64
from cam_ops.boxes import MapBoxes, boxes_from_heatmap
from cam_ops.classes import parse_class_choice
from cam_ops.tables import BOXES, IMAGES, heatmaps_schema, with_metadata
from cluster.parquet import encode
from cluster.request import Run
from cluster.rundir import TABLES

CORNERS = ("x0", "y0", "x1", "y1")


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

    image_id: str
    label: int | None
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
    score_P: F32
    logit_P: F32
    residual_P: F32 | None


def no_maps(num_images: int, num_top: int, grid: tuple[int, int]) -> BatchMaps:
    """Return what the network says where it was not run."""
    none = np.zeros(0, np.float32)
    return BatchMaps(
        top_class_BT=np.zeros((num_images, num_top), np.int32),
        top_score_BT=np.zeros((num_images, num_top), np.float32),
        image_P=np.zeros(0, np.int64),
        class_P=np.zeros(0, np.int32),
        raw_Phw=np.zeros((0, *grid), np.float32),
        score_P=none,
        logit_P=none,
        residual_P=none,
    )


def joined_maps(parts: list[tuple[int, BatchMaps]]) -> BatchMaps:
    """Join what the network says of parts of a batch, each with the place of its first image, in order."""
    all_maps = [maps for _, maps in parts]
    residuals = [maps.residual_P for maps in all_maps if maps.residual_P is not None]
    has_residuals = all(maps.residual_P is not None for maps in all_maps)
    return BatchMaps(
        top_class_BT=np.concatenate([maps.top_class_BT for maps in all_maps]),
        top_score_BT=np.concatenate([maps.top_score_BT for maps in all_maps]),
        image_P=np.concatenate([first + maps.image_P for first, maps in parts]),
        class_P=np.concatenate([maps.class_P for maps in all_maps]),
        raw_Phw=np.concatenate([maps.raw_Phw for maps in all_maps]),
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
        self.boxes: list[MapBoxes] = []  # of each explained pair

    def add(self, pictures: list[Picture], maps: BatchMaps) -> None:
        """Add a batch, and box its maps."""
        first_row = len(self.pictures)
        self.pictures += pictures
        top = zip(pictures, maps.top_class_BT.tolist(), maps.top_score_BT.tolist(), strict=False)
        self.top += [(classes, scores) if picture.status == "ok" else ([], []) for picture, classes, scores in top]
        self.batches.append((first_row, maps))
        self.boxes += [self._boxes(pictures[i], raw_hw) for i, raw_hw in zip(maps.image_P, maps.raw_Phw, strict=True)]

    def tables(self) -> dict[str, bytes]:
        """Return the bytes of the three files, in the order of publication."""
        assert len(self.pictures) == len(self.planned)
        pairs = self._pairs()
        columns = {"heatmaps": self._heatmaps(pairs), "boxes": self._boxes_of(pairs), "images": self._images(pairs)}
        schemas = {"heatmaps": heatmaps_schema(self.run.grid), "boxes": BOXES, "images": IMAGES}
        document = self.run.request.document
        return {
            table: encode(pa.Table.from_pydict(columns[table], schema=with_metadata(schemas[table], document(table))))
            for table in TABLES
        }

    def report(self, shard: int) -> ShardReport:
        """Count the rows."""
        return ShardReport(
            shard=shard,
            statuses=dict(Counter(picture.status for picture in self.pictures)),
            num_maps=len(self.boxes),
            num_boxes=sum(len(found.boxes_N4) for found in self.boxes),
        )

    def _boxes(self, picture: Picture, raw_hw: F32) -> MapBoxes:
        request = self.run.request
        return boxes_from_heatmap(
            raw_hw,
            picture.rectangle,
            picture.width,
            picture.height,
            request.preprocessing.image_size,
            request.maps,
            request.boxes,
        )

    def _pairs(self) -> "_Pairs":
        """Lay the batches' pairs end to end."""
        row_P = _joined([first_row + maps.image_P for first_row, maps in self.batches], np.int64)
        return _Pairs(
            row_P=row_P,
            class_P=_joined([maps.class_P for _, maps in self.batches], np.int32),
            score_P=_joined([maps.score_P for _, maps in self.batches], np.float32),
            num_boxes_P=np.array([len(found.boxes_N4) for found in self.boxes], np.int64),
        )

    def _heatmaps(self, pairs: "_Pairs") -> dict[str, object]:
        raw = [maps.raw_Phw.ravel() for _, maps in self.batches]
        residuals = [
            pa.nulls(len(maps.class_P), pa.float32()) if maps.residual_P is None else pa.array(maps.residual_P)
            for _, maps in self.batches
        ]
        kind = heatmaps_schema(self.run.grid).field("heatmap").type
        storage = pa.FixedSizeListArray.from_arrays(_joined(raw, np.float32), self.run.grid[0] * self.run.grid[1])
        rectangle_B4 = np.array([picture.rectangle for picture in self.pictures], np.float32)
        return {
            **self._place(pairs.row_P),
            "class_id": pairs.class_P,
            "method": pa.repeat(self.run.request.explain.method, len(pairs.row_P)),
            "heatmap": pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type)),
            **_corners(rectangle_B4[pairs.row_P]),
            "score": pairs.score_P,
            "logit": _joined([maps.logit_P for _, maps in self.batches], np.float32),
            "residual": pa.chunked_array(residuals, pa.float32()),
        }

    def _boxes_of(self, pairs: "_Pairs") -> dict[str, object]:
        pair_N = np.repeat(np.arange(len(pairs.row_P)), pairs.num_boxes_P)
        row_N, class_N = pairs.row_P[pair_N], pairs.class_P[pair_N]
        labels_are_mapped = parse_class_choice(self.run.request.classes).label
        label_B = np.array([-1 if picture.label is None else picture.label for picture in self.pictures])
        from_label_N = (label_B[row_N] == class_N) & labels_are_mapped
        first_N = np.repeat(np.cumsum(pairs.num_boxes_P) - pairs.num_boxes_P, pairs.num_boxes_P)
        return {
            **self._place(row_N),
            "class_id": class_N,
            "class_name": pa.array(self.run.class_names).take(pa.array(class_N)),
            "class_source": np.where(from_label_N, "label", "predicted"),
            **_corners(_joined([found.boxes_N4 for found in self.boxes], np.float32).reshape(-1, 4)),
            "score": pairs.score_P[pair_N],
            "peak": _joined([found.peak_N for found in self.boxes], np.float32),
            "energy": _joined([found.energy_N for found in self.boxes], np.float32),
            "area_fraction": _joined([found.area_fraction_N for found in self.boxes], np.float32),
            "rank": np.arange(len(pair_N)) - first_N,
            "threshold": np.full(len(pair_N), self.run.request.boxes.threshold, np.float32),
        }

    def _images(self, pairs: "_Pairs") -> dict[str, object]:
        count = len(self.pictures)
        return {
            **{name: self.planned[name] for name in self.planned.column_names},
            "width": [picture.width for picture in self.pictures],
            "height": [picture.height for picture in self.pictures],
            "status": [picture.status for picture in self.pictures],
            "error": [picture.error for picture in self.pictures],
            "top_classes": [classes for classes, _ in self.top],
            "top_scores": [scores for _, scores in self.top],
            "num_maps": np.bincount(pairs.row_P, minlength=count),
            "num_boxes": np.bincount(pairs.row_P, pairs.num_boxes_P, minlength=count),
        }

    def _place(self, row_N: I64) -> dict[str, object]:
        """Return what names the image of each row."""
        place = self.planned.select(["image_id", "shard", "row"]).take(pa.array(row_N))
        return {name: place[name] for name in place.column_names}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """The explained pairs of a shard, by image."""

    row_P: I64
    class_P: I32
    score_P: F32
    num_boxes_P: I64


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    """Concatenate, also where there is nothing."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _corners(boxes_N4: F32) -> dict[str, object]:
    return {name: boxes_N4[:, i] for i, name in enumerate(CORNERS)}
