"""`export`: a run as a dataset for another tool. Replicas write parts, the driver joins what all have in one file.

The run is only read. Memory holds a part: some thousand images.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from cam_ops.errors import StorageError, UsageError
from cluster.executors.choose import ExecutorName, choose_replicas, no_gpus, open_executor
from cluster.executors.events import look_away
from cluster.executors.progress import Progress
from cluster.executors.work import Work
from cluster.export.config import ExportConfig
from cluster.export.counts import Counts
from cluster.export.destination import Destination, destination_at
from cluster.export.kinds import EXPORTS
from cluster.export.like import digest_of, read_like
from cluster.export.marks import Document
from cluster.export.records import NO_SPLIT
from cluster.export.replica import CHANGED, GONE, Task, part_file
from cluster.export.selecting import classes_of, select
from cluster.formats.exported import ExportFormat, PicturesChoice, Settings
from cluster.process.console import say, shown
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.part import Part, part_of
from cluster.runs.record import Run, existing_run, maps_of
from cluster.storage.objects import real

IMAGES_PER_PART = 1024
MAX_PARTS = 4096
FEW_PARTS = 32  # Ray starts in some ten seconds, in which one process does tens of thousands of images


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What came of it."""

    counts: Counts
    statuses: dict[str, int]
    num_classes: int  # that it lists
    part: str | None = None  # of the run, in words: None of a whole one

    def fields(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        document: dict[str, Any] = TypeAdapter(Export).dump_python(self, mode="json")
        return document


@dataclass(frozen=True, slots=True)
class WholePlace:
    """An export whose parts are there, as formats see it."""

    destination: Destination
    settings: Settings
    splits: tuple[str, ...]
    num_parts: int

    def put(self, name: str, content: bytes) -> None:
        """Put a file in place."""
        self.destination.put(name, content)

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file; it is put in place where nothing was raised."""
        return self.destination.open(name)

    def notes(self, section: str, split: str) -> Iterator[bytes]:
        """Yield the lines that the parts left, in order."""
        for part in range(self.num_parts):
            yield from self.destination.part(part_file(section, split, part)).splitlines()


def export(config: ExportConfig) -> tuple[Export, Document]:
    """Export what is committed of a run; return what came of it, and the content of export.json.

    Raises StorageError where that is nothing, or damaged, RefusedError where --out is not free.
    """
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    form = EXPORTS[config.to]
    if form.maps:
        maps_of(run_dir, run)
    part = part_of(run_dir, run, config.shards)
    destination = destination_at(config.out, config.options)
    _refuse_inside(destination, run_dir, run)
    asked = {"run": run_dir.root, "fingerprint": run.request.fingerprint(), **config.asked()}
    if part.missing:
        asked["committed"] = part.covered
    if config.like is not None:
        asked["like_sha256"] = digest_of(config.like)
    if not config.overwrite and (known := destination.finished(asked)) and (before := _exported(known)):
        say(f"{destination.root} holds this export already")
        return before, known
    task = _task(config, run_dir, run, part, form, destination)
    entries = (*form.entries, *([form.folder] if task.settings.has_pictures and not form.embeds else []))
    in_the_way = destination.begin(asked, entries, overwrite=config.overwrite)
    try:
        done = _write(config, run_dir, run, part, destination, task, form)
        reach("parts")
        _join(form, WholePlace(destination, task.settings, _splits(task, done.counts), len(task.parts)), done.counts)
        destination.prepare(in_the_way)
    except BaseException:
        destination.give_up()
        raise
    reach("record")
    record = {"command": "export", "asked": asked, "entries": entries, **done.fields()}
    return done, destination.finish(record, in_the_way)


def _refuse_inside(destination: Destination, run_dir: RunDir, run: Run) -> None:
    for root in (run_dir.root, *([run.maps_from.root] if run.maps_from else [])):
        if f"{real(destination.root)}/".startswith(f"{real(root)}/"):
            raise UsageError(f"--out {destination.root} lies in the run {root}, which is only read; give another --out")


def _task(
    config: ExportConfig, run_dir: RunDir, run: Run, part: Part, form: ExportFormat, destination: Destination
) -> Task:
    """Say what replicas have to do. Raises UsageError where the run, or the format, cannot do what is asked."""
    pictures = _pictures(config, form)
    selection = select(config, run_dir, run, form, has_files=form.has_files or form.embeds or pictures != "none")
    _say_taken(config, run, form)
    shards = _shards(run, part, config.limit)
    classes = classes_of(config, run_dir, run, selection, shards)
    like = read_like(config.like, run_dir, run) if config.like is not None else None
    if like is not None:
        filters = replace(selection.filters, like=tuple(like.categories))
        selection = replace(selection, filters=filters, like=frozenset(like.images))
    settings = Settings(
        root=destination.root,
        run=run_dir.root,
        input_size=run.request.preprocessing.image_size,
        maps=run.request.maps,
        has_pictures=pictures != "none",
        is_calibrated=run.request.calibration is not None,
        classes=classes,
        confidence=config.confidence,
        url_prefix=config.url_prefix,
        high=config.high,
        low=config.low,
        at_grid=config.at == "grid",
        like=like,
    )
    form.check(settings)
    return Task(form=form.name, settings=settings, selection=selection, pictures=pictures, parts=_parts(run, shards))


def _say_taken(config: ExportConfig, run: Run, form: ExportFormat) -> None:
    """Say what is taken where nothing else was asked for."""
    if config.split is None and form.split:
        say(f"split: {form.split}, as {form.name} needs one and --split gives none")
    if run.request.calibration is None and len(run.request.boxes.threshold) > 1:
        first, *others = run.request.boxes.threshold
        say(f"boxes are those of threshold {first}, not of {', '.join(map(str, others))}; `rebox` gives others")


def _join(form: ExportFormat, place: WholePlace, counts: Counts) -> None:
    if empty := [split for split in place.splits if split and not counts.splits[split]]:
        say(f"warning: no image is in the split {' nor in '.join(empty)}; give other shares, or another --seed")
    form.finish(place)


def _exported(record: dict[str, Any]) -> Export | None:
    """Return what export.json says of an export; None where it is not as we write it."""
    try:
        return TypeAdapter(Export).validate_python(record)
    except ValidationError:
        return None


def _pictures(config: ExportConfig, form: ExportFormat) -> PicturesChoice:
    if form.embeds and config.pictures == "link":
        raise UsageError(f"--to {form.name} has the pictures in its own files; give --pictures copy, or none")
    return form.pictures if config.pictures is None else config.pictures


def _shards(run: Run, part: Part, limit: int | None) -> tuple[int, ...]:
    """Return the shards of a part as far as --limit goes. Raises UsageError where it ends before them."""
    shards = part.shards if limit is None else part.shards[: bisect_left(part.shards, -(-limit // run.plan.shard_size))]
    if not shards:
        raise UsageError(f"--limit {limit} ends before shard {part.shards[0]}, the first there is; give a higher one")
    return shards


def _parts(run: Run, shards: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Cut the shards into parts of about one size, in order."""
    step = max(-(-IMAGES_PER_PART // run.plan.shard_size), -(-len(shards) // MAX_PARTS))
    return tuple(shards[first : first + step] for first in range(0, len(shards), step))


def _splits(task: Task, counts: Counts) -> tuple[str, ...]:
    """Return the splits of an export: those that were asked for, or that folders name."""
    split = task.selection.split
    if split is None:
        return ("",)
    return tuple(name for name, _ in split.shares) or tuple(sorted(counts.splits))


def _write(
    config: ExportConfig,
    run_dir: RunDir,
    run: Run,
    part: Part,
    destination: Destination,
    task: Task,
    form: ExportFormat,
) -> Export:
    """Have replicas write the parts; return what became of the images."""
    work = Work(
        device="cpu",
        factory="cluster.export.replica:ExportReplica",
        arguments=(run_dir, run.request.fingerprint(), destination, task),
    )
    num_images = min(part.num_images, config.limit or part.num_images)
    progress = (
        None
        if len(task.parts) == 1
        else Progress(num_images=num_images, num_shards=len(task.parts), done_images=0, done_shards=0)
    )
    counts, statuses = Counts(), Counter[str]()
    with closing(open_executor(_executor(config, task, form), config.ray_address, no_gpus)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        shards = range(len(task.parts))
        watch = progress.look if progress else look_away
        reports = executor.run(work, replicas, shards, lambda _: False, config.shard_timeout, watch=watch)
        with closing(reports):
            for report in reports:
                counts += report.findings
                statuses.update(report.statuses)
                if progress:
                    progress.add(report)
    lost = counts.images_left_out[GONE] + counts.images_left_out[CHANGED]
    if lost and not counts.images:
        reason = GONE if counts.images_left_out[GONE] else CHANGED
        raise StorageError(
            f"none of {lost} pictures is where and as the run found it ({reason}: {shown(counts.examples[reason])}, "
            f"listed from {' '.join(run.request.addresses)}); put them back, or give --pictures none"
        )
    if not counts.images and counts.images_left_out[NO_SPLIT]:
        raise UsageError(
            f"--split folder: no image has one folder that names a split, such as train/ or valid/, in its id "
            f"({shown(counts.examples[NO_SPLIT])} has none, or several); give --split NAME=SHARE,..."
        )
    num_classes = len(task.settings.classes.numbers) if form.lists_classes else 0
    return Export(counts=counts, statuses=dict(sorted(statuses.items())), num_classes=num_classes, part=part.words)


def _executor(config: ExportConfig, task: Task, form: ExportFormat) -> ExecutorName:
    """Return what `auto` means: actors where there is enough for two to do."""
    if config.executor != "auto":
        return config.executor
    is_heavy = (form.maps or task.pictures != "none") and len(task.parts) > FEW_PARTS
    return "ray" if is_heavy or config.ray_address or (config.replicas or 1) > 1 else "inline"
