"""SIGTERM becomes KeyboardInterrupt, so that `ray job stop` and Ctrl-C end a run in the same way, and both can wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED_CODE = 130  # of a shell for what SIGINT ends
BOTH = {signal.SIGINT, signal.SIGTERM}


def raise_on_sigterm() -> None:
    """Install the handler. Ray puts its own in place in `ray.init`: call this again after it."""
    signal.signal(signal.SIGTERM, _raise)


def ignore_interrupts() -> None:
    """Let what comes when all is done, and Python takes seconds to end, leave the exit code as it is."""
    for number in BOTH:
        signal.signal(number, signal.SIG_IGN)


def hold() -> None:
    """Let SIGINT and SIGTERM wait until the end of the next `held`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)


@contextmanager
def held() -> Iterator[None]:
    """Let both wait for the end of this, where modules are imported: an import may swallow what they raise."""
    hold()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break the end that the first one began
    raise KeyboardInterrupt
