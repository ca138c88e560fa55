"""What the dispatch loop remembers of places and shards, by cases worked out by hand."""

import pytest

from cam_ops.errors import CamrayError, StorageError
from cluster.executors.blame import Blame
from cluster.executors.pace import Pace
from cluster.executors.places import Places


def test_a_place_is_avoided_after_three_failed_starts_in_a_row_there() -> None:
    places = Places()
    for _ in range(2):
        places.died_loading("a", "no memory")
        places.died_loading("b", "no memory")
    places.started("b")
    failure = places.died_loading("a", "killed")
    places.died_loading("b", "killed")
    assert str(failure) == "3 replica(s) died while loading their model, the last: killed"
    assert places.avoided() == {"a"}
    places.started("a")
    assert places.avoided() == frozenset()


def test_a_place_that_says_what_it_lacks_is_avoided_at_once_and_the_reason_kept() -> None:
    places, failure = Places(), StorageError("no such folder")
    places.cannot_work("a", failure)
    assert places.avoided() == {"a"}
    assert places.failure is failure


def test_another_replica_is_of_use_where_a_place_is_left_or_none_is_there_yet() -> None:
    places = Places()
    places.cannot_work("a", StorageError("no such folder"))
    assert not places.allow_another({"a"})
    assert places.allow_another({"a", "b"})
    assert places.allow_another(set())  # it waits for a machine


def test_three_replicas_that_died_before_they_were_anywhere_are_the_last_until_one_starts() -> None:
    places = Places()
    for _ in range(3):
        assert places.allow_another({"a"})
        places.died_loading("", "it never ran")
    assert not places.allow_another({"a"})
    assert not places.allow_another(set())
    places.started("a")
    assert places.allow_another({"a"})


def test_deaths_of_one_place_for_memory_are_one_storm_for_half_a_minute_from_its_first() -> None:
    places = Places()
    times_s = [100.0, 101.0, 129.9, 130.0, 131.0]
    assert [places.is_first_of_storm("a", at_s) for at_s in times_s] == [True, False, False, True, False]
    assert places.is_first_of_storm("b", 131.0)


def test_a_shard_keeps_its_turn_after_one_death_waits_from_the_second_and_is_lost_at_the_twelfth() -> None:
    blame = Blame()
    verdicts = [blame.died_at(7, f"death {number}") for number in range(12)]
    assert verdicts == ["in its turn", *["after all others"] * 10, "never"]
    assert blame.lost == {7: "death 11"}
    assert blame.died_at(8, "its first") == "in its turn"
    with pytest.raises(CamrayError, match=r"^1 shard\(s\) killed .* are not done: 7; all others are\. .*: death 11$"):
        blame.raise_lost()


def test_without_lost_shards_nothing_is_raised() -> None:
    blame = Blame()
    for _ in range(11):
        blame.died_at(7, "it died")
    blame.raise_lost()


def test_a_shard_is_suspected_from_its_second_death() -> None:
    blame, suspected = Blame(), []
    for _ in range(3):
        suspected.append(blame.is_suspected(7))
        blame.died_at(7, "it died")
    assert suspected == [False, False, True]
    assert not blame.is_suspected(8)


@pytest.mark.parametrize(("num_replicas", "most"), [(1, 11), (6, 11), (7, 13)])
def test_so_many_deaths_of_many_shards_are_no_shards_fault(num_replicas: int, most: int) -> None:
    blame = Blame()
    for shard in range(most):
        blame.died_at(shard, "illegal instruction")
    blame.refuse_to_go_on(num_replicas, "illegal instruction")
    blame.died_at(most, "illegal instruction")
    with pytest.raises(CamrayError, match=rf"^{most + 1} replicas died before any shard was done, the last: illegal"):
        blame.refuse_to_go_on(num_replicas, "illegal instruction")


def test_what_a_shard_lacks_at_two_places_is_not_the_places_fault() -> None:
    blame = Blame()
    asked = [("a", 7), ("a", 7), ("b", 8), ("b", 7), ("a", 7)]
    assert [blame.lacks_only_at(place, shard) for place, shard in asked] == [True, True, True, False, True]


def test_a_shard_may_take_ten_times_the_longest_and_ten_minutes_at_least() -> None:
    pace, limits_s = Pace(None), []
    for seconds in (5.0, 70.0, 1.0):
        limits_s.append(pace.limit_s(is_suspected=False))
        pace.took(seconds)
    assert limits_s == [float("inf"), 600.0, 700.0]
    assert pace.limit_s(is_suspected=True) == 700.0


@pytest.mark.parametrize(("timeout_s", "suspected_s"), [(15.0, 300.0), (900.0, 900.0)])
def test_the_limit_asked_for_holds_but_for_suspected_shards_five_minutes_at_least(
    timeout_s: float, suspected_s: float
) -> None:
    pace = Pace(timeout_s)
    pace.took(700.0)
    assert (pace.limit_s(is_suspected=False), pace.limit_s(is_suspected=True)) == (timeout_s, suspected_s)


def test_slow_is_twice_the_median_of_the_last_hundred_and_two_seconds_at_least() -> None:
    pace = Pace(None)
    assert pace.slow_s() == float("inf")
    pace.took(0.5)
    assert pace.slow_s() == 2.0
    for seconds in (3.0, 40.0):
        pace.took(seconds)
    assert pace.slow_s() == 6.0
    for _ in range(100):
        pace.took(10.0)
    assert pace.slow_s() == 20.0
