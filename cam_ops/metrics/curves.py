"""Draw an audit's threshold curves as SVG and PNG: correct boxes over thresholds, and pixel precision over recall.

The same curves give the same bytes with one version of matplotlib, which only this module imports. Letters: L
thresholds.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cam_ops.arrays import F64
from cam_ops.foreign import visible

COLOURS = {30: "#0072B2", 50: "#D55E00", 70: "#009E73"}  # of Okabe and Ito, told apart by colour-blind readers
REGIONS = {  # name, line width, opacity: the two often coincide, so a broad pale line lies below a narrow one
    "box_acc_v2": ("any region", 4.0, 0.3),
    "box_acc": ("largest region", 1.3, 1.0),
}
GREY = "#666666"
LEGEND: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}  # below the panel
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "camray",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # matplotlib brings it
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def draw_curves(curves: Mapping[str, F64], name: str) -> dict[str, bytes]:
    """Return the curves as the bytes of an `svg` and of a `png`; `name` stands above them.

    `curves` has `threshold`, `box_acc_30`, `_50`, `_70`, `box_acc_v2_30`, `_50`, `_70` (percent), `px_precision` and
    `px_recall` (0..1), all (L,). What is missing or NaN throughout is not drawn; without boxes, or without
    pixels, there is one panel. The best threshold of each curve is marked, the first of equals.
    """
    draw = [_draw_boxes] if any(_is_known(curves, name) for name in curves if name.startswith("box_acc")) else []
    draw += [_draw_pixels] if _is_known(curves, "px_precision") and _is_known(curves, "px_recall") else []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10 if len(draw) > 1 else 5.6, 4.6), layout="constrained")
        figure.suptitle(visible(name), fontsize=11)
        for number, draw_panel in enumerate(draw, start=1):
            draw_panel(figure.add_subplot(1, len(draw), number), curves)
        return {kind: _saved(figure, kind) for kind in ("svg", "png")}


def _is_known(curves: Mapping[str, F64], name: str) -> bool:
    return name in curves and bool(np.isfinite(curves[name]).any())


def _draw_boxes(axes: Axes, curves: Mapping[str, F64]) -> None:
    threshold_L = curves["threshold"]
    for prefix, (regions, width, opacity) in REGIONS.items():
        for iou, colour in COLOURS.items():
            if not _is_known(curves, f"{prefix}_{iou}"):
                continue
            percent_L = curves[f"{prefix}_{iou}"]
            best = int(np.nanargmax(percent_L))
            label = f"IoU {iou / 100}, {regions}: {percent_L[best]:.1f} at {threshold_L[best]:.2f}"
            axes.plot(threshold_L, percent_L, color=colour, label=label, linewidth=width, alpha=opacity)
            axes.plot(threshold_L[best], percent_L[best], "o", color=colour, markersize=4.5)
    axes.set(
        xlim=(0, 1), ylim=(0, 100), xlabel="threshold, share of the map's peak", ylabel="images with a correct box, %"
    )
    axes.set_title("Boxes by threshold")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=2,
        title="best of each curve, % at threshold",
        title_fontsize=8,
    )


def _draw_pixels(axes: Axes, curves: Mapping[str, F64]) -> None:
    precision_L, recall_L = curves["px_precision"], curves["px_recall"]
    total_L = precision_L + recall_L
    f1_L = np.divide(2 * precision_L * recall_L, total_L, out=np.zeros_like(total_L), where=total_L > 0)
    best = int(np.nanargmax(f1_L))
    axes.plot(recall_L, precision_L, color=COLOURS[30], label="precision over recall")
    label = f"best F1: {f1_L[best]:.3f} at {curves['threshold'][best]:.2f}"
    axes.plot(recall_L[best], precision_L[best], "o", color=COLOURS[30], markersize=4.5, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), title="Pixels by threshold")
    axes.set(xlabel="recall of object pixels", ylabel="precision of object pixels")
    axes.legend(**LEGEND)


def _saved(figure: Figure, kind: str) -> bytes:
    """Draw without the date and the version that matplotlib would add."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
