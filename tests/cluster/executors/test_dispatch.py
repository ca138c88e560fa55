"""The dispatch loop on simulated and scripted workers: every shard once, bounded retries, cost, interrupts."""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future

import pytest

from cam_ops.errors import CamrayError, MachineError, StorageError, UsageError
from cluster.executors.dispatch import DEPTH, MAX_SHARD_DEATHS, WorkerDied, dispatch
from cluster.executors.simulated import SimulatedCluster, SimulatedWorker, simulate
from cluster.process.interrupts import raise_on_sigterm

NEVER = object()


def ended(outcome: object) -> Future:
    """Return the future of a call that has ended."""
    future: Future = Future()
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future


class ScriptedWorkers:
    """A cluster of `size` workers whose calls end at once.

    `starts` says how the first starts end, `shards` how a shard's first runs do: by an error, or never, if NEVER.
    Whatever is not in the script succeeds. A dead worker's calls fail. Workers are at one of `where` in turn, but not
    at one to be avoided.
    """

    def __init__(
        self,
        size: int,
        starts: list[object] | None = None,
        shards: dict[int, list[object]] | None = None,
        where: tuple[str, ...] = ("here",),
        done: tuple[int, ...] = (),
    ) -> None:
        self.size, self.starts, self.shards = size, starts or [], shards or {}
        self.where, self.done, self.gone = where, done, set()
        self.workers: list[ScriptedWorker] = []

    def new_worker(self, avoided: frozenset[str]) -> "ScriptedWorker":
        free = [place for place in self.where if place not in avoided]
        self.workers.append(ScriptedWorker(self, free[len(self.workers) % len(free)]))
        return self.workers[-1]

    def num_workers(self) -> int:
        return self.size

    def places(self) -> set[str]:
        return set(self.where) - self.gone

    def is_done(self, shard: int) -> bool:
        return shard in self.done


class ScriptedWorker:
    def __init__(self, script: ScriptedWorkers, where: str) -> None:
        self.script, self.given, self.deaths, self.killed = script, [], [], False
        self.place = ended(where)
        self.death: WorkerDied | None = None

    def start(self) -> Future:
        return self._end(self.script.starts.pop(0) if self.script.starts else None)

    def run_shard(self, shard: int, deaths: int) -> Future:
        self.given.append(shard)
        self.deaths.append(deaths)
        script = self.script.shards.get(shard)
        if not script or self.death:
            return self._end(shard)
        return self._end(script.pop(0))

    def kill(self) -> None:
        self.killed = True

    def _end(self, outcome: object) -> Future:
        if isinstance(outcome, WorkerDied):
            self.death = outcome
        return Future() if outcome is NEVER else ended(self.death or outcome)


def test_without_shards_no_worker_is_made() -> None:
    script = ScriptedWorkers(3)
    assert list(dispatch(script, [])) == []
    assert script.workers == []


def test_few_shards_are_shared_by_all_workers() -> None:
    script = ScriptedWorkers(3)
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [worker.given for worker in script.workers] == [[0, 1], [2], [3]]
    assert all(worker.killed for worker in script.workers)


