"""What the logs of a run say of all its sessions. They are foreign files: what is no line of ours is counted, and left.

Sessions are laid end to end, in the order of their start: that is the *working time*, in seconds.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import AwareDatetime, Field, TypeAdapter

from cam_ops.arrays import F64, I64
from cluster.executors.events import Kind
from cluster.runs.directory import RunDir
from cluster.runs.log import MAX_SESSIONS
from cluster.runs.names import LOG, SESSION_FILE
from cluster.runs.session import MAX_EVENTS, MAX_SHARD_LINES

MAX_BYTES = 16 * 2**20  # of a session's file
MAX_LINE_BYTES = 2**18
MAX_LINES = 2 * (MAX_SHARD_LINES + 2 * MAX_EVENTS)  # that are looked at; ours have half as many
MAX_REASONS = 20  # of a session
MAX_TOLD_APART = 200  # reasons, or statuses, of a session
MAX_STAGES = 32
MAX_BINS = 200
RECENT_S = 300.0
MAX_AGAIN = 20  # shards that are named of a session
MAX_EVENTS_READ = 2 * MAX_EVENTS
BESIDE = ("fetch", "decode", "read")  # stages that go on while a shard waits for its turn

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why replicas died, did not start, or places are avoided."""

    kind: Kind
    why: str
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSession:
    """A session: one driver, from the start of its log to its end."""

    name: str  # of its file
    command: str
    command_line: tuple[str, ...] | None  # None: camray was used as a library
    executor: str
    device: str
    replicas: int  # to start with
    host: str
    process: int
    versions: dict[str, str]
    images_pending: int  # when it began
    began: datetime
    working_s: float  # when it began, in working time
    seconds: float  # to its end, or to its last line
    status: Literal["done", "failed", "interrupted"] | None  # None: cut off, or still at work
    reason: str | None  # why it failed
    images: int  # that it did
    shards: int
    bad: dict[str, int]  # images that are not ok, by status
    events: dict[Kind, int]
    shards_back: int  # to the queue, of replicas that died
    reasons: tuple[Reason, ...]  # the commonest first
    recent: tuple[float, float] = (0.0, 0.0)  # images in the last RECENT_S, and of these seconds those since work began
    retried: tuple[tuple[int, int], ...] = ()  # shards that went back to the queue, and how often; the most often first
    copied: tuple[int, ...] = ()  # shards that were slow, so that a second replica began them, too; the last ones


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """All sessions of which there is a log."""

    sessions: tuple[PastSession, ...]
    working_s: float
    bin_s: float  # working time that a bin has; the last one may have less
    images_N: F64  # images that were done, by bin
    deaths_N: I64  # replicas that died, by bin; without those whose lines the log left out
    stage_seconds: dict[str, float]  # of all replicas together; see `run_shard` of the replica for what they mean
    foreign_lines: int


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=2000)]
_Name = Annotated[str, Field(max_length=200)]
_Word = Annotated[str, Field(max_length=50_000)]
_Counts = Annotated[dict[_Name, _Count], Field(max_length=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    event: Literal["start"]
    time: AwareDatetime
    command: _Text
    command_line: tuple[_Word, ...] | None
    executor: _Text
    device: _Text
    replicas: _Count
    host: _Text
    process: _Count
    versions: Annotated[dict[_Name, _Name], Field(max_length=100)]
    images_pending: _Count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shards:
    event: Literal["shard_done"]
    time: AwareDatetime
    since: AwareDatetime | None = None
    shards: _Count
    images: _Count
    bad: _Counts
    stages: Annotated[dict[_Name, _Seconds], Field(max_length=MAX_STAGES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Happened:
    event: Kind
    time: AwareDatetime
    why: _Text = ""
    shards: _Count = 0
    shard: _Count | None = None
    numbers: Annotated[tuple[_Count, ...], Field(max_length=MAX_AGAIN)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _LeftOut:
    event: Literal["left_out"]
    time: AwareDatetime
    events: dict[Kind, _Count]
    shards: _Count


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    event: Literal["end"]
    time: AwareDatetime
    status: Literal["done", "failed", "interrupted"]
    reason: _Text | None


_LINE: TypeAdapter[_Start | _Shards | _Happened | _LeftOut | _End] = TypeAdapter(
    Annotated[_Start | _Shards | _Happened | _LeftOut | _End, Field(discriminator="event")]
)


@dataclass(slots=True)
class _Sum:
    """What the lines of a session come to."""

    start: _Start
    last: datetime
    end: _End | None = None
    images: int = 0
    shards: int = 0
    shards_back: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    events: Counter[Kind] = field(default_factory=Counter)
    reasons: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    work: list[tuple[float, float, int]] = field(default_factory=list)  # from, to, in seconds of the session; images
    deaths: list[float] = field(default_factory=list)  # in seconds of the session
    stages: dict[str, float] = field(default_factory=dict)  # seconds
    retried: Counter[int] = field(default_factory=Counter)  # shards
    copied: deque[int] = field(default_factory=lambda: deque(maxlen=MAX_AGAIN))  # shards

    def add(self, line: _Shards | _Happened | _LeftOut | _End) -> None:
        self.last = max(self.last, line.time)
        match line:
            case _End():
                self.end = line
            case _LeftOut():
                self.events.update(line.events)
                self.shards_back += line.shards
            case _Happened():
                self.events[line.event] += 1
                self.shards_back += line.shards
                if line.event == "replica_died" and len(self.deaths) < MAX_EVENTS_READ:
                    self.deaths.append(self._seconds_at(line.time))
                self.retried.update(
                    shard for shard in line.numbers if shard in self.retried or len(self.retried) < MAX_TOLD_APART
                )
                if line.event == "shard_copied" and line.shard is not None:
                    self.copied.append(line.shard)
                if line.why and ((line.event, line.why) in self.reasons or len(self.reasons) < MAX_TOLD_APART):
                    self.reasons[line.event, line.why] += 1
            case _Shards():
                self._add_shards(line)

    def _add_shards(self, line: _Shards) -> None:
        self.images += line.images
        self.shards += line.shards
        _add(self.bad, line.bad, MAX_TOLD_APART)
        _add(self.stages, line.stages, MAX_STAGES)
        turn_s = sum(seconds for name, seconds in line.stages.items() if name not in BESIDE) / max(1, line.shards)
        to_s = self._seconds_at(line.time)
        from_s = self._seconds_at(line.since or line.time) - turn_s  # when the first of them began
        self.work.append((min(max(0.0, from_s), to_s), to_s, line.images))

    def _seconds_at(self, moment: datetime) -> float:
        return max(0.0, (moment - self.start.time).total_seconds())

    @property
    def seconds(self) -> float:
        return self._seconds_at(self.last)

    @property
    def recent(self) -> tuple[float, float]:
        """Return the images of the last RECENT_S, a line's spread evenly over its time, and the seconds of work."""
        since_s = max(self.seconds - RECENT_S, min((from_s for from_s, _, _ in self.work), default=self.seconds))
        images = sum(
            images * (min(1.0, (to_s - since_s) / (to_s - from_s)) if to_s > from_s else 1.0)
            for from_s, to_s, images in self.work
            if to_s > since_s
        )
        return images, self.seconds - since_s


def read_log(run_dir: RunDir) -> RunHistory | None:
    """Read the logs of a run's last sessions; None where there are none. Raises StorageError where they cannot be read.

    Memory is bounded, whatever the files hold.
    """
    return LogReader(run_dir).read(run_dir.names(LOG))


class LogReader:
    """Reads the logs of a run again and again, and each file only where it has changed."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.kept: dict[str, tuple[float, _Sum | None, int]] = {}  # by name: the file's time, and what was read

    def read(self, names: Iterable[str], times: Mapping[str, float] | None = None) -> RunHistory | None:
        """Read the files of these names; `times` are those of the files, where they are known."""
        last = sorted(name for name in names if SESSION_FILE.fullmatch(name))[-MAX_SESSIONS:]
        for name in last:
            time_s = times[name] if times else 0.0
            if name not in self.kept or self.kept[name][0] != time_s:
                self.kept[name] = time_s, *_read(self.run_dir, name)
        self.kept = {name: self.kept[name] for name in last}
        return _history([(name, *self.kept[name][1:]) for name in last])


def _history(read: list[tuple[str, _Sum | None, int]]) -> RunHistory | None:
    sums = sorted(((name, found) for name, found, _ in read if found), key=lambda each: each[1].start.time)
    if not sums:
        return None
    working_s = np.cumsum([0.0, *(found.seconds for _, found in sums)])
    stages: dict[str, float] = {}
    for _, found in sums:
        _add(stages, found.stages, MAX_STAGES)
    bin_s = max(1.0, float(working_s[-1]) / MAX_BINS)
    images_N = np.zeros(min(MAX_BINS, max(1, int(np.ceil(working_s[-1] / bin_s)))))
    deaths_N = np.zeros(len(images_N), np.int64)
    for (_, found), began_s in zip(sums, working_s, strict=False):
        at_M = ((began_s + np.array(found.deaths)) / bin_s).astype(np.int64)
        np.add.at(deaths_N, np.minimum(at_M, len(deaths_N) - 1), 1)
        _spread(images_N, bin_s, np.array(found.work).reshape(-1, 3), float(began_s))
    return RunHistory(
        sessions=tuple(
            _session(name, found, float(began_s)) for (name, found), began_s in zip(sums, working_s, strict=False)
        ),
        working_s=float(working_s[-1]),
        bin_s=bin_s,
        images_N=images_N,
        deaths_N=deaths_N,
        stage_seconds=stages,
        foreign_lines=sum(foreign for _, _, foreign in read),
    )


def _add(sums: dict[str, Number], more: Mapping[str, Number], most: int) -> None:
    """Add by name; of names beyond the first `most` nothing is kept."""
    for name, number in more.items():
        if name in sums or len(sums) < most:
            sums[name] = number + sums[name] if name in sums else number


def _read(run_dir: RunDir, name: str) -> tuple[_Sum | None, int]:
    """Return what a file says, None where it has no start, and the number of its lines that are none of ours."""
    content = run_dir.read(f"{LOG}/{name}", MAX_BYTES)
    found: _Sum | None = None
    foreign = 0
    for number, line in enumerate(_lines(content or b"")):
        try:
            if len(line) > MAX_LINE_BYTES or number >= MAX_LINES:
                raise ValueError("it is none of ours")
            read = _LINE.validate_json(line, strict=True)
        except ValueError:
            foreign += 1
            continue
        if isinstance(read, _Start):
            foreign += found is not None
            found = found or _Sum(read, read.time)
        elif found is None or found.end or (isinstance(read, _Shards) and len(found.work) > MAX_SHARD_LINES):
            foreign += 1
        else:
            found.add(read)
    return found, foreign


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines, one at a time."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield content[start:end]
        start = end + 1


def _spread(images_N: F64, bin_s: float, work_M3: F64, began_s: float) -> None:
    """Add images to the bins of the time in which they were made, evenly over it."""
    for from_s, to_s, images in work_M3.tolist():
        first, last = (min(len(images_N) - 1, int((began_s + moment) / bin_s)) for moment in (from_s, to_s))
        edges_s = np.clip(np.arange(first, last + 2) * bin_s, began_s + from_s, began_s + to_s)
        edges_s[0], edges_s[-1] = began_s + from_s, began_s + to_s
        shares = np.diff(edges_s) / (to_s - from_s) if to_s > from_s else np.eye(1, last - first + 1)[0]
        images_N[first : last + 1] += images * shares


def _session(name: str, found: _Sum, working_s: float) -> PastSession:
    start = found.start
    return PastSession(
        name=name,
        command=start.command,
        command_line=start.command_line,
        executor=start.executor,
        device=start.device,
        replicas=start.replicas,
        host=start.host,
        process=start.process,
        versions=start.versions,
        images_pending=start.images_pending,
        began=start.time,
        working_s=working_s,
        seconds=found.seconds,
        status=found.end.status if found.end else None,
        reason=found.end.reason if found.end else None,
        images=found.images,
        shards=found.shards,
        bad=found.bad,
        events=dict(found.events),
        shards_back=found.shards_back,
        reasons=tuple(
            Reason(kind=kind, why=why, times=times) for (kind, why), times in found.reasons.most_common(MAX_REASONS)
        ),
        recent=found.recent,
        retried=tuple(found.retried.most_common(MAX_AGAIN)),
        copied=tuple(found.copied),
    )
