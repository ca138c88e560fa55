"""`audit`: how well a run localizes, from its stored maps and tables.

Replicas count, in whole numbers; the driver adds up, makes figures of the sums and writes them below RUN/audit, or
RUN/audit-NAME. The run is only read.
"""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cam_ops.metrics.counts import Counts, no_counts
from cam_ops.metrics.curves import draw_curves
from cam_ops.metrics.figures import curves
from cluster.audit.config import AuditConfig
from cluster.audit.files import METRICS_FILE, AuditContents, TruthContents, audit_files, publish_audit
from cluster.audit.findings import Findings, findings_of, metrics_document
from cluster.audit.labels import find_unlabelled, write_labels
from cluster.audit.named import refuse_another
from cluster.audit.parts import read_parts, working_files
from cluster.audit.summary import class_rows, joined_parts
from cluster.audit.tables import PER_IMAGE_SCHEMA, TRUE_BOXES_SCHEMA
from cluster.executors.choose import choose_replicas, no_gpus, open_executor
from cluster.executors.progress import Progress
from cluster.executors.work import Work
from cluster.process.console import say
from cluster.runs.calibration import FEW_IMAGES, say_fitted
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.part import Part, part_of
from cluster.runs.record import Run, existing_run, maps_of
from cluster.sources.reading import orientations
from cluster.storage.documents import document_bytes
from cluster.storage.files import Files
from cluster.truth.prepare import TruthReport, prepare_truth

MAX_PARTS = 256  # a report holds megabytes of sums, whatever the number of images


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What came of it."""

    document: dict[str, Any]  # metrics.json
    statuses: dict[str, int]


def audit(config: AuditConfig) -> Audit:
    """Audit a run; of what is committed of it; raises StorageError where that is nothing, or damaged, UsageError for a
    useless truth.

    Raises RefusedError where an audit of that name is there that was asked for something else.
    """
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    maps_of(run_dir, run)
    part = part_of(run_dir, run, config.shards)
    files = audit_files(run_dir, config.name)
    document_bytes({"out": run_dir.root, "request": config.asked()}, METRICS_FILE)  # refused here, not after the work
    _refuse_another(config, files, run, part)
    with working_files(files) as working:
        truth = None
        if config.truth.truth is not None:
            read_turns = partial(orientations, options=config.options)
            truth = prepare_truth(run_dir, run, config.truth, working, read_turns)
        parts = _parts(part.shards)
        counts, statuses = _count(config, run_dir, run, working, parts, truth, part.num_images)
        per_image_parts, detections, true_parts = (
            read_parts(working, name, len(parts)) for name in ("per_image", "detections", "truth")
        )
        with (
            joined_parts(per_image_parts, PER_IMAGE_SCHEMA) as per_image,
            joined_parts(true_parts, TRUE_BOXES_SCHEMA) as true_boxes,
        ):
            findings = findings_of(config, counts, truth, detections)
            _say_fitted(config, counts)
            contents = _contents(config, run_dir.root, run, part, findings, per_image, true_boxes)
            _refuse_another(config, files, run, part)  # another audit may have ended in the meantime
            publish_audit(files, contents)
    return Audit(document=contents.metrics, statuses=statuses)


def _refuse_another(config: AuditConfig, files: Files, run: Run, part: Part) -> None:
    if not config.overwrite:
        refuse_another(files, run, {**config.asked(), "shards": part.covered}, config.name)


def _say_fitted(config: AuditConfig, counts: Counts) -> None:
    fitted = int(counts.chosen_images_R[0])
    if config.calibrate:
        say_fitted(fitted, int(counts.figure("oracle")[0, 1]) - fitted)
        if fitted < FEW_IMAGES:
            say(
                f"warning: a threshold that is fitted to {fitted} images is theirs more than others'; {FEW_IMAGES} "
                "are the least to trust: give a larger --calibrate, or more truth"
            )


def _parts(shards: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Cut the shards into parts of about one size."""
    size = -(-len(shards) // MAX_PARTS)
    return tuple(shards[first : first + size] for first in range(0, len(shards), size))


def _count(
    config: AuditConfig,
    run_dir: RunDir,
    run: Run,
    working: Files,
    parts: tuple[tuple[int, ...], ...],
    truth: TruthReport | None,
    num_images: int,
) -> tuple[Counts, dict[str, int]]:
    """Have replicas count, and add up; return the sums, and the number of images by status."""
    work = Work(
        device="cpu",
        factory="cluster.audit.replica:AuditReplica",
        arguments=(run_dir, run.request.fingerprint(), working, parts, config.split, truth),
    )
    progress = Progress(num_images=num_images, num_shards=len(parts), done_images=0, done_shards=0)
    counts, statuses = no_counts(config.split), Counter[str]()
    with closing(open_executor(config.executor, config.ray_address, no_gpus)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        reports = executor.run(
            work, replicas, range(len(parts)), lambda _: False, config.shard_timeout, watch=progress.look
        )
        with closing(reports):
            for report in reports:
                counts += report.findings
                statuses.update(report.statuses)
                progress.add(report)
    return counts, dict(sorted(statuses.items()))


def _contents(
    config: AuditConfig, out: str, run: Run, part: Part, findings: Findings, per_image: Path, true_boxes: Path
) -> AuditContents:
    """Make all that is written of the run at `out`."""
    against_truth = unlabelled = None
    if findings.truth is not None:
        unlabelled = None if run.plan.several_labels else find_unlabelled(per_image)
        has_known = unlabelled is not None and unlabelled.known > 0
        drawn = curves(findings.counts)
        against_truth = TruthContents(
            replicates={name: figure.value_R[1:] for name, figure in findings.figures.items()},
            curves=drawn,
            pictures=draw_curves(drawn, out),
            boxes=true_boxes if findings.truth.has_boxes else None,
            labels=write_labels(per_image, run.class_names) if has_known else None,
        )
    return AuditContents(
        metrics=metrics_document(config, out, run, part, findings, per_image, unlabelled),
        per_image=per_image,
        per_class=class_rows(per_image, run.class_names, findings.counts.classes, findings.ap_of, findings.shortcuts),
        truth=against_truth,
    )
