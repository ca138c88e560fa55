"""The figures of an audit as tables: value, interval, and what they are held against."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cluster.process.console import shortened
from cluster.report.plots.entries import Entries, entries, figures_of, value_of, whole
from cluster.report.plots.intervals import Reference, whiskers
from cluster.report.plots.marks import (
    MISSING,
    MOST_CHARACTERS,
    SPACE,
    count,
    heads,
    is_number,
    joined,
    name,
    number,
    tag,
)
from cluster.report.plots.words import MEANINGS, SLICES

FIRST = (
    "gt_known_loc",
    "top1_loc",
    "mean_best_iou",
    "max_box_acc",
    "max_box_acc_v2",
    "box_acc_calibrated",
    "box_acc_oracle",
    "ap",
    "px_ap",
    "px_ap_box_filled",
    "centre_box",
    "whole_image",
)
BASELINES = {"centre_box": ("centre", "a box in the middle"), "whole_image": ("whole", "the whole picture")}
HELD_AGAINST = {  # which of the baselines a figure is held against, by their ending
    **dict.fromkeys(("gt_known_loc", "top1_loc", "top5_loc", "corloc", "max_box_acc", "max_box_acc_v2_50"), ""),
    **dict.fromkeys(("box_acc_calibrated", "box_acc_oracle"), ""),
    "max_box_acc_v2_30": "_30",
    "max_box_acc_v2_70": "_70",
    **dict.fromkeys(("max_box_acc_v2", "box_acc_v2_calibrated"), "_v2"),
}
OF_SLICES = ("gt_known_loc", "mean_best_iou", "centre_box")
PERCENT = (0.0, 100.0)


def first_figures(figures: dict[str, Entries]) -> Markup:
    """Return a sentence on the boxes as written, and the figures that most ask for."""
    best, centre = value_of(figures, "gt_known_loc"), value_of(figures, "centre_box")
    says = None
    if best is not None and centre is not None:
        verdict = "more than" if best > centre else "no more than"
        says = tag(
            "p",
            f"Of the boxes as written {number(best, 1)}{SPACE}% are right, {verdict} the {number(centre, 1)}{SPACE}% "
            "of a box that is put in the middle without looking.",
        )
    shown = [
        key for key in FIRST if key in figures and (value_of(figures, key) is not None or key in ("gt_known_loc", "ap"))
    ]
    return joined((tag("h3", "Figures"), says, _figures_table(figures, shown), _legend()))


def all_figures(figures: dict[str, Entries]) -> Markup:
    """Return all figures, folded."""
    summary = tag("summary", f"All {len(figures)} figures")
    return tag("details", summary, _figures_table(figures, list(figures)))


def _legend() -> Markup:
    keys = (*BASELINES.values(), ("whisker", f"95{SPACE}% interval"))
    return tag(
        "ul",
        *(tag("li", tag("span", class_=f"swatch {class_}"), f" {says}") for class_, says in keys),
        class_="keys",
    )


def _figures_table(figures: Mapping[str, Entries], keys: Sequence[str]) -> Markup:
    titles = (
        ("figure", None),
        ("value", "number"),
        ("0 to 100", "wide"),
        (f"95{SPACE}% interval", "number"),
        ("images", "number images"),
    )
    return tag(
        "table",
        heads(*titles),
        tag("tbody", *(_figure_row(figures, key) for key in keys)),
        class_="figures",
        role="table",
    )


def _figure_row(figures: Mapping[str, Entries], key: str) -> Markup:
    figure, value = figures[key], value_of(figures, key)
    meaning = "; ".join(words for words in (MEANINGS.get(key), _threshold(figure)) if words)
    title = tag("th", tag("code", name(key)), " ", tag("small", meaning) if meaning else None, scope="row")
    if value is None:
        reason = figure.get("reason")
        return tag(
            "tr", title, tag("td", name(str(reason)) if reason else "no reason is given", colspan=4, class_="reason")
        )
    is_percent = figure.get("unit") == "percent"
    unit = f"{SPACE}%" if is_percent else ""
    digits = 1 if is_percent else 2
    interval = interval_of(figure)
    written = MISSING if interval is None else f"{number(interval[0], digits)} \u2013 {number(interval[1], digits)}"
    says = f"{shortened(key, MOST_CHARACTERS)} {number(value, digits)}{unit}" + (
        "" if interval is None else f", between {written.replace(MISSING, 'and')}"
    )
    drawn = whiskers(says, value, interval, PERCENT, _references(figures, key)) if is_percent else None
    return tag(
        "tr",
        title,
        tag("td", number(value, digits), class_="number"),
        tag("td", drawn, class_="wide"),
        tag("td", written, class_="number"),
        tag("td", count(whole(figure.get("images"))), class_="number images"),
    )


def interval_of(figure: Entries) -> tuple[float, float] | None:
    """Return a figure's interval, its lower end first."""
    low, high = figure.get("low"), figure.get("high")
    if not (is_number(low) and is_number(high)):
        return None
    return float(min(low, high)), float(max(low, high))


def _threshold(figure: Entries) -> str | None:
    """Return the threshold that was chosen, or those of the three IoUs."""
    found = figure.get("threshold")
    values = [value for value in (found if isinstance(found, list) else [found]) if is_number(value)]
    return f"at {', '.join(number(value) for value in values[:3])}" if values else None


def _references(figures: Mapping[str, Entries], key: str) -> list[Reference]:
    ending = HELD_AGAINST.get(key)
    if ending is None:
        return []
    found = ((class_, says, value_of(figures, baseline + ending)) for baseline, (class_, says) in BASELINES.items())
    return [Reference(class_=class_, says=says, value=value) for class_, says, value in found if value is not None]


def slices(metrics: Entries) -> Markup | None:
    """Return figures by size and number of objects; None where there are none."""
    rows = []
    for key, says in SLICES.items():
        figures = figures_of(entries(metrics.get("slices")).get(key))
        cells = [_slice_cell(figures, figure) for figure in OF_SLICES]
        if any(cell is not None for cell in cells):
            images = max(whole(figure.get("images")) for figure in figures.values())
            rows.append(
                tag(
                    "tr",
                    tag("th", key.replace("_", " "), " ", tag("small", says) if says else None, scope="row"),
                    tag("td", count(images), class_="number images"),
                    *(tag("td", cell or MISSING, class_="wide") for cell in cells),
                )
            )
    if not rows:
        return None
    titles = heads(("objects", None), ("images", "number images"), *((figure, "wide") for figure in OF_SLICES))
    table = tag("table", titles, tag("tbody", *rows), class_="figures slices")
    return joined((tag("h3", "By size and number of objects"), table))


def _slice_cell(figures: Mapping[str, Entries], key: str) -> Markup | None:
    value = value_of(figures, key)
    if value is None:
        return None
    says = f"{key} {number(value, 1)}{SPACE}%"
    drawn = whiskers(says, value, interval_of(figures[key]), PERCENT)
    return tag("div", tag("small", key, class_="narrow"), tag("span", number(value, 1), class_="number"), drawn)
