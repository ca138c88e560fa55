"""Threads that are begun one after the other."""

from collections.abc import Callable
from threading import Event, Thread


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
