"""Hand shards to workers, replace those that die, yield a report per shard. Knows nothing of Ray, torch or reports.

A call to a worker is a future; its end puts an event on a queue, which the loop sleeps on. So a shard costs the loop
the same whatever the number of workers.
"""

import queue
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from cam_ops.errors import CamrayError, MachineError
from cluster.console import say

DEPTH = 2  # shards that a worker holds at most: the second starts without a gap
MAX_SHARD_DEATHS = 3  # of the worker that works on it
MAX_FAILED_STARTS = 3  # in a row
WAKE_S = 1.0  # a signal that another thread took is seen by the main thread when it wakes

Report = TypeVar("Report")


class WorkerDied(Exception):
    """A worker is gone, and all of its calls with it; the text says why."""


class Worker(Protocol[Report]):
    """One model replica somewhere. Its calls begin in order; one that it does not survive fails with WorkerDied."""

    def start(self) -> Future[None]:
        """Load the model. Called once; shards may be given before it ends."""

    def run_shard(self, shard: int) -> Future[Report]:
        """Do one shard."""

    def kill(self) -> None:
        """End the worker, dead or alive. Its calls may end in any way."""


def dispatch(
    new_worker: Callable[[], Worker[Report]],
    num_workers: int,
    shards: Iterable[int],
    is_done: Callable[[int], bool] = lambda shard: False,
) -> Generator[Report, None, None]:
    """Yield one report per shard, in the order they finish; no shard is no report, and no worker.

    A death is blamed on the oldest of a worker's shards that is not done: its report may have died with the worker.

    Raises what a worker's own code raised, MachineError if no worker can be started, and CamrayError if a shard kills
    one worker after another. Workers are killed at the end, however it comes.
    """
    loop = _Loop(new_worker, deque(shards), is_done)
    try:
        for _ in range(min(num_workers, loop.num_left)):
            loop.add_worker()
        loop.give_shards()
        yield from loop.reports()
    finally:
        loop.end()


@dataclass(slots=True, eq=False)
class _Member(Generic[Report]):
    """A live worker and the shards that it holds, oldest first."""

    worker: Worker[Report]
    starting: bool = True
    shards: list[int] = field(default_factory=list)


class _Event(NamedTuple):
    """The end of a call: of `start`, where shard is None, or of a shard."""

    member: _Member[Any]
    shard: int | None
    call: Future[Any]


class _Loop(Generic[Report]):
    """The live workers, which of them have room, and the shards that wait."""

    def __init__(
        self, new_worker: Callable[[], Worker[Report]], shards: deque[int], is_done: Callable[[int], bool]
    ) -> None:
        self.new_worker, self.shards, self.num_left = new_worker, shards, len(shards)
        self.is_done = is_done
        self.members: set[_Member[Report]] = set()
        self.room: deque[_Member[Report]] = deque()  # holds less than DEPTH shards, each once; may have died since
        self.events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self.deaths: Counter[int] = Counter()
        self.failed_starts = 0
        self.last_failure = ""

    def add_worker(self) -> None:
        member = _Member(self.new_worker())
        self.members.add(member)
        self.room.append(member)
        self._watch(member, None, member.worker.start())

    def give_shards(self) -> None:
        """Give the shards that wait to the workers that have room, one in turn; a new worker's wait for its start."""
        while self.shards and self.room:
            member = self.room.popleft()
            if member in self.members:
                shard = self.shards.popleft()
                member.shards.append(shard)
                self._watch(member, shard, member.worker.run_shard(shard))
                if len(member.shards) < DEPTH:
                    self.room.append(member)

    def reports(self) -> Iterator[Report]:
        """Yield reports until no shard is left."""
        while self.num_left:
            member, shard, call = self._next_event()
            if member not in self.members:  # it died with an earlier call
                continue
            try:
                report: Report = call.result()
            except WorkerDied as death:
                self._replace(member, str(death))
                continue
            if shard is None:
                member.starting = False
                self.failed_starts = 0
                continue
            self._take_back(member, shard)
            yield report

    def end(self) -> None:
        """Kill every worker: its work is committed or will be done again."""
        for member in self.members:
            member.worker.kill()

    def _watch(self, member: _Member[Report], shard: int | None, call: Future[Any]) -> None:
        call.add_done_callback(lambda ended: self.events.put(_Event(member, shard, ended)))

    def _next_event(self) -> _Event:
        while True:
            try:
                return self.events.get(timeout=WAKE_S)
            except queue.Empty:
                continue

    def _take_back(self, member: _Member[Report], shard: int) -> None:
        """Note that a shard is done, and give its worker another."""
        self.num_left -= 1
        if len(member.shards) == DEPTH:
            self.room.append(member)
        member.shards.remove(shard)
        self.give_shards()

    def _replace(self, member: _Member[Report], reason: str) -> None:
        """Put a dead worker's shards back, oldest first, and start another. Raises CamrayError when that is no cure."""
        member.worker.kill()  # it may only have been out of reach
        self.members.remove(member)
        self.shards.extendleft(reversed(member.shards))
        self._count_death(member, reason)
        say(f"a replica died, {len(member.shards)} shard(s) go back to the queue: {reason.splitlines()[0]}")
        if self.failed_starts < MAX_FAILED_STARTS:
            self.add_worker()
        else:
            say(f"it is not replaced: {self.failed_starts} died in a row while loading their model; the others go on")
        self.give_shards()

    def _count_death(self, member: _Member[Report], reason: str) -> None:
        if member.starting:
            self.failed_starts += 1
            self.last_failure = reason
        elif member.shards:
            shard = next((shard for shard in member.shards if not self.is_done(shard)), member.shards[0])
            self.deaths[shard] += 1
            if self.deaths[shard] >= MAX_SHARD_DEATHS:
                raise CamrayError(f"shard {shard} killed its replica {MAX_SHARD_DEATHS} times, the last: {reason}")
        if self.failed_starts >= MAX_FAILED_STARTS and not self.members:
            raise MachineError(
                f"{self.failed_starts} replicas died while loading their model, the last: {self.last_failure}"
            )
