"""An object that lives in a process of its own: what it imports and allocates is gone with it.

The driver has one do what needs torch, so that it stays small and starts Ray in the meantime.
"""

import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from types import ModuleType
from typing import Any, TextIO, cast

from cam_ops.errors import CamrayError
from cluster.process.console import Seen
from cluster.process.interrupts import held
from cluster.process.memory import memory_errors


class ProcessEnded(CamrayError):
    """The process is gone; `process_code` is its exit code, negative a signal's number, None if it was too slow."""

    def __init__(self, process_code: int | None) -> None:
        super().__init__(
            "a process of camray had no answer in time and was ended; is its machine busy?"
            if process_code is None
            else f"a process of camray ended with exit code {process_code}, if negative a signal's number; is there "
            "enough memory?"
        )
        self.process_code = process_code

    def __reduce__(self) -> tuple[type["ProcessEnded"], tuple[int | None]]:
        return type(self), (self.process_code,)


class Apart:
    """Holds ``MODULE:FACTORY`` called with `arguments`, all of which can be pickled; close it to end its process."""

    def __init__(self, factory: str, *arguments: Any) -> None:
        """Start the process, which calls the factory, and return at once; what that raises comes with every call."""
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, factory, arguments), daemon=True)
        resource_tracker.ensure_running()  # else `start` does, and lets signals through again
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGINT}
        )  # which the child inherits, until it ignores it
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Call a method of the object; return what it returns, raise what it raises.

        Raises ProcessEnded if the process is gone, or has no answer within `timeout_s` and is ended for it.
        """
        try:
            self.connection.send((method, arguments))
            if not self.connection.poll(timeout_s):
                self.process.kill()
                raise ProcessEnded(None)
            return received(self.connection)
        except (EOFError, OSError):
            self.process.join()
            raise ProcessEnded(self.process.exitcode) from None

    def close(self) -> None:
        """End the process, whatever it is at."""
        self.connection.close()
        self.process.terminate()
        self.process.join()


class Here:
    """The same, in this process: ``MODULE:FACTORY`` called with `arguments`, at once."""

    def __init__(self, factory: str, *arguments: Any) -> None:
        with held():
            imported(factory.partition(":")[0])
        self.held = build(factory, arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object."""
        return getattr(self.held, method)(*arguments)

    def close(self) -> None:
        """Let go of the object."""
        self.held = None


def received(connection: Connection) -> Any:
    """Return what a call at the other end has returned, raise what it has raised; EOFError, OSError if it is gone."""
    has_failed, reply = connection.recv()
    if has_failed:
        raise reply
    return reply


def _serve(connection: Connection, factory: str, arguments: tuple[Any, ...]) -> None:
    """Answer calls until the other end closes, or its process is killed."""
    begin_child()
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        answer_calls(connection, partial(build, factory, arguments))


def begin_child() -> None:
    """Leave Ctrl-C, which reaches the whole group, to the command, and its stdout to its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.dup2(2, 1)  # a network's code may print, and torch what it downloads
    sys.stdout, sys.stderr = cast(TextIO, Seen(sys.stdout)), cast(TextIO, Seen(sys.stderr))


def answer_calls(connection: Connection, make: Callable[[], Any]) -> None:
    """Make the object, before the first call, and answer calls to it; raises EOFError when the other end closes."""
    made = _attempt(make)
    while True:
        method, given = connection.recv()
        connection.send(made if made[0] else _attempt(partial(getattr(made[1], method), *given)))


def _attempt(call: Callable[[], Any]) -> tuple[bool, Any]:
    """Return whether a call failed and what it raised, in a form that crosses to the driver, whose `main` handles it;
    else what it returned.
    """
    try:
        with memory_errors():
            return False, call()
    except CamrayError as error:
        return True, error
    except Exception as error:  # noqa: BLE001  of any code that runs here
        traceback.print_exc()
        return True, RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Wait for the death of the process that made this one, which may be amid a long call then."""
    parent = parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def build(factory: str, arguments: tuple[Any, ...]) -> Any:
    """Return ``MODULE:FACTORY`` called with `arguments`."""
    module_name, _, name = factory.partition(":")
    return getattr(imported(module_name), name)(*arguments)


def imported(module_name: str) -> ModuleType:
    """Import a module without looking for garbage meanwhile, nor later among what is there then.

    torch is a million objects that stay: Python's collector would take a quarter of the time, to find none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        module = importlib.import_module(module_name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
    return module
