"""Read a shard's tables, and say what is wrong with them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import F32, Bools
from cam_ops.errors import StorageError
from cam_ops.pictures.header import MAX_PIXELS
from cam_ops.tables import CORNERS, IMAGES, LABELS, PLAN, heatmaps_schema
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.plan import read_shard
from cluster.runs.record import Run, again
from cluster.runs.request import Request
from cluster.storage.parquet import MAX_ROWS, decode, document_of

SHARES = ("score", "peak", "energy", "area_fraction", "probability")  # of maps and boxes, 0..1
ROUNDING = 1e-3


def first_boxes(request: Request, boxes: pa.Table) -> pa.Table:
    """Return those rows of a boxes table that are of the first threshold, or of their class's own."""
    threshold_N = request.thresholds(boxes["class_id"].to_numpy()).astype(np.float32)
    return boxes.filter(np.equal(boxes["threshold"].to_numpy(), threshold_N))


def corners_of(table: pa.Table) -> F32:
    """Return the boxes or rectangles of a table, (N, 4)."""
    corners_N4: F32 = np.stack([table[name].to_numpy() for name in CORNERS], axis=1)
    return corners_N4


def raw_maps(heatmaps: pa.Table) -> F32:
    """Return the maps of a table, (P, h, w)."""
    raw_Phw: F32 = heatmaps["heatmap"].combine_chunks().to_numpy_ndarray()
    return raw_Phw


def read_tables(run_dir: RunDir, run: Run, maps_dir: RunDir, maps_run: Run, shard: int) -> dict[str, pa.Table]:
    """Read a shard's files, its maps where they are; raises StorageError where one is missing or no such table."""
    tables = {table: _read_table(run_dir, run, table, shard) for table in ("boxes", "images")}
    return {**tables, "heatmaps": _read_table(maps_dir, maps_run, "heatmaps", shard)}


def read_whole(run_dir: RunDir, run: Run, maps_dir: RunDir, maps_run: Run, shard: int) -> dict[str, pa.Table]:
    """Read a shard whose tables fit its plan and each other; raises StorageError, with the cure, where they do not."""
    try:
        tables = read_tables(run_dir, run, maps_dir, maps_run, shard)
    except StorageError as error:
        raise damaged(run_dir, run, shard, error) from None
    images, heatmaps, boxes = (tables[name] for name in ("images", "heatmaps", "boxes"))
    problems = maps_problems(run, read_shard(run_dir, shard), images, heatmaps) or box_problems(run, images, boxes)
    if not problems and not pairs_of(boxes) <= pairs_of(heatmaps):
        problems = ["a box has no map"]
    if problems:
        raise damaged(run_dir, run, shard, problems[0])
    return tables


def read_table(run_dir: RunDir, run: Run, table: str, shard: int) -> pa.Table:
    """Read one file; raises StorageError, with the cure, where it is missing or no such table of this run."""
    content = run_dir.read(shard_name(table, shard))
    try:
        return _table_of(content, run, table, shard)
    except StorageError as error:
        raise damaged(run_dir, run, shard, error) from None


def _read_table(run_dir: RunDir, run: Run, table: str, shard: int) -> pa.Table:
    return _table_of(run_dir.read(shard_name(table, shard)), run, table, shard)


def _table_of(content: bytes | None, run: Run, table: str, shard: int) -> pa.Table:
    name = shard_name(table, shard)
    if content is None:
        raise StorageError(f"{name} is missing, though its images are committed")
    most = {"images": run.plan.shard_size, "heatmaps": min(MAX_ROWS, run.plan.shard_size * len(run.class_names))}
    decoded = decode(content, name, max_rows=most.get(table, MAX_ROWS))
    if document_of(decoded.schema).get("fingerprint") != run.request.fingerprint():
        raise StorageError(f"{name} is damaged, or belongs to another request")
    expected = {
        "heatmaps": heatmaps_schema(run.grid, run.request.kept_cam_grid),
        "boxes": run.request.boxes_schema,
        "images": run.plan.extended(IMAGES),
    }[table]
    if not decoded.schema.equals(expected):
        raise StorageError(f"{name} has not the columns of a {table} table")
    return decoded


def maps_problems(run: Run, planned: pa.Table, images: pa.Table, heatmaps: pa.Table) -> list[str]:
    """Return what is wrong with a shard's images and maps; `planned` are its rows in the plan."""
    for column in run.plan.extended(PLAN).names:
        is_planned = column in planned.column_names
        if not is_planned or not images[column].combine_chunks().equals(planned[column].combine_chunks()):
            return [f"column {column} of its images is not the plan's"]
    if not rows_fit(images, heatmaps):
        return ["its maps name rows that the shard has not"]
    problems = row_problems("maps", images, heatmaps, heatmaps) + value_problems("maps", heatmaps)
    ids = images["image_id"].combine_chunks()
    if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        problems.append("its image_ids are not in order, each once")
    for column in {"heatmap", "cam"} & set(heatmaps.column_names):
        heat = heatmaps[column].combine_chunks().storage.flatten().to_numpy(zero_copy_only=False)
        if not np.isfinite(heat).all():
            problems.append("a map holds a number that is not finite")
    if len(pairs_of(heatmaps)) != len(heatmaps):
        problems.append("an image has two maps of one class")
    classes = heatmaps["class_id"].to_numpy()
    if len(classes) and not (classes.min() >= 0 and classes.max() < len(run.class_names)):
        problems.append("a map is of a class that the run has not")
    x0, y0, x1, y1 = (heatmaps[name].to_numpy() for name in CORNERS)
    if not ((x0 < x1) & (y0 < y1) & np.isfinite(x1 - x0) & np.isfinite(y1 - y0)).all():
        problems.append("the part of the image that a map covers is empty or not finite")
    return problems


