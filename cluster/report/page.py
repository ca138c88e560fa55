"""Records to one HTML file that needs nothing else: no network, no other file.

Foreign text, such as names of files and classes, reaches it through `visible` and jinja2's escaping, or, in the data
for its script, through `visible` and JSON that has no `<`; the script shows it by `textContent` alone. A
Content-Security-Policy names the one script and the one style by their hashes and allows nothing else.
"""

import base64
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from cam_ops.foreign import visible
from cam_ops.metrics.signals import WHOLE_IMAGE
from cluster.report.colours import heat_colours
from cluster.report.plots.audit import audit_part
from cluster.report.plots.classes import class_table
from cluster.report.plots.comparison import comparison_part
from cluster.report.plots.heat import places
from cluster.report.plots.histograms import distributions
from cluster.report.plots.speed import speed_part
from cluster.report.records import Card, Gallery, Report, Setting, ShownMap

MARK = Markup('<meta name="generator" content="camray report">')
FOLDER = Path(__file__).with_name("page")
STYLES = ("page.css", "pictures.css", "plots.css")
SCRIPTS = (
    "maps.js",
    "boxes.js",
    "state.js",
    "figures.js",
    "gallery.js",
    "bar.js",
    "viewer.js",
    "tables.js",
    "thumbnails.js",
    "start.js",
)


def render(report: Report) -> str:
    """Return the page; its text has no lone surrogate, so that it can be written as UTF-8."""
    style, script = _source(STYLES), Markup(f"(() => {{\n{_source(SCRIPTS)}}})();")  # noqa: S704 (our own files)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            mark=MARK,
            report=report,
            head=report.head,
            setting=report.setting,
            galleries=_galleries(report),
            policy=_policy(style, script),
            style=style,
            script=script,
            sections=tuple(_sections(report)),
            state=htmlsafe_json_dumps(_state(report), allow_nan=False, separators=(",", ":")),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page below the pictures."""

    key: str  # its address in the page
    title: str
    content: Markup


def _sections(report: Report) -> Iterator[Section]:
    if report.against:
        yield Section(key="compared", title="Two runs", content=comparison_part(report.against.comparison))
    if report.audit:
        yield Section(key="audit", title="Audit", content=audit_part(report.audit))
    boxes = report.head.boxes
    plots = distributions(report.histograms), places(report.density, boxes, report.classes, report.classes_total)
    yield Section(key="plots", title="Distributions", content=Markup().join(plots))
    yield Section(key="classes", title="Classes", content=class_table(report.classes, report.classes_total))
    yield Section(key="speed", title="Speed", content=speed_part(report.history, report.head.done))


def _environment() -> Environment:
    """Return jinja2 that escapes all, refuses what is not there, and passes all text through `visible`."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["score"] = lambda number: "-" if _number(number) is None else f"{number:.2f}"
    environment.filters["rate"] = lambda number: f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
    environment.filters["address"] = _address
    environment.filters["rebox"] = _rebox
    return environment


def _source(names: tuple[str, ...]) -> Markup:
    return Markup("".join((FOLDER / name).read_text(encoding="utf-8") for name in names))  # noqa: S704 (our own files)


def _policy(style: str, script: str) -> str:
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "form-action 'none'; base-uri 'none'"
    )


def _address(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def _rebox(line: str, setting: Setting) -> str:
    """Fill a line of `rebox` with a setting, as `reboxLine` of `bar.js` does."""
    if setting.is_calibrated:  # what is not given goes on, the calibration too
        return _without_setting(line)
    is_bounded = setting.components != "largest"
    values = {
        "threshold": f"{setting.threshold:.6g}",
        "normalise": setting.normalise,
        "components": setting.components,
        "min_area": f" --min-area {setting.least_areas[setting.components]:.6g}" if is_bounded else "",
    }
    for name, value in values.items():
        before, mark, after = line.rpartition(f"{{{name}}}")  # the last one: a path may have some, too
        line = before + value + after if mark else line
    return line


def _without_setting(line: str) -> str:
    return line.rpartition(" --threshold")[0] or line


def _galleries(report: Report) -> tuple[Gallery, ...]:
    """Return the galleries, and one of all cards where there are several."""
    if len(report.galleries) < 2:
        return report.galleries
    says = "Every picture of this page, once."
    cards = tuple(range(len(report.cards)))
    return (*report.galleries, Gallery(key="all", title="All", says=says, total=len(cards), cards=cards))


def _state(report: Report) -> dict[str, Any]:
    """Return what the page's script works on; all its text is visible."""
    against = report.against
    return {
        "setting": _setting(report.setting),
        "wholeImage": WHOLE_IMAGE,
        "colours": heat_colours(report.setting.recipe),
        "galleries": [
            {
                "key": each.key,
                "title": visible(each.title),
                "says": visible(each.says),
                "total": each.total,
                "cards": each.cards,
                "others": each.others,
            }
            for each in _galleries(report)
        ],
        "cards": [_card(card) for card in report.cards],
        "against": None
        if against is None
        else {
            "root": visible(against.root),
            "setting": _setting(against.setting),
            "cards": [_card(card) for card in against.cards],
        },
        "rebox": next((visible(each.line) for each in report.commands if each.name == "rebox"), None),
        "reboxOwn": next(
            (visible(_without_setting(each.line)) for each in report.commands if each.name == "rebox"), None
        ),
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "input": setting.input,
        "recipe": setting.recipe,
        "normalise": setting.normalise,
        "components": setting.components,
        "threshold": setting.threshold,
        "leastAreas": setting.least_areas,
        "isCalibrated": setting.is_calibrated,
        "isPerClass": setting.is_per_class,
    }


def _card(card: Card) -> dict[str, Any]:
    truth = card.truth
    return {
        "id": visible(card.image_id),
        "size": [card.width, card.height],
        "labels": [visible(label) for label in card.labels],
        "top": [[visible(name), _number(score)] for name, score in card.top],
        "maps": [_map(each) for each in card.maps],
        "truth": None
        if truth is None
        else {
            "boxes": truth.boxes,
            "iou": _number(truth.iou),
            "failure": None if truth.failure is None else visible(truth.failure),
        },
    }


def _map(shown: ShownMap) -> dict[str, Any]:
    return {
        "className": visible(shown.class_name),
        "score": _number(shown.score),
        "threshold": shown.threshold,
        "rectangle": shown.rectangle,
        "grid": shown.raw_hw.shape,
        "raw": base64.b64encode(np.asarray(shown.raw_hw, "<f4").tobytes()).decode(),
        "boxes": [
            {
                "box": box.corners,
                "peak": _number(box.peak),
                "energy": _number(box.energy),
                "probability": _number(box.probability),
            }
            for box in shown.boxes
        ],
    }


def _number(value: float | None) -> float | None:
    """Return a number that JSON has; None for one that it has not."""
    return None if value is None or not math.isfinite(value) else float(value)
