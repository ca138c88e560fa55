"""Distributions over the run, as histograms: bars, median, quartiles, and a sentence that says them.

`boxes_per_image` has a bin around each whole number; `aspect` is the logarithm of width over height to base 2. The
outer bins of both hold what lies beyond them, too. Letters: N bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cam_ops.arrays import F64, I64
from cluster.report.plots.marks import (
    SPACE,
    axis,
    count,
    drawing,
    figure,
    joined,
    nothing,
    number,
    percent,
    share,
    tag,
    ticks,
)
from cluster.report.records import Histogram

MOST_BARS = 64
FEWEST = 5  # whole numbers shown
BARS_TOP, BARS_HEIGHT = 6, 96  # pixels
STRIP = 10  # from the bars' foot to the marks of the quartiles
HEIGHT = 146
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """How a distribution is told."""

    title: str
    axis: str
    noun: str  # what is counted
    write: Callable[[float], str]
    is_whole: bool = False  # a bin is a number
    is_open: bool = False  # outer bins hold what lies beyond them; empty ones at the ends are not shown


def _decimal(value: float) -> str:
    return number(value)


def _area(value: float) -> str:
    return share(value, 1)


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _aspect(value: float) -> str:
    """Return sides: 2:1 is twice as wide as high."""
    ratio = 2 ** abs(value)
    shown = f"{ratio:.0f}" if abs(ratio - round(ratio)) < 0.005 else f"{ratio:.2f}"
    return f"{shown}:1" if value >= 0 or shown == "1" else f"1:{shown}"


SUBJECTS = {
    "boxes_per_image": Subject(
        title="Boxes an image", axis="boxes", noun="images", write=_whole, is_whole=True, is_open=True
    ),
    "area": Subject(title="Size of boxes", axis="share of the picture", noun="boxes", write=_area),
    "aspect": Subject(title="Shape of boxes", axis="width : height", noun="boxes", write=_aspect, is_open=True),
    "score": Subject(title="Score", axis="probability of the class, by the network", noun="maps", write=_decimal),
    "energy": Subject(title="Energy", axis="share of the map's mass inside the box", noun="boxes", write=_decimal),
    "probability": Subject(
        title="Probability", axis="that the box is right, by calibration", noun="boxes", write=_decimal
    ),
    "peak": Subject(title="Peak", axis="highest value of the map in the box", noun="boxes", write=_decimal),
}


def distributions(histograms: Sequence[Histogram]) -> Markup:
    """Return all distributions, in their order, without probabilities where the run has none."""
    shown = (found for found in histograms if found.name != "probability" or found.counts.any())
    return tag("div", *map(histogram, shown), class_="plots")


def histogram(found: Histogram) -> Markup:
    """Return one distribution; one of nothing says so."""
    subject = SUBJECTS.get(found.name) or Subject(
        title=found.name.replace("_", " "), axis="", noun="values", write=_decimal
    )
    total = int(found.counts.sum())
    if not total:
        return nothing(subject.title, f"no {subject.noun} to count")
    edges_N1, counts_N = _shown_part(found, subject)
    says = _sentence(subject, edges_N1, counts_N, total)
    drawn = joined(
        (
            _bars(subject, edges_N1, counts_N, found),
            _marks(subject, edges_N1, counts_N),
            axis(_labels(subject, edges_N1), BARS_TOP + BARS_HEIGHT + 2 * STRIP, BARS_TOP + BARS_HEIGHT + 2 * STRIP),
        )
    )
    return figure(
        subject.title,
        says,
        drawing(f"{subject.title}, {count(total)} {subject.noun}: {says}", HEIGHT, drawn),
        tag("p", subject.axis, class_="axis-name") if subject.axis else None,
    )


def quantiles(edges_N1: F64, counts_N: I64, is_whole: bool) -> list[float]:
    """Return `QUANTILES` of what was counted: inside a bin as if it were spread evenly, or the bin's whole number."""
    below_N1 = np.concatenate(([0], counts_N.cumsum()))
    found = []
    for quantile in QUANTILES:
        wanted = quantile * below_N1[-1]
        place = min(int(below_N1[1:].searchsorted(wanted)), len(counts_N) - 1)
        low, high = float(edges_N1[place]), float(edges_N1[place + 1])
        inside = (wanted - below_N1[place]) / max(1, counts_N[place])
        found.append((low + high) / 2 if is_whole else low + inside * (high - low))
    return found


