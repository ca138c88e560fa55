"""The files of a shard, and the boxes of its maps: what `label` and `rebox` write alike.

Letters: B rows of the shard, P explained (image, class) pairs, h, w the grid, N boxes.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, I32, I64, Bools
from cam_ops.boxes.calibration import box_signals
from cam_ops.boxes.extract import MapBoxes, boxes_from_heatmaps
from cam_ops.classes import parse_class_choice
from cam_ops.tables import CORNERS, LABELS, with_metadata
from cluster.runs.record import Run
from cluster.runs.request import Request
from cluster.storage.parquet import encode


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
    """Box maps as requested; see `cam_ops.boxes.extract.boxes_from_heatmaps`."""
    size = request.preprocessing.image_size
    threshold_P = request.thresholds(class_P) if request.calibration else None
    return boxes_from_heatmaps(raw_Phw, rectangle_P4, size_P2, size, request.maps, request.boxes, threshold_P)


def boxes_file(run: Run, planned: pa.Table, pairs: Pairs) -> bytes:
    """Return the bytes of a shard's boxes table; `planned` are its rows in the plan."""
    found = pairs.boxes
    row_N, class_N = pairs.row_P[found.map_N], pairs.class_P[found.map_N]
    labels_are_mapped = parse_class_choice(run.request.classes).label
    from_label_N = _is_label(planned, row_N, class_N) & labels_are_mapped
    columns = {
        **place_columns(planned, row_N),
        "class_id": class_N,
        "class_name": pa.array(run.class_names).take(pa.array(class_N)),
        "class_source": np.where(from_label_N, "label", "predicted"),
        **corner_columns(found.boxes_N4),
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


def _is_label(planned: pa.Table, row_N: I64, class_N: I32) -> Bools:
    """Say of each row and class whether the plan has that label for the image, or as one of several."""
    label_B = planned["label"].fill_null(-1).to_numpy()
    is_label_N: Bools = label_B[row_N] == class_N
    if LABELS.name in planned.column_names:
        labels_B = [set(labels or ()) for labels in planned[LABELS.name].to_pylist()]
        is_label_N |= np.array([c in labels_B[row] for row, c in zip(row_N, class_N, strict=True)], np.bool_)
    return is_label_N


def table_file(run: Run, table: str, schema: pa.Schema, columns: dict[str, object]) -> bytes:
    """Return the bytes of a file of a run."""
    described = with_metadata(schema, run.request.document(table))
    return encode(pa.Table.from_pydict(columns, schema=described))


def place_columns(planned: pa.Table, row_N: I64) -> dict[str, object]:
    """Return what names the image of each row."""
    place = planned.select(["image_id", "shard", "row"]).take(pa.array(row_N))
    return {name: place[name] for name in place.column_names}


def corner_columns(boxes_N4: F32) -> dict[str, object]:
    return {name: boxes_N4[:, i] for i, name in enumerate(CORNERS)}
