"""What an audit found: figures with intervals, curves, what went wrong, what took no part; signals without truth.

metrics.json is a file from outside: what of it is missing or odd is left out, and never an error.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from cluster.report.plots.curves import accuracy_plot, pixel_plot
from cluster.report.plots.entries import Entries, entries, figures_of, whole
from cluster.report.plots.figures import all_figures, first_figures, slices
from cluster.report.plots.intervals import whiskers
from cluster.report.plots.marks import (
    Child,
    count,
    counted,
    heads,
    is_number,
    joined,
    name,
    number,
    percent,
    share,
    tag,
)
from cluster.report.plots.words import EXCLUDED, FAILURES, SIGNALS
from cluster.report.records import AuditPart

MOST_ROWS = 100  # of what a file lists


def audit_part(audit: AuditPart) -> Markup:
    """Return all of an audit."""
    metrics = audit.metrics
    figures = figures_of(metrics.get("metrics"))
    parts: list[Child] = [_who_takes_part(metrics)]
    has_truth = bool(entries(metrics.get("truth"))) and bool(figures)
    if has_truth:
        parts += [
            first_figures(figures),
            all_figures(figures),
            _curves(audit, entries(metrics.get("settings"))),
            _failures(metrics),
            slices(metrics),
        ]
    else:
        parts.append(
            tag("p", "There is no truth in this audit: it says what maps and boxes show by themselves.", class_="note")
        )
    parts += [_excluded(metrics) if has_truth else None, _shortcuts(metrics), _signals(metrics)]
    return tag("div", *parts, class_="audit")


def _who_takes_part(metrics: Entries) -> Markup:
    images, audited = whole(metrics.get("images")), whole(metrics.get("audited"))
    truth = entries(metrics.get("truth"))
    if not truth:
        return tag("p", f"{counted(images, 'image')} of the run were looked at.", class_="note")
    boxes = counted(whole(truth.get("num_boxes")), "true box", "true boxes")
    masks = " and masks" if truth.get("has_masks") is True else ""
    says = f"{count(audited)} of {counted(images, 'image')} take part, held against {boxes}{masks} of "
    return joined(
        (
            tag("p", says, tag("code", name(str(truth.get("path")))), ".", class_="note"),
            _flattery(entries(metrics.get("unlabelled"))),
        )
    )


def _flattery(unlabelled: Entries) -> Markup | None:
    """Return why figures are too good where a run has no labels."""
    left_out = whole(unlabelled.get("left_out"))
    if not left_out:
        return None
    images = counted(whole(unlabelled.get("images")), "image")
    says = (
        f"These figures flatter: {images} of the truth have no label in the run, "
        f"and {count(left_out)} of them, which the network took for another class, are left out."
    )
    return tag("p", tag("span", "! ", class_="mark"), says)


def _curves(audit: AuditPart, settings: Entries) -> Markup | None:
    curves = {key: values for key, values in audit.curves.items() if np.issubdtype(values.dtype, np.floating)}
    if not curves:
        return None
    threshold, normalise = settings.get("threshold"), settings.get("normalise")
    at = threshold if normalise == "minmax" and is_number(threshold) else None
    other = None
    if at is None and is_number(threshold):
        other = tag(
            "p",
            f"The run's own threshold, {number(threshold)}, has no place on these axes: its maps are normalised by ",
            tag("code", name(str(normalise))),
            ", those of the audit from their least to their highest value.",
            class_="note",
        )
    plots = (accuracy_plot(curves, "box_acc", at), accuracy_plot(curves, "box_acc_v2", at), pixel_plot(curves))
    return joined((tag("h3", "Other thresholds"), tag("div", *plots, class_="plots"), other))


def _bars(rows: Sequence[tuple[Child, int, str | None]], total: int, what: str) -> Markup:
    """Return a table of counts with a bar each: name, count, meaning."""
    most = max((images for _, images, _ in rows), default=0)
    body = [
        tag(
            "tr",
            tag("th", title, " ", tag("small", meaning) if meaning else None, scope="row"),
            tag("td", count(images), class_="number"),
            tag("td", share(images, total), class_="number"),
            tag("td", _bar(images, most), class_="wide"),
        )
        for title, images, meaning in rows
    ]
    return tag("table", tag("tbody", *body), class_="bars", aria_label=what)


def _bar(images: int, most: int) -> Markup:
    width = percent(images / most) if most else "0%"
    return tag(
        "svg",
        tag("rect", class_="column", x=0, y=4, width=width, height=12),
        class_="column-row",
        width="100%",
        height=20,
        aria_hidden="true",
        focusable="false",
    )


def _counts(found: object) -> dict[str, int]:
    return {str(key): whole(value) for key, value in list(entries(found).items())[:MOST_ROWS]}


def _failures(metrics: Entries) -> Markup | None:
    failures = _counts(metrics.get("failures"))
    audited = whole(metrics.get("audited"))
    if not audited:
        return None
    right = max(0, audited - sum(failures.values()))
    rows: list[tuple[Child, int, str | None]] = [("right", right, "class and box")]
    rows += [
        (name(key.replace("_", " ")), images, FAILURES.get(key))
        for key, images in sorted(failures.items(), key=lambda item: -item[1])
    ]
    return joined((tag("h3", "What went wrong"), _bars(rows, audited, "images by what went wrong")))


def _excluded(metrics: Entries) -> Markup | None:
    excluded = {key: images for key, images in _counts(metrics.get("excluded")).items() if images}
    if not excluded:
        return None
    rows: list[tuple[Child, int, str | None]] = [
        (name(key), images, EXCLUDED.get(key)) for key, images in sorted(excluded.items(), key=lambda item: -item[1])
    ]
    return joined((tag("h3", "What takes no part"), _bars(rows, whole(metrics.get("images")), "images by reason")))


def _shortcuts(metrics: Entries) -> Markup | None:
    found = metrics.get("suspected_shortcuts")
    entries = [entry for entry in found if isinstance(entry, dict)][:MOST_ROWS] if isinstance(found, list) else []
    if not entries:
        return None
    items = []
    for entry in entries:
        share_there, others = entry.get("share"), entry.get("others")
        says = ""
        if is_number(share_there) and is_number(others):
            says = f": {share(share_there, 1)} of its mean map lies there, {share(others, 1)} of other classes'"
        class_name, place = (name(str(entry.get(key))) for key in ("class_name", "place"))
        images = counted(whole(entry.get("num_images")), "image")
        items.append(tag("li", tag("b", class_name), " looks at the ", place, says, f" ({images})"))
    return joined(
        (
            tag("h3", "Suspected shortcuts"),
            tag(
                "p",
                "Does the network read a caption, a watermark, a frame? Ask it of plain maps (--refine none).",
                class_="note",
            ),
            tag("ul", *items),
        )
    )


def _signals(metrics: Entries) -> Markup | None:
    signals = entries(metrics.get("signals"))
    rows = []
    for key, (says, ends) in SIGNALS.items():
        entry = entries(signals.get(key))
        p5, median, p95 = (entry.get(quantile) for quantile in ("p5", "median", "p95"))
        if is_number(p5) and is_number(median) and is_number(p95):
            digits = 2 if ends else 0
            reach = f"{number(p5, digits)} to {number(p95, digits)}"
            told = f"{key}: median {number(median, digits)}, nine in ten from {reach}"
            rows.append(
                tag(
                    "tr",
                    tag("th", key.replace("_", " "), " ", tag("small", says), scope="row"),
                    tag("td", number(median, digits), class_="number"),
                    tag("td", whiskers(told, median, (p5, p95), ends) if ends else None, class_="wide"),
                    tag("td", f"{number(p5, digits)} \u2013 {number(p95, digits)}", class_="number"),
                )
            )
    if not rows:
        return None
    images, without, covered = (whole(signals.get(key)) for key in ("images", "without_box", "whole_image_boxes"))
    of = f"Of {counted(images, 'image')} with a map"
    says_counts = f"{of} {count(without)} have no box, {count(covered)} one of the whole picture."
    titles = heads(("signal", None), ("median", "number"), ("0 to 1", "wide"), ("nine in ten", "number"))
    table = tag("table", titles, tag("tbody", *rows), class_="figures")
    return joined((tag("h3", "What maps and boxes show by themselves"), tag("p", says_counts), table))
