"""What an audit finds: all figures, from the counts and matches of all images added up, and metrics.json of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cam_ops.metrics.counts import Counts
from cam_ops.metrics.figures import NO_BOXES, NO_CLASSES, Figure, corloc, figures_of, missing, slices_of
from cam_ops.metrics.localization import FAILURES
from cam_ops.metrics.signals import WHOLE_IMAGE, Shortcut, suspected_shortcuts
from cluster.audit.config import AuditConfig
from cluster.audit.detections import PRECISION, precision_of
from cluster.audit.labels import Unlabelled
from cluster.audit.summary import look_first, signal_summary
from cluster.runs.part import Part
from cluster.runs.record import Run
from cluster.truth.prepare import TruthReport

SCHEMA_VERSION = "1.0.0"
NUM_LOOK_FIRST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All figures of an audit, and what they are made from; without truth there are no figures, only shortcuts."""

    counts: Counts
    truth: TruthReport | None
    figures: dict[str, Figure]
    slices: dict[str, dict[str, Figure]]
    ap_of: dict[int, float]  # average precision in percent, by class
    shortcuts: list[Shortcut]


def findings_of(
    config: AuditConfig, counts: Counts, truth: TruthReport | None, detections: Iterator[pa.Table]
) -> Findings:
    """Make figures of sums over all images; `detections`, schema DETECTIONS_SCHEMA, are read where they are needed."""
    shortcuts = [] if counts.classes is None else suspected_shortcuts(counts.classes)
    if truth is None:
        return Findings(counts=counts, truth=None, figures={}, slices={}, ap_of={}, shortcuts=shortcuts)
    figures = figures_of(counts, has_masks=truth.has_masks, has_boxes=truth.has_boxes, calibrate=bool(config.calibrate))
    ap_of: dict[int, float] = {}
    if truth.shares_classes and truth.has_boxes:
        precision = precision_of((batch for table in detections for batch in table.to_batches()), config.split)
        figures |= {"corloc": corloc(counts), **precision.figures}
        ap_of = precision.ap_of
    else:
        reason = NO_CLASSES if truth.has_boxes else NO_BOXES
        figures |= {name: missing(reason, 1 + config.bootstrap) for name in ("corloc", *PRECISION)}
    return Findings(
        counts=counts, truth=truth, figures=figures, slices=slices_of(counts), ap_of=ap_of, shortcuts=shortcuts
    )


def metrics_document(
    config: AuditConfig,
    out: str,
    run: Run,
    part: Part,
    findings: Findings,
    per_image: Path,
    unlabelled: Unlabelled | None,
) -> dict[str, Any]:
    """Return metrics.json of the run at `out`; `per_image` is the file of the rows of all images."""
    counts, truth = findings.counts, findings.truth
    return {
        "schema_version": SCHEMA_VERSION,
        "out": out,
        "name": config.name,
        "request": {**config.asked(), "shards": part.covered},
        "part": part.words,
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
        "images": part.num_images,
        "audited": int(counts.images_R[0]),
        "unlabelled": asdict(unlabelled) if unlabelled and unlabelled.images else None,
        "excluded": dict(sorted(counts.excluded.items())),
        "failures": {name: counts.failures[name] for name in FAILURES},
        "metrics": _documents(findings.figures),
        "slices": {name: _documents(figures) for name, figures in findings.slices.items()},
        "signals": signal_summary(per_image, WHOLE_IMAGE),
        "suspected_shortcuts": [
            {**asdict(shortcut), "class_name": run.class_names[shortcut.class_id]} for shortcut in findings.shortcuts
        ],
        "look_first": look_first(per_image, NUM_LOOK_FIRST),
    }


def _documents(figures: dict[str, Figure]) -> dict[str, dict[str, object]]:
    return {name: figure.document() for name, figure in figures.items()}
