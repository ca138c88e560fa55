"""What an audit adds to a report: its figures, the images that are worst, and of shown ones IoU, failure, true boxes.

per_image.parquet is streamed; memory holds the picks.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import F64
from cam_ops.errors import StorageError
from cam_ops.metrics.bootstrap import image_seeds
from cam_ops.metrics.localization import FAILURES
from cluster.audit.files import (
    CURVES_FILE,
    MAX_METRICS_BYTES,
    METRICS_FILE,
    PER_CLASS_FILE,
    TrueBox,
    read_per_image,
)
from cluster.audit.named import find_audit
from cluster.audit.tables import PER_CLASS_SCHEMA
from cluster.display.audited import read_audited
from cluster.display.choosing import Place
from cluster.process.console import say
from cluster.report.cards import corners_in
from cluster.report.galleries import BY_CHANCE, Found, GalleryKind, nothing_found, pick
from cluster.report.records import AuditPart, Truth
from cluster.runs.directory import RunDir
from cluster.runs.part import Part
from cluster.runs.record import Run
from cluster.storage.documents import validated
from cluster.storage.files import Files
from cluster.storage.parquet import decode

MAX_CURVE_ROWS = 10**5
_MEANS = {
    "unreachable": "No box in what the network saw would have IoU 0.5 with a true one.",
    "wrong_class": "The best box is right, but another class scores best.",
    "several_in_one": "The best box holds at least half of several true boxes.",
    "too_large": "The best box holds at least half of a true box, and is too large.",
    "part": "The best box lies at least half inside a true box: a head for a dog.",
    "missed": "No box, or one that lies elsewhere.",
}
WORST = "worst"
JUDGED_KINDS = (
    GalleryKind(
        key=WORST, title="Worst against truth", says="The lowest IoU of the best box with a true one.", orders_all=True
    ),
    *(
        GalleryKind(key=key, title=f"Failure: {key.replace('_', ' ')}", says=f"{_MEANS[key]} {BY_CHANCE}")
        for key in FAILURES
    ),
)
CLASS_COLUMNS = pa.schema([PER_CLASS_SCHEMA.field(name) for name in ("class_id", "gt_known_loc", "ap")])
COLUMNS = ["image_id", "shard", "row", "iou", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFigure:
    """One figure of metrics.json."""

    value: float | None
    unit: Literal["percent", "ratio"]
    images: int
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    reason: str | None = None  # why there is no value
    note: str | None = None
    threshold: float | list[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDocument:
    """What the page takes of metrics.json."""

    images: int
    audited: int
    truth: dict[str, Any] | None  # its path, and how it was read
    settings: dict[str, Any]
    excluded: dict[str, int]
    failures: dict[str, int]
    metrics: dict[str, AuditFigure]
    slices: dict[str, dict[str, AuditFigure]]
    signals: dict[str, int | dict[str, float | None]]
    unlabelled: dict[str, Any] | None = None  # older audits have neither
    suspected_shortcuts: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedClass:
    """Figures of one class, in percent."""

    gt_known_loc: float | None
    ap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What an audit adds."""

    part: AuditPart
    found: dict[str, Found]  # worst, and each kind of failure
    classes: dict[int, AuditedClass]


def read_judged(
    run_dir: RunDir, run: Run, part: Part, most: int, name: str | None = None
) -> tuple[Judged | None, tuple[str, ...]]:
    """Read the audit of a run, or that of a name; each gallery keeps `most` images. Also returns what is lacking.

    One that cannot be read is said, and is as none: it can be made again.
    """
    try:
        return _read(run_dir, run, part, most, name), ()
    except StorageError as error:
        note = f"without the audit: {error}"
        say(note)
        return None, (note,)


def _read(run_dir: RunDir, run: Run, part: Part, most: int, name: str | None) -> Judged | None:
    files, metrics = find_audit(run_dir, run, name)
    if metrics is None:
        return None
    content = files.read(METRICS_FILE, MAX_METRICS_BYTES) or b""
    try:
        document = validated(AuditDocument, content)
    except ValueError as error:
        where = files.where(METRICS_FILE)
        raise StorageError(f"{where} is not an audit's: {error}; run `audit` again") from None
    audited = AuditPart(metrics=asdict(document), curves=_curves(files))
    found = {key: nothing_found(most) for key in (WORST, *FAILURES)} if document.truth else {}
    for table in read_per_image(files, COLUMNS) if found else ():
        table = table.filter(pc.is_in(table["shard"], pa.array(part.shards, pa.int32())))
        for key, of_part in _find(table, most).items():
            found[key] += of_part
    return Judged(part=audited, found=found, classes=_classes(files))


def _curves(files: Files) -> dict[str, F64]:
    content = files.read(CURVES_FILE)
    if content is None:
        return {}
    table = decode(content, files.where(CURVES_FILE), max_rows=MAX_CURVE_ROWS)
    columns = zip(table.schema, table.columns, strict=True)
    return {field.name: column.to_numpy() for field, column in columns if pa.types.is_float64(field.type)}


def _classes(files: Files) -> dict[int, AuditedClass]:
    content, where = files.read(PER_CLASS_FILE), files.where(PER_CLASS_FILE)
    if content is None:
        return {}
    table = decode(content, where, [field.name for field in CLASS_COLUMNS])
    if not table.schema.equals(CLASS_COLUMNS):
        raise StorageError(f"{where} has not the columns of an audit; run `audit` again")
    return {row["class_id"]: AuditedClass(gt_known_loc=row["gt_known_loc"], ap=row["ap"]) for row in table.to_pylist()}


def _find(table: pa.Table, most: int) -> dict[str, Found]:
    """Return the worst of some rows of per_image.parquet, and those of each failure."""
    table = table.filter(pc.is_valid(table["iou"]))
    hash_N = image_seeds(table["image_id"].to_pylist())
    shard_N, row_N = (table[name].to_numpy().astype(np.int64) for name in ("shard", "row"))
    ranks = {WORST: -table["iou"].to_numpy().astype(np.float64)}
    for failure in FAILURES:
        is_it_N = pc.fill_null(pc.equal(table["failure"], failure), False).to_numpy()
        ranks[failure] = np.where(is_it_N, 0.0, np.nan)
    return {
        key: Found(total=int((~np.isnan(rank_N)).sum()), picks=pick(rank_N, hash_N, shard_N, row_N, most), most=most)
        for key, rank_N in ranks.items()
    }


def truths_of(run_dir: RunDir, run: Run, places: Collection[Place], name: str | None) -> dict[Place, tuple[str, Truth]]:
    """Return what the audit knows of images, and their ids there; those of which it knows nothing are left out."""
    audited = read_audited(run_dir, run, places, name)
    return {place: (row["image_id"], _truth(row, audited.truth.get(place, []))) for place, row in audited.rows.items()}


def _truth(row: dict[str, Any], boxes: list[TrueBox]) -> Truth:
    return Truth(
        class_id=row["true_class"],
        boxes=tuple(corners_in(box.box_4) for box in boxes if not box.crowd),
        iou=row["iou"],
        failure=row["failure"],
    )
