"""Hand shards to replicas, replace those that die or hang, yield a report per shard. Knows nothing of Ray or torch.

A call to a replica is a future; its end puts an event on a queue, which the loop sleeps on. So a shard costs the loop
the same whatever the number of replicas. Once a second it looks after what no event tells: replicas that hang, shards
that are slow at the end, a cluster that has grown.
"""

import queue
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

from cam_ops.errors import CamrayError, MachineError, StorageError
from cluster.executors.blame import Blame
from cluster.executors.events import Event, Field, Kind, Listener, Standing, Watcher, ignore, look_away
from cluster.executors.pace import Pace
from cluster.executors.places import Places
from cluster.executors.remote import Cluster, RemoteReplica, ReplicaDied, Report
from cluster.process.console import say

DEPTH = 2  # shards that a replica holds at most: the second starts without a gap
WAKE_S = 1.0  # a signal that another thread took is seen by the main thread when it wakes
GROWTH_S = 5.0  # between two looks at the size of the cluster
START_TIMEOUT_S = 1800.0  # the least that a replica is given to load its model, once it has a place
BEGINS = "the first replica begins to work"


def dispatch(
    cluster: Cluster[Report],
    shards: Iterable[int],
    timeout_s: float | None = None,
    listen: Listener = ignore,
    watch: Watcher = look_away,
) -> Generator[Report, None, None]:
    """Yield one report per shard, in the order they finish; no shard is no report, and no replica.

    A replica whose shard takes longer than `timeout_s` counts as dead; by default the limit is ten times the longest
    shard so far, at least ten minutes, and none before the first is done. To load its model it has half an hour, or
    `timeout_s` if that is longer. A death is blamed on the oldest of a replica's shards that is not done: its report
    may have died with the replica. A shard to which too many replicas fell is left out until all others are done.
    StorageError and MachineError of a replica's own code are its place's fault until a second place says the same of a
    shard.

    Raises what a replica's own code raised, MachineError if no replica can be started, and CamrayError for shards that
    were left out, or if replicas die before any shard is done. Replicas are killed at the end, however it comes.
    """
    loop = _Loop(cluster, list(shards), timeout_s, listen, watch)
    try:
        yield from loop.reports()
    finally:
        loop.end()


@dataclass(slots=True, eq=False)
class _Slot(Generic[Report]):
    """What the loop notes of a live replica, and the shards that it holds, oldest first."""

    replica: RemoteReplica[Report]
    places_then: frozenset[str]  # that there were when it began to look for one
    started: bool = False
    shards: list[int] = field(default_factory=list)
    asked_s: float = field(default_factory=time.monotonic)
    since_s: float = 0.0  # the oldest of them is at work; before the start, the replica was first seen to have a place

    def place(self) -> str:
        """Return where it is, empty if it is nowhere yet or died before it could tell."""
        place = self.replica.place
        return place.result() if place.done() and not place.exception() else ""


class _Event(NamedTuple):
    """The end of a call: of `start`, where shard is None, or of a shard."""

    slot: _Slot[Any]
    shard: int | None
    call: Future[Any]


