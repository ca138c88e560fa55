"""How fast a run was: images/s over its working time, where the replicas' time went, and how its sessions ended."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from cam_ops.settings import Device
from cluster.executors.events import Kind
from cluster.report.plots.marks import (
    MISSING,
    SPACE,
    Child,
    axis,
    count,
    counted,
    drawing,
    duration,
    figure,
    heads,
    joined,
    name,
    nothing,
    number,
    percent,
    scrolled,
    share,
    tag,
    ticks,
    time_ticks,
)
from cluster.runs.history import PastSession, RunHistory
from cluster.runs.limits import IDLE, MAPS, limit_of, parts_of

TOP, HEIGHT = 32, 120  # pixels, of the rate
WIDTH = 1000  # units across, stretched to the place
BAR_HEIGHT = 26
LABELLED = 0.12  # share from which on a part bears its name
WAITING = (IDLE, MAPS)
PARTS = {  # of the replicas' time, and what they are
    "storage": "until pictures' bytes are there",
    "decoding": "bytes to pixels",
    "network": "forward pass, maps, their refinement",
    "boxes": "maps to boxes",
    "publish": "tables to files",
    **dict.fromkeys(WAITING, "starting, and until there is work"),
}
EVENTS: Mapping[Kind, tuple[str, str]] = {
    "replica_died": ("replica died", "replicas died"),
    "replica_not_started": ("replica did not start", "replicas did not start"),
    "place_avoided": ("place was avoided", "places were avoided"),
    "shard_copied": ("slow shard was begun twice", "slow shards were begun twice"),
    "cluster_grown": ("time the cluster grew", "times the cluster grew"),
}

CLOSE = 0.1  # of the time: stages that differ by less limit a run alike


def speed_part(history: RunHistory | None, done: int) -> Markup:
    """Return all that the log says of speed, of a run that has `done` images."""
    if history is None or not history.sessions:
        return tag("p", "The run has no log: it was made before there was one, or its log is gone.", class_="note")
    lacking = foreign = None
    if logged := done - sum(session.images for session in history.sessions):
        says = (
            f"The log lacks {counted(logged, 'image')} of the run: it is written every few seconds, and what came last"
        )
        lacking = tag("p", f"{says} before a kill is not in it.", class_="note") if logged > 0 else None
    if history.foreign_lines:
        foreign = tag("p", f"{counted(history.foreign_lines, 'line')} of the log cannot be read.", class_="note")
    return tag(
        "div",
        lacking,
        _rate(history),
        _spent(history),
        _sessions(history.sessions),
        foreign,
        class_="speed",
    )


def _rate(history: RunHistory) -> Markup:
    """Return images/s over the working time as steps, with a line where a session begins."""
    title, total = "Images a second", float(history.images_N.sum())
    if not total or not history.working_s > 0:
        return nothing(title, "no image was done while the log was written")
    edges_s = np.minimum(np.arange(len(history.images_N) + 1) * history.bin_s, history.working_s)
    widths_s = np.diff(edges_s)
    rate_N = np.divide(history.images_N, widths_s, out=np.zeros_like(history.images_N), where=widths_s > 0)
    wanted = ticks(0, float(rate_N.max()), 4)
    most = max(float(rate_N.max()), wanted[-1]) or 1.0
    says = (
        f"{_rate_of(total / history.working_s)} on average over {duration(history.working_s)} of work, at most "
        f"{_rate_of(float(rate_N.max()))}"
    )
    foot = TOP + HEIGHT
    heights = [(rate, foot - HEIGHT * rate / most) for rate in wanted if rate]
    lines = [tag("line", class_="rule", x1="0%", x2="100%", y1=y, y2=y) for _, y in heights]
    names = [tag("text", f"{rate:,g}", class_="label over", x="0%", y=y - 3) for rate, y in heights]
    spans = list(zip(edges_s.tolist(), edges_s[1:].tolist(), rate_N.tolist(), strict=False))
    bars = [
        tag(
            "rect",
            tag("title", f"{duration(since)} to {duration(until)}: {_rate_of(rate)}"),
            class_="hover",
            x=percent(since / history.working_s),
            width=percent((until - since) / history.working_s),
            y=TOP,
            height=HEIGHT,
        )
        for since, until, rate in spans
    ]
    labels = [(at / history.working_s, duration(at)) for at in time_ticks(history.working_s)]
    drawn = drawing(
        f"{title}: {says}",
        foot + 24,
        joined(lines),
        _steps([(until / history.working_s, rate / most) for _, until, rate in spans]),
        joined(names),
        _deaths(history),
        _beginnings(history),
        axis(labels, foot, foot),
        joined(bars),
    )
    crosses = "; \u00d7: a replica died" if history.deaths_N.any() else ""
    under = tag("p", f"working time, sessions end to end{crosses}", class_="axis-name")
    return figure(title, f"{says}.", drawn, under)


def _steps(steps: Sequence[tuple[float, float]]) -> Markup:
    """Return an area of steps: where each ends, and its height, both of 0..1."""
    path = "".join(f"V{HEIGHT * (1 - height):.1f}H{WIDTH * until:.1f}" for until, height in steps)
    return tag(
        "svg",
        tag("path", class_="rate", d=f"M0 {HEIGHT}{path}V{HEIGHT}z"),
        x=0,
        y=TOP,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
    )


def _rate_of(rate: float) -> str:
    return f"{count(rate) if rate >= 10 else number(rate, 1)} images/s"


def _deaths(history: RunHistory) -> Markup:
    """Return a cross above each bin in which replicas died."""
    parts = []
    for place in np.flatnonzero(history.deaths_N).tolist():
        at = min((place + 0.5) * history.bin_s / history.working_s, 1)
        says = f"{counted(int(history.deaths_N[place]), 'replica')} died"
        parts.append(
            tag("text", "\u00d7", tag("title", says), class_="death", x=percent(at), y=TOP, text_anchor="middle")
        )
    return joined(parts)


def _beginnings(history: RunHistory) -> Markup:
    """Return a line where each session after the first begins, the number of replicas that died in each beside it."""
    parts = []
    for place, session in enumerate(history.sessions):
        at, died = session.working_s / history.working_s, session.events.get("replica_died", 0)
        if place:
            parts.append(tag("line", class_="marked", x1=percent(at), x2=percent(at), y1=TOP - 20, y2=TOP + HEIGHT))
        says = ", ".join(
            words
            for words in (
                f"session {place + 1}" if len(history.sessions) > 1 else "",
                f"{counted(died, 'replica')} died" if died else "",
            )
            if words
        )
        until = history.sessions[place + 1].working_s if place + 1 < len(history.sessions) else history.working_s
        if says and (until - session.working_s) / history.working_s > LABELLED:
            parts.append(tag("text", says, class_="named", x=percent(at), dx=4 if place else 0, y=TOP - 14))
    return joined(parts)


def _spent(history: RunHistory) -> Markup | None:
    """Return where the replicas' time went, as one bar, and what that means."""
    device: Device = "cuda" if history.sessions[-1].device == "cuda" else "cpu"
    present = sum(session.replicas * session.seconds for session in history.sessions)
    found = parts_of(history.stage_seconds, present, device)
    total = sum(found.values())
    if not history.stage_seconds or not total:
        return None
    parts = [(key, seconds) for key, seconds in found.items() if seconds]
    (largest, most), *others = sorted(parts, key=lambda part: -part[1])
    says = limit_of(found, device, reduced=True)  # `label` names what a cure may be that its flags leave
    if others and most - others[0][1] < CLOSE * total:
        says = f"no part alone limits this run: {largest} and {others[0][0]} take about as much of the replicas' time"
    told = ", ".join(f"{key} {share(seconds, total)}" for key, seconds in parts)
    return figure(
        "Where the time went",
        f"{says[0].upper()}{says[1:]}.",
        drawing(f"Where the time went: {told}", BAR_HEIGHT, _stacked(parts, total), class_="stacked"),
        _entries(parts, total),
    )


