"""Several processes that hold an object each, forked from one: what its module imports takes time and memory once.

For work that needs Python's lock too often for threads.
"""

import ctypes
import os
import pickle
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from subprocess import DEVNULL, Popen, TimeoutExpired
from threading import Lock, Thread
from typing import Any

from cluster.process.apart import ProcessEnded, answer_calls, begin_child, build, imported, received
from cluster.process.interrupts import BOTH

QUEUE = 2  # calls in a process: the next one is there when it has answered
END_S = 10.0  # from the first death to the end of all
PR_SET_PDEATHSIG = 1  # of prctl(2)


class Crew:
    """Holds ``MODULE:FACTORY`` called with `arguments`, which can be pickled, in `number` processes; close it to end
    them.

    They fall together: where one dies, calls raise ProcessEnded from then on. They end with the process that made them.
    """

    def __init__(self, number: int, factory: str, *arguments: Any, files: Sequence[int] = ()) -> None:
        """Start the processes and return at once; what the factory raises comes with every call.

        `files` are descriptors that they have by the same numbers.
        """
        pairs = [Pipe() for _ in range(number + 1)]
        theirs = [their.fileno() for _, their in pairs]
        self.control, *ours = (our for our, _ in pairs)
        self.members = [_Member(our) for our in ours]
        self.free: SimpleQueue[_Member] = SimpleQueue()
        for member in self.members * QUEUE:
            self.free.put(member)
        start = f"import sys; sys.path[:] = {[*map(str, sys.path)]}; from {__name__} import lead; lead({theirs})"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)  # which they inherit, until they ignore both
        try:
            self.process = Popen(  # noqa: S603  no more than this process
                [sys.executable, "-c", start], stdin=DEVNULL, stdout=2, pass_fds=[*theirs, *files]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for _, their in pairs:
            their.close()
        with suppress(OSError):  # it is gone, as every call will say
            self.control.send_bytes(pickle.dumps((factory, arguments)))

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of one of the objects, as soon as one has less than two calls; return what it returns, raise
        what it raises.

        Threads may call at once: as many as there are processes keep them busy, twice as many without a pause. Raises
        ProcessEnded if a process is gone.
        """
        member = self.free.get()
        try:
            return member.ask(method, arguments)
        except (EOFError, OSError):
            raise ProcessEnded(self._exit_code()) from None
        finally:
            self.free.put(member)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self.process.kill()
        self.process.wait()
        self.control.close()
        for member in self.members:
            member.connection.close()

    def _exit_code(self) -> int:
        """Return that of the first of them that died, which ends all."""
        try:
            return self.process.wait(END_S)
        except TimeoutExpired:  # none has: it was this side that failed, and is out of step with them now
            self.process.kill()
            return self.process.wait()


class _Member:
    """A process as its maker sees it; it answers calls in their order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sending = Lock()
        self.last = Lock()  # held until the last call has its reply

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Have a method called; return what it returns, raise what it raises. Threads may ask at once.

        Raises EOFError or OSError if the process is gone.
        """
        with self.sending:
            self.connection.send((method, arguments))
            before, self.last = self.last, Lock()
            mine = self.last
            mine.acquire()
        with before:
            try:
                return received(self.connection)
            finally:
                mine.release()


def lead(descriptors: Sequence[int]) -> None:
    """Import what the objects need, fork a process for each, and end as the first of them does, or with their maker."""
    begin_child()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which may reach the whole group, too
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a maker may have it ignored: children would go unseen
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
    control, *connections = [Connection(number) for number in descriptors]
    try:
        factory, arguments = pickle.loads(control.recv_bytes())  # noqa: S301  of the process that made this one
    except EOFError:
        return
    with suppress(Exception):  # which comes with every call, as each object's module is imported once more for it
        imported(factory.partition(":")[0])
    leader = os.getpid()
    while connections:
        connection = connections.pop()
        if os.fork() == 0:
            for other in (control, *connections):
                other.close()
            _die_with(leader)
            with suppress(EOFError, OSError):  # the other end is gone
                answer_calls(connection, partial(build, factory, arguments))
            os._exit(0)
        connection.close()
    Thread(target=_end_with_maker, args=(control,), daemon=True).start()
    _, status = os.wait()
    _end_as(os.waitstatus_to_exitcode(status))


def _die_with(leader: int) -> None:
    """Have this process killed when the one that forked it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != leader:  # it has ended before
        os._exit(0)


def _end_with_maker(control: Connection) -> None:
    with suppress(EOFError, OSError):
        control.recv_bytes()
    os._exit(0)


def _end_as(code: int) -> None:
    """End with an exit code; negative, by that signal."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the one before has left a core if it may
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
