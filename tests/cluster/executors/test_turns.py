"""Threads that take turns by number."""

from functools import partial

import pytest

from cluster.executors.turns import Turns
from tests.support.threads import started_in_order


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
