"""Turns: threads pass one at a time, in the order of their numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

Value = TypeVar("Value")


class Turns:
    """Lets threads pass one at a time, in the order of their numbers."""

    def __init__(self) -> None:
        self.condition = Condition()
        self.next = 0

    @contextmanager
    def take(self, number: int, prepare: Callable[[], Value]) -> Iterator[Value]:
        """Prepare at once, wait for the turn of `number`, give what was prepared; then, or upon an error of either,
        pass the turn on.
        """
        try:
            try:
                prepared = prepare()
            finally:
                with self.condition:
                    self.condition.wait_for(lambda: self.next == number)
            yield prepared
        finally:
            with self.condition:
                self.next += 1
                self.condition.notify_all()
