"""What an audit left below OUT/audit/: its metrics, their bootstrap replicates, and how two audits' metrics differ."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from cam_ops.arrays import F64
from cam_ops.bootstrap import TAILS
from cam_ops.errors import StorageError
from cluster.documents import first_reason
from cluster.parquet import decode
from cluster.rundir import RunDir

METRICS, BOOTSTRAP, PER_IMAGE = "audit/metrics.json", "audit/bootstrap.parquet", "audit/per_image.parquet"
MAX_METRICS_BYTES = 16 * 2**20
MAX_REPLICATE_ROWS = 10**6
DECIMALS = 9  # of a difference: 1.2 - 2.2 is to be -1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric in two audits; percentages differ by points."""

    metric: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None  # B - A
    low: float | None  # 2.5 and 97.5 percentiles of the paired differences
    high: float | None
    images_a: int
    images_b: int
    reason: str | None  # why a difference or its interval is missing


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


def differences(
    a: AuditFile, b: AuditFile, replicates: tuple[dict[str, F64], dict[str, F64]], unpaired: str | None
) -> list[Difference]:
    """Return how each metric differs, in the order of A, then those of B alone; `unpaired` says why not to pair."""
    found = []
    for name in [*a.metrics, *(name for name in b.metrics if name not in a.metrics)]:
        present = a.metrics.get(name) or b.metrics[name]
        absent = Metric(value=None, unit=present.unit, images=0, reason="its audit has no such metric")
        pair = a.metrics.get(name, absent), b.metrics.get(name, absent)
        found.append(_difference(name, *pair, replicates, unpaired))
    return found


def _difference(
    name: str, a: Metric, b: Metric, replicates: tuple[dict[str, F64], dict[str, F64]], unpaired: str | None
) -> Difference:
    value_a, value_b = _value(a), _value(b)
    difference = low = high = None
    if value_a is None or value_b is None:
        side, without = ("A", a) if value_a is None else ("B", b)
        reason: str | None = f"it has no value in {side}: {without.reason or 'no reason is given'}"
    elif a.unit != b.unit:
        reason = f"it is a {a.unit} in A and a {b.unit} in B"
    else:
        difference, reason = round(value_b - value_a, DECIMALS), unpaired
        if reason is None:
            low, high, reason = _interval(*(side.get(name) for side in replicates))
    return Difference(
        metric=name,
        unit=a.unit,
        a=value_a,
        b=value_b,
        difference=difference,
        low=low,
        high=high,
        images_a=a.images,
        images_b=b.images,
        reason=reason,
    )


def _value(metric: Metric) -> float | None:
    return metric.value if metric.value is not None and math.isfinite(metric.value) else None


def _interval(a_B: F64 | None, b_B: F64 | None) -> tuple[float | None, float | None, str | None]:
    if a_B is None or b_B is None:
        return None, None, f"the audit of {'A' if a_B is None else 'B'} has no bootstrap replicates of it"
    if len(a_B) != len(b_B):
        return None, None, f"A has {len(a_B)} bootstrap replicates and B has {len(b_B)}; audit both with as many"
    change_B = (b_B - a_B)[np.isfinite(b_B - a_B)]
    if not len(change_B):
        return None, None, "it is undefined in every bootstrap replicate"
    low, high = np.percentile(change_B, TAILS)
    return round(float(low), DECIMALS), round(float(high), DECIMALS), None
