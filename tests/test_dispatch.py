"""The dispatch loop on simulated and scripted workers: every shard once, bounded retries, cost, interrupts."""

import os
import random
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import Future

import pytest

from cam_ops.errors import CamrayError, MachineError, UsageError
from cluster.dispatch import DEPTH, WorkerDied, dispatch
from cluster.interrupts import raise_on_sigterm
from cluster.simulated import SimulatedCluster, SimulatedWorker, simulate


def ended(outcome: object) -> Future:
    """Return the future of a call that has ended."""
    future: Future = Future()
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future


class ScriptedWorkers:
    """Workers whose calls end at once: `starts` says how the first starts end, `shards` how a shard's first runs do.

    Whatever is not in the script succeeds. A dead worker's calls fail.
    """

    def __init__(self, starts: list[object] | None = None, shards: dict[int, list[Exception]] | None = None) -> None:
        self.starts, self.shards = starts or [], shards or {}
        self.workers: list[ScriptedWorker] = []

    def new_worker(self) -> "ScriptedWorker":
        self.workers.append(ScriptedWorker(self))
        return self.workers[-1]


class ScriptedWorker:
    def __init__(self, script: ScriptedWorkers) -> None:
        self.script, self.given, self.killed = script, [], False
        self.death: WorkerDied | None = None

    def start(self) -> Future:
        return self._end(self.script.starts.pop(0) if self.script.starts else None)

    def run_shard(self, shard: int) -> Future:
        self.given.append(shard)
        script = self.script.shards.get(shard)
        return self._end(script.pop(0) if script and not self.death else shard)

    def kill(self) -> None:
        self.killed = True

    def _end(self, outcome: object) -> Future:
        if isinstance(outcome, WorkerDied):
            self.death = outcome
        return ended(self.death or outcome)


def test_without_shards_no_worker_is_made() -> None:
    script = ScriptedWorkers()
    assert list(dispatch(script.new_worker, 3, [])) == []
    assert script.workers == []


def test_shards_are_dealt_in_turn() -> None:
    script = ScriptedWorkers()
    assert sorted(dispatch(script.new_worker, 2, range(4))) == [0, 1, 2, 3]
    assert [worker.given for worker in script.workers] == [[0, 2], [1, 3]]
    assert all(worker.killed for worker in script.workers)


class HoldingWorker(SimulatedWorker):
    """A simulated worker that counts the shards that it holds, and the most that it ever held."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        super().__init__(cluster)
        self.held: list[Future] = []
        self.most = 0

    def run_shard(self, shard: int) -> Future:
        future = super().run_shard(shard)
        self.held = [*(call for call in self.held if not call.done()), future]
        self.most = max(self.most, len(self.held))
        return future


def test_random_order_and_random_deaths_report_every_shard_once_and_nobody_holds_more_than_two() -> None:
    generator = random.Random(7)
    deaths = {shard: generator.choice([1, 2]) for shard in generator.sample(range(4000), 200)}
    workers: list[HoldingWorker] = []

    def new_worker() -> HoldingWorker:
        workers.append(HoldingWorker(cluster))
        return workers[-1]

    with SimulatedCluster(1.0, deaths) as cluster:
        reports = list(dispatch(new_worker, 50, range(4000)))
    assert reports != sorted(reports)
    assert Counter(reports) == Counter(range(4000))
    assert len(workers) == 50 + sum(deaths.values())
    assert max(worker.most for worker in workers) == DEPTH == 2
    assert all(worker.dead for worker in workers)


def test_a_lost_workers_shards_go_back_to_the_front_in_order(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedWorkers(shards={2: [WorkerDied("segfault\nat 0x0")]})
    assert list(dispatch(script.new_worker, 1, range(6))) == [0, 1, 2, 3, 4, 5]
    assert [worker.given for worker in script.workers] == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert script.workers[0].killed
    assert "a replica died, 2 shard(s) go back to the queue: segfault\n" in capsys.readouterr().err


def test_a_lost_workers_shards_go_to_live_workers_that_have_nothing_left_to_do() -> None:
    script = ScriptedWorkers(starts=[None, None, *[WorkerDied("no memory")] * 3], shards={1: [WorkerDied("gone")]})
    assert sorted(dispatch(script.new_worker, 2, range(2))) == [0, 1]
    assert script.workers[0].given == [0, 1]


def test_three_deaths_of_a_shard_end_the_run() -> None:
    script = ScriptedWorkers(shards={5: [WorkerDied(f"death {i}") for i in range(9)]})
    with pytest.raises(CamrayError, match=r"^shard 5 killed its replica 3 times, the last: death 2$"):
        list(dispatch(script.new_worker, 1, range(9)))
    assert len(script.workers) == 3
    assert all(worker.killed for worker in script.workers)


def test_three_failed_starts_in_a_row_without_a_live_worker_end_the_run() -> None:
    failures = [WorkerDied(f"failure {i}") for i in range(9)]
    script = ScriptedWorkers(starts=list(failures))
    with pytest.raises(MachineError, match=r"^3 replicas died while loading their model, the last: failure 2$"):
        list(dispatch(script.new_worker, 1, range(9)))
    script = ScriptedWorkers(starts=[failures[0], failures[1], None, *failures], shards={0: [WorkerDied("gone")]})
    with pytest.raises(MachineError, match=r"^3 replicas died while loading their model, the last: failure 2$"):
        list(dispatch(script.new_worker, 1, range(9)))
    assert len(script.workers) == 3 + 3


def test_after_three_failed_starts_the_live_workers_go_on_and_the_last_ones_death_ends_the_run() -> None:
    script = ScriptedWorkers(starts=[None, *[WorkerDied("no memory")] * 3], shards={8: [WorkerDied("gone")]})
    reports = []
    with pytest.raises(MachineError, match=r"^3 replicas died while loading their model, the last: no memory$"):
        reports.extend(dispatch(script.new_worker, 2, range(20)))
    assert sorted(reports) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(script.workers) == 4


@pytest.mark.parametrize("script", [{"starts": [UsageError("no such model")]}, {"shards": {3: [UsageError("no")]}}])
def test_an_error_of_the_workers_own_ends_the_run(script: dict) -> None:
    workers = ScriptedWorkers(**script)
    with pytest.raises(UsageError, match=r"^no"):
        list(dispatch(workers.new_worker, 2, range(9)))
    assert len(workers.workers) == 2
    assert all(worker.killed for worker in workers.workers)


def operations(num_workers: int, num_shards: int) -> int:
    """Count the bytecode operations of a run, all of which happen in this thread."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    script = ScriptedWorkers()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in dispatch(script.new_worker, num_workers, range(num_shards)):
            pass
    finally:
        sys.settrace(before)
    return count


def test_a_shard_costs_the_same_number_of_operations_whatever_the_number_of_workers() -> None:
    cost = {workers: operations(workers, 1500) - operations(workers, 1000) for workers in (1, 10, 400)}
    assert cost[10] == pytest.approx(cost[1], rel=0.01)
    assert cost[400] == pytest.approx(cost[1], rel=0.01)


def test_the_simulation_runs_a_thousand_workers_without_waiting_for_their_time() -> None:
    assert simulate(1000, 5000, shard_seconds=3600.0) > 0


class EndlessWorker:
    killed = False

    def start(self) -> Future:
        return Future()

    def run_shard(self, shard: int) -> Future:
        return Future()

    def kill(self) -> None:
        self.killed = True


def test_sigterm_breaks_the_wait_and_ends_the_workers() -> None:
    worker, before = EndlessWorker(), signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(dispatch(lambda: worker, 1, range(3)))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert worker.killed
