"""What an audit leaves below RUN/audit: its files' names, who writes them and who reads them.

All can be made again from the run. metrics.json is removed first and written last: where it is, the others are whole.
"""

import mmap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.arrays import F32, F64
from cam_ops.errors import StorageError
from cluster.audit.tables import PER_IMAGE_SCHEMA, TRUE_BOXES_SCHEMA
from cluster.runs.directory import RunDir
from cluster.runs.names import audit_folder
from cluster.runs.reading import corners_of
from cluster.storage.documents import document_bytes, validated
from cluster.storage.files import Files
from cluster.storage.parquet import bounds_of, decode, encode

METRICS_FILE = "metrics.json"
PER_IMAGE_FILE = "per_image.parquet"
PER_CLASS_FILE = "per_class.parquet"
BOOTSTRAP_FILE = "bootstrap.parquet"
CURVES_FILE = "curves.parquet"
PICTURE_FILES = {"svg": "curves.svg", "png": "curves.png"}
LABELS_FILE = "labels.csv"
TRUTH_FILE = "truth.parquet"
NAMES = (
    METRICS_FILE,
    PER_IMAGE_FILE,
    PER_CLASS_FILE,
    BOOTSTRAP_FILE,
    CURVES_FILE,
    LABELS_FILE,
    TRUTH_FILE,
    *PICTURE_FILES.values(),
)

MAX_METRICS_BYTES = 16 * 2**20
MAX_REPLICATE_ROWS = 10**6
MAX_TRUE_BOXES = 10**6  # that are asked for at once
ROWS_PER_BATCH = 2**16

Wanted = Mapping[int, Collection[int]]
"""Rows of images, by shard."""


