"""`report`: digest the run, choose images, fetch them, write the page. The run is only read."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from cam_ops.errors import StorageError
from cluster.executors.choose import ExecutorName, choose_replicas, no_gpus, open_executor
from cluster.executors.events import look_away
from cluster.executors.progress import Progress
from cluster.executors.work import Work
from cluster.process.console import say
from cluster.report.against import Other, read_other
from cluster.report.bound import bounded
from cluster.report.commands import commands_of
from cluster.report.config import ReportConfig
from cluster.report.destination import destination_of
from cluster.report.digest import EDGES, Digest, no_digest
from cluster.report.facts import class_rows, head_of, setting_of
from cluster.report.judged import Judged, read_judged
from cluster.report.records import Histogram, Report
from cluster.report.shown import found_in, set_beside, shown_of
from cluster.runs.census import Census, take_census
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.history import RunHistory, read_log
from cluster.runs.part import Part, part_of
from cluster.runs.record import Run, existing_run, maps_of

IMAGES_PER_PART = 4096
MAX_PARTS = 256  # the digest of a part holds megabytes of sums, whatever the number of images
FEW_IMAGES = 32768  # Ray starts in some ten seconds, in which one process does as many
MAX_CLASSES = 1000  # in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What came of it."""

    where: str
    num_bytes: int
    census: Census
    num_shown: int
    part: str | None  # what it is of, where that is not the whole run
    galleries: dict[str, int]  # images shown, by gallery


def report(config: ReportConfig) -> Reported:
    """Write the page of a run; raises StorageError where nothing of it is done, or it is damaged."""
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    maps_of(run_dir, run)
    destination = destination_of(config, run_dir)
    part = part_of(run_dir, run, config.shards)
    census = take_census(run_dir, run, list(part.shards))
    digest = _digest(config, run_dir, run, part)
    judged, notes = read_judged(run_dir, run, part, config.max_images, config.audits[0])
    other = read_other(run_dir, run, config.against, config.audits, config.options) if config.against else None
    page = _report(config, run_dir, run, part, census, digest, judged, notes, other)
    page, content = bounded(page)
    destination.publish(content)
    return Reported(
        where=destination.where,
        num_bytes=len(content),
        census=census,
        num_shown=len(page.cards),
        galleries={gallery.key: len(gallery.cards) for gallery in page.galleries},
        part=part.words,
    )


def _digest(config: ReportConfig, run_dir: RunDir, run: Run, part: Part) -> Digest:
    """Have replicas digest the run, and add up."""
    size, shards = run.plan.shard_size, part.shards
    step = max(-(-IMAGES_PER_PART // size), -(-len(shards) // MAX_PARTS))
    parts = tuple(shards[first : first + step] for first in range(0, len(shards), step))
    work = Work(
        device="cpu",
        factory="cluster.report.replica:ReportReplica",
        arguments=(run_dir, run.request.fingerprint(), parts, config.max_images),
    )
    num_images = part.num_images
    progress = Progress(num_images=num_images, num_shards=len(parts), done_images=0, done_shards=0)
    digest = no_digest(run, config.max_images)
    with closing(open_executor(_executor(config, num_images), config.ray_address, no_gpus)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        watch = progress.look if len(parts) > 1 else look_away
        reports = executor.run(work, replicas, range(len(parts)), lambda _: False, config.shard_timeout, watch=watch)
        with closing(reports):
            for report in reports:
                digest += report.findings
                if len(parts) > 1:
                    progress.add(report)
    return digest


def _executor(config: ReportConfig, num_images: int) -> ExecutorName:
    """Return what `auto` means: actors where there is enough for two to do."""
    if config.executor != "auto":
        return config.executor
    return "ray" if num_images > FEW_IMAGES or config.ray_address or (config.replicas or 1) > 1 else "inline"


def _report(
    config: ReportConfig,
    run_dir: RunDir,
    run: Run,
    part: Part,
    census: Census,
    digest: Digest,
    judged: Judged | None,
    notes: tuple[str, ...],
    other: Other | None,
) -> Report:
    """Make all that the page shows."""
    found = found_in(census, digest, judged, other, config.max_images)
    galleries, cards, left_out = shown_of(config, run_dir, run, found, judged, other, part.shards)
    history, against = _history(run_dir), None
    if other:
        galleries, against = set_beside(config, other, galleries, cards)
    classes = class_rows(run, digest, judged.classes if judged else {})
    return Report(
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version("camray"),
        head=head_of(run_dir, run, part, census, digest, history),
        setting=setting_of(run),
        commands=commands_of(
            run_dir,
            run,
            is_whole=not part.missing,
            is_audited=judged is not None,
        ),
        galleries=galleries,
        cards=cards,
        notes=notes,
        left_out=left_out,
        histograms=tuple(
            Histogram(name=name, edges=EDGES[name], counts=counts)
            for name, counts in digest.histograms.items()
            if name != "probability" or run.request.calibration
        ),
        density=digest.sums.density_CGG.sum(0),
        classes=classes[:MAX_CLASSES],
        classes_total=len(classes),
        audit=judged.part if judged else None,
        against=against,
        history=history,
    )


def _history(run_dir: RunDir) -> RunHistory | None:
    """Return what the log says; one that cannot be read is said, and is as none: it is no part of the run."""
    try:
        return read_log(run_dir)
    except StorageError as error:
        say(f"without the log: {error}")
        return None
