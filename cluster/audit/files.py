"""What an audit leaves below RUN/audit: its files' names, who writes them and who reads them.

All can be made again from the run. metrics.json is removed first and written last: where it is, the others are whole.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from cam_ops.arrays import F64
from cam_ops.errors import StorageError
from cluster.audit.tables import PER_IMAGE_SCHEMA
from cluster.runs.directory import RunDir
from cluster.storage.documents import first_reason
from cluster.storage.files import Files
from cluster.storage.parquet import decode, encode, stream

METRICS_FILE = "metrics.json"
PER_IMAGE_FILE = "per_image.parquet"
PER_CLASS_FILE = "per_class.parquet"
BOOTSTRAP_FILE = "bootstrap.parquet"
CURVES_FILE = "curves.parquet"
PICTURE_FILES = {"svg": "curves.svg", "png": "curves.png"}
LABELS_FILE = "labels.csv"
NAMES = (
    METRICS_FILE,
    PER_IMAGE_FILE,
    PER_CLASS_FILE,
    BOOTSTRAP_FILE,
    CURVES_FILE,
    LABELS_FILE,
    *PICTURE_FILES.values(),
)

MAX_METRICS_BYTES = 16 * 2**20
MAX_REPLICATE_ROWS = 10**6
ROWS_PER_BATCH = 2**16


def audit_files(run_dir: RunDir) -> Files:
    """Return the folder of a run's audit."""
    return run_dir.below("audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthContents:
    """What the files hold that only an audit against ground truth leaves."""

    replicates: dict[str, F64]  # bootstrap.parquet: of each figure
    curves: dict[str, F64]  # curves.parquet, see `cam_ops.metrics.figures.curves`
    pictures: dict[str, bytes]  # the curves drawn, by kind: svg, png
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
    for name in NAMES:
        files.remove(name)
    files.publish(PER_IMAGE_FILE, _mapped(contents.per_image))
    files.publish(PER_CLASS_FILE, encode(contents.per_class))
    if contents.truth is not None:
        files.publish(BOOTSTRAP_FILE, encode(pa.table(contents.truth.replicates)))
        files.publish(CURVES_FILE, encode(pa.table(contents.truth.curves)))
        for kind, name in PICTURE_FILES.items():
            files.publish(name, contents.truth.pictures[kind])
        if contents.truth.labels is not None:
            files.publish(LABELS_FILE, _mapped(contents.truth.labels))
    files.publish(METRICS_FILE, json.dumps(contents.metrics, indent=1, allow_nan=False).encode())


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


def read_metrics(files: Files, fingerprint: str) -> MetricsFile | None:
    """Read metrics.json; None where the run of that fingerprint is not audited.

    Raises StorageError for a file that no audit wrote, or that of another run.
    """
    content = files.read(METRICS_FILE, MAX_METRICS_BYTES)
    if content is None:
        return None
    where = files.where(METRICS_FILE)
    try:
        file = TypeAdapter(MetricsFile).validate_json(content, strict=True)
    except ValidationError as error:
        raise StorageError(f"{where} is not an audit's: {first_reason(error)}; run `audit` again") from None
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


def read_per_image(files: Files, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of per_image.parquet, `iou` among them, in the order asked for, so many rows at a time.

    Raises StorageError where the file is none that an audit wrote.
    """
    where = files.where(PER_IMAGE_FILE)
    try:
        with pq.ParquetFile(files.open(PER_IMAGE_FILE)) as file:
            found = file.schema_arrow
            for field in map(PER_IMAGE_SCHEMA.field, columns):
                if found.names.count(field.name) != 1 or found.field(field.name).type != field.type:
                    raise StorageError(f"expected a column {field.name} of {field.type} in {where}; run `audit` again")
            for batch in stream(file, ROWS_PER_BATCH, columns):
                batch.validate(full=True)
                if not pc.all(pc.is_finite(batch["iou"]), min_count=0).as_py():
                    raise StorageError(f"an IoU in {where} is not finite; run `audit` again")
                yield pa.Table.from_batches([batch]).select(columns)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {where}: {error}; run `audit` again") from None
