"""Prove a run whole from its files: each planned image exactly once, tables that agree, boxes inside their images."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from cam_ops.errors import StorageError
from cluster.process.console import is_or_are, say
from cluster.runs.census import Totals, summary_of
from cluster.runs.directory import RunDir
from cluster.runs.names import SUMMARY, TABLES, shard_name
from cluster.runs.part import planned_shards, written
from cluster.runs.plan import check_plan, plan_digest, read_shard
from cluster.runs.reading import (
    first_boxes,
    inside,
    maps_problems,
    pairs_of,
    read_tables,
    row_problems,
    rows_fit,
    value_problems,
)
from cluster.runs.record import Run, again, existing_run, maps_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong with a run, one sentence each, and the command that mends it; nothing if it is whole."""

    problems: list[str]
    cure: str | None
    totals: Totals
    part: str | None  # what was looked at, where it is not the whole run


def verify(run_dir: RunDir, asked: str | None = None) -> Verdict:
    """Check every file of the run, or of the shards that `asked` names as --shards does, against its plan.

    Raises StorageError where there is no run at all, UsageError where such a shard was not planned.
    """
    run = existing_run(run_dir)
    maps_dir, maps_run = maps_of(run_dir, run)
    problems: list[str] = []
    is_planned = plan_digest(run_dir, run.plan) == run.plan.digest
    if not is_planned:
        problems.append("the plan's files are not those that run.json was written for")
    num_shards = run.plan.num_shards
    wanted = planned_shards(run_dir, run, asked)
    committed = sorted(run_dir.shards("images") & {*wanted})
    if missing := len(wanted) - len(committed):
        problems.append(f"{missing} of {len(wanted)} shards {is_or_are(missing)} not committed")
    is_damaged = False
    for table in TABLES:
        if foreign := [shard for shard in run_dir.shards(table) if shard >= num_shards]:
            problems.append(f"{table}/ holds {len(foreign)} shard(s) that were never planned, such as {min(foreign)}")
            is_damaged = True
    statuses: Counter[str] = Counter()
    maps = boxes = 0
    last_id: str | None = None
    num_before = len(problems)
    for shard in committed:
        try:
            tables = read_tables(run_dir, run, maps_dir, maps_run, shard)
            found = _shard_problems(run_dir, run, tables, shard)
            problems += [f"shard {shard}: {problem}" for problem in found]
            if not found and len(tables["images"]):  # they are those that were planned
                first_id, end_id = (tables["images"]["image_id"][at].as_py() or "" for at in (0, -1))
                if last_id is not None and first_id <= last_id:
                    problems.append(f"shard {shard}: its first image_id {first_id!r} does not follow the one before it")
                last_id = end_id
        except StorageError as error:
            problems.append(f"shard {shard}: {error}")
            continue
        statuses.update(tables["images"]["status"].to_pylist())
        maps += len(tables["heatmaps"])
        boxes += int(tables["images"]["num_boxes"].to_numpy().sum())
    is_damaged |= len(problems) > num_before
    totals = Totals(images=statuses.total(), statuses=dict(sorted(statuses.items())), maps=maps, boxes=boxes)
    if not missing and asked is None and run_dir.read(SUMMARY) != summary_of(run.request.fingerprint(), totals):
        problems.append(f"{SUMMARY} is missing or does not add up")
    cure = _cure(run_dir, run, is_planned=is_planned, is_damaged=is_damaged) if problems else None
    part = None if asked is None else f"a part: shards {written(wanted)} of the run's {num_shards}"
    return Verdict(problems=problems, cure=cure, totals=totals, part=part)


def _cure(run_dir: RunDir, run: Run, *, is_planned: bool, is_damaged: bool) -> str:
    if not is_planned:
        return "no command mends a plan: put its files back, or make the run anew with --overwrite"
    return f"to mend it run {again(run_dir, run, '--repair') if is_damaged else again(run_dir, run)}"


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


def _shard_problems(run_dir: RunDir, run: Run, tables: dict[str, pa.Table], shard: int) -> list[str]:
    images, heatmaps, boxes = tables["images"], tables["heatmaps"], tables["boxes"]
    problems = maps_problems(run, read_shard(run_dir, shard), images, heatmaps)
    name_of = dict(enumerate(run.class_names))
    if boxes["class_name"].to_pylist() != [name_of.get(class_id) for class_id in boxes["class_id"].to_pylist()]:
        problems.append("its boxes have class names that are not the run's")
    if not rows_fit(images, boxes):
        return [*problems, "its boxes name rows that the shard has not"]
    problems += row_problems("boxes", images, boxes, first_boxes(run.request, boxes))
    if not pairs_of(boxes) <= pairs_of(heatmaps):
        problems.append("a box has no map")
    if num_outside := int((~inside(boxes, images)).sum()):
        problems.append(f"{num_outside} box(es) are empty or reach outside their image")
    return problems + value_problems("boxes", boxes)
