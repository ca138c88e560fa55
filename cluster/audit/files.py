"""What an audit left below OUT/audit/: its metrics, their bootstrap replicates, and how two audits' metrics differ."""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from cam_ops.arrays import F64
from cam_ops.errors import StorageError
from cluster.runs.directory import RunDir
from cluster.storage.documents import first_reason
from cluster.storage.parquet import decode

METRICS, BOOTSTRAP, PER_IMAGE = "audit/metrics.json", "audit/bootstrap.parquet", "audit/per_image.parquet"
MAX_METRICS_BYTES = 16 * 2**20
MAX_REPLICATE_ROWS = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of metrics.json."""

    value: float | None
    unit: Literal["percent", "ratio"]
    images: int
    reason: str | None = None  # why there is no value


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFile:
    """What is read of metrics.json."""

    fingerprint: str  # of the run's request
    metrics: dict[str, Metric]
    settings: dict[str, Any]


def read_audit(run_dir: RunDir, fingerprint: str) -> AuditFile | None:
    """Read metrics.json; None where the run of that fingerprint is not audited.

    Raises StorageError for a file that no audit wrote, or that of another run.
    """
    content = run_dir.read(METRICS, MAX_METRICS_BYTES)
    if content is None:
        return None
    try:
        file = TypeAdapter(AuditFile).validate_json(content, strict=True)
    except ValidationError as error:
        reason = first_reason(error)
        raise StorageError(f"{run_dir.where(METRICS)} is not an audit's: {reason}; run `audit` again") from None
    if file.fingerprint != fingerprint:
        raise StorageError(f"{run_dir.where(METRICS)} is of another run that was here before; run `audit` again")
    return file


def read_replicates(run_dir: RunDir) -> dict[str, F64]:
    """Return the bootstrap replicates of each metric; raises StorageError where there are none."""
    content, where = run_dir.read(BOOTSTRAP), run_dir.where(BOOTSTRAP)
    if content is None:
        raise StorageError(f"{where} is missing, though metrics.json is there; run `audit` again")
    table = decode(content, where, max_rows=MAX_REPLICATE_ROWS)
    if not all(pa.types.is_float64(field.type) for field in table.schema):
        raise StorageError(f"expected columns of float64 in {where}; run `audit` again")
    return {name: table[name].to_numpy() for name in table.column_names}
