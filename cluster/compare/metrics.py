"""How the metrics of two audits differ, with the interval of their replicates' differences."""

import math
from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F64
from cam_ops.metrics.bootstrap import TAILS
from cluster.audit.files import Metric, MetricsFile

DECIMALS = 9  # of a difference: 1.2 - 2.2 is to be -1


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


def differences(
    a: MetricsFile, b: MetricsFile, replicates: tuple[dict[str, F64], dict[str, F64]], unpaired: str | None
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
