"""What an export's flags mean for a run: which classes, whose names, which images have to be renamed."""

from collections.abc import Sequence

import numpy as np

from cam_ops.classes import distinct_names
from cam_ops.errors import UsageError
from cluster.export.config import ExportConfig
from cluster.export.filters import Filters
from cluster.export.names import meeting
from cluster.export.records import Selection, read_shard
from cluster.formats.exported import Classes, ExportFormat
from cluster.process.console import say
from cluster.runs.directory import RunDir
from cluster.runs.record import Run
from cluster.truth.classes import class_finder, one_class

NUM_SHOWN = 3


def select(config: ExportConfig, run_dir: RunDir, run: Run, form: ExportFormat, *, has_files: bool) -> Selection:
    """Say which images and boxes go out; `has_files`: images have files of their own. Raises UsageError."""
    if config.min_probability is not None and run.request.calibration is None:
        raise UsageError(
            f"--min-probability needs boxes with a probability, those of {run_dir.root} have none; make them by "
            "`calibrate` and `rebox --calibration`, or use --min-score or --min-energy"
        )
    if config.category_ids == "used" and not form.lists_classes:
        raise UsageError(f"--category-ids used is of formats that list classes, {form.name} names those of boxes alone")
    if config.labels_only and run.request.labels == "none":
        raise UsageError(f"--labels-only needs a run with labels, {run_dir.root} has none; see `label --labels`")
    split = config.split_of(form.split)
    if config.seed and not (split and split.shares):
        raise UsageError("--seed draws another --split NAME=SHARE,..., and there is none")
    nothing = np.empty(0, np.int64)
    return Selection(
        filters=Filters(
            min_score=config.min_score,
            min_probability=config.min_probability,
            min_energy=config.min_energy,
            min_area=config.min_area,
            max_area=config.max_area,
            only_classes=_class_ids(config.only_classes, run) if config.only_classes else None,
            labels_only=config.labels_only,
            top=config.top,
        ),
        split=split,
        limit=config.limit,
        keep_empty=config.keep_empty,
        has_files=has_files,
        reserved=form.reserved,
        meeting=meeting(run_dir, run, form.reserved) if has_files else nothing,
    )


def _class_ids(words: tuple[str, ...], run: Run) -> tuple[int, ...]:
    find = class_finder(run.class_names, ())
    names, flag = run.class_names, "--only-classes"
    return tuple(sorted({one_class(word, names, find, flag, takes_several=True) for word in words}))


def classes_of(config: ExportConfig, run_dir: RunDir, run: Run, selection: Selection, shards: Sequence[int]) -> Classes:
    """Return the classes of an export of these shards, with names that tell them apart."""
    exported = (
        range(len(run.class_names)) if config.category_ids == "all" else used_classes(run_dir, run, selection, shards)
    )
    return Classes(
        names=_named(run.class_names, exported), numbers={class_id: number for number, class_id in enumerate(exported)}
    )


def used_classes(run_dir: RunDir, run: Run, selection: Selection, shards: Sequence[int]) -> list[int]:
    """Return the classes that have a box which the filters leave, of an image that has a split; rising."""
    found: set[int] = set()
    for shard in shards:
        tables = read_shard(run_dir, run, shard, selection, maps=False)
        boxes, _ = selection.filters.apply(tables.images, tables.boxes)
        class_ids_N = boxes["class_id"].to_numpy()
        if selection.split:
            splits = map(selection.split.of, tables.images["image_id"].to_pylist())
            class_ids_N = class_ids_N[
                np.array([split is not None for split in splits], np.bool_)[boxes["row"].to_numpy()]
            ]
        found |= {*class_ids_N.tolist()}
    return sorted(found)


def _named(names: tuple[str, ...], exported: Sequence[int]) -> tuple[str, ...]:
    """Return names that tell classes apart, and say where they are not the run's."""
    distinct = distinct_names(names)
    if changed := [distinct[class_id] for class_id in exported if distinct[class_id] != names[class_id]]:
        say(
            f"{len(changed)} classes have other names in the export, as a name is that of several or breaks files: "
            + ", ".join(changed[:NUM_SHOWN])
        )
    return distinct
