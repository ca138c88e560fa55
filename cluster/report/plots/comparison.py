"""Two runs side by side, as `compare` found them: settings, counts, boxes, figures, classes."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from cluster.compare.audits import AuditChanges
from cluster.compare.driver import Comparison
from cluster.compare.metrics import Difference
from cluster.compare.scratch import Rows
from cluster.compare.tables import TableChanges
from cluster.process.console import shortened
from cluster.report.plots.intervals import Reference, whiskers
from cluster.report.plots.marks import (
    MISSING,
    MOST_CHARACTERS,
    SPACE,
    Child,
    count,
    counted,
    heads,
    is_number,
    joined,
    name,
    number,
    scrolled,
    share,
    tag,
)

ZERO = Reference(class_="zero", says="no difference", value=0.0)
ROOM = 1.1  # of an axis, beyond the farthest whisker


def comparison_part(found: Comparison) -> Markup:
    """Return what changed from A to B."""
    return tag(
        "div",
        tag("p", tag("b", "A "), tag("code", name(found.a))),
        tag("p", tag("b", "B "), tag("code", name(found.b))),
        *(
            tag("p", f"{side} is not complete: {progress}.", class_="note")
            for side, progress in found.incomplete.items()
        ),
        tag("h3", "Settings"),
        _settings(found.settings),
        tag("h3", "Images and boxes"),
        _counts(found.tables),
        *_audit(found),
        class_="comparison",
    )


def _settings(settings: dict[str, tuple[str, str]]) -> Markup:
    if not settings:
        return tag("p", "They are the same.")
    rows = ((tag("code", name(key)), name(before), name(after)) for key, (before, after) in settings.items())
    return _table(("setting", "A", "B"), rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[Child]], numbers: Sequence[int] = ()) -> Markup:
    """Return a table whose first column heads the rows; the columns `numbers` are aligned as such."""
    head = heads(*((title, "number" if place in numbers else None) for place, title in enumerate(titles)))
    body = (
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(
                tag("td", cell, class_="number" if place in numbers else None)
                for place, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    )
    return scrolled(tag("table", head, tag("tbody", *body), class_="plain"), " and ".join(titles[:2]))


def _counts(tables: TableChanges) -> Markup:
    rows: list[tuple[str, int, int]] = [
        ("images", tables.images_a, tables.images_b),
        ("boxes", tables.boxes_a, tables.boxes_b),
    ]
    table = _table(
        ("", "A", "B", "B \u2212 A"),
        ((title, count(a), count(b), _signed(b - a)) for title, a, b in rows),
        (1, 2, 3),
    )
    says = [f"{counted(tables.images, 'image')} in both."]
    if tables.class_lists_differ:
        says.append("A and B have different lists of classes: neither classes nor boxes can be compared.")
    else:
        says.append(f"The best class changed in {count(tables.top_classes_changed)} of {count(tables.top_classes)}.")
        pairs = counted(tables.box_pairs, "best box", "best boxes")
        says.append(f"{pairs} in both, {count(tables.only_a)} only in A, {count(tables.only_b)} only in B.")
    if is_number(tables.mean_iou):
        below = f"{count(tables.below_half)} ({share(tables.below_half, tables.box_pairs)}) below 0.5"
        says.append(f"Of those in both the mean IoU is {number(tables.mean_iou, 3)}; {below}.")
    if tables.labels_changed:
        says.append(f"{counted(tables.labels_changed, 'label')} changed.")
    if tables.sizes_changed:
        says.append(f"{counted(tables.sizes_changed, 'picture')} with another size; their boxes are not compared.")
    return joined((table, tag("p", " ".join(says)), _statuses(tables.statuses), _top_changes(tables.top_changes)))


def _signed(value: float, digits: int = 0) -> str:
    sign = "+" if value > 0 else "\u2212" if value < 0 else ""
    return sign + (count(abs(value)) if not digits else number(abs(value), digits))


def _statuses(rows: Rows) -> Markup | None:
    if not rows:
        return None
    cells = ((name(str(row["status_a"])), name(str(row["status_b"])), count(row["images"])) for row in rows)
    return _table(("status in A", "in B", "images"), cells, (2,))


def _top_changes(rows: Rows) -> Markup | None:
    if not rows:
        return None
    cells = ((name(row["class_a"]), name(row["class_b"]), count(row["images"])) for row in rows)
    return joined((tag("h3", "Best classes that changed most often"), _table(("in A", "in B", "images"), cells, (2,))))


def _audit(found: Comparison) -> tuple[Child, ...]:
    if found.audit is None:
        without = " and ".join(found.not_audited)
        return (tag("h3", "Figures"), tag("p", f"No audit of {without}: no figures are compared.", class_="note"))
    audit = found.audit
    return (
        tag("h3", "Figures"),
        tag("p", f"No intervals: {audit.unpaired}.", class_="note") if audit.unpaired else None,
        _differences(audit.metrics, audit.unpaired),
        tag("p", f"{count(audit.gained)} images became right, {count(audit.lost)} wrong, of {count(audit.images)}."),
        _classes(audit),
    )


def _differences(metrics: Sequence[Difference], unpaired: str | None) -> Markup:
    known = [metric for metric in metrics if metric.a is not None or metric.b is not None]
    same = [metric.metric for metric in known if metric.difference == metric.low == metric.high == 0]
    known = [metric for metric in known if metric.metric not in same]
    reached = [
        abs(value)
        for metric in known
        if metric.unit == "percent"
        for value in (metric.difference, metric.low, metric.high)
        if value is not None and is_number(value)
    ]
    end = ROOM * max(reached, default=1.0) or 1.0
    end_shown = f"{end:.0f}" if end >= 1 else f"{end:.2g}"
    head = heads(
        ("figure", None),
        ("A", "number"),
        ("B", "number"),
        ("B \u2212 A", "number"),
        (f"\u2212{end_shown} to {end_shown} points", "wide"),
        (f"95{SPACE}% interval", "number"),
    )
    rows = (_difference(metric, end, unpaired) for metric in known)
    table = tag("table", head, tag("tbody", *rows), class_="figures differences") if known else None
    names = [part for metric in same for part in (", ", tag("code", name(metric)))][1:]
    return joined((table, tag("p", "The same in both: ", *names, ".", class_="note") if same else None))


def _difference(metric: Difference, end: float, unpaired: str | None) -> Markup:
    digits = 1 if metric.unit == "percent" else 2
    title = tag("th", tag("code", name(metric.metric)), scope="row")
    values = (
        tag("td", tag("small", f"{side} ", class_="narrow"), number(value, digits), class_="number")
        for side, value in (("A", metric.a), ("B", metric.b))
    )
    if metric.difference is None or not is_number(metric.difference):
        return tag(
            "tr", title, *values, tag("td", name(metric.reason or "no reason is given"), colspan=3, class_="reason")
        )
    interval = (metric.low, metric.high) if is_number(metric.low) and is_number(metric.high) else None
    written = MISSING if interval is None else f"{_signed(interval[0], digits)} to {_signed(interval[1], digits)}"
    is_sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    says = f"{shortened(metric.metric, MOST_CHARACTERS)}: {_signed(metric.difference, digits)}" + (
        "" if interval is None else f", between {_signed(interval[0], digits)} and {_signed(interval[1], digits)}"
    )
    drawn = whiskers(says, metric.difference, interval, (-end, end), (ZERO,)) if metric.unit == "percent" else None
    why = metric.reason if metric.reason and metric.reason != unpaired else None
    return tag(
        "tr",
        title,
        *values,
        tag(
            "td",
            tag("b", _signed(metric.difference, digits)) if is_sure else _signed(metric.difference, digits),
            class_="number",
        ),
        tag("td", drawn, class_="wide"),
        tag("td", written, tag("small", SPACE, name(why)) if why else None, class_="number"),
    )


def _classes(audit: AuditChanges) -> Markup | None:
    if not audit.classes:
        return None
    cells = (
        (
            name(row["class_name"]),
            count(row["images"]),
            f"+{count(row['gained'])}",
            f"\u2212{count(row['lost'])}",
            _signed(row["iou_change"], 3),
        )
        for row in audit.classes
    )
    titles = ("class", "images", "became right", "became wrong", "mean IoU")
    return joined((tag("h3", "Classes that moved most"), _table(titles, cells, (1, 2, 3, 4))))
