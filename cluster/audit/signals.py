"""What the maps of a shard say without truth, of one map an image; see `cam_ops.metrics.signals`.

Letters: P the chosen maps.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.metrics.signals import count_components, doubt, map_signals
from cluster.audit.shard import ShardIndex
from cluster.runs.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Signals of one map; None where it has no positive value."""

    class_id: int
    score: float | None
    entropy: float | None
    concentration: float | None
    border_mass: float | None
    num_components: int
    box_area: float | None  # 0 where it has no box
    attention: float | None


def signals_by_row(request: Request, index: ShardIndex, class_of: list[int | None]) -> dict[int, Signals]:
    """Return the signals of each image that has a map, by its row: of its map of the class `class_of` it, or its first.

    `class_of` has a class for each row, or None.
    """
    rows, columns = signal_columns(request, index, class_of)
    known = ([None if value != value else value for value in column.tolist()] for column in columns.values())
    return {row: Signals(**dict(zip(columns, values, strict=True))) for row, *values in zip(rows, *known, strict=True)}


def signal_columns(
    request: Request, index: ShardIndex, class_of: list[int | None]
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return the rows of the images that have a map, and their signals, of each field of `Signals` a column.

    What is not known is NaN.
    """
    first = {row: at for at, row in reversed(list(enumerate(index.row_P.tolist())))}
    rows = sorted(first)
    chosen = [_map_of(index, row, class_of[row], first[row]) for row in rows]
    raw_Phw, rectangle_P4, class_P = index.raw_Phw[chosen], index.rectangle_P4[chosen], index.class_P[chosen]
    size, threshold_P = request.preprocessing.image_size, request.thresholds(class_P.astype(np.int32))
    num_components_P = count_components(raw_Phw, rectangle_P4, index.sizes(rows), size, request.maps, threshold_P)
    score_P = index.tables.heatmaps["score"].to_numpy()[chosen]
    boxes = [index.boxes_at.get(key) for key in zip(rows, class_P.tolist(), strict=True)]
    box_area_P = np.array([0.0 if best is None else index.box_area_N[best.start] for best in boxes])
    signals = map_signals(raw_Phw)
    return rows, {
        "class_id": class_P,
        "score": score_P,
        "entropy": signals.entropy_P,
        "concentration": signals.concentration_P,
        "border_mass": signals.border_mass_P,
        "num_components": num_components_P,
        "box_area": box_area_P,
        "attention": doubt(score_P, signals, box_area_P),
    }


def _map_of(index: ShardIndex, row: int, class_id: int | None, first: int) -> int:
    return first if class_id is None else index.map_at.get((row, class_id), first)