class HoldingWorker(SimulatedWorker):
    """A simulated worker that counts the shards that it holds, and the most that it ever held."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        super().__init__(cluster)
        self.held: list[Future] = []
        self.most = 0

    def run_shard(self, shard: int, deaths: int) -> Future:
        future = super().run_shard(shard, deaths)
        self.held = [*(call for call in self.held if not call.done()), future]
        self.most = max(self.most, len(self.held))
        return future


class HoldingCluster(SimulatedCluster):
    """A simulated cluster of such workers."""

    def new_worker(self, avoided: frozenset[str]) -> HoldingWorker:
        self.workers = [*getattr(self, "workers", []), HoldingWorker(self)]
        return self.workers[-1]


def test_random_order_and_random_deaths_report_every_shard_once_and_nobody_holds_more_than_two() -> None:
    generator = random.Random(7)
    deaths = {shard: generator.choice([1, 2]) for shard in generator.sample(range(4000), 200)}
    with HoldingCluster(50, 1.0, deaths) as cluster:
        reports = list(dispatch(cluster, range(4000)))
    assert reports != sorted(reports)
    assert Counter(reports) == Counter(range(4000))
    assert len(cluster.workers) == 50 + sum(deaths.values())
    assert max(worker.most for worker in cluster.workers) == DEPTH == 2
    assert all(worker.dead for worker in cluster.workers)


def test_a_lost_workers_shards_go_back_to_the_front_in_order(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedWorkers(1, shards={2: [WorkerDied("segfault\nat 0x0")]})
    assert list(dispatch(script, range(6))) == [0, 1, 2, 3, 4, 5]
    assert [worker.given for worker in script.workers] == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert script.workers[1].deaths == [1, 0, 0, 0]
    assert script.workers[0].killed
    assert "a replica died, 2 shard(s) go back to the queue: segfault\n" in capsys.readouterr().err


def test_a_lost_workers_shards_go_to_live_workers_that_have_nothing_left_to_do() -> None:
    script = ScriptedWorkers(2, starts=[None, None, *[WorkerDied("no memory")] * 3], shards={1: [WorkerDied("gone")]})
    assert sorted(dispatch(script, range(2))) == [0, 1]
    assert script.workers[0].given == [0, 1]


def test_a_shard_that_kills_twice_waits_for_the_others_and_its_workers_are_told_of_the_deaths() -> None:
    script = ScriptedWorkers(1, shards={2: [WorkerDied("once"), WorkerDied("twice"), WorkerDied("thrice")]})
    assert list(dispatch(script, range(6))) == [0, 1, 3, 4, 5, 2]
    assert [worker.deaths[worker.given.index(2)] for worker in script.workers] == [0, 1, 2, 3]


def test_a_shard_that_kills_every_worker_is_left_out_and_named_once_the_others_are_done() -> None:
    script = ScriptedWorkers(1, shards={5: [WorkerDied(f"death {i}") for i in range(99)]})
    reports = []
    with pytest.raises(CamrayError, match=r"^1 shard\(s\) killed .* not done: 5; all others are. .* death 11$"):
        reports.extend(dispatch(script, range(9)))
    assert reports == [0, 1, 2, 3, 4, 6, 7, 8]
    assert len(script.workers) == MAX_SHARD_DEATHS == 12
    assert all(worker.killed for worker in script.workers)


def test_deaths_before_any_shard_is_done_end_the_run_whatever_shards_they_are_of() -> None:
    script = ScriptedWorkers(2, shards={shard: [WorkerDied("illegal instruction")] * 99 for shard in range(1000)})
    with pytest.raises(CamrayError, match=r"^12 replicas died before any shard was done, the last: illegal"):
        list(dispatch(script, range(1000)))


def test_a_death_with_its_machine_is_no_shards_fault() -> None:
    script = ScriptedWorkers(1, shards={2: [WorkerDied("the node is gone")] * 20}, where=("spot", "other"))
    script.gone = {"spot"}
    assert list(dispatch(script, range(6))) == [0, 1, 3, 4, 5, 2]
    deaths = [worker.deaths[worker.given.index(2)] for worker in script.workers]
    assert deaths == [number // 2 for number in range(21)]  # every second worker is at a place that is still there


def test_a_run_that_loses_all_of_its_machines_waits_for_others(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedWorkers(2, shards={2: [WorkerDied("gone")], 3: [WorkerDied("gone")]})
    script.gone = {"here"}
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert len(script.workers) == 2 + 2
    assert capsys.readouterr().err.count("no machine is left that has room for a replica: waiting for one") == 2


class NowhereWorkers(ScriptedWorkers):
    """A cluster whose workers cannot say where they are."""

    def new_worker(self, avoided: frozenset[str]) -> ScriptedWorker:
        worker = super().new_worker(avoided)
        worker.place = Future()
        return worker


class FleetingWorkers(NowhereWorkers):
    """The same on one machine, which is another one as soon as a worker begins to look for its place."""

    def places(self) -> set[str]:
        return {f"machine {len(self.workers)}"}


def test_a_worker_that_dies_with_its_machine_before_it_is_anywhere_is_no_failed_start() -> None:
    script = FleetingWorkers(1, starts=[WorkerDied("it never ran")] * 5)
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert len(script.workers) == 5 + 1


def test_deaths_before_a_worker_is_anywhere_count_until_one_starts() -> None:
    death = WorkerDied("it never ran")
    script = NowhereWorkers(1, starts=[death, death, None, death, death, None], shards={2: [WorkerDied("gone")]})
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: it never ran$"):
        list(dispatch(NowhereWorkers(1, starts=[death] * 9), range(4)))


def test_a_death_is_blamed_on_the_oldest_shard_that_is_not_done() -> None:
    script = ScriptedWorkers(1, shards={0: [WorkerDied("its report is lost")]}, done=(0,))
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert (script.workers[1].given, script.workers[1].deaths) == ([0, 1, 2, 3], [0, 1, 0, 0])


def test_three_failed_starts_in_a_row_without_a_live_worker_end_the_run() -> None:
    failures = [WorkerDied(f"failure {i}") for i in range(9)]
    script = ScriptedWorkers(1, starts=list(failures))
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: failure 2$"):
        list(dispatch(script, range(9)))
    starts = [failures[0], failures[1], None, *failures]
    script = ScriptedWorkers(1, starts=starts, shards={0: [WorkerDied("gone")]})
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: failure 2$"):
        list(dispatch(script, range(9)))
    assert len(script.workers) == 3 + 3


def test_after_three_failed_starts_the_live_workers_go_on_and_the_last_ones_death_ends_the_run() -> None:
    script = ScriptedWorkers(2, starts=[None, *[WorkerDied("no memory")] * 3], shards={8: [WorkerDied("gone")]})
    reports = []
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: no memory$"):
        reports.extend(dispatch(script, range(20)))
    assert sorted(reports) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(script.workers) == 4


def test_a_place_where_a_worker_cannot_work_is_avoided_if_others_can() -> None:
    reason = StorageError("the node does not see the run")
    script = ScriptedWorkers(3, starts=[None, reason, None], where=("good", "bad"))
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert [worker.place.result() for worker in script.workers] == ["good", "bad", "good", "good"]
    assert script.workers[1].given == []


LACK = StorageError("the node does not see the run any more")


def test_a_worker_that_lacks_storage_in_mid_run_costs_its_place_and_the_others_do_its_shards(
    capsys: pytest.CaptureFixture,
) -> None:
    script = ScriptedWorkers(2, shards={3: [LACK]}, where=("good", "bad"))
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert [worker.place.result() for worker in script.workers] == ["good", "bad", "good"]
    assert script.workers[1].given[:2] == [2, 3]
    assert not any(sum(worker.deaths) for worker in script.workers)  # no shard is blamed
    said = "a replica cannot go on, 2 shard(s) go to other machines: the node does not see the run any more\n"
    assert said in capsys.readouterr().err


def test_two_workers_of_one_place_that_lack_storage_for_a_shard_do_not_end_the_run() -> None:
    script = ScriptedWorkers(2, shards={0: [LACK, LACK]}, where=("blind", "blind", "seeing"))
    assert sorted(dispatch(script, range(3))) == [0, 1, 2]
    assert [worker.given for worker in script.workers[:2]] == [[0, 1], [2, 0]]
    assert {worker.place.result() for worker in script.workers[2:]} == {"seeing"}


def test_a_shard_for_which_two_places_lack_storage_ends_the_run_with_the_reason() -> None:
    script = ScriptedWorkers(2, shards={3: [LACK, StorageError("the plan is damaged")]}, where=("one", "two", "three"))
    with pytest.raises(StorageError, match=r"^the plan is damaged$"):
        list(dispatch(script, range(9)))
    assert all(worker.killed for worker in script.workers)


def test_storage_that_the_only_place_lacks_ends_the_run_at_once() -> None:
    script = ScriptedWorkers(2, shards={3: [LACK]})
    with pytest.raises(StorageError, match=r"^the node does not see"):
        list(dispatch(script, range(9)))
    assert len(script.workers) == 2


def test_the_real_reason_ends_the_run_where_no_place_can_work() -> None:
    script = ScriptedWorkers(4, starts=[StorageError("no such folder")] * 9, where=("one", "two"))
    with pytest.raises(StorageError, match=r"^no such folder$"):
        list(dispatch(script, range(9)))
    assert len(script.workers) == 4 + 1


@pytest.mark.parametrize("script", [{"starts": [UsageError("no such model")]}, {"shards": {3: [UsageError("no")]}}])
def test_an_error_of_the_workers_own_ends_the_run(script: dict) -> None:
    workers = ScriptedWorkers(2, **script)
    with pytest.raises(UsageError, match=r"^no"):
        list(dispatch(workers, range(9)))
    assert len(workers.workers) == 2
    assert all(worker.killed for worker in workers.workers)


def test_a_worker_that_hangs_is_replaced_when_its_time_is_over(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedWorkers(1, shards={1: [NEVER]})
    assert sorted(dispatch(script, range(4), timeout_s=0.2)) == [0, 1, 2, 3]
    assert len(script.workers) == 2
    assert script.workers[0].killed
    assert "shard 1 took longer than 0 s" in capsys.readouterr().err


def test_a_worker_that_does_not_load_is_replaced_when_its_time_is_over(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.START_TIMEOUT_S", 0.1)
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 0.1)
    script = ScriptedWorkers(1, starts=[NEVER, NEVER])
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [worker.killed for worker in script.workers] == [True] * 3
    assert (
        "2 replica(s) died while loading their model, the last: it did not load within 0 s" in capsys.readouterr().err
    )
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading .* it did not load within 0 s$"):
        list(dispatch(ScriptedWorkers(1, starts=[NEVER] * 9), range(4)))


def test_a_worker_that_waits_for_a_place_has_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.START_TIMEOUT_S", 0.1)
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 0.1)
    script = NowhereWorkers(2, starts=[NEVER, None])
    reports = dispatch(script, range(4))
    assert next(reports) == 0
    time.sleep(0.5)
    assert sorted(reports) == [1, 2, 3]
    assert len(script.workers) == 2


def test_a_slow_shard_is_begun_again_by_a_worker_that_has_nothing_to_do() -> None:
    script = ScriptedWorkers(2, shards={4: [NEVER]})
    assert sorted(dispatch(script, range(6))) == list(range(6))
    assert len(script.workers) == 2
    assert [worker.given.count(4) for worker in script.workers] == [1, 1]


def test_of_workers_that_ran_out_of_memory_at_one_time_one_is_not_replaced() -> None:
    lack = WorkerDied("out of memory", out_of_memory=True)
    script = ScriptedWorkers(4, shards={4: [lack], 9: [lack]})
    assert sorted(dispatch(script, range(30))) == list(range(30))
    assert len(script.workers) == 4 + 1
    assert not any(sum(worker.deaths) for worker in script.workers)  # no shard is blamed


def test_the_last_worker_of_a_place_is_replaced_when_it_runs_out_of_memory() -> None:
    script = ScriptedWorkers(1, shards={4: [WorkerDied("out of memory", out_of_memory=True)] * 2})
    assert sorted(dispatch(script, range(6))) == list(range(6))
    assert len(script.workers) == 3


class GrowingWorkers(ScriptedWorkers):
    """A cluster that is larger by one each time it is looked at."""

    def num_workers(self) -> int:
        self.size += 1
        return self.size


def test_a_cluster_that_grows_gets_more_workers_while_the_first_one_hangs() -> None:
    script = GrowingWorkers(0, shards={0: [NEVER], 1: [NEVER]})
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [sorted(worker.given) for worker in script.workers] == [[0, 1], [0, 1, 2, 3]]


def operations(num_workers: int, num_shards: int) -> int:
    """Count the bytecode operations of a run, all of which happen in this thread."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    script = ScriptedWorkers(num_workers)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in dispatch(script, range(num_shards)):
            pass
    finally:
        sys.settrace(before)
    return count


def test_a_shard_costs_the_same_number_of_operations_whatever_the_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 3600.0)  # what is done once a second is no shard's cost
    cost = {workers: operations(workers, 1500) - operations(workers, 1000) for workers in (1, 10, 400)}
    assert cost[10] == pytest.approx(cost[1], rel=0.01)
    assert cost[400] == pytest.approx(cost[1], rel=0.01)


def test_the_simulation_runs_a_thousand_workers_without_waiting_for_their_time() -> None:
    assert simulate(1000, 5000, shard_seconds=3600.0) > 0


class EndlessWorker:
    place: Future = ended("here")
    killed = False

    def start(self) -> Future:
        return Future()

    def run_shard(self, shard: int, deaths: int) -> Future:
        return Future()

    def kill(self) -> None:
        self.killed = True


def test_sigterm_breaks_the_wait_and_ends_the_workers() -> None:
    endless, before = ScriptedWorkers(1), signal.getsignal(signal.SIGTERM)
    worker = EndlessWorker()
    endless.new_worker = lambda avoided: worker
    raise_on_sigterm()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(dispatch(endless, range(3)))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert worker.killed


def test_a_second_sigterm_does_not_break_the_end_that_the_first_began() -> None:
    before = signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