def box_problems(run: Run, images: pa.Table, boxes: pa.Table) -> list[str]:
    """Return what is wrong with a shard's boxes and classes; what follows a problem may not be asked."""
    if not rows_fit(images, boxes):
        return ["its boxes name rows that the shard has not"]
    if not _are_classes(run, images, boxes):
        return ["it names classes that the run has not, or without their scores"]
    if not inside(boxes, images).all():
        return ["a box is empty or reaches outside its image"]
    return row_problems("boxes", images, boxes, first_boxes(run.request, boxes)) + value_problems("boxes", boxes)


def _are_classes(run: Run, images: pa.Table, boxes: pa.Table) -> bool:
    """Say whether all class numbers are those of classes, and the best ones have a score each."""
    lists = [name for name in ("top_classes", LABELS.name) if name in images.column_names]
    columns = [boxes["class_id"], *(pc.list_flatten(images[name]) for name in lists)]
    lengths, scores = (pc.list_value_length(images[f"top_{name}"]) for name in ("classes", "scores"))
    return lengths.equals(scores) and are_classes(run, images["label"], columns)


def are_classes(run: Run, label: pa.ChunkedArray, others: Sequence[pa.ChunkedArray]) -> bool:
    """Say whether all numbers are those of the run's classes; a label may be null, other columns have none."""
    bounds = [pc.min_max(column).as_py() for column in (label, *others)]
    return not any(column.null_count for column in others) and all(
        each["min"] is None or 0 <= each["min"] <= each["max"] < len(run.class_names) for each in bounds
    )


def damaged(run_dir: RunDir, run: Run, shard: int, problem: object) -> StorageError:
    """Return the refusal of a shard whose files have a problem, with the cure."""
    return StorageError(
        f"shard {shard} of {run_dir.root} is damaged: {problem}; run {again(run_dir, run, '--repair')}, then this one"
    )


def rows_fit(images: pa.Table, table: pa.Table) -> bool:
    rows = table["row"].to_numpy()
    return len(rows) == 0 or bool(rows.min() >= 0 and rows.max() < len(images))


def row_problems(name: str, images: pa.Table, table: pa.Table, counted: pa.Table) -> list[str]:
    """Return what is wrong between a shard's images and the rows about them, of which `counted` are counted."""
    rows, problems = table["row"].to_numpy(), []
    counts = np.bincount(counted["row"].to_numpy(), minlength=len(images))
    if not np.array_equal(counts, images[f"num_{name}"].to_numpy()):
        problems.append(f"num_{name} does not count its {name}")
    if not images["image_id"].take(pa.array(rows)).equals(table["image_id"]):
        problems.append(f"its {name} and its images disagree on image_id")
    width, height = (images[side].to_numpy().astype(np.int64) for side in ("width", "height"))
    can_be = (np.minimum(width, height) > 0) & (width * height <= MAX_PIXELS)
    is_ok = np.array([status == "ok" for status in images["status"].to_pylist()]) & can_be
    if not is_ok[rows].all():
        problems.append(f"it has {name} of images that are not ok")
    return problems


def value_problems(name: str, table: pa.Table) -> list[str]:
    """Return which numbers of maps or boxes are not what their columns mean."""
    problems = []
    for column in (name for name in SHARES if name in table.column_names):
        values_N = table[column].to_numpy()
        if not ((values_N >= 0) & (values_N <= 1 + ROUNDING)).all():
            problems.append(f"its {name} have a {column} that is not from 0 to 1")
    if "rank" in table.column_names and (table["rank"].to_numpy() < 0).any():
        problems.append(f"its {name} have a rank below 0")
    return problems


def pairs_of(table: pa.Table) -> set[tuple[int, int]]:
    """Return the (row, class) of each row of a table of maps or boxes."""
    return set(zip(table["row"].to_pylist(), table["class_id"].to_pylist(), strict=True))


def inside(boxes: pa.Table, images: pa.Table) -> Bools:
    """Say of each box whether it has an area, and lies inside its image; the rows must fit."""
    rows = boxes["row"].to_numpy()
    width, height = images["width"].to_numpy()[rows], images["height"].to_numpy()[rows]
    x0, y0, x1, y1 = (boxes[name].to_numpy() for name in CORNERS)
    inside: Bools = (x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
    return inside
