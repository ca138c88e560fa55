"""`compare`: what changed between two runs, as a table, as JSON, and as an exit code."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import tyro.conf

from cluster.compare.audits import AuditChanges
from cluster.compare.driver import Comparison, compare
from cluster.compare.gates import broken_gates, parse_gate
from cluster.compare.metrics import Difference
from cluster.compare.tables import TableChanges
from cluster.process.console import say, shortened
from cluster.runs.directory import open_run_dir
from cluster.runs.names import audit_pair
from cluster.storage.named import write_named
from cluster.storage.options import parse_options
from jobs.command import Outcome, document_text, print_lines
from jobs.flags import parse
from jobs.paths import refuse_unwritable_file

MAX_SHOWN = 120  # characters of an id or a name


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Say what changed from run A to run B: settings, images, boxes and, where both are audited, metrics."""

    a: tyro.conf.Positional[str]
    """Run directory to compare with."""
    b: tyro.conf.Positional[str]
    """Run directory that is compared."""
    audit: tuple[str, ...] = ()
    """NAME [NAME_B]: the audits of `audit --name` to compare, the second one of B; "" is the audit without a name."""
    fail_if: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Conditions on the difference B - A of an audited metric, or on an end of its interval, as "px_ap < -1.0" or
    "max_box_acc_v2.low < 0", in the metric's own unit; exit code 3 where one holds, 2 where one cannot be judged."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    out: str | None = None
    """File to write that JSON to."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""


def run(arguments: list[str]) -> Outcome:
    """Print what changed; judge it by --fail-if."""
    config = parse(CompareConfig, arguments, "compare")
    gates = [parse_gate(text) for texts in config.fail_if for text in texts]
    if config.out is not None:
        refuse_unwritable_file(config.out, "--out")
    options, audits = parse_options(config.storage_options), audit_pair(config.audit)
    found = compare(open_run_dir(config.a, options), open_run_dir(config.b, options), audits=audits)
    print_lines(_lines(found))
    document = asdict(found)
    if config.out is not None:
        write_named(config.out, document_text(document).encode(), "--out")
    broken = broken_gates(gates, found.audit.metrics if found.audit else [])
    for sentence in broken:
        say(sentence)
    return Outcome(
        status="fail_if" if broken else "done",
        exit_code=3 if broken else 0,
        images=found.tables.images,
        ok=found.tables.images,
        boxes=found.tables.boxes_b,
        out=config.out or config.a,
        error=broken[0] if broken else None,
        document=document,
    )


def _lines(found: Comparison) -> Iterator[str]:
    yield f"A           {found.a}"
    yield f"B           {found.b}"
    for side, progress in found.incomplete.items():
        yield f"            {side} is not complete: {progress}"
    heads = ["settings"] + [""] * len(found.settings)
    for head, (name, (before, after)) in zip(heads, found.settings.items(), strict=False):
        yield f"{head:12}{name}: {shortened(before, MAX_SHOWN)} -> {shortened(after, MAX_SHOWN)}"
    if not found.settings:
        yield "settings    the same"
    yield from _table_lines(found.tables)
    if found.audit is None:
        yield f"audit       none of {' and '.join(found.not_audited)}: no metrics are compared"
    else:
        yield from _audit_lines(found.audit)


def _table_lines(tables: TableChanges) -> Iterator[str]:
    only_a, only_b = tables.images_a - tables.images, tables.images_b - tables.images
    yield f"images      {tables.images} in both, {only_a} only in A, {only_b} only in B"
    for row in tables.statuses:
        yield f"status      {row['images']} {row['status_a']} -> {row['status_b']}"
    if tables.labels_changed:
        yield f"label       {tables.labels_changed} changed"
    if tables.sizes_changed:
        yield f"size        {tables.sizes_changed} pictures have other sizes; their boxes are not compared"
    if tables.class_lists_differ:
        yield "classes     A and B have different lists of classes: neither classes nor boxes can be compared"
        yield f"boxes       {tables.boxes_a} -> {tables.boxes_b}"
        return
    yield f"top class   {tables.top_classes_changed} of {tables.top_classes} changed"
    for row in tables.top_changes:
        yield f"            {row['images']:6} {_shown(row['class_a'])} -> {_shown(row['class_b'])}"
    yield f"boxes       {tables.boxes_a} -> {tables.boxes_b}"
    yield f"best boxes  {tables.box_pairs} in both, {tables.only_a} only in A, {tables.only_b} only in B"
    if tables.mean_iou is not None:
        share = tables.below_half / tables.box_pairs
        yield f"            mean IoU {tables.mean_iou:.3f}; {tables.below_half} ({share:.1%}) below 0.5"
    for row in tables.most_changed:
        yield f"            {row['iou']:6.3f} {_shown(row['image_id'])} ({_shown(row['class_name'])})"


def _audit_lines(audit: AuditChanges) -> Iterator[str]:
    if audit.unpaired:
        yield f"no intervals: {audit.unpaired}"
    width = max((len(metric.metric) for metric in audit.metrics), default=0)
    yield f"{'metric':{width}} {'A':>9} {'B':>9} {'B - A':>9}  95 % interval     images"
    for metric in audit.metrics:
        if metric.a is not None or metric.b is not None:
            why = f"  ({metric.reason})" if metric.reason and metric.reason != audit.unpaired else ""
            yield _metric_line(metric, width) + why
    yield f"correct     {audit.gained} gained, {audit.lost} lost of {audit.images}"
    for sign, rows in (("+", audit.most_gained), ("-", audit.most_lost)):
        for row in rows:
            yield f"          {sign} {_number(row['iou_a'])} -> {_number(row['iou_b'])} {_shown(row['image_id'])}"
    for row in audit.classes:
        moved = f"+{row['gained']} -{row['lost']} of {row['images']}, mean IoU {row['iou_change']:+.3f}"
        yield f"class       {_shown(row['class_name'])}: {moved}"


def _metric_line(metric: Difference, width: int) -> str:
    digits = 2 if metric.unit == "percent" else 4
    a, b = (f"{'-' if value is None else f'{value:.{digits}f}':>9}" for value in (metric.a, metric.b))
    change = "-" if metric.difference is None else f"{metric.difference:+.{digits}f}"
    known = metric.low is not None and metric.high is not None
    interval = f"{metric.low:+.{digits}f} .. {metric.high:+.{digits}f}" if known else "-"
    images = str(metric.images_a) if metric.images_a == metric.images_b else f"{metric.images_a}, {metric.images_b}"
    return f"{metric.metric:{width}} {a} {b} {change:>9}  {interval:16}  {images}"


def _number(value: float | None) -> str:
    return "none " if value is None else f"{value:.3f}"


def _shown(text: str) -> str:
    return shortened(text, MAX_SHOWN)
