"""`audit`: how well a run localizes, from its stored maps and tables, as whole numbers summed over actors.

Everything lies in OUT/audit and can be made again. The run is only read.
"""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cam_ops.errors import StorageError
from cam_ops.metrics.counts import Counts, no_counts
from cam_ops.metrics.curves import draw_curves
from cam_ops.metrics.figures import NO_BOXES, NO_CLASSES, Figure, corloc, curves, figures_of, missing, slices_of
from cam_ops.metrics.localization import FAILURES
from cam_ops.metrics.signals import WHOLE_IMAGE, Shortcut, suspected_shortcuts
from cluster.audit.config import AuditConfig
from cluster.audit.detections import PRECISION, DetectionFigures, precision_of
from cluster.audit.replica import part_of
from cluster.audit.summary import class_rows, joined_parts, look_first, mapped, signal_summary
from cluster.audit.tables import DETECTIONS, PER_IMAGE
from cluster.executors.choose import choose_replicas, open_executor
from cluster.executors.progress import Progress
from cluster.executors.work import Work
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.record import Run, existing_run, maps_of
from cluster.runs.resume import refuse_incomplete
from cluster.storage.objects import is_store
from cluster.storage.parquet import decode, encode
from cluster.truth.prepare import TruthReport, prepare_truth

