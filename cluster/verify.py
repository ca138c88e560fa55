"""Prove a run whole from its files: each planned image exactly once, tables that agree, boxes inside their images."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import Bools
from cam_ops.errors import StorageError
from cam_ops.tables import CORNERS, IMAGES, heatmaps_schema
from cluster.console import say
from cluster.parquet import MAX_ROWS, decode, document_of
from cluster.plan import check_plan, plan_digest, read_shard
from cluster.request import Run, existing_run, maps_of
from cluster.rows import first_boxes
from cluster.rundir import SUMMARY, TABLES, RunDir, shard_name
from cluster.totals import Totals, summary_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong with a run, one sentence each; nothing if it is whole."""

    problems: list[str]
    totals: Totals


def verify(run_dir: RunDir) -> Verdict:
    """Check every file of the run against its plan; raises StorageError where there is no run at all."""
    run = existing_run(run_dir)
    maps_dir, maps_run = maps_of(run_dir, run)
    problems: list[str] = []
    if plan_digest(run_dir, run.plan) != run.plan.digest:
        problems.append("the plan's files are not those that run.json was written for")
    num_shards = run.plan.num_shards
    committed = sorted(shard for shard in run_dir.shards("images") if shard < num_shards)
    if missing := num_shards - len(committed):
        problems.append(
            f"{missing} of {num_shards} shards are not committed; run the same `{run.command}` command again"
        )
    for table in TABLES:
        if foreign := [shard for shard in run_dir.shards(table) if shard >= num_shards]:
            problems.append(
                f"{table}/ holds {len(foreign)} shard(s) that were never planned, such as {min(foreign)}; the same "
                f"`{run.command}` command with --repair removes them"
            )
    statuses: Counter[str] = Counter()
    maps = boxes = 0
    last_id: str | None = None
    for shard in committed:
        try:
            tables = read_tables(run_dir, run, maps_dir, maps_run, shard)
            problems += [f"shard {shard}: {problem}" for problem in _shard_problems(run_dir, run, tables, shard)]
            first_id = tables["images"]["image_id"][0].as_py()
            if last_id is not None and first_id <= last_id:
                problems.append(f"shard {shard}: its first image_id {first_id!r} does not follow the shard before it")
            last_id = tables["images"]["image_id"][-1].as_py()
        except StorageError as error:
            problems.append(f"shard {shard}: {error}")
            continue
        statuses.update(tables["images"]["status"].to_pylist())
        maps += len(tables["heatmaps"])
        boxes += int(tables["images"]["num_boxes"].to_numpy().sum())
    totals = Totals(images=statuses.total(), statuses=dict(sorted(statuses.items())), maps=maps, boxes=boxes)
    if not missing and run_dir.read(SUMMARY) != summary_of(run.request.fingerprint(), totals):
        problems.append(f"{SUMMARY} is missing or does not add up; run the same `{run.command}` command again")
    return Verdict(problems=problems, totals=totals)


def repair(run_dir: RunDir, run: Run) -> None:
    """Remove the commits of damaged shards, so that they are done again, and shards that were never planned.

    Nothing is removed that `verify` has no objection to. Raises StorageError where the plan itself is damaged.
    """
    check_plan(run_dir, run.plan)
    maps_dir, maps_run = maps_of(run_dir, run)
    for table in TABLES:
        for shard in run_dir.shards(table):
            if shard >= run.plan.num_shards:
                say(f"repair: {shard_name(table, shard)} was never planned, it is removed")
                run_dir.remove(shard_name(table, shard))
    for shard in sorted(run_dir.shards("images")):
        try:
            tables = read_tables(run_dir, run, maps_dir, maps_run, shard)
            problems = _shard_problems(run_dir, run, tables, shard)
        except StorageError as error:
            problems = [str(error)]
        if problems:
            say(f"repair: shard {shard} is done again: {problems[0]}")
            run_dir.remove(shard_name("images", shard))


def read_tables(run_dir: RunDir, run: Run, maps_dir: RunDir, maps_run: Run, shard: int) -> dict[str, pa.Table]:
    """Read a shard's files, its maps where they are; raises StorageError where one is missing or no such table."""
    tables = {table: read_table(run_dir, run, table, shard) for table in ("boxes", "images")}
    return {**tables, "heatmaps": read_table(maps_dir, maps_run, "heatmaps", shard)}


def read_table(run_dir: RunDir, run: Run, table: str, shard: int) -> pa.Table:
    """Read one file; raises StorageError where it is missing or no such table of this run."""
    name = shard_name(table, shard)
    content = run_dir.read(name)
    if content is None:
        raise StorageError(f"{name} is missing, though its images are committed")
    decoded = decode(content, name, max_rows=run.plan.shard_size if table == "images" else MAX_ROWS)
    if document_of(decoded.schema).get("fingerprint") != run.request.fingerprint():
        raise StorageError(f"{name} belongs to another request")
    expected = {"heatmaps": heatmaps_schema(run.grid), "boxes": run.request.boxes_schema, "images": IMAGES}[table]
    if not decoded.schema.equals(expected):
        raise StorageError(f"{name} has not the columns of a {table} table")
    return decoded