def _shown_part(found: Histogram, subject: Subject) -> tuple[F64, I64]:
    """Return edges and counts without the empty ends, where a distribution may go on for long."""
    if not subject.is_open:
        return found.edges, found.counts
    used = np.flatnonzero(found.counts)
    first, last = (0, max(FEWEST, int(used[-1]) + 1)) if subject.is_whole else (int(used[0]), int(used[-1]) + 1)
    return found.edges[first : last + 1], found.counts[first:last]


def _sentence(subject: Subject, edges_N1: F64, counts_N: I64, total: int) -> str:
    p5, p25, median, p75, p95 = map(subject.write, quantiles(edges_N1, counts_N, subject.is_whole))
    half = f"half have {p25}" if p25 == p75 else f"half lie between {p25} and {p75}"
    if subject.is_whole:
        return f"median {median}; {half}; {share(int(counts_N[0]), total)} have none"
    return f"median {median}; {half}; 5{SPACE}% below {p5}, 5{SPACE}% above {p95}"


def _pooled(counts_N: I64) -> tuple[I64, int]:
    """Return counts of so many bins together, that there are few enough bars; bars of one width where that can be."""
    least = -(-len(counts_N) // MOST_BARS)
    together = next((size for size in range(least, 2 * least) if len(counts_N) % size == 0), least)
    return np.add.reduceat(counts_N, np.arange(0, len(counts_N), together)), together


def _bars(subject: Subject, edges_N1: F64, counts_N: I64, found: Histogram) -> Markup:
    """Return a bar a bin, at least a pixel high where there is anything; each says its count."""
    pooled_M, together = _pooled(counts_N)
    highest, total, num_bins = int(pooled_M.max()), int(counts_N.sum()), len(counts_N)
    foot = BARS_TOP + BARS_HEIGHT
    bars = []
    for place, values in enumerate(pooled_M.tolist()):
        first, last = place * together, min((place + 1) * together, num_bins)
        bin_ = _bin(subject, float(edges_N1[first]), float(edges_N1[last]), found)
        height = max(1.0, BARS_HEIGHT * values / highest) if values else 0.0
        x, width = percent(first / num_bins), percent((last - first) / num_bins)
        bars.append(
            tag(
                "g",
                tag("title", f"{bin_}: {count(values)} {subject.noun}, {share(values, total)}"),
                tag("rect", class_="hover", x=x, width=width, y=BARS_TOP, height=BARS_HEIGHT),
                tag("rect", class_="column", x=x, width=width, y=foot - height, height=height),
            )
        )
    return joined(bars)


def _bin(subject: Subject, low: float, high: float, found: Histogram) -> str:
    """Return the name of a bin between two edges."""
    is_first, is_last = low == found.edges[0], high == found.edges[-1]
    if subject.is_whole:
        low, high = low + 0.5, high - 0.5
    if subject.is_open and is_last:
        return f"{subject.write(low)} or more"
    if subject.is_open and is_first and not subject.is_whole:
        return f"{subject.write(high)} or less"
    return subject.write(low) if low == high else f"{subject.write(low)} to {subject.write(high)}"


def _place(value: float, edges_N1: F64) -> float:
    """Return where along the plot, 0..1, a value is; bins are equally wide."""
    return float(np.interp(value, edges_N1, np.linspace(0, 1, len(edges_N1))))


def _marks(subject: Subject, edges_N1: F64, counts_N: I64) -> Markup:
    """Return the median as a dot, the middle half as a thick line, the middle nine tenths as a thin one."""
    y = BARS_TOP + BARS_HEIGHT + STRIP
    p5, p25, median, p75, p95 = (
        percent(_place(value, edges_N1)) for value in quantiles(edges_N1, counts_N, subject.is_whole)
    )
    return joined(
        (
            tag("line", class_="reach", x1=p5, x2=p95, y1=y, y2=y),
            tag("line", class_="middle", x1=p25, x2=p75, y1=y, y2=y),
            tag("circle", class_="median", cx=median, cy=y, r=3.5),
        )
    )


def _labels(subject: Subject, edges_N1: F64) -> list[tuple[float, str]]:
    """Return a few places along the plot, 0..1, and what they are called."""
    low, high = float(edges_N1[0]), float(edges_N1[-1])
    wanted = ticks(low, high, 6 if subject.is_whole else 5)
    if subject.is_whole or subject.write is _aspect:
        wanted = [value for value in wanted if value == round(value)] or [float(np.ceil(low))]
    return [(_place(value, edges_N1), subject.write(value)) for value in wanted]
