"""SIGTERM becomes KeyboardInterrupt, so that `ray job stop` and Ctrl-C end a run in the same way."""

import signal
from types import FrameType


def raise_on_sigterm() -> None:
    """Install the handler. Ray puts its own in place in `ray.init`: call this again after it."""
    signal.signal(signal.SIGTERM, _raise)


def ignore_sigterm() -> None:
    """Let a SIGTERM that comes when all is done, and Python takes seconds to end, leave the exit code as it is."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    ignore_sigterm()  # a second one would break the end that the first one began
    raise KeyboardInterrupt