def _stacked(parts: Sequence[tuple[str, float]], total: float) -> Markup:
    drawn, at = [], 0.0
    for place, (key, seconds) in enumerate(parts):
        part = seconds / total
        drawn.append(
            tag(
                "rect",
                tag("title", f"{key}: {share(seconds, total)}"),
                class_=_class(key, place),
                x=percent(at),
                width=percent(part),
                y=0,
                height=BAR_HEIGHT,
            )
        )
        if part > LABELLED:
            drawn.append(tag("text", key, class_=_inside(key, place), x=percent(at), dx=6, y=BAR_HEIGHT / 2 + 4))
        at += part
    return joined(drawn)


def _class(key: str, place: int) -> str:
    return "waiting" if key in WAITING else f"stage{place % 5}"


def _inside(key: str, place: int) -> str:
    """Return how a name is written on its part: on dark ones in the colour of paper."""
    return "inside turned" if place % 2 and key not in WAITING else "inside"


def _entries(parts: Sequence[tuple[str, float]], total: float) -> Markup:
    items = [
        tag(
            "li",
            tag("svg", tag("rect", class_=_class(key, place), width="100%", height="100%"), aria_hidden="true"),
            f" {key} ",
            tag("b", share(seconds, total)),
            " ",
            tag("small", PARTS[key]),
        )
        for place, (key, seconds) in enumerate(parts)
    ]
    return tag("ul", *items, class_="entries")


def _sessions(sessions: Sequence[PastSession]) -> Markup:
    titles = ("session", "replicas", "images", "worked", "images/s", "end", "what happened")
    head = heads(*((title, "number" if place in (1, 2, 3, 4) else None) for place, title in enumerate(titles)))
    return scrolled(tag("table", head, tag("tbody", *map(_session_row, sessions)), class_="sessions"), "sessions")


def _session_row(session: PastSession) -> Markup:
    rate = number(session.images / session.seconds, 1) if session.seconds > 0 else MISSING
    return tag(
        "tr",
        tag("th", f"{session.began:%Y-%m-%d %H:%M} ", tag("small", name(session.host)), scope="row"),
        tag("td", f"{count(session.replicas)} {session.device}", class_="number"),
        tag("td", count(session.images), class_="number"),
        tag("td", duration(session.seconds), class_="number"),
        tag("td", rate, class_="number"),
        tag("td", *_end(session)),
        tag("td", *_happened(session)),
    )


def _end(session: PastSession) -> tuple[Child, ...]:
    if session.status is None:
        return (tag("span", "cut off, or still at work", class_="mark"),)
    if session.status == "done":
        return ("done",)
    return (
        tag("span", session.status, class_="mark"),
        ": " if session.reason else None,
        session.reason and name(session.reason),
    )


def _happened(session: PastSession) -> list[Child]:
    says = [
        f"{count(times)} {one if times == 1 else many}"
        for kind, (one, many) in EVENTS.items()
        if (times := session.events.get(kind, 0))
    ]
    parts: list[Child] = [", ".join(says) or MISSING]
    reasons = [
        tag("li", name(reason.why), f" ({count(reason.times)}{SPACE}\u00d7)" if reason.times > 1 else None)
        for reason in session.reasons[:5]
    ]
    return [*parts, tag("ul", *reasons)] if reasons else parts
