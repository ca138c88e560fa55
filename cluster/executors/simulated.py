"""Simulated replicas, and the speed of the real dispatch loop with them.

A simulated replica does nothing, in simulated time: one thread ends the calls of all, in the order of that time, as
fast as it can. So a thousand replicas need neither machines nor threads nor waiting.
"""

import heapq
import itertools
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from cluster.executors.dispatch import dispatch
from cluster.executors.remote import ReplicaDied


def simulate(num_replicas: int, num_shards: int, shard_seconds: float = 0.0) -> float:
    """Return how many shards a second the dispatch loop sustains, in real time, on this machine.

    `shard_seconds` is the mean simulated time of a shard, which varies at random: shards then end in random order.
    0 ends them in the order they were given. Nobody waits for it.
    """
    with SimulatedCluster(num_replicas, shard_seconds) as cluster:
        start_s = time.perf_counter()
        num_reports = sum(1 for _ in dispatch(cluster, range(num_shards)))
        seconds = time.perf_counter() - start_s
    assert num_reports == num_shards
    return num_shards / seconds


PLACE = "here"


@dataclass(order=True, slots=True)
class _Call:
    """A call that ends at a simulated time; of those that end together, the first made ends first."""

    end_s: float
    number: int
    replica: "SimulatedReplica" = field(compare=False)
    shard: int | None = field(compare=False)  # None: the call of `start`
    future: Future[Any] = field(compare=False)


class SimulatedReplica:
    """A replica, as the loop sees it, that reports a shard by the shard's number. Its calls run one after another."""

    def __init__(self, cluster: "SimulatedCluster") -> None:
        self.cluster = cluster
        self.place: Future[str] = Future()
        self.place.set_result(PLACE)
        self.busy_until_s = 0.0
        self.dead = False

    def start(self) -> Future[None]:
        return self.cluster.call(self, None)

    def begin_shard(self, shard: int, deaths: int) -> Future[int]:
        return self.cluster.call(self, shard)

    def kill(self) -> None:
        self.dead = True


class SimulatedCluster:
    """`size` simulated replicas, and the thread that ends their calls.

    `deaths` says how often a shard kills the replica that works on it. A simulated time is drawn with seed 0.
    """

    def __init__(self, size: int, shard_seconds: float, deaths: Mapping[int, int] | None = None) -> None:
        self.size, self.shard_seconds, self.deaths = size, shard_seconds, Counter(deaths)
        self.random = random.Random(0)  # noqa: S311  # not for secrets
        self.clock_s = 0.0
        self.calls: queue.SimpleQueue[tuple[SimulatedReplica, int | None, Future[Any]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.calls.put(None)
        self.thread.join()

    def new_replica(self, avoided: frozenset[str]) -> SimulatedReplica:
        """Return a replica that waits for its first call."""
        return SimulatedReplica(self)

    def num_replicas(self) -> int:
        """Return the cluster's size."""
        return self.size

    def places_now(self) -> set[str]:
        """Return the one place there is."""
        return {PLACE}

    def is_done(self, shard: int) -> bool:
        """Say that nobody else does shards."""
        return False

    def call(self, replica: SimulatedReplica, shard: int | None) -> Future[Any]:
        """Begin a call; the thread ends it."""
        future: Future[Any] = Future()
        self.calls.put((replica, shard, future))
        return future

    def _run(self) -> None:
        running: list[_Call] = []
        numbers = itertools.count()
        while True:
            while not running or not self.calls.empty():
                begun = self.calls.get()
                if begun is None:
                    return
                heapq.heappush(running, self._scheduled(next(numbers), *begun))
            self._end(heapq.heappop(running))

    def _scheduled(self, number: int, replica: SimulatedReplica, shard: int | None, future: Future[Any]) -> _Call:
        replica.busy_until_s = max(self.clock_s, replica.busy_until_s) + self.random.uniform(0, 2 * self.shard_seconds)
        return _Call(replica.busy_until_s, number, replica, shard, future)

    def _end(self, call: _Call) -> None:
        self.clock_s = call.end_s
        if call.shard is not None and self.deaths[call.shard] and not call.replica.dead:
            self.deaths[call.shard] -= 1
            call.replica.dead = True
        if call.replica.dead:
            call.future.set_exception(ReplicaDied(f"shard {call.shard} met a simulated death"))
        else:
            call.future.set_result(call.shard)
