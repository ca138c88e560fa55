"""A value with its interval: a dot with whiskers on an axis that rows of a table share."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cluster.report.plots.marks import is_number, percent, tag

HEIGHT = 20  # pixels
MIDDLE = HEIGHT // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A value that rows are held against: a line of a class of its own."""

    class_: str  # centre, whole, zero
    says: str
    value: float


def whiskers(
    says: str,
    value: float,
    interval: tuple[float, float] | None,
    ends: tuple[float, float],
    references: Sequence[Reference] = (),
) -> Markup:
    """Return the drawing of one row; `ends` are those of the axis, and what lies beyond them is drawn at them."""
    low, high = ends

    def place(at: float) -> str:
        return percent(min(1, max(0, (at - low) / (high - low))) if high > low else 0.5)

    return tag(
        "svg",
        tag("title", says),
        tag("line", class_="guide", x1="0%", x2="100%", y1=MIDDLE, y2=MIDDLE),
        *(
            tag("line", class_=f"reference {each.class_}", x1=place(each.value), x2=place(each.value), y1=0, y2=HEIGHT)
            for each in references
            if is_number(each.value)
        ),
        *(
            ()
            if interval is None
            else (
                tag("line", class_="whisker", x1=place(interval[0]), x2=place(interval[1]), y1=MIDDLE, y2=MIDDLE),
                *(
                    tag("line", class_="whisker", x1=place(end), x2=place(end), y1=MIDDLE - 4, y2=MIDDLE + 4)
                    for end in interval
                ),
            )
        ),
        tag("circle", class_="dot", cx=place(value), cy=MIDDLE, r=4),
        class_="interval",
        role="img",
        aria_label=says,
        width="100%",
        height=HEIGHT,
        focusable="false",
    )
