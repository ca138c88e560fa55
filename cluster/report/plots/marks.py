"""What all plots are made of: elements, whose text is escaped, numbers as words, and axes."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from markupsafe import Markup, escape

from cam_ops.foreign import visible
from cluster.process.console import shortened

Child = str | Markup | None

MOST_CHARACTERS = 80  # of a name
UNITS = ((10**9, "bn"), (10**6, "M"), (10**3, "k"))
WRITTEN_OUT = 10**5  # counts below are not rounded
ROUNDS_UP = 0.9995  # to three digits, as 999,950 does to 1.00 M
TIME_STEPS_S: tuple[float, ...] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
TIME_STEPS_S += tuple(60 * step for step in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080))
LARGEST = 1e300  # of a file's numbers
SPACE = "\u00a0"  # between a number and its unit
MISSING = "\u2013"


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """Return an element; what is no `Markup` is text, and escaped.

    An attribute that is None is left out; `class_` is class, `data_value` data-value; floats keep two decimals.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(_attribute(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")  # noqa: S704


def joined(children: Iterable[Child]) -> Markup:
    """Return elements and texts in a row."""
    return Markup().join(
        child if isinstance(child, Markup) else visible(child) for child in children if child is not None
    )


def name(text: str) -> Markup:
    """Return a name from outside: shortened, and what it says of the direction of writing ends with it."""
    return tag("bdi", shortened(text, MOST_CHARACTERS))


def _attribute(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def percent(share: float) -> str:
    """Return a place along a plot, of 0..1."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def count(number: float) -> str:
    """Return a count as words: 12,345, 12.3 M."""
    if abs(number) < WRITTEN_OUT:
        return f"{number:,.0f}"
    size, unit = next((size, unit) for size, unit in UNITS if abs(number) >= size * ROUNDS_UP)
    scaled = number / size
    digits = max(0, 2 - math.floor(math.log10(abs(scaled) / ROUNDS_UP)))
    return f"{scaled:,.{digits}f}{SPACE}{unit}"


def counted(number: int, noun: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def share(part: float, whole: float) -> str:
    """Return part of a whole in percent; what is little is not nothing, and what is nearly all is not all."""
    if not whole:
        return MISSING
    value = 100 * part / whole
    if 0 < value < 0.1:
        return f"<0.1{SPACE}%"
    if 99.9 < value < 100:
        return f">99.9{SPACE}%"
    return f"{value:.{0 if value >= 10 or value == 0 else 1}f}{SPACE}%"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number that is known and finite to so many decimals."""
    return f"{value:.{digits}f}".replace("-", "\u2212") if is_number(value) else MISSING


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min" + (f" {whole % 60}{SPACE}s" if whole % 60 else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours}{SPACE}h" + (f" {minutes}{SPACE}min" if minutes else "")
    return f"{hours // 24}{SPACE}days" + (f" {hours % 24}{SPACE}h" if hours % 24 else "")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether there is a finite number, whatever a file held."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most so many round numbers from low to high, evenly apart."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for step in (power * factor for factor in (1, 2, 2.5, 5, 10)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [place * step for place in range(first, last + 1)]
    return [low, high]


def time_ticks(high: float, most: int = 5) -> list[float]:
    """Return at most so many times in seconds from 0 on, evenly apart, that are round in minutes, hours, days."""
    for step in TIME_STEPS_S:
        if high / step < most:
            return [place * float(step) for place in range(int(high / step) + 1)]
    return ticks(0, high, most)


def heads(*titles: tuple[str, str | None]) -> Markup:
    """Return the head of a table: titles, and the classes of their columns."""
    cells = (tag("th", title, scope="col", class_=class_) for title, class_ in titles)
    return tag("thead", tag("tr", *cells))


def scrolled(table: Markup, says: str) -> Markup:
    """Return a table that is moved aside where it is wider than its place, by keys as well."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=says)


def drawing(says: str, height: int, *children: Child, class_: str = "plot") -> Markup:
    """Return a drawing as wide as its place, so many pixels high, with a sentence for who does not see it."""
    return tag(
        "svg", *children, class_=class_, role="img", aria_label=says, width="100%", height=height, focusable="false"
    )


def axis(places: Sequence[tuple[float, str]], y: float, top: float) -> Markup:
    """Return a horizontal axis at y: labels at places of 0..1, with lines up to `top`; the outermost stay inside."""
    parts = [tag("line", class_="axis", x1="0%", x2="100%", y1=y, y2=y)]
    for place, label in places:
        x, anchor = percent(place), "start" if place < 0.04 else "end" if place > 0.96 else "middle"
        parts.append(tag("line", class_="tick", x1=x, x2=x, y1=top, y2=y + 4))
        parts.append(tag("text", label, class_="label", x=x, y=y + 17, text_anchor=anchor))
    return joined(parts)


def figure(title: str, says: Child, *children: Child, class_: str = "plot-card") -> Markup:
    """Return a plot below its title and a sentence on it."""
    caption = tag("figcaption", tag("strong", title), " ", tag("span", says) if says else None)
    return tag("figure", caption, *children, class_=class_)


def nothing(title: str, why: str) -> Markup:
    """Return what stands in a plot's place, and why."""
    return figure(title, why, class_="plot-card nothing")
