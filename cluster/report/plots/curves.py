"""Lines over an axis, each with its name beside a point of it: accuracy over thresholds, precision over recall.

Letters: L points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cam_ops.arrays import F64
from cluster.report.plots.marks import SPACE, axis, drawing, figure, joined, nothing, number, percent, tag

TOP, HEIGHT = 16, 190  # pixels, of the lines
TOTAL = TOP + HEIGHT + 24
WIDTH = 1000  # units across, stretched to the place
MOST_POINTS = 250
APART = 15  # pixels between names
QUARTERS = tuple((place / 4, f"{place / 4:g}") for place in range(5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line with a point of it that is named; x and y are 0..1 of the axes, NaN where there is a gap."""

    name: str
    class_: str  # says how it is drawn
    x_L: F64
    y_L: F64
    named: int | None  # place of the point that bears the name
    is_below: bool = False  # where the name is


def lines_plot(
    title: str,
    says: str,
    lines: Sequence[Line],
    *,
    x_axis: str,
    y_labels: Sequence[tuple[float, str]],
    x_labels: Sequence[tuple[float, str]] = QUARTERS,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Return a plot; `marks` are vertical lines at places along it, with their names."""
    grid = joined(
        part
        for place, label in y_labels
        for part in (
            tag("line", class_="rule", x1="0%", x2="100%", y1=_y(place), y2=_y(place)),
            tag("text", label, class_="label over", x="0%", y=_y(place) - 4),
        )
    )
    drawn = tag(
        "svg",
        *(tag("path", class_=f"curve {line.class_}", d=_path(line)) for line in lines),
        x=0,
        y=TOP,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        class_="lines",
    )
    verticals = joined(
        part
        for place, label in marks
        for part in (
            tag("line", class_="marked", x1=percent(place), x2=percent(place), y1=TOP, y2=TOP + HEIGHT),
            _text(label, place, TOP + HEIGHT - 6, "named"),
        )
    )
    return figure(
        title,
        says,
        drawing(
            f"{title}: {says}: {'; '.join(line.name for line in lines)}",
            TOTAL,
            grid,
            axis(x_labels, TOP + HEIGHT, TOP + HEIGHT),
            verticals,
            drawn,
            _names(lines),
        ),
        tag("p", x_axis, class_="axis-name"),
    )


def _y(place: float) -> float:
    return TOP + HEIGHT * (1 - min(1.0, max(0.0, place)))


def _text(label: str, x: float, y: float, class_: str) -> Markup:
    """Return a text beside a point, on the side where there is room."""
    to_right = x < 0.55
    return tag(
        "text",
        label,
        class_=class_,
        x=percent(x),
        dx=8 if to_right else -8,
        y=y,
        text_anchor="start" if to_right else "end",
    )


def _names(lines: Sequence[Line]) -> Markup:
    """Return a dot at each named point and its name above it; names too close to each other are moved apart."""
    named = [
        (_y(float(line.y_L[line.named])), float(line.x_L[line.named]), line) for line in lines if line.named is not None
    ]
    points = sorted(named, key=lambda point: point[:2])
    parts, last = [], -np.inf
    for y, x, line in points:
        at = max(y + 16.0 if line.is_below else y - 6.0, last + APART, 11.0)
        last = at
        parts.append(tag("circle", class_=f"dot {line.class_}", cx=percent(x), cy=y, r=4))
        parts.append(_text(line.name, x, at, "named"))
    return joined(parts)


def _path(line: Line) -> str:
    """Return some of the line's points, the named one among them, as a path; gaps begin it anew."""
    num_points = len(line.x_L)
    places = np.unique(np.linspace(0, num_points - 1, min(num_points, MOST_POINTS)).round().astype(np.int64))
    if line.named is not None:
        places = np.union1d(places, [line.named])
    path, drawing_ = [], False
    for x, y in zip(line.x_L[places].tolist(), line.y_L[places].tolist(), strict=True):
        if not (np.isfinite(x) and np.isfinite(y)):
            drawing_ = False
            continue
        x_shown, y_shown = WIDTH * min(1, max(0, x)), HEIGHT * (1 - min(1, max(0, y)))
        path.append(f"{'L' if drawing_ else 'M'}{x_shown:.0f} {y_shown:.1f}")
        drawing_ = True
    return "".join(path)


IOUS = {30: "thin", 50: "main", 70: "dashed"}  # and how their lines are drawn
REGIONS = {
    "box_acc": ("Boxes of the largest region", "largest region"),
    "box_acc_v2": ("Boxes of any region", "region that fits best"),
}
PERCENT = ((0.0, ""), (0.5, f"50{SPACE}%"), (1.0, f"100{SPACE}%"))
SHARES = ((0.0, ""), (0.5, "0.5"), (1.0, "1"))


def accuracy_plot(curves: Mapping[str, F64], prefix: str, run_threshold: float | None) -> Markup:
    """Return the accuracy of boxes over the threshold, a line each IoU, the best of each named.

    `run_threshold` is marked; None where it is not of such maps.
    """
    title, regions = REGIONS[prefix]
    lines = []
    for iou, class_ in IOUS.items():
        found = _columns(curves, "threshold", f"{prefix}_{iou}")
        if found is None:
            continue
        threshold_L, percent_L = found
        best = int(np.nanargmax(percent_L))
        name = f"IoU {iou / 100:g}: {number(float(percent_L[best]), 1)}{SPACE}% at {number(float(threshold_L[best]))}"
        lines.append(Line(name=name, class_=class_, x_L=threshold_L, y_L=percent_L / 100, named=best))
    if not lines:
        return nothing(title, "there are no true boxes to hold them against")
    says = f"images with a correct box, of the {regions}, at each threshold; the best of each line is named"
    run_mark = [] if run_threshold is None else [(run_threshold, f"this run: {number(run_threshold)}")]
    return lines_plot(
        title,
        says,
        lines,
        x_axis="threshold, of maps from their least to their highest value",
        y_labels=PERCENT,
        marks=run_mark,
    )


def pixel_plot(curves: Mapping[str, F64]) -> Markup:
    """Return the precision of pixels over their recall; the highest F1 is named."""
    title, found = "Pixels by threshold", _columns(curves, "px_recall", "px_precision")
    if found is None:
        return nothing(title, "there are no true pixels to hold them against")
    recall_L, precision_L = found
    total_L = recall_L + precision_L
    f1_L = np.divide(2 * recall_L * precision_L, total_L, out=np.zeros_like(total_L), where=total_L > 0)
    best = int(np.nanargmax(f1_L))
    threshold_L = curves.get("threshold")
    at = f" at {number(float(threshold_L[best]))}" if threshold_L is not None and best < len(threshold_L) else ""
    name = f"best F1 {number(float(f1_L[best]))}{at}"
    line = Line(name=name, class_="main", x_L=recall_L, y_L=precision_L, named=best, is_below=True)
    says = "precision of pixels over their recall, a point each threshold; the best is named"
    return lines_plot(title, says, [line], x_axis="recall; upwards: precision", y_labels=SHARES)


def _columns(curves: Mapping[str, F64], *names: str) -> tuple[F64, ...] | None:
    """Return columns of one length that have a value somewhere; None where they are not there."""
    found = [curves[name] for name in names if name in curves]
    if len(found) < len(names) or len({len(column) for column in found}) != 1:
        return None
    if not np.isfinite(np.sum(found, axis=0)).any():
        return None
    return tuple(np.where(np.isfinite(np.sum(found, axis=0)), column, np.nan) for column in found)
