"""The table of classes: a row each, sortable by its headings; maps and boxes as small pictures.

A cell's `data-value` is what rows are sorted by; an empty one stands for what is not known, and belongs at the end.
"""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from cluster.process.console import shortened
from cluster.report.plots import marks
from cluster.report.plots.heat import thumbnail
from cluster.report.plots.marks import MISSING, count, counted, joined, number, scrolled, share, tag
from cluster.report.records import ClassRow

MAP_SIDE, DENSITY_SIDE = 14, 8  # cells of small pictures

Cell = Callable[[ClassRow], Markup]


def class_table(classes: Sequence[ClassRow], classes_total: int) -> Markup:
    """Return the table of classes, and how many are not shown."""
    if not classes:
        return tag("p", "No class has a map or a label.", class_="nothing")
    columns = _columns(classes)
    head = tag("tr", *(_heading(title, says) for title, says, _ in columns))
    rows = [tag("tr", *(cell(row) for _, _, cell in columns)) for row in classes]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="classes sortable")
    suspected = sum(row.place is not None for row in classes)
    left_out = classes_total - len(classes)
    others = f"; {count(left_out)} more with fewer maps are not shown" if left_out > 0 else ""
    return joined(
        (
            tag("p", f"{counted(len(classes), 'class', 'classes')}{others}.", class_="note"),
            tag(
                "p",
                tag("span", "!", class_="mark", aria_hidden="true"),
                f" {counted(suspected, 'class looks', 'classes look')} at a border or a corner more than others do: "
                "a shortcut is suspected, as of a caption or a watermark.",
                class_="suspected",
            )
            if suspected
            else None,
            scrolled(table, "classes"),
        )
    )


def _columns(classes: Sequence[ClassRow]) -> list[tuple[str, str, Cell]]:
    """Return titles, what they mean, and cells; what no class has is left out."""
    has_labels = any(row.labelled for row in classes)
    wanted: list[tuple[bool, str, str, Cell]] = [
        (True, "class", "its name, and whether a shortcut is suspected", _name),
        (True, "maps", "maps of it", lambda row: _count(row.maps)),
        (True, "boxes", "boxes of it", lambda row: _count(row.boxes)),
        (True, "empty", "maps without a box", lambda row: _part(row.empty, row.maps)),
        (has_labels, "labelled", "images with this label", lambda row: _count(row.labelled)),
        (
            has_labels,
            "agreed",
            "of them, where the best class is the label",
            lambda row: _part(row.agreed, row.labelled),
        ),
        (True, "predicted", "images whose best class it is", lambda row: _count(row.predicted)),
        (True, "score", "mean over its maps", lambda row: _number(row.mean_score)),
        (True, "size", "mean share of the picture that a box of it covers", lambda row: _size(row.mean_area)),
        (
            any(marks.is_number(row.gt_known_loc) for row in classes),
            "GT-known",
            "images whose best box has IoU 0.5 with a true one, percent, from the audit",
            lambda row: _number(row.gt_known_loc, 1),
        ),
        (
            any(marks.is_number(row.ap) for row in classes),
            "AP",
            "average precision, percent, from the audit",
            lambda row: _number(row.ap, 1),
        ),
        (True, "map", "mean of its maps", lambda row: _picture(row.mean_map, "mean map", MAP_SIDE)),
        (True, "where", "where its boxes lie", lambda row: _picture(row.density, "where boxes lie", DENSITY_SIDE)),
    ]
    return [(title, says, cell) for is_wanted, title, says, cell in wanted if is_wanted]


def _heading(title: str, says: str) -> Markup:
    if title in ("map", "where"):
        return tag("th", title, scope="col", title=says)
    return tag("th", tag("button", title, type="button"), scope="col", title=says)


def _name(row: ClassRow) -> Markup:
    mark = (
        tag("span", "! looks at the ", marks.name(row.place), class_="mark", title="most of its mean map lies there")
        if row.place
        else None
    )
    return tag("th", marks.name(row.name), mark, scope="row", data_value=shortened(row.name, marks.MOST_CHARACTERS))


def _count(value: int) -> Markup:
    return tag("td", count(value), data_value=value)


def _part(part: int, whole: int) -> Markup:
    return tag("td", share(part, whole), data_value=f"{part / whole:.5f}" if whole else "")


def _number(value: float | None, digits: int = 2) -> Markup:
    return tag("td", number(value, digits), data_value=f"{value:.5g}" if marks.is_number(value) else "")


def _size(value: float | None) -> Markup:
    if value is None or not marks.is_number(value):
        return tag("td", MISSING, data_value="")
    return tag("td", share(value, 1), data_value=f"{value:.5g}")


def _picture(values: object, says: str, side: int) -> Markup:
    return tag("td", thumbnail(values, says, side) or MISSING)  # type: ignore[arg-type]
