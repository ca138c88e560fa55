"""The dispatch loop on simulated and scripted replicas: every shard once, bounded retries, cost, interrupts."""

import contextlib
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
from cluster.executors.blame import MAX_SHARD_DEATHS
from cluster.executors.dispatch import DEPTH, dispatch
from cluster.executors.events import Event, Standing
from cluster.executors.remote import ReplicaDied
from cluster.executors.simulated import SimulatedCluster, SimulatedReplica, simulate
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


class ScriptedReplicas:
    """A cluster of `size` replicas whose calls end at once.

    `starts` says how the first starts end, `shards` how a shard's first runs do: by an error, or never, if NEVER.
    Whatever is not in the script succeeds. A dead replica's calls fail. Replicas are at one of `where` in turn, but not
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
        self.replicas: list[ScriptedReplica] = []

    def new_replica(self, avoided: frozenset[str]) -> "ScriptedReplica":
        free = [place for place in self.where if place not in avoided]
        self.replicas.append(ScriptedReplica(self, free[len(self.replicas) % len(free)]))
        return self.replicas[-1]

    def num_replicas(self) -> int:
        return self.size

    def places_now(self) -> set[str]:
        return set(self.where) - self.gone

    def is_done(self, shard: int) -> bool:
        return shard in self.done


class ScriptedReplica:
    def __init__(self, script: ScriptedReplicas, where: str) -> None:
        self.script, self.given, self.deaths, self.killed = script, [], [], False
        self.place = ended(where)
        self.death: ReplicaDied | None = None

    def start(self) -> Future:
        return self._end(self.script.starts.pop(0) if self.script.starts else None)

    def begin_shard(self, shard: int, deaths: int) -> Future:
        self.given.append(shard)
        self.deaths.append(deaths)
        script = self.script.shards.get(shard)
        if not script or self.death:
            return self._end(shard)
        return self._end(script.pop(0))

    def kill(self) -> None:
        self.killed = True

    def _end(self, outcome: object) -> Future:
        if isinstance(outcome, ReplicaDied):
            self.death = outcome
        return Future() if outcome is NEVER else ended(self.death or outcome)


def test_without_shards_no_replica_is_made() -> None:
    script = ScriptedReplicas(3)
    assert list(dispatch(script, [])) == []
    assert script.replicas == []


def test_few_shards_are_shared_by_all_replicas() -> None:
    script = ScriptedReplicas(3)
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [replica.given for replica in script.replicas] == [[0, 1], [2], [3]]
    assert all(replica.killed for replica in script.replicas)


class HoldingReplica(SimulatedReplica):
    """A simulated replica that counts the shards that it holds, and the most that it ever held."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        super().__init__(cluster)
        self.held: list[Future] = []
        self.most = 0

    def begin_shard(self, shard: int, deaths: int) -> Future:
        future = super().begin_shard(shard, deaths)
        self.held = [*(call for call in self.held if not call.done()), future]
        self.most = max(self.most, len(self.held))
        return future


class HoldingCluster(SimulatedCluster):
    """A simulated cluster of such replicas."""

    def new_replica(self, avoided: frozenset[str]) -> HoldingReplica:
        self.replicas = [*getattr(self, "replicas", []), HoldingReplica(self)]
        return self.replicas[-1]


def test_random_order_and_random_deaths_report_every_shard_once_and_nobody_holds_more_than_two() -> None:
    generator = random.Random(7)
    deaths = {shard: generator.choice([1, 2]) for shard in generator.sample(range(4000), 200)}
    with HoldingCluster(50, 1.0, deaths) as cluster:
        reports = list(dispatch(cluster, range(4000)))
    assert reports != sorted(reports)
    assert Counter(reports) == Counter(range(4000))
    assert len(cluster.replicas) == 50 + sum(deaths.values())
    assert max(replica.most for replica in cluster.replicas) == DEPTH == 2
    assert all(replica.dead for replica in cluster.replicas)