def audit_files(run_dir: RunDir, name: str | None = None) -> Files:
    """Return the folder of a run's audit, or of that of a name. Raises UsageError for what is no name."""
    return run_dir.below(audit_folder(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthContents:
    """What the files hold that only an audit against ground truth leaves."""

    replicates: dict[str, F64]  # bootstrap.parquet: of each figure
    curves: dict[str, F64]  # curves.parquet, see `cam_ops.metrics.figures.curves`
    pictures: dict[str, bytes]  # the curves drawn, by kind: svg, png
    boxes: Path | None  # truth.parquet: a scratch file, where the truth is not masks alone
    labels: Path | None  # labels.csv: a scratch file, where there are images without a label


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContents:
    """What the files of an audit hold."""

    metrics: dict[str, Any]  # metrics.json
    per_image: Path  # a scratch file, schema PER_IMAGE_SCHEMA, which becomes per_image.parquet
    per_class: pa.Table  # schema PER_CLASS_SCHEMA
    truth: TruthContents | None


def publish_audit(files: Files, contents: AuditContents) -> None:
    """Put an audit in the place of the one before. All is made by then: what fails earlier costs no earlier audit."""
    metrics = document_bytes(contents.metrics, METRICS_FILE)
    for name in NAMES:
        files.remove(name)
    files.publish(PER_IMAGE_FILE, _mapped(contents.per_image))
    files.publish(PER_CLASS_FILE, encode(contents.per_class))
    if contents.truth is not None:
        files.publish(BOOTSTRAP_FILE, encode(pa.table(contents.truth.replicates)))
        files.publish(CURVES_FILE, encode(pa.table(contents.truth.curves)))
        for kind, name in PICTURE_FILES.items():
            files.publish(name, contents.truth.pictures[kind])
        for name, path in ((LABELS_FILE, contents.truth.labels), (TRUTH_FILE, contents.truth.boxes)):
            if path is not None:
                files.publish(name, _mapped(path))
    files.publish(METRICS_FILE, metrics)


def _mapped(path: Path) -> mmap.mmap:
    """Return a file's bytes without reading them into memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of metrics.json."""

    value: float | None
    unit: Literal["percent", "ratio"]
    images: int
    reason: str | None = None  # why there is no value


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsFile:
    """What is read of metrics.json."""

    fingerprint: str  # of the run's request
    metrics: dict[str, Metric]
    settings: dict[str, Any]
    truth: dict[str, Any] | None
    request: dict[str, Any] | None = None  # see `cluster.audit.named`; older ones have none


def read_metrics(files: Files, fingerprint: str) -> MetricsFile | None:
    """Read metrics.json; None where the run of that fingerprint is not audited.

    Raises StorageError for a file that no audit wrote, or that of another run.
    """
    content = files.read(METRICS_FILE, MAX_METRICS_BYTES)
    if content is None:
        return None
    where = files.where(METRICS_FILE)
    try:
        file = validated(MetricsFile, content)
    except ValueError as error:
        raise StorageError(f"{where} is not an audit's: {error}; run `audit` again") from None
    if file.fingerprint != fingerprint:
        raise StorageError(f"{where} is of another run that was here before; run `audit` again")
    return file


def read_replicates(files: Files) -> dict[str, F64]:
    """Return the bootstrap replicates of each metric; raises StorageError where there are none."""
    content, where = files.read(BOOTSTRAP_FILE), files.where(BOOTSTRAP_FILE)
    if content is None:
        raise StorageError(f"{where} is missing, though metrics.json is there; run `audit` again")
    table = decode(content, where, max_rows=MAX_REPLICATE_ROWS)
    if not all(pa.types.is_float64(field.type) for field in table.schema):
        raise StorageError(f"expected columns of float64 in {where}; run `audit` again")
    return {name: table[name].to_numpy() for name in table.column_names}


def read_per_image(files: Files, columns: list[str], wanted: Wanted | None = None) -> Iterator[pa.Table]:
    """Yield some columns of per_image.parquet, `iou` among them, in the order asked for, so many rows at a time.

    Where images are `wanted`, columns `shard` and `row` are among them, too, and little more is read than these.
    Raises StorageError where the file is none that an audit wrote.
    """
    where = files.where(PER_IMAGE_FILE)
    try:
        with pq.ParquetFile(files.open(PER_IMAGE_FILE)) as file:
            found = file.schema_arrow
            for field in map(PER_IMAGE_SCHEMA.field, columns):
                if found.names.count(field.name) != 1 or found.field(field.name).type != field.type:
                    raise StorageError(f"expected a column {field.name} of {field.type} in {where}; run `audit` again")
            for rows in _rows_of(file, columns, wanted):
                if not pc.all(pc.is_finite(rows["iou"]), min_count=0).as_py():
                    raise StorageError(f"an IoU in {where} is not finite; run `audit` again")
                yield rows
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last of a column's name
        raise StorageError(f"cannot read {where}: {error}; run `audit` again") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueBox:
    """A box of the truth."""

    box_4: F32  # half-open pixels of the picture after EXIF orientation
    class_id: int | None
    crowd: bool


def read_truth(files: Files, wanted: Wanted) -> dict[tuple[int, int], list[TrueBox]] | None:
    """Return the true boxes of planned images, by shard and row.

    None where the audit left none: its truth has no boxes, or it is an older one. Images without a box are left out.
    Only the row groups of these shards are read. Raises StorageError where the file is none that an audit wrote.
    """
    if not files.exists(TRUTH_FILE):
        return None
    where = files.where(TRUTH_FILE)
    found: dict[tuple[int, int], list[TrueBox]] = defaultdict(list)
    num_boxes = 0
    try:
        with pq.ParquetFile(files.open(TRUTH_FILE)) as file:
            if not file.schema_arrow.equals(TRUE_BOXES_SCHEMA):
                raise StorageError(f"expected the columns of true boxes in {where}; run `audit` again")
            for rows in _rows_of(file, TRUE_BOXES_SCHEMA.names, wanted):
                num_boxes += len(rows)
                corners_G4 = corners_of(rows)
                if num_boxes > MAX_TRUE_BOXES or not np.isfinite(corners_G4).all():
                    raise StorageError(f"{where} has boxes that cannot be, or too many; run `audit` again")
                names = (rows[name].to_pylist() for name in ("shard", "row", "class_id", "crowd"))
                for shard, row, class_id, crowd, box_4 in zip(*names, corners_G4, strict=True):
                    found[shard, row].append(TrueBox(box_4=box_4, class_id=class_id, crowd=crowd))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last of a column's name
        raise StorageError(f"cannot read {where}: {error}; run `audit` again") from None
    return dict(found)


def _rows_of(file: pq.ParquetFile, columns: list[str], wanted: Wanted | None) -> Iterator[pa.Table]:
    """Yield rows in batches, all or the wanted ones: of row groups that by their statistics have none nothing is read.

    A row group at a time, as `cluster.storage.parquet.stream` does.
    """
    for row_group in range(file.num_row_groups):
        bounds = None if wanted is None else bounds_of(file.metadata, row_group, "shard", int)
        if wanted is not None and bounds and not any(bounds[0] <= shard <= bounds[1] for shard in wanted):
            continue
        for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=[row_group], columns=columns):
            batch.validate(full=True)
            rows = pa.Table.from_batches([batch]).select(columns)
            if wanted is not None:
                keys = zip(rows["shard"].to_pylist(), rows["row"].to_pylist(), strict=True)
                rows = rows.filter(np.array([row in wanted.get(shard, ()) for shard, row in keys], np.bool_))
            yield rows
