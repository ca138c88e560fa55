"""How far a run is, in lines for people and as the document of `status --json`."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from cluster.executors.progress import duration, percent
from cluster.label.quarantine import Held, Quarantine
from cluster.process.console import is_or_are, shortened
from cluster.runs.census import Reason
from cluster.runs.history import PastSession
from cluster.runs.watching import State
from jobs.findings import agreement_lines, findings_document, reason_lines

MAX_NAMED = 20  # of anything, in the document
MAX_SHOWN = 5  # in a line


def short_line(state: State) -> str:
    """Return how far the run is in one line."""
    totals, plan = state.census.totals, state.run.plan
    parts = [
        f"{totals.images}/{plan.num_images} images ({percent(totals.images, plan.num_images, 1)} %)",
        f"{state.shards}/{plan.num_shards} shards",
        _rate(state),
        _bad(state),
        *([f"ETA {duration(state.eta_s)}"] if state.eta_s is not None and not state.is_whole else []),
        *([state.life] if state.life else []),
        *([f"{len(state.damaged)} shard(s) damaged"] if state.damaged else []),
    ]
    return f"{_time(datetime.fromtimestamp(state.moment_s, UTC))}  {', '.join(parts)}"


def lines_of(state: State, held: Held, out: str, suspects_in: str | None) -> Iterator[str]:
    """Yield all that there is to say of the run at `out`; `suspects_in` is it where suspects.parquet is there."""
    run, census = state.run, state.census
    totals, plan = census.totals, run.plan
    yield f"model   {run.request.model}, {run.request.device}, {run.request.precision}"
    if run.maps_from:
        yield f"maps of {run.maps_from.root}"
    yield f"shards  {state.shards} of {plan.num_shards} committed"
    yield f"images  {totals.images} of {plan.num_images} ({percent(totals.images, plan.num_images, 1)} %)"
    for status, count in totals.statuses.items():
        yield f"        {count} {status}"
    labelled = census.agreement.labelled if census.agreement else 0
    yield f"labels  {f'of {labelled} images' if labelled else 'none'}"
    yield f"maps    {totals.maps}, of {census.mapped} images"
    yield f"boxes   {totals.boxes}"
    yield from _damage_lines(state, out)
    yield from _pace_lines(state)
    yield from _session_lines(state)
    yield from _trouble_lines(state, held)
    yield from reason_lines(census.reasons)
    yield from agreement_lines(suspects_in, census)


def document_of(state: State, held: Held, out: str) -> dict[str, Any]:
    """Return the same as a document; lists are bounded."""
    run, plan, history = state.run, state.run.plan, state.history
    bad = [
        {"shard": shard, "row": row, "status": image.status, "error": str(image)}
        for shard, known in held.first.items()
        for row, image in sorted(known.bad.items())
    ]
    return {
        "out": out,
        "time": _iso(datetime.fromtimestamp(state.moment_s, UTC)),
        "status": status_of(state),
        "command": run.command,
        "model": run.request.model,
        "device": run.request.device,
        "precision": run.request.precision,
        "shards": plan.num_shards,
        "shards_committed": state.shards,
        "shards_damaged": [{"shard": shard, "error": why} for shard, why in list(state.damaged.items())[:MAX_NAMED]],
        "images_planned": plan.num_images,
        **findings_document(state.census),
        "images_per_second": state.per_s,
        "eta_seconds": None if state.is_whole else state.eta_s,
        "seconds_since_last_shard": state.quiet_s,
        "quarantine": {
            "shards": held.num_shards,
            "images": bad[:MAX_NAMED],
            "images_left_out": len(bad[MAX_NAMED:]),
            "suspected": [shard for shard, known in held.first.items() if _is_suspected(known)][:MAX_NAMED],
            "unreadable": held.unreadable[:MAX_NAMED],
        },
        "sessions": len(history.sessions) if history else 0,
        "sessions_at_work": state.at_work,
        "last_session": state.session and _session_document(state, state.session),
    }


def status_of(state: State) -> str:
    """Return how the run is, in a word."""
    return "damaged" if state.damaged else "done" if state.is_whole else "incomplete"


def damage_text(state: State, out: str) -> str:
    """Return that shards are damaged, and the cure."""
    are = is_or_are(len(state.damaged))
    return (
        f"{len(state.damaged)} of {state.shards} committed shards {are} damaged "
        f"and not counted: {_named(state.damaged)}; run `python -m jobs verify {shlex.quote(out)}`: it names the cure"
    )


def _damage_lines(state: State, out: str) -> Iterator[str]:
    for shard, why in list(state.damaged.items())[:MAX_SHOWN]:
        yield f"damaged shard {shard}: {shortened(why, 300)}"
    if state.damaged:
        yield f"        {damage_text(state, out)}"


def _named(shards: Iterable[int]) -> str:
    first = list(islice(shards, MAX_NAMED + 1))
    return ", ".join(map(str, first[:MAX_NAMED])) + ", ..." * (len(first) > MAX_NAMED)


def _session_document(state: State, session: PastSession) -> dict[str, Any]:
    return {
        "log": f"log/{session.name}",
        "state": state.life,
        "reason": session.reason,
        "began": _iso(session.began),
        "last_line": _iso(session.began + timedelta(seconds=session.seconds)),
        "host": session.host,
        "executor": session.executor,
        "replicas": session.replicas,
        "images": session.images,
        "shards": session.shards,
        "events": session.events,
        "why": [asdict(reason) for reason in session.reasons],
        "retried_shards": [{"shard": shard, "times": times} for shard, times in session.retried],
        "slow_shards": list(session.copied),
    }


def _rate(state: State) -> str:
    return f"{state.per_s:.1f} images/s" if state.per_s else "? images/s"


def _bad(state: State) -> str:
    reasons, errors = state.census.reasons, state.census.totals.errors
    if not errors:
        return "0 bad"
    commonest: Reason = reasons[0]
    return f"{errors} bad ({'' if commonest.images == errors else f'{commonest.images} '}{commonest.status})"


def _pace_lines(state: State) -> Iterator[str]:
    if state.is_whole or state.quiet_s is None:
        return
    eta = "" if state.eta_s is None else f", ETA {duration(state.eta_s)}"
    yield f"rate    {_rate(state)} in the last minutes of work{eta}; a shard was done {duration(state.quiet_s)} ago"


def _session_lines(state: State) -> Iterator[str]:
    """Yield how many sessions there were, and how the last one ended, or that one is at work."""
    if state.history is None or state.session is None:
        return
    num_sessions, last = len(state.history.sessions), state.session
    ended = f"{state.life}: {last.reason}" if last.reason else str(state.life)
    which = "the only one" if num_sessions == 1 else f"the last of {num_sessions}"
    which = f"one of {state.at_work} at work" if state.at_work > 1 else which
    yield (
        f"session {which}: {last.replicas} replica(s), on {last.host} since {_time(last.began)}, "
        f"{last.images} of {last.images_pending} images in {duration(last.seconds)}, {ended}"
    )
    for reason in last.reasons[:MAX_SHOWN]:
        yield f"        {reason.times} x {reason.kind.replace('_', ' ')}: {shortened(reason.why, 200)}"


def _trouble_lines(state: State, held: Held) -> Iterator[str]:
    """Yield which shards were tried again, or slow, and what quarantine holds."""
    last = state.session
    if last and last.retried:
        named = ", ".join(f"{shard}{f' ({times} times)' if times > 1 else ''}" for shard, times in last.retried)
        yield f"again   shards that were begun again, as their replica died: {named}"
    if last and last.copied:
        yield f"slow    shards that a second replica began, too: {', '.join(map(str, last.copied))}"
    for error in held.unreadable[:MAX_SHOWN]:
        yield f"quarantine: {error}"
    for shard, known in list(held.first.items())[:MAX_SHOWN]:
        for row, image in sorted(known.bad.items())[:MAX_SHOWN]:
            yield f"quarantine: shard {shard}, row {row}: {image.status} ({shortened(image, 150)})"
        if _is_suspected(known):
            yield f"quarantine: shard {shard}: replicas died at its pictures; which one it was is being found out"
    if held.num_shards > MAX_SHOWN:
        yield f"quarantine: {held.num_shards} shards in all, see quarantine/"


def _is_suspected(known: Quarantine) -> bool:
    return bool(known.split or known.deaths)


def _time(moment: datetime) -> str:
    return f"{_iso(moment)[:19].replace('T', ' ')} UTC"


def _iso(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except OverflowError:  # of a foreign log: at the end of time, and in another zone
        return moment.isoformat(timespec="seconds")