SCHEMA_VERSION = "1.0.0"
MAX_PARTS = 256  # a report holds megabytes of sums, whatever the number of images
NUM_LOOK_FIRST = 20
METRICS = "metrics.json"
DERIVED = ("per_image.parquet", "per_class.parquet", "bootstrap.parquet", "curves.parquet", "curves.svg", "curves.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What came of it."""

    document: dict[str, Any]  # metrics.json
    statuses: dict[str, int]


def audit(config: AuditConfig) -> Audit:
    """Audit a run; raises StorageError where it is not complete, or damaged."""
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    maps_of(run_dir, run)
    refuse_incomplete(run_dir, run)
    audit_dir = RunDir(f"{run_dir.root}/audit", run_dir.options)
    with _own_dir(audit_dir) as own_dir:
        return _audit(config, run_dir, run, audit_dir, own_dir)


@contextmanager
def _own_dir(audit_dir: RunDir) -> Iterator[RunDir]:
    """Give an audit a folder to itself, as two may run at once, and remove it at its end."""
    own_dir = RunDir(f"{audit_dir.root}/audit-{uuid.uuid4().hex}", audit_dir.options)
    try:
        yield own_dir
    finally:
        for folder in ("truth", "parts"):
            for name in own_dir.files.names(folder):
                own_dir.remove(f"{folder}/{name}")
        if not is_store(own_dir.root):
            shutil.rmtree(own_dir.root, ignore_errors=True)  # what is empty, and scratch


def _audit(config: AuditConfig, run_dir: RunDir, run: Run, audit_dir: RunDir, own_dir: RunDir) -> Audit:
    truth = None if config.truth.truth is None else prepare_truth(run_dir, run, config.truth, own_dir)
    parts = _parts(run.plan.num_shards)
    counts, statuses = _count(config, run_dir, run, own_dir, parts, truth)
    tables = (_read_part(own_dir, "per_image", PER_IMAGE, part) for part in range(len(parts)))
    with joined_parts(tables) as path:
        found = _findings(config, own_dir, counts, truth, len(parts))
        for name in (METRICS, *DERIVED):  # not before: what fails costs no earlier audit
            audit_dir.remove(name)
        document = _document(config, run, run_dir, counts, found, truth, path)
        ap_of = found.precision.ap_of if found.precision else {}
        classes = class_rows(path, run.class_names, counts.classes, ap_of, found.shortcuts)
        audit_dir.publish("per_image.parquet", mapped(path))
    audit_dir.publish("per_class.parquet", encode(classes))
    if truth is not None:
        replicates = {name: figure.value_R[1:] for name, figure in found.figures.items()}
        audit_dir.publish("bootstrap.parquet", encode(pa.table(replicates)))
        drawn = curves(counts)
        audit_dir.publish("curves.parquet", encode(pa.table(drawn)))
        for name, content in draw_curves(drawn, run_dir.root).items():
            audit_dir.publish(name, content)
    audit_dir.publish(METRICS, json.dumps(document, indent=1, allow_nan=False).encode())
    return Audit(document=document, statuses=statuses)


def _parts(num_shards: int) -> tuple[range, ...]:
    """Cut the shards into parts of about one size."""
    size = -(-num_shards // MAX_PARTS)
    return tuple(range(first, min(first + size, num_shards)) for first in range(0, num_shards, size))


def _count(
    config: AuditConfig,
    run_dir: RunDir,
    run: Run,
    audit_dir: RunDir,
    parts: tuple[range, ...],
    truth: TruthReport | None,
) -> tuple[Counts, dict[str, int]]:
    """Have actors count, and add up."""
    has_masks = truth is not None and truth.has_masks
    work = Work(
        device="cpu",
        factory="cluster.audit.replica:AuditReplica",
        arguments=(run_dir, run.request.fingerprint(), audit_dir, parts, config.split, (truth is not None, has_masks)),
    )
    progress = Progress(num_images=run.plan.num_images, num_shards=len(parts), done_images=0, done_shards=0)
    counts, statuses = no_counts(config.split), Counter[str]()
    with closing(open_executor(config.executor, config.ray_address)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        with closing(executor.run(work, replicas, range(len(parts)), lambda _: False, config.shard_timeout)) as reports:
            for report in reports:
                counts += report.findings
                statuses.update(report.statuses)
                progress.add(report)
    return counts, dict(sorted(statuses.items()))


def _read_part(audit_dir: RunDir, table: str, schema: pa.Schema, part: int) -> pa.Table:
    name = part_of(table, part)
    content = audit_dir.read(name)
    if content is None:
        raise StorageError(f"{audit_dir.where(name)} is gone; run the same command again")
    return decode(content, audit_dir.where(name)).cast(schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """All figures of an audit."""

    figures: dict[str, Figure]
    slices: dict[str, dict[str, Figure]]
    precision: DetectionFigures | None
    shortcuts: list[Shortcut]


def _findings(
    config: AuditConfig, own_dir: RunDir, counts: Counts, truth: TruthReport | None, num_parts: int
) -> _Findings:
    shortcuts = [] if counts.classes is None else suspected_shortcuts(counts.classes)
    if truth is None:
        return _Findings(figures={}, slices={}, precision=None, shortcuts=shortcuts)
    num_rows = 1 + config.bootstrap
    figures = figures_of(counts, has_masks=truth.has_masks, has_boxes=truth.has_boxes, calibrate=bool(config.calibrate))
    precision = None
    if truth.shares_classes and truth.has_boxes:
        tables = (_read_part(own_dir, "detections", DETECTIONS, part) for part in range(num_parts))
        precision = precision_of((batch for table in tables for batch in table.to_batches()), config.split)
        figures |= {"corloc": corloc(counts), **precision.figures}
    else:
        reason = NO_CLASSES if truth.has_boxes else NO_BOXES
        figures |= {name: missing(reason, num_rows) for name in ("corloc", *PRECISION)}
    return _Findings(figures=figures, slices=slices_of(counts), precision=precision, shortcuts=shortcuts)


def _document(
    config: AuditConfig,
    run: Run,
    run_dir: RunDir,
    counts: Counts,
    found: _Findings,
    truth: TruthReport | None,
    path: Path,
) -> dict[str, Any]:
    """Return metrics.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "out": run_dir.root,
        "fingerprint": run.request.fingerprint(),
        "model": run.request.model,
        "method": run.request.explain.method,
        "settings": {
            "threshold": run.request.boxes.threshold[0],
            "normalise": run.request.maps.normalise,
            "components": run.request.boxes.components,
            "resize": run.request.preprocessing.resize,
            "calibrate": config.calibrate,
            "seed": config.seed,
            "bootstrap": config.bootstrap,
        },
        "truth": truth and {"path": config.truth.truth, **asdict(truth)},
        "images": run.plan.num_images,
        "audited": int(counts.images_R[0]),
        "excluded": dict(sorted(counts.excluded.items())),
        "failures": {name: counts.failures[name] for name in FAILURES},
        "metrics": {name: figure.document() for name, figure in found.figures.items()},
        "slices": {
            name: {figure_name: figure.document() for figure_name, figure in figures.items()}
            for name, figures in found.slices.items()
        },
        "signals": signal_summary(path, WHOLE_IMAGE),
        "suspected_shortcuts": [
            {**asdict(shortcut), "class_name": run.class_names[shortcut.class_id]} for shortcut in found.shortcuts
        ],
        "look_first": look_first(path, NUM_LOOK_FIRST),
    }
