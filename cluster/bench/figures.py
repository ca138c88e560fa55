"""Figures as they are printed: the median, the lowest and the highest of some rounds."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]


def two_clocks(rates: list[tuple[float, float]]) -> Figure:
    """Return rates by the clock and by the processor's time."""
    by_clock, by_cpu = zip(*rates, strict=True)
    return {"by the clock": spread(by_clock), "of the processor's time": spread(by_cpu)}


def spread(values: Sequence[float]) -> str:
    """Return the median with the lowest and the highest value, three digits each."""
    return f"{_digits(statistics.median(values))} ({_digits(min(values))}-{_digits(max(values))})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or math.isnan(value) else f"{value:.3g}"
