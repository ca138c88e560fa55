"""How far a run is, from its files alone, looked at again and again: each committed shard's file is read once.

A look is one listing of images/, a short one of log/, and a glance at run.json; of files only what is new.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from cam_ops.errors import StorageError
from cluster.process.console import say
from cluster.runs.census import Census, CensusSum
from cluster.runs.directory import RunDir
from cluster.runs.history import RECENT_S, LogReader, PastSession, RunHistory
from cluster.runs.log import ALIVE_S
from cluster.runs.names import LOG, RUN, SHARD_FILE
from cluster.runs.plan import Plan
from cluster.runs.record import Run, existing_run

FRESH_S = 3 * ALIVE_S  # age of a file up to which who writes it is taken to be alive

Life = Literal["still at work", "done", "failed", "interrupted", "cut off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a run is, at a moment."""

    moment_s: float  # since 1970
    run: Run
    shards: int  # that are committed
    census: Census
    damaged: dict[int, str]  # committed shards that are not counted, and why
    session: PastSession | None  # the last one at work, else the last one; None where there is no log
    life: Life | None  # of that session
    at_work: int  # sessions
    per_s: float | None  # images a second in the last minutes, or the last ones in which there was work
    quiet_s: float | None  # since a shard was committed; None where none is
    history: RunHistory | None

    @property
    def is_whole(self) -> bool:
        """Say whether every shard is committed."""
        return self.shards == self.run.plan.num_shards

    @property
    def eta_s(self) -> float | None:
        """Return how long it will take; None where nobody is at work, or the rate is unknown."""
        is_at_work = self.life == "still at work" or (self.life is None and (self.quiet_s or 0) <= FRESH_S)
        left = self.run.plan.num_images - self.census.totals.images
        return left / self.per_s if self.per_s and is_at_work else None


class Watch:
    """Looks at the run in a directory. Where that holds another run by now, it begins anew."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.trouble = ""  # of the log
        self._begin(run_dir.version(RUN))

    def _begin(self, run_json: tuple[int, int] | None) -> None:
        self.run_json, self.run = run_json, existing_run(self.run_dir)
        self.counted: set[int] = set()  # shards
        self.sum = CensusSum(self.run_dir, self.run)
        self.log = LogReader(self.run_dir)

    def look(self) -> State:
        """Return how far the run is now. Raises StorageError where it cannot be read, or is gone."""
        run_json = self.run_dir.version(RUN)
        if run_json != self.run_json:
            self._begin(run_json)
        num_shards, now_s = self.run.plan.num_shards, time.time()
        times = {
            shard: time_s
            for name, time_s in self.run_dir.times("images").items()
            if (match := SHARD_FILE.fullmatch(name)) and (shard := int(match[1])) < num_shards
        }
        if self.counted - times.keys():  # some were taken away, to be done again
            self._begin(run_json)
        self.sum.add(sorted(times.keys() - self.counted), passes_damaged=True)
        self.counted = times.keys() - self.sum.damaged.keys()  # the others may be whole by the next look
        log_times = self.run_dir.times(LOG)
        history = self._history(log_times)
        sessions = history.sessions if history else ()
        lives = [life_of(one, now_s - log_times[one.name]) for one in sessions]
        alive = [one for one, life in zip(sessions, lives, strict=True) if life == "still at work"]
        return State(
            moment_s=now_s,
            run=self.run,
            shards=len(times),
            census=self.sum.total(),
            damaged=self.sum.damaged,
            session=next(reversed(alive or sessions), None),
            life="still at work" if alive else next(reversed(lives), None),
            at_work=len(alive),
            per_s=_per_s(_writing(alive) or sessions[-1:]) or _per_s_of(times, self.run.plan),
            quiet_s=max(0.0, now_s - max(times.values())) if times else None,
            history=history,
        )

    def _history(self, log_times: dict[str, float]) -> RunHistory | None:
        """Return what the log says; one that cannot be read is said once, and is as none: it is no part of the run."""
        try:
            return self.log.read(log_times, log_times)
        except StorageError as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                say(f"without the log: {error}")
            return None


def others_at_work(run_dir: RunDir) -> list[tuple[PastSession, float]]:
    """Return the sessions that seem to be at work on a run, each with the seconds since its log was written.

    One of a process of this machine that is gone, or is this one by now, was killed, and is left out.

    Raises StorageError where logs cannot be read.
    """
    now_s = time.time()
    ages = {name: now_s - time_s for name, time_s in run_dir.times(LOG).items() if now_s - time_s <= FRESH_S}
    history = LogReader(run_dir).read(ages)
    return [
        (one, max(0.0, ages[one.name]))
        for one in (history.sessions if history else ())
        if life_of(one, ages[one.name]) == "still at work"
        and not (one.host == os.uname().nodename and _is_gone(one.process))
    ]


def _is_gone(process: int) -> bool:
    return process == os.getpid() or not os.path.exists(f"/proc/{process}")


def life_of(session: PastSession, age_s: float) -> Life:
    """Return how a session ended, or that it has not; `age_s` is how long ago its file was written."""
    return session.status or ("still at work" if age_s <= FRESH_S else "cut off")


def _writing(alive: Sequence[PastSession]) -> Sequence[PastSession]:
    """Return those that wrote since the last of them began: one that was killed looks alive for minutes."""
    began = max((one.began for one in alive), default=None)
    return [one for one in alive if began and one.began + timedelta(seconds=one.seconds) >= began]


def _per_s(sessions: Sequence[PastSession]) -> float | None:
    """Return the images a second of sessions together, by their logs."""
    measured = [one.recent for one in sessions if one.recent[1] >= 1]
    return sum(images / seconds for images, seconds in measured) or None


def _per_s_of(times: dict[int, float], plan: Plan) -> float | None:
    """Return the images a second by the times of files: of those that came in the last minutes, after the first."""
    last_s = max(times.values(), default=0.0)
    recent = sorted((time_s, shard) for shard, time_s in times.items() if last_s - time_s <= RECENT_S)
    if not recent or last_s - recent[0][0] < 1:
        return None
    images = sum(plan.size_of(shard) for _, shard in recent[1:])
    return images / (last_s - recent[0][0])