def test_a_lost_replicas_shards_go_back_to_the_front_in_order(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedReplicas(1, shards={2: [ReplicaDied("segfault\nat 0x0")]})
    assert list(dispatch(script, range(6))) == [0, 1, 2, 3, 4, 5]
    assert [replica.given for replica in script.replicas] == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert script.replicas[1].deaths == [1, 0, 0, 0]
    assert script.replicas[0].killed
    assert "a replica died, 2 shard(s) go back to the queue: segfault\n" in capsys.readouterr().err


def test_a_lost_replicas_shards_go_to_live_replicas_that_have_nothing_left_to_do() -> None:
    script = ScriptedReplicas(
        2, starts=[None, None, *[ReplicaDied("no memory")] * 3], shards={1: [ReplicaDied("gone")]}
    )
    assert sorted(dispatch(script, range(2))) == [0, 1]
    assert script.replicas[0].given == [0, 1]


def test_a_shard_that_kills_twice_waits_for_the_others_and_its_replicas_are_told_of_the_deaths() -> None:
    script = ScriptedReplicas(1, shards={2: [ReplicaDied("once"), ReplicaDied("twice"), ReplicaDied("thrice")]})
    assert list(dispatch(script, range(6))) == [0, 1, 3, 4, 5, 2]
    assert [replica.deaths[replica.given.index(2)] for replica in script.replicas] == [0, 1, 2, 3]


def test_a_shard_that_kills_every_replica_is_left_out_and_named_once_the_others_are_done() -> None:
    script = ScriptedReplicas(1, shards={5: [ReplicaDied(f"death {i}") for i in range(99)]})
    reports = []
    with pytest.raises(CamrayError, match=r"^1 shard\(s\) killed .* not done: 5; all others are. .* death 11$"):
        reports.extend(dispatch(script, range(9)))
    assert reports == [0, 1, 2, 3, 4, 6, 7, 8]
    assert len(script.replicas) == MAX_SHARD_DEATHS == 12
    assert all(replica.killed for replica in script.replicas)


def test_deaths_before_any_shard_is_done_end_the_run_whatever_shards_they_are_of() -> None:
    script = ScriptedReplicas(2, shards={shard: [ReplicaDied("illegal instruction")] * 99 for shard in range(1000)})
    with pytest.raises(CamrayError, match=r"^12 replicas died before any shard was done, the last: illegal"):
        list(dispatch(script, range(1000)))


def test_a_death_with_its_machine_is_no_shards_fault() -> None:
    script = ScriptedReplicas(1, shards={2: [ReplicaDied("the node is gone")] * 20}, where=("spot", "other"))
    script.gone = {"spot"}
    assert list(dispatch(script, range(6))) == [0, 1, 3, 4, 5, 2]
    deaths = [replica.deaths[replica.given.index(2)] for replica in script.replicas]
    assert deaths == [number // 2 for number in range(21)]  # every second replica is at a place that is still there


def test_a_run_that_loses_all_of_its_machines_waits_for_others(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedReplicas(2, shards={2: [ReplicaDied("gone")], 3: [ReplicaDied("gone")]})
    script.gone = {"here"}
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert len(script.replicas) == 2 + 2
    assert capsys.readouterr().err.count("no machine is left that has room for a replica: waiting for one") == 2


class NowhereReplicas(ScriptedReplicas):
    """A cluster whose replicas cannot say where they are."""

    def new_replica(self, avoided: frozenset[str]) -> ScriptedReplica:
        replica = super().new_replica(avoided)
        replica.place = Future()
        return replica


class FleetingReplicas(NowhereReplicas):
    """The same on one machine, which is another one as soon as a replica begins to look for its place."""

    def places_now(self) -> set[str]:
        return {f"machine {len(self.replicas)}"}


def test_a_replica_that_dies_with_its_machine_before_it_is_anywhere_is_no_failed_start() -> None:
    script = FleetingReplicas(1, starts=[ReplicaDied("it never ran")] * 5)
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert len(script.replicas) == 5 + 1


def test_deaths_before_a_replica_is_anywhere_count_until_one_starts() -> None:
    death = ReplicaDied("it never ran")
    script = NowhereReplicas(1, starts=[death, death, None, death, death, None], shards={2: [ReplicaDied("gone")]})
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: it never ran$"):
        list(dispatch(NowhereReplicas(1, starts=[death] * 9), range(4)))


def test_a_death_is_blamed_on_the_oldest_shard_that_is_not_done() -> None:
    script = ScriptedReplicas(1, shards={0: [ReplicaDied("its report is lost")]}, done=(0,))
    assert list(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert (script.replicas[1].given, script.replicas[1].deaths) == ([0, 1, 2, 3], [0, 1, 0, 0])


def test_three_failed_starts_in_a_row_without_a_live_replica_end_the_run() -> None:
    failures = [ReplicaDied(f"failure {i}") for i in range(9)]
    script = ScriptedReplicas(1, starts=list(failures))
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: failure 2$"):
        list(dispatch(script, range(9)))
    starts = [failures[0], failures[1], None, *failures]
    script = ScriptedReplicas(1, starts=starts, shards={0: [ReplicaDied("gone")]})
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: failure 2$"):
        list(dispatch(script, range(9)))
    assert len(script.replicas) == 3 + 3


def test_after_three_failed_starts_the_live_replicas_go_on_and_the_last_ones_death_ends_the_run() -> None:
    script = ScriptedReplicas(2, starts=[None, *[ReplicaDied("no memory")] * 3], shards={8: [ReplicaDied("gone")]})
    reports = []
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading their model, the last: no memory$"):
        reports.extend(dispatch(script, range(20)))
    assert sorted(reports) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(script.replicas) == 4


def test_a_place_where_a_replica_cannot_work_is_avoided_if_others_can() -> None:
    reason = StorageError("the node does not see the run")
    script = ScriptedReplicas(3, starts=[None, reason, None], where=("good", "bad"))
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert [replica.place.result() for replica in script.replicas] == ["good", "bad", "good", "good"]
    assert script.replicas[1].given == []


LACK = StorageError("the node does not see the run any more")


def test_a_replica_that_lacks_storage_in_mid_run_costs_its_place_and_the_others_do_its_shards(
    capsys: pytest.CaptureFixture,
) -> None:
    script = ScriptedReplicas(2, shards={3: [LACK]}, where=("good", "bad"))
    assert sorted(dispatch(script, range(9))) == list(range(9))
    assert [replica.place.result() for replica in script.replicas] == ["good", "bad", "good"]
    assert script.replicas[1].given[:2] == [2, 3]
    assert not any(sum(replica.deaths) for replica in script.replicas)  # no shard is blamed
    said = "a replica cannot go on, 2 shard(s) go to other machines: the node does not see the run any more\n"
    assert said in capsys.readouterr().err


def test_two_replicas_of_one_place_that_lack_storage_for_a_shard_do_not_end_the_run() -> None:
    script = ScriptedReplicas(2, shards={0: [LACK, LACK]}, where=("blind", "blind", "seeing"))
    assert sorted(dispatch(script, range(3))) == [0, 1, 2]
    assert [replica.given for replica in script.replicas[:2]] == [[0, 1], [2, 0]]
    assert {replica.place.result() for replica in script.replicas[2:]} == {"seeing"}


def test_a_shard_for_which_two_places_lack_storage_ends_the_run_with_the_reason() -> None:
    script = ScriptedReplicas(2, shards={3: [LACK, StorageError("the plan is damaged")]}, where=("one", "two", "three"))
    with pytest.raises(StorageError, match=r"^the plan is damaged$"):
        list(dispatch(script, range(9)))
    assert all(replica.killed for replica in script.replicas)


def test_storage_that_the_only_place_lacks_ends_the_run_at_once() -> None:
    script = ScriptedReplicas(2, shards={3: [LACK]})
    with pytest.raises(StorageError, match=r"^the node does not see"):
        list(dispatch(script, range(9)))
    assert len(script.replicas) == 2


def test_the_real_reason_ends_the_run_where_no_place_can_work() -> None:
    script = ScriptedReplicas(4, starts=[StorageError("no such folder")] * 9, where=("one", "two"))
    with pytest.raises(StorageError, match=r"^no such folder$"):
        list(dispatch(script, range(9)))
    assert len(script.replicas) == 4 + 1


@pytest.mark.parametrize("script", [{"starts": [UsageError("no such model")]}, {"shards": {3: [UsageError("no")]}}])
def test_an_error_of_the_replicas_own_ends_the_run(script: dict) -> None:
    replicas = ScriptedReplicas(2, **script)
    with pytest.raises(UsageError, match=r"^no"):
        list(dispatch(replicas, range(9)))
    assert len(replicas.replicas) == 2
    assert all(replica.killed for replica in replicas.replicas)


def test_a_replica_that_hangs_is_replaced_when_its_time_is_over(capsys: pytest.CaptureFixture) -> None:
    script = ScriptedReplicas(1, shards={1: [NEVER]})
    assert sorted(dispatch(script, range(4), timeout_s=0.2)) == [0, 1, 2, 3]
    assert len(script.replicas) == 2
    assert script.replicas[0].killed
    assert "shard 1 took longer than 0 s" in capsys.readouterr().err


def test_a_replica_that_does_not_load_is_replaced_when_its_time_is_over(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.START_TIMEOUT_S", 0.1)
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 0.1)
    script = ScriptedReplicas(1, starts=[NEVER, NEVER])
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [replica.killed for replica in script.replicas] == [True] * 3
    assert (
        "2 replica(s) died while loading their model, the last: it did not load within 0 s" in capsys.readouterr().err
    )
    with pytest.raises(MachineError, match=r"^3 replica\(s\) died while loading .* it did not load within 0 s$"):
        list(dispatch(ScriptedReplicas(1, starts=[NEVER] * 9), range(4)))


def test_a_replica_that_waits_for_a_place_has_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.START_TIMEOUT_S", 0.1)
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 0.1)
    script = NowhereReplicas(2, starts=[NEVER, None])
    reports = dispatch(script, range(4))
    assert next(reports) == 0
    time.sleep(0.5)
    assert sorted(reports) == [1, 2, 3]
    assert len(script.replicas) == 2


def test_a_slow_shard_is_begun_again_by_a_replica_that_has_nothing_to_do() -> None:
    script = ScriptedReplicas(2, shards={4: [NEVER]})
    assert sorted(dispatch(script, range(6))) == list(range(6))
    assert len(script.replicas) == 2
    assert [replica.given.count(4) for replica in script.replicas] == [1, 1]


def test_of_replicas_that_ran_out_of_memory_at_one_time_one_is_not_replaced() -> None:
    lack = ReplicaDied("out of memory", out_of_memory=True)
    script = ScriptedReplicas(4, shards={4: [lack], 9: [lack]})
    assert sorted(dispatch(script, range(30))) == list(range(30))
    assert len(script.replicas) == 4 + 1
    assert not any(sum(replica.deaths) for replica in script.replicas)  # no shard is blamed


def test_the_last_replica_of_a_place_is_replaced_when_it_runs_out_of_memory() -> None:
    script = ScriptedReplicas(1, shards={4: [ReplicaDied("out of memory", out_of_memory=True)] * 2})
    assert sorted(dispatch(script, range(6))) == list(range(6))
    assert len(script.replicas) == 3


class GrowingReplicas(ScriptedReplicas):
    """A cluster that is larger by one each time it is looked at."""

    def num_replicas(self) -> int:
        self.size += 1
        return self.size


def test_a_cluster_that_grows_gets_more_replicas_while_the_first_one_hangs() -> None:
    script = GrowingReplicas(0, shards={0: [NEVER], 1: [NEVER]})
    assert sorted(dispatch(script, range(4))) == [0, 1, 2, 3]
    assert [sorted(replica.given) for replica in script.replicas] == [[0, 1], [0, 1, 2, 3]]


def operations(num_replicas: int, num_shards: int) -> int:
    """Count the bytecode operations of a run, all of which happen in this thread."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    script = ScriptedReplicas(num_replicas)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in dispatch(script, range(num_shards)):
            pass
    finally:
        sys.settrace(before)
    return count


def test_a_shard_costs_the_same_number_of_operations_whatever_the_number_of_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.executors.dispatch.WAKE_S", 3600.0)  # what is done once a second is no shard's cost
    cost = {replicas: operations(replicas, 1500) - operations(replicas, 1000) for replicas in (1, 10, 400)}
    assert cost[10] == pytest.approx(cost[1], rel=0.01)
    assert cost[400] == pytest.approx(cost[1], rel=0.01)


def test_the_simulation_runs_a_thousand_replicas_without_waiting_for_their_time() -> None:
    assert simulate(1000, 5000, shard_seconds=3600.0) > 0


class EndlessReplica:
    place: Future = ended("here")
    killed = False

    def start(self) -> Future:
        return Future()

    def begin_shard(self, shard: int, deaths: int) -> Future:
        return Future()

    def kill(self) -> None:
        self.killed = True


def test_sigterm_breaks_the_wait_and_ends_the_replicas() -> None:
    endless, before = ScriptedReplicas(1), signal.getsignal(signal.SIGTERM)
    replica = EndlessReplica()
    endless.new_replica = lambda avoided: replica
    raise_on_sigterm()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(dispatch(endless, range(3)))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert replica.killed


def test_a_second_sigterm_does_not_break_the_end_that_the_first_began() -> None:
    before = signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def told(script: ScriptedReplicas, num_shards: int, timeout_s: float | None = None) -> list[object]:
    """Return what a listener hears, and the reports in between."""
    heard: list[object] = []
    threads = set()

    def listen(event: Event) -> None:
        threads.add(threading.current_thread())
        heard.append((event.kind, {name: value for name, value in event.fields.items() if name != "seconds"}))

    for report in dispatch(script, range(num_shards), timeout_s, listen):
        heard.append(report)
    assert threads == {threading.current_thread()}
    return heard


def test_a_listener_hears_of_a_death_between_the_reports() -> None:
    script = ScriptedReplicas(1, shards={2: [ReplicaDied("segfault\nat 0x0")]})
    assert told(script, 4) == [
        *(("replica_up", {"place": "here"}), 0, 1),
        ("replica_died", {"place": "here", "why": "segfault", "shards": 2, "numbers": (2, 3)}),
        *(("replica_up", {"place": "here"}), 2, 3),
    ]


def test_a_listener_hears_which_place_is_avoided_and_why_once_the_last_start_there_has_failed() -> None:
    script = ScriptedReplicas(2, starts=[None, *[ReplicaDied("no memory")] * 3])
    heard = told(script, 20)
    failed = [f"{times} replica(s) died while loading their model, the last: no memory" for times in (1, 2, 3)]
    assert [one for one in heard if isinstance(one, tuple)] == [
        ("replica_up", {"place": "here"}),
        *(("replica_not_started", {"place": "here", "why": why}) for why in failed),
        ("place_avoided", {"place": "here", "why": failed[-1]}),
    ]


def test_a_listener_hears_once_of_a_place_that_lacks_storage() -> None:
    script = ScriptedReplicas(2, shards={3: [LACK], 30: [ReplicaDied("gone")]}, where=("good", "bad"))
    heard = [one for one in told(script, 60) if isinstance(one, tuple) and one[0] != "replica_up"]
    numbers = [fields.pop("numbers") for kind, fields in heard if kind == "replica_died"]
    assert [(len(shards), expected in shards) for shards, expected in zip(numbers, (3, 30), strict=True)] == [
        (2, True)
    ] * 2
    assert heard == [
        ("replica_died", {"place": "bad", "why": str(LACK), "shards": 2}),
        ("place_avoided", {"place": "bad", "why": str(LACK)}),
        ("replica_died", {"place": "good", "why": "gone", "shards": 2}),
    ]


def test_who_watches_sees_how_the_work_stands_and_that_it_has_ended() -> None:
    script, seen = ScriptedReplicas(2, shards={4: [NEVER]}), list[Standing]()
    reports = dispatch(script, range(7), watch=seen.append)
    with contextlib.closing(reports):
        assert [next(reports) for _ in range(6)] == [0, 1, 2, 3, 5, 6]
        assert seen == []
        assert next(reports) == 4  # after two seconds a slow shard is given to another one, too
        assert list(reports) == []
    assert seen[0] == Standing(waiting=0, at_work=1, replicas=2)
    assert seen[-1] == Standing(waiting=0, at_work=0, replicas=2)
