"""The rows of a shard's three tables as they grow batch by batch, and their files.

What the plan knows of an image is taken from the plan's own columns; the rest grows as one array a batch. Letters: B
images of a batch, T best classes, P explained (image, class) pairs, h, w the grid, N boxes.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, I32, I64
from cam_ops.boxes import MapBoxes, boxes_from_heatmaps
from cam_ops.calibration import box_signals
from cam_ops.classes import parse_class_choice
from cam_ops.tables import CORNERS, IMAGES, heatmaps_schema, with_metadata
from cluster.parquet import encode
from cluster.request import Request, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of a shard."""

    shard: int
    statuses: dict[str, int]  # images by status
    findings: Any = None  # what the driver needs of it besides its files


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The explained pairs of a shard, by image, and their boxes."""

    row_P: I64
    class_P: I32
    score_P: F32
    boxes: MapBoxes

    def counts(self, num_rows: int, request: Request) -> tuple[I64, I64]:
        """Return the number of maps, and of boxes at the first threshold, of each row of the shard."""
        threshold_P = request.thresholds(self.class_P).astype(np.float32)
        at_threshold_N = self.boxes.threshold_N == threshold_P[self.boxes.map_N]
        row_N = self.row_P[self.boxes.map_N[at_threshold_N]]
        return np.bincount(self.row_P, minlength=num_rows), np.bincount(row_N, minlength=num_rows)


def box_maps(request: Request, class_P: I32, raw_Phw: F32, rectangle_P4: F32, size_P2: I64) -> MapBoxes:
    """Box maps as requested; see `cam_ops.boxes.boxes_from_heatmaps`."""
    side = request.preprocessing.image_size
    threshold_P = request.thresholds(class_P) if request.calibration else None
    return boxes_from_heatmaps(raw_Phw, rectangle_P4, size_P2, side, request.maps, request.boxes, threshold_P)


def first_boxes(request: Request, boxes: pa.Table) -> pa.Table:
    """Return those rows of a boxes table that are of the first threshold, or of their class's own."""
    threshold_N = request.thresholds(boxes["class_id"].to_numpy()).astype(np.float32)
    return boxes.filter(np.equal(boxes["threshold"].to_numpy(), threshold_N))


def boxes_file(run: Run, planned: pa.Table, pairs: Pairs) -> bytes:
    """Return the bytes of a shard's boxes table; `planned` are its rows in the plan."""
    found = pairs.boxes
    row_N, class_N = pairs.row_P[found.map_N], pairs.class_P[found.map_N]
    labels_are_mapped = parse_class_choice(run.request.classes).label
    label_B = planned["label"].fill_null(-1).to_numpy()
    from_label_N = (label_B[row_N] == class_N) & labels_are_mapped
    columns = {
        **_place(planned, row_N),
        "class_id": class_N,
        "class_name": pa.array(run.class_names).take(pa.array(class_N)),
        "class_source": np.where(from_label_N, "label", "predicted"),
        **_corners(found.boxes_N4),
        "score": pairs.score_P[found.map_N],
        "peak": found.peak_N,
        "energy": found.energy_N,
        "area_fraction": found.area_fraction_N,
        "rank": found.rank_N,
        "threshold": found.threshold_N,
    }
    if run.request.calibration:
        signals_NF = box_signals(columns["score"], found.peak_N, found.energy_N, found.area_fraction_N)
        columns["probability"] = run.request.calibration.probability.probabilities(signals_NF)
    return table_file(run, "boxes", run.request.boxes_schema, columns)


def table_file(run: Run, table: str, schema: pa.Schema, columns: dict[str, object]) -> bytes:
    """Return the bytes of a file of a run."""
    described = with_metadata(schema, run.request.document(table))
    return encode(pa.Table.from_pydict(columns, schema=described))


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
            "heatmaps": table_file(self.run, "heatmaps", heatmaps_schema(self.run.grid), self._heatmaps(maps)),
            "boxes": boxes_file(self.run, self.planned, pairs),
            "images": table_file(self.run, "images", IMAGES, self._images(pairs)),
        }

    def report(self, shard: int) -> ShardReport:
        """Count the rows."""
        statuses = Counter(picture.status for picture in self.pictures)
        return ShardReport(shard=shard, statuses=dict(statuses))

    def _rectangles(self) -> F32:
        return np.array([picture.rectangle for picture in self.pictures], np.float32)

    def _heatmaps(self, maps: BatchMaps) -> dict[str, object]:
        kind = heatmaps_schema(self.run.grid).field("heatmap").type
        storage = pa.FixedSizeListArray.from_arrays(maps.raw_Phw.ravel(), self.run.grid[0] * self.run.grid[1])
        return {
            **_place(self.planned, maps.image_P),
            "class_id": maps.class_P,
            "method": pa.repeat(self.run.request.explain.method, len(maps.image_P)),
            "heatmap": pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type)),
            **_corners(self._rectangles()[maps.image_P]),
            "score": maps.score_P,
            "logit": maps.logit_P,
            "residual": pa.nulls(len(maps.image_P), pa.float32()) if maps.residual_P is None else maps.residual_P,
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


def _place(planned: pa.Table, row_N: I64) -> dict[str, object]:
    """Return what names the image of each row."""
    place = planned.select(["image_id", "shard", "row"]).take(pa.array(row_N))
    return {name: place[name] for name in place.column_names}


def corners_of(table: pa.Table) -> F32:
    """Return the boxes or rectangles of a table, (N, 4)."""
    corners_N4: F32 = np.stack([table[name].to_numpy() for name in CORNERS], axis=1)
    return corners_N4


def raw_maps(heatmaps: pa.Table) -> F32:
    """Return the maps of a table, (P, h, w)."""
    raw_Phw: F32 = heatmaps["heatmap"].combine_chunks().to_numpy_ndarray()
    return raw_Phw


def _corners(boxes_N4: F32) -> dict[str, object]:
    return {name: boxes_N4[:, i] for i, name in enumerate(CORNERS)}
