"""A replica that is given shards by several threads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

from cam_ops.settings import ModelConfig
from cluster.executors.turns import Turns
from cluster.label.replica import open_replica
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command

MODEL = ModelConfig(model="tests.support.networks:two_channels", mean=(0, 0, 0), std=(1, 1, 1), image_size=32)
FLAGS = ["--model", MODEL.model, "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--precision", "fp32"]


def started_in_order(numbers: list[int], run: Callable[[int], None]) -> None:
    """Call `run(number)` in a thread each, begun one after the other, and wait for all."""
    threads = []
    for number in numbers:
        begun = Event()

        def begin(number: int = number, begun: Event = begun) -> None:
            begun.set()
            run(number)

        threads.append(Thread(target=begin))
        threads[-1].start()
        assert begun.wait(60)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("arrival", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_threads_take_their_turns_by_number_whatever_order_they_arrive_in(arrival: list[int]) -> None:
    turns, taken = Turns(), []

    def take(number: int) -> None:
        with turns.take(number, lambda: -number) as prepared:
            taken.append(("in", -prepared))
            taken.append(("out", number))

    started_in_order(arrival, take)
    assert taken == [(what, number) for number in range(5) for what in ("in", "out")]


@pytest.mark.parametrize("moment", ["before its turn", "amid its turn"])
def test_an_error_gives_the_turn_to_the_next(moment: str) -> None:
    turns, taken, raised = Turns(), [], []

    def reach(number: int, here: str) -> None:
        if (number, here) == (1, moment):
            raise ValueError("a shard that cannot be labelled")

    def take(number: int) -> None:
        try:
            with turns.take(number, partial(reach, number, "before its turn")):
                reach(number, "amid its turn")
                taken.append(number)
        except ValueError:
            raised.append(number)

    started_in_order([3, 2, 1, 0], take)
    assert (taken, raised) == ([0, 2, 3], [1])


@pytest.mark.slow
def test_a_replica_that_publishes_when_all_is_over_changes_nothing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["label", "--images", pictures, "--out", out, "--executor", "inline", "--shard-size", 4, *FLAGS]
    assert Command(*command).code == 0
    before = {path: path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()}
    run_dir = RunDir(str(out))
    zombie = open_replica(run_dir, MODEL, existing_run(run_dir).request.fingerprint())
    for number, deaths in enumerate((0, 1, 2, 3)):  # from the third on as suspicious as can be
        zombie.run_shard(1, number, deaths)
    assert {path: path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()} == before
    assert Command("verify", out).code == 0


def test_shards_of_two_threads_are_those_of_one_and_are_committed_by_number(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = Command("label", "--images", pictures, "--out", out, "--executor", "inline", "--shard-size", 4, *FLAGS)
    assert done.code == 0
    expected = {path: path.read_bytes() for path in sorted(out.glob("[bhi]*/*.parquet"))}
    assert len(expected) == 9
    for path in expected:
        path.unlink()
    run_dir = RunDir(str(out))
    replica = open_replica(run_dir, MODEL, existing_run(run_dir).request.fingerprint(), num_threads=2)
    shard_of = {0: 2, 1: 0, 2: 1}  # numbers count the calls, whichever shards these are for
    reports = {}

    def run(number: int) -> None:
        reports[number] = replica.run_shard(shard_of[number], number)

    started_in_order([2, 1, 0], run)
    assert [(reports[number].shard, reports[number].statuses) for number in range(3)] == [
        (shard, {"ok": 4}) for shard in (2, 0, 1)
    ]
    assert {path: path.read_bytes() for path in expected} == expected
    committed = sorted((out / "images").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in committed] == [f"shard-000000{shard}.parquet" for shard in (2, 0, 1)]