def _shard_problems(run_dir: RunDir, run: Run, tables: dict[str, pa.Table], shard: int) -> list[str]:
    images, heatmaps, boxes = tables["images"], tables["heatmaps"], tables["boxes"]
    problems = maps_problems(run, read_shard(run_dir, shard), images, heatmaps)
    name_of = dict(enumerate(run.class_names))
    if boxes["class_name"].to_pylist() != [name_of.get(class_id) for class_id in boxes["class_id"].to_pylist()]:
        problems.append("its boxes have class names that are not the run's")
    if not _rows_fit(images, boxes):
        return [*problems, "its boxes name rows that the shard has not"]
    problems += _row_problems("boxes", images, boxes, first_boxes(run.request, boxes))
    if not _pairs_of(boxes) <= _pairs_of(heatmaps):
        problems.append("a box has no map")
    if num_outside := int((~_inside(boxes, images)).sum()):
        problems.append(f"{num_outside} box(es) are empty or reach outside their image")
    if run.request.calibration:
        probability_N = boxes["probability"].to_numpy()
        if not ((probability_N >= 0) & (probability_N <= 1)).all():
            problems.append("a box has a probability that is none")
    return problems


def maps_problems(run: Run, planned: pa.Table, images: pa.Table, heatmaps: pa.Table) -> list[str]:
    """Return what is wrong with a shard's images and maps; `planned` are its rows in the plan."""
    for column in ("image_id", "shard", "row", "uri", "offset", "size", "label"):
        if not images[column].combine_chunks().equals(planned[column].combine_chunks()):
            return [f"column {column} of its images is not the plan's"]
    if not _rows_fit(images, heatmaps):
        return ["its maps name rows that the shard has not"]
    problems = _row_problems("maps", images, heatmaps, heatmaps)
    ids = images["image_id"].combine_chunks()
    if not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        problems.append("its image_ids are not in order, each once")
    heat = heatmaps["heatmap"].combine_chunks().storage.flatten().to_numpy(zero_copy_only=False)
    if not np.isfinite(heat).all():
        problems.append("a map holds a number that is not finite")
    if len(_pairs_of(heatmaps)) != len(heatmaps):
        problems.append("an image has two maps of one class")
    classes = heatmaps["class_id"].to_numpy()
    if len(classes) and not (classes.min() >= 0 and classes.max() < len(run.class_names)):
        problems.append("a map is of a class that the run has not")
    x0, y0, x1, y1 = (heatmaps[name].to_numpy() for name in CORNERS)
    if not ((x0 < x1) & (y0 < y1) & np.isfinite(x1 - x0) & np.isfinite(y1 - y0)).all():
        problems.append("the part of the image that a map covers is empty or not finite")
    return problems


def damaged(run_dir: RunDir, run: Run, shard: int, problem: object) -> StorageError:
    """Return the refusal of a shard whose files have a problem, with the cure."""
    return StorageError(
        f"shard {shard} of {run_dir.root} is damaged: {problem}; run its `{run.command}` command again with --repair, "
        "then this one"
    )


def _rows_fit(images: pa.Table, table: pa.Table) -> bool:
    rows = table["row"].to_numpy()
    return len(rows) == 0 or bool(rows.min() >= 0 and rows.max() < len(images))


def _row_problems(name: str, images: pa.Table, table: pa.Table, counted: pa.Table) -> list[str]:
    """Return what is wrong between a shard's images and the rows about them, of which `counted` are counted."""
    rows, problems = table["row"].to_numpy(), []
    counts = np.bincount(counted["row"].to_numpy(), minlength=len(images))
    if not np.array_equal(counts, images[f"num_{name}"].to_numpy()):
        problems.append(f"num_{name} does not count its {name}")
    if not images["image_id"].take(pa.array(rows)).equals(table["image_id"]):
        problems.append(f"its {name} and its images disagree on image_id")
    sizes = np.minimum(images["width"].to_numpy(), images["height"].to_numpy())
    is_ok = np.array([status == "ok" for status in images["status"].to_pylist()]) & (sizes > 0)
    if not is_ok[rows].all():
        problems.append(f"it has {name} of images that are not ok")
    return problems


def _pairs_of(table: pa.Table) -> set[tuple[int, int]]:
    """Return the (row, class) of each row of a table of maps or boxes."""
    return set(zip(table["row"].to_pylist(), table["class_id"].to_pylist(), strict=True))


def _inside(boxes: pa.Table, images: pa.Table) -> Bools:
    rows = boxes["row"].to_numpy()
    width, height = images["width"].to_numpy()[rows], images["height"].to_numpy()[rows]
    x0, y0, x1, y1 = (boxes[name].to_numpy() for name in CORNERS)
    inside: Bools = (x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
    return inside
