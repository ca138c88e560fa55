"""Grids in steps of colour: where boxes lie, what maps look like on average.

Steps are classes `s0` to `s9` of `page/plots.css`, evenly apart to the eye; 0 is for what is nothing alone. Letters:
h, w a grid, G the side of a density.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from cam_ops.arrays import F64, I64
from cluster.report.plots.marks import SPACE, count, counted, drawing, figure, joined, nothing, number, share, tag
from cluster.report.records import ClassRow

STEPS = 10
SCALE_CELL = 10  # pixels
THIRDS = (("top", "middle", "bottom"), ("left", "centre", "right"))


def steps_of(values_hw: F64 | I64, most: float) -> I64:
    """Return the step of each value, 0 to 9: ninths of `most`, each value in the one that it lies in, 0 alone in 0."""
    if not most > 0:
        return np.zeros(values_hw.shape, np.int64)
    return np.clip(np.ceil(np.nan_to_num(values_hw / most) * (STEPS - 1) - 1e-9), 0, STEPS - 1).astype(np.int64)


def places(density_GG: I64, boxes: int, classes: Sequence[ClassRow], classes_total: int) -> Markup:
    """Return where boxes lie and where maps are high, side by side."""
    return tag("div", where_boxes_lie(density_GG, boxes), mean_map(classes, classes_total), class_="plots")


def where_boxes_lie(density_GG: I64, boxes: int) -> Markup:
    """Return how many of a run's boxes cover each part of the picture."""
    title, most = "Where boxes lie", int(density_GG.max(initial=0))
    if not most:
        return nothing(title, "no boxes to count")
    says = (
        f"how many of {counted(boxes, 'box', 'boxes')} cover each part of the picture; at most {count(most)} "
        f"({share(most, boxes)}), at the {_place_of_most(density_GG)}"
    )
    return _heat(title, says, density_GG, most, lambda value: f"{count(value)} boxes")


def mean_map(classes: Sequence[ClassRow], classes_total: int) -> Markup:
    """Return the mean of all maps, each over its peak, from the means of the classes."""
    title = "Mean map"
    known = [(row.mean_map, row.maps) for row in classes if row.mean_map is not None and row.maps > 0]
    known = [
        (map_hw, maps) for map_hw, maps in known if map_hw.shape == known[0][0].shape and np.isfinite(map_hw).all()
    ]
    if not known:
        return nothing(title, "no maps to average")
    mean_hw = np.average([map_hw for map_hw, _ in known], axis=0, weights=[maps for _, maps in known])
    most = float(mean_hw.max())
    of = "" if len(classes) == classes_total else f" of the {count(len(classes))} classes with the most"
    says = (
        f"all maps{of} over their peaks, averaged; highest at the {_place_of_most(mean_hw)}, where it is {number(most)}"
    )
    return _heat(title, says, mean_hw, most, number)


def _heat(title: str, says: str, values_hw: F64 | I64, most: float, write: Callable[[float], str]) -> Markup:
    steps_hw = steps_of(values_hw, most)
    height, width = steps_hw.shape
    says_of = [_range(step, most, write) for step in range(STEPS)]
    cells = tag(
        "svg",
        *(
            tag("path", tag("title", says_of[step]), class_=f"s{step}", d=path)
            for step in range(STEPS)
            if (path := _cells(steps_hw, step))
        ),
        class_="heat",
        role="img",
        aria_label=f"{title}: {says}",
        viewBox=f"0 0 {width} {height}",
        focusable="false",
    )
    return figure(title, says, cells, _scale(most, write, says_of))


def _range(step: int, most: float, write: Callable[[float], str]) -> str:
    low, high = (most * part / (STEPS - 1) for part in (step - 1, step))
    return "none" if step == 0 else f"{write(low)} to {write(high)}"


def _cells(steps_hw: I64, step: int) -> str:
    """Return the cells of one step as a path: a rectangle for each run of them in a row."""
    parts = []
    for y, row_w in enumerate((steps_hw == step).tolist()):
        ends = np.flatnonzero(np.diff([0, *map(int, row_w), 0])).reshape(-1, 2).tolist()
        parts += [f"M{first} {y}h{last - first}v1h{first - last}z" for first, last in ends]
    return "".join(parts)


def _scale(most: float, write: Callable[[float], str], says_of: list[str]) -> Markup:
    """Return the steps in a row, and what the outermost mean."""
    cells = [
        tag(
            "rect",
            tag("title", says_of[step]),
            class_=f"s{step}",
            x=f"{100 * step // STEPS}%",
            width="10%",
            y=0,
            height=SCALE_CELL,
        )
        for step in range(STEPS)
    ]
    labels = (("0%", "start", "0"), ("100%", "end", write(most)))
    words = [
        tag("text", label, class_="label", x=x, y=SCALE_CELL + 15, text_anchor=anchor) for x, anchor, label in labels
    ]
    return drawing(f"colours from 0 to {write(most)}", SCALE_CELL + 20, joined(cells), *words, class_="scale")


def _place_of_most(values_hw: F64 | I64) -> str:
    """Return in words in which ninth of the picture the highest values lie."""
    at = np.argwhere(values_hw == values_hw.max()).mean(0) + 0.5
    row, column = (
        names[min(2, math.floor(3 * place / side))]
        for names, place, side in zip(THIRDS, at, values_hw.shape, strict=True)
    )
    if row == "middle":
        return "centre" if column == "centre" else f"middle{SPACE}{column}"
    return f"{row}{SPACE}{column}"


def thumbnail(values_hw: F64 | I64 | None, says: str, side: int) -> Markup | None:
    """Return a small grid as a canvas that `page/thumbnails.js` paints: a digit a cell, at most side x side cells."""
    if values_hw is None or not np.isfinite(values_hw).all() or not (values_hw > 0).any():
        return None
    small_hw = pooled(values_hw.astype(np.float64), side)
    digits = "".join(map(str, steps_of(small_hw, float(small_hw.max())).ravel().tolist()))
    height, width = small_hw.shape
    return tag("canvas", role="img", aria_label=says, class_="thumbnail", width=width, height=height, data_steps=digits)


def pooled(values_hw: F64, side: int) -> F64:
    """Return means over blocks of whole cells, so that no side is longer; what is smaller stays."""
    rows, columns = (np.arange(0, length, -(-length // side)) for length in values_hw.shape)
    sums_hw = np.add.reduceat(np.add.reduceat(values_hw, rows, axis=0), columns, axis=1)
    sizes = [
        np.diff([*starts.tolist(), length]) for starts, length in zip((rows, columns), values_hw.shape, strict=True)
    ]
    return sums_hw / np.outer(*sizes)
