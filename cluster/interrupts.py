"""SIGTERM becomes KeyboardInterrupt, so that `ray job stop` and Ctrl-C end a run in the same way."""

import signal
from types import FrameType


def raise_on_sigterm() -> None:
    """Install the handler. Ray puts its own in place in `ray.init`: call this again after it."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break the end that the first one began
    raise KeyboardInterrupt