class _Loop(Generic[Report]):
    """The live replicas, which of them have room, and the shards that wait."""

    def __init__(
        self,
        cluster: Cluster[Report],
        shards: list[int],
        timeout_s: float | None,
        listen: Listener,
        watch: Watcher,
    ) -> None:
        self.cluster, self.listen, self.watch = cluster, listen, watch
        self.places, self.blame, self.pace = Places(), Blame(), Pace(timeout_s)
        self.avoided: frozenset[str] = frozenset()  # places, of which that was told
        self.waiting = deque(shards)
        self.left = set(shards)  # without a report
        self.slots: set[_Slot[Report]] = set()
        self.idle: deque[_Slot[Report]] = deque()  # hold no shard; each once; may have died since
        self.busy: deque[_Slot[Report]] = deque()  # hold shards, and less than DEPTH; as above
        self.events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self.wanted = self.num_starting = 0
        self.has_begun = False  # some replica has started
        self.looked_s = self.grown_s = time.monotonic()

    def reports(self) -> Iterator[Report]:
        """Yield reports until no shard is left."""
        self._grow()
        while self.left:
            event = self._next_event()
            if time.monotonic() - self.looked_s >= WAKE_S:
                self._look_after()
            if event is None or event.slot not in self.slots:  # the latter died with an earlier call
                continue
            slot, shard, call = event
            try:
                report: Report = call.result()
            except ReplicaDied as death:
                self._replace(slot, str(death), out_of_memory=death.out_of_memory)
                continue
            except (StorageError, MachineError) as error:
                if shard is None:
                    self._remove(slot)
                    self._could_not_start(slot, str(error))
                    self.places.cannot_work(slot.place(), error)
                    self._add_another()
                elif shard in self.left:
                    self._try_elsewhere(slot, shard, error)
                else:
                    self._finished(slot, shard)  # another has done it
                continue
            if shard is None:
                self._started(slot)
            elif self._finished(slot, shard):
                yield report
        self._show()
        self.blame.raise_lost()

    def end(self) -> None:
        """Kill every replica: its work is committed or will be done again."""
        for slot in self.slots:
            slot.replica.kill()

    def _next_event(self) -> _Event | None:
        try:
            return self.events.get(timeout=WAKE_S)
        except queue.Empty:
            return None

    def _look_after(self) -> None:
        """Do what is due without an event."""
        self.looked_s = time.monotonic()
        self._show()
        for slot in [slot for slot in self.slots if slot.shards]:
            limit_s = self.pace.limit_s(is_suspected=self.blame.is_suspected(slot.shards[0]))
            if self.looked_s - slot.since_s > limit_s:
                self._replace(slot, f"shard {slot.shards[0]} took longer than {limit_s:.0f} s")
        self._end_slow_starts(max(START_TIMEOUT_S, self.pace.timeout_s or 0))
        if self.looked_s - self.grown_s >= GROWTH_S:
            self._grow()
        if not self.waiting:
            self._copy_slow_shards()

    def _show(self) -> None:
        """Show how the work stands to who watches."""
        at_work = {shard for slot in self.slots for shard in slot.shards if shard in self.left}
        self.watch(Standing(len(self.waiting), len(at_work), sum(slot.started for slot in self.slots)))

    def _end_slow_starts(self, limit_s: float) -> None:
        """Replace replicas that have a place and do not get their model loaded there."""
        for slot in [slot for slot in self.slots if not slot.started and slot.place()]:
            slot.since_s = slot.since_s or self.looked_s
            if self.looked_s - slot.since_s > limit_s:
                self._replace(slot, f"it did not load within {limit_s:.0f} s")

    def _grow(self) -> None:
        """Add replicas where the cluster has become larger than it ever was."""
        self.grown_s = time.monotonic()
        wanted = max(self.wanted, self.cluster.num_replicas())
        num_new = min(wanted - self.wanted, len(self.left) - len(self.slots))
        if num_new > 0:
            places = self.cluster.places_now()
            for _ in range(num_new):
                self._add_replica(places)
        if self.wanted and num_new > 0:
            self._tell(f"the cluster has grown: {num_new} more replica(s)", "cluster_grown", replicas=num_new)
        self.wanted = wanted

    def _add_replica(self, places: set[str]) -> None:
        slot = _Slot(self.cluster.new_replica(self.places.avoided()), frozenset(places))
        self.slots.add(slot)
        self.num_starting += 1
        self._watch(slot, None, slot.replica.start())

    def _started(self, slot: _Slot[Report]) -> None:
        if not self.has_begun:
            self.has_begun = True
            say(BEGINS)
        slot.started = True
        self.listen(Event("replica_up", {"place": slot.place(), "seconds": time.monotonic() - slot.asked_s}))
        self.num_starting -= 1
        self.places.started(slot.place())
        self.idle.append(slot)
        self._give_shards()

    def _give_shards(self) -> None:
        """Give the shards that wait to the replicas that have room, one in turn; those that start soon get one, too."""
        while self.waiting:
            if self.idle:
                slot = self.idle.popleft()
            elif self.busy and len(self.waiting) > self.num_starting:
                slot = self.busy.popleft()
            else:
                return
            if slot in self.slots:
                self._give(slot, self.waiting.popleft())

    def _give(self, slot: _Slot[Report], shard: int) -> None:
        if not slot.shards:
            slot.since_s = time.monotonic()
        slot.shards.append(shard)
        self._watch(slot, shard, slot.replica.begin_shard(shard, self.blame.deaths[shard]))
        if len(slot.shards) < DEPTH:
            self.busy.append(slot)

    def _copy_slow_shards(self) -> None:
        """Give the slowest shards also to replicas that have nothing to do: whoever is first reports."""
        slow_s = self.pace.slow_s()
        busy = [slot for slot in self.slots if slot.shards and self.looked_s - slot.since_s > slow_s]
        shards = [shard for slot in sorted(busy, key=lambda slot: slot.since_s) for shard in slot.shards]
        slow = [shard for shard in shards if shard in self.left and shard not in self.pace.copied]
        while slow and self.idle:
            slot = self.idle.popleft()
            if slot in self.slots:
                self.pace.copied.add(slow[0])
                said = f"shard {slow[0]} is slow, another replica begins it as well"
                self._tell(said, "shard_copied", shard=slow[0])
                self._give(slot, slow.pop(0))

    def _watch(self, slot: _Slot[Report], shard: int | None, call: Future[Any]) -> None:
        call.add_done_callback(lambda ended: self.events.put(_Event(slot, shard, ended)))

    def _finished(self, slot: _Slot[Report], shard: int) -> bool:
        """Note that a replica has done a shard, and give it another; return whether it was the first to do it."""
        now_s = time.monotonic()
        self.pace.took(now_s - slot.since_s)
        if slot.shards[0] == shard:
            slot.since_s = now_s
        was_full = len(slot.shards) == DEPTH
        slot.shards.remove(shard)
        if not slot.shards:
            self.busy.remove(slot)
            self.idle.append(slot)
        elif was_full:
            self.busy.append(slot)
        self._give_shards()
        is_first = shard in self.left
        self.left.discard(shard)
        return is_first

    def _replace(self, slot: _Slot[Report], reason: str, *, out_of_memory: bool = False) -> None:
        """Put a dead replica's shards back and start another. Raises CamrayError when that is no cure."""
        self._remove(slot)
        if not slot.started:
            place = slot.place()
            if ({place} if place else slot.places_then) - self.cluster.places_now():
                self._could_not_start(slot, "its machine is gone")
            else:
                self._could_not_start(slot, str(self.places.died_loading(place, reason)))
            self._add_another()
            return
        back = self._take_back(slot)
        why = reason.splitlines()[0]
        said = f"a replica died, {len(back)} shard(s) go back to the queue: {why}"
        self._tell(said, "replica_died", place=slot.place(), why=why, shards=len(back), numbers=tuple(back))
        if out_of_memory and any(other.started and other.place() == slot.place() for other in self.slots):
            if self.places.is_first_of_storm(slot.place(), time.monotonic()):
                say("its machine was out of memory: it is not replaced, the others there go on")
                self._give_shards()
                return
        elif back and slot.place() in self.cluster.places_now():  # else it died with its machine
            self._blame(next((shard for shard in back if not self.cluster.is_done(shard)), back[0]), reason)
        if self.left:
            self._add_another()
            self._give_shards()

    def _try_elsewhere(self, slot: _Slot[Report], shard: int, error: CamrayError) -> None:
        """Avoid the place of a replica that lacks storage or the machine for a shard, and give its shards to others.

        Raises the error where there is no other place, or where one has failed at this shard before.
        """
        place = slot.place()
        others = self.cluster.places_now() - self.places.avoided() - {place}
        if not others or not self.blame.lacks_only_at(place, shard):
            raise error
        self._remove(slot)
        back = self._take_back(slot)
        said = f"a replica cannot go on, {len(back)} shard(s) go to other machines: {error}"
        self._tell(said, "replica_died", place=place, why=str(error), shards=len(back), numbers=tuple(back))
        self.places.cannot_work(place, error)
        self._add_another()
        self._give_shards()

    def _could_not_start(self, slot: _Slot[Report], why: str) -> None:
        self._tell(f"a replica could not start: {why}", "replica_not_started", place=slot.place(), why=why)

    def _tell(self, sentence: str, kind: Kind, **fields: Field) -> None:
        """Say it to people, and to who listens."""
        say(sentence)
        self.listen(Event(kind, fields))

    def _take_back(self, slot: _Slot[Report]) -> list[int]:
        """Put a lost replica's shards back to the front of the queue; return those that nobody else has."""
        held = {shard for other in self.slots for shard in other.shards}
        back = [shard for shard in slot.shards if shard in self.left and shard not in held]
        self.waiting.extendleft(reversed(back))
        self.pace.copied -= set(back)
        return back

    def _blame(self, shard: int, reason: str) -> None:
        """Count a death at a shard, and let that wait or go. Raises CamrayError where no shard is to blame."""
        verdict = self.blame.died_at(shard, reason)
        if verdict != "in its turn":
            self.waiting.remove(shard)
        if verdict == "after all others":
            self.waiting.append(shard)
        elif verdict == "never":
            self.left.discard(shard)
        if not self.pace.spent_s:
            self.blame.refuse_to_go_on(self.wanted, reason)

    def _remove(self, slot: _Slot[Report]) -> None:
        slot.replica.kill()  # it may only be out of reach
        self.slots.remove(slot)
        self.num_starting -= not slot.started

    def _add_another(self) -> None:
        """Add a replica for one that is gone if there is a place for it, or none at all: then it waits for a machine.

        Raises the reason where none can work.
        """
        for place in self.places.avoided() - self.avoided:
            self.listen(Event("place_avoided", {"place": place, "why": str(self.places.failure)}))
        self.avoided = self.places.avoided()
        places = self.cluster.places_now()
        if self.places.allow_another(places):
            if not places:
                say("no machine is left that has room for a replica: waiting for one")
            self._add_replica(places)
        elif not any(slot.started or slot.replica.place.done() for slot in self.slots):
            assert self.places.failure
            raise self.places.failure
        else:
            say("it is not replaced, as no replica starts where there is room; the others go on")
