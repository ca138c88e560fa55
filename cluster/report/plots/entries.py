"""Entries of metrics.json, a file from outside: what is missing or odd counts as not there, and is never an error."""

from collections.abc import Mapping
from typing import Any

from cluster.report.plots.marks import is_number

MOST = 2**53  # that a count may be
MOST_FIGURES = 100
Entries = Mapping[str, Any]


def entries(found: object) -> Entries:
    """Return what is an object of JSON, else an empty one."""
    return found if isinstance(found, dict) else {}


def whole(found: object) -> int:
    """Return a count, else 0."""
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= MOST else 0


def figures_of(found: object) -> dict[str, Entries]:
    """Return the figures, by name."""
    return {str(key): entry for key, entry in list(entries(found).items())[:MOST_FIGURES] if isinstance(entry, dict)}


def value_of(figures: Mapping[str, Entries], key: str) -> float | None:
    """Return a figure's value; None where it has none."""
    value = figures.get(key, {}).get("value")
    return float(value) if is_number(value) else None
