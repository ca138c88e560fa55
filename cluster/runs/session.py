"""What the log of one session holds: a line for each shard, and for each event, bounded however long it lasts.

Of many shards several share a line, as many in each line: the whole session at coarser steps. Of many events the first
and the last are kept, and how many of which kind were left out. Times are seconds since the session's start.
"""

import heapq
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from cam_ops.foreign import whole
from cluster.executors.work import ShardReport
from cluster.process.console import shortened

MAX_SHARD_LINES = 4096
MAX_EVENTS = 1000  # the first, and as many of the last
MAX_TEXT = 500  # characters

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Shards of one line, in the order of their reports."""

    since_s: float  # the first report
    at_s: float  # the last
    shard: int  # the first one's number
    shards: int
    images: int
    bad: Counter[str]  # images that are not ok, by status
    stages: dict[str, float]  # seconds of replicas, by stage
    place: str | None  # None: several

    def __add__(self, other: "Shards") -> "Shards":
        return Shards(
            since_s=self.since_s,
            at_s=other.at_s,
            shard=self.shard,
            shards=self.shards + other.shards,
            images=self.images + other.images,
            bad=self.bad + other.bad,
            stages={
                stage: self.stages.get(stage, 0.0) + other.stages.get(stage, 0.0)
                for stage in {**self.stages, **other.stages}
            },
            place=self.place if self.place == other.place else None,
        )

    def fields(self) -> Fields:
        """Return the line's fields, its two times in seconds."""
        return {
            **({"since": self.since_s} if self.shards > 1 else {}),
            "shard": self.shard,
            "shards": self.shards,
            "images": self.images,
            "bad": dict(self.bad),
            "place": self.place,
            "stages": {stage: round(seconds, 6) for stage, seconds in self.stages.items()},
        }


def shards_of(report: ShardReport, at_s: float) -> Shards:
    """Return a shard as a line has it."""
    bad = Counter(report.statuses)
    del bad["ok"]
    return Shards(
        since_s=at_s,
        at_s=at_s,
        shard=report.shard,
        shards=1,
        images=sum(report.statuses.values()),
        bad=bad,
        stages=report.seconds,
        place=report.place,
    )


class Session:
    """The lines of a session that began at a time, with these fields."""

    def __init__(
        self, began: datetime, start: Fields, max_shard_lines: int = MAX_SHARD_LINES, max_events: int = MAX_EVENTS
    ) -> None:
        self.began, self.start = began, start
        self.max_shard_lines, self.max_events = max_shard_lines, max_events
        self.shards: list[Shards] = []
        self.step = 1  # shards in a line, but for the last one
        self.first: list[tuple[float, str, Fields]] = []  # events
        self.last: deque[tuple[float, str, Fields]] = deque()
        self.left_out: Counter[str] = Counter()  # events, by kind
        self.left_out_back = 0  # shards that they gave back
        self.end: tuple[float, str, Fields] | None = None

    def add_shard(self, report: ShardReport, at_s: float) -> None:
        """Add a shard that is done."""
        line = shards_of(report, at_s)
        if self.shards and self.shards[-1].shards < self.step:
            self.shards[-1] += line
        else:
            self.shards.append(line)
        if len(self.shards) > self.max_shard_lines:
            pairs = zip(self.shards[::2], self.shards[1::2], strict=False)
            odd = self.shards[-1:] if len(self.shards) % 2 else []
            self.shards, self.step = [*(first + second for first, second in pairs), *odd], 2 * self.step

    def add_event(self, kind: str, fields: Fields, at_s: float) -> None:
        """Add an event."""
        if len(self.first) < self.max_events:
            self.first.append((at_s, kind, fields))
            return
        self.last.append((at_s, kind, fields))
        if len(self.last) > self.max_events:
            _, kind, fields = self.last.popleft()
            self.left_out[kind] += 1
            self.left_out_back += fields["shards"] if kind == "replica_died" else 0

    def add_end(self, fields: Fields, at_s: float) -> None:
        """Add the last line."""
        self.end = at_s, "end", fields

    def content(self) -> bytes:
        """Return the file: a line of JSON each, in the order of their times."""
        left_out = []
        if self.left_out:
            counts = {"events": dict(self.left_out), "shards": self.left_out_back}
            left_out = [(self.first[-1][0], "left_out", counts)]
        events = [*self.first, *left_out, *self.last]
        shards = ((line.at_s, "shard_done", line.fields()) for line in self.shards)
        between = heapq.merge(events, shards, key=itemgetter(0))
        lines: Iterable[tuple[float, str, Fields]] = [(0.0, "start", self.start), *between]
        return b"".join(self._encoded([*lines, self.end] if self.end else lines))

    def _encoded(self, lines: Iterable[tuple[float, str, Fields]]) -> Iterator[bytes]:
        for at_s, event, fields in lines:
            since = {"since": self._time(fields["since"])} if "since" in fields else {}
            line = {"time": self._time(at_s), "event": event, **fields, **since}
            yield json.dumps({name: _bounded(value) for name, value in line.items()}).encode() + b"\n"

    def _time(self, seconds: float) -> str:
        moment = self.began + timedelta(seconds=seconds)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bounded(value: Any) -> Any:
    """Return a value that a line may hold: text of bounded length, without what is not UTF-8."""
    if isinstance(value, str):
        return shortened(whole(shortened(value, MAX_TEXT)), MAX_TEXT)
    return round(value, 3) if isinstance(value, float) else value
