"""Objects in several processes, forked from one that has made the imports."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from cam_ops.errors import UsageError
from cluster.process.apart import ProcessEnded
from cluster.process.crew import QUEUE, Crew
from tests.support.command import ROOT
from tests.support.nodes import wait_until

HOLDER = "tests.cluster.process.test_crew:Holder"
imported_in = os.getpid()


class Holder:
    """Says where it is."""

    def __init__(self, start: int, file: int = -1) -> None:
        if start < 0:
            raise UsageError(f"a start of at least 0 is expected, got {start}")
        self.start, self.file = start, file

    def where(self, number: int) -> tuple[int, int, int, int]:
        """Return the sum, this process, the one that forked it, and the one in which this module was imported."""
        return self.start + number, os.getpid(), os.getppid(), imported_in

    def wait_for(self, path: str) -> int:
        while not os.path.exists(path):
            time.sleep(0.01)
        return os.getpid()

    def write(self, text: str) -> None:
        os.pwrite(self.file, text.encode(), 0)

    def fail(self) -> None:
        raise ZeroDivisionError("by zero")

    def refuse(self) -> None:
        raise UsageError("something else is expected")

    def end(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def exit(self, code: int) -> None:
        os._exit(code)

    def shout(self) -> None:
        subprocess.run(["echo", "a program's"], check=True)

    def hang(self) -> None:
        print(os.getpid(), flush=True)
        signal.pause()


@pytest.fixture
def crew() -> Iterator[Crew]:
    with closing(Crew(3, HOLDER, 40)) as crew:
        yield crew


def test_calls_go_to_as_many_processes_forked_from_one_that_imported(crew: Crew, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(3 * QUEUE) as threads:
        waiting = [threads.submit(crew.call, "wait_for", str(gate)) for _ in range(3)]
        wait_until(lambda: crew.free.qsize() == 3 * QUEUE - 3)
        queued = [threads.submit(crew.call, "where", number) for number in range(3)]
        wait_until(lambda: crew.free.qsize() == 0)
        assert not any(call.done() for call in queued)
        gate.touch()
        pids = [call.result() for call in waiting]
        found = [call.result() for call in queued]
    assert len({*pids}) == 3
    assert [total for total, *_ in found] == [40, 41, 42]
    assert {pid for _, pid, *_ in found} == {*pids}
    assert {(leader, made) for *_, leader, made in found} == {(crew.process.pid, crew.process.pid)}


def test_each_of_many_calls_at_once_gets_its_own_answer(crew: Crew) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda number: crew.call("where", number)[0], range(2000)))
    assert found == [40 + number for number in range(2000)]


def test_what_is_raised_comes_across_and_the_next_call_is_answered(crew: Crew) -> None:
    for _ in range(7):
        with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
            crew.call("fail")
        with pytest.raises(UsageError, match="something else is expected"):
            crew.call("refuse")
    assert crew.call("where", 2)[0] == 42


def test_what_the_factory_raises_comes_with_every_call() -> None:
    with closing(Crew(2, HOLDER, -1)) as crew:
        for _ in range(5):
            with pytest.raises(UsageError, match="got -1"):
                crew.call("where", 2)


def test_files_are_had_by_their_numbers(tmp_path: Path) -> None:
    with (
        open(tmp_path / "file", "w+") as file,
        closing(Crew(1, HOLDER, 0, file.fileno(), files=[file.fileno()])) as crew,
    ):
        crew.call("write", "written there")
        assert file.read() == "written there"


@pytest.mark.parametrize(
    ("method", "argument", "code"),
    [("end", signal.SIGKILL, -9), ("end", signal.SIGSEGV, -11), ("end", signal.SIGABRT, -6), ("exit", 3, 3)],
)
def test_they_fall_together_and_say_how(crew: Crew, method: str, argument: int, code: int) -> None:
    pids = {crew.call("where", 0)[1] for _ in range(3)}
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(crew.call, "hang")
        wait_until(lambda: crew.free.qsize() == 3 * QUEUE - 1)
        for _ in range(3 * QUEUE - 1):  # one of them is behind the call that hangs
            with pytest.raises(ProcessEnded) as raised:
                crew.call(method, argument)
            assert raised.value.process_code == code
        with pytest.raises(ProcessEnded, match=f"exit code {code}"):
            hanging.result()
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 60)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_death_is_seen_below_a_maker_that_ignores_children() -> None:
    code = (
        "import signal; from cluster.process.crew import Crew\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"crew = Crew(2, {HOLDER!r}, 1)\n"
        "try: crew.call('end', signal.SIGSEGV)\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ProcessEnded\n", "")


def test_what_the_import_raises_comes_with_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cut_off.py").write_text("raise EOFError('marshal data too short')")
    with closing(Crew(2, "cut_off:Holder")) as crew:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="EOFError: marshal data too short"):
                crew.call("where", 2)


class Unsendable:
    """Fails on this side, as a machine without memory for what is sent would."""

    def __reduce__(self) -> str:
        raise OSError(errno.ENOBUFS, "No buffer space available")


@pytest.mark.slow
def test_a_failure_of_this_side_ends_them_instead_of_waiting(crew: Crew) -> None:
    crew.call("where", 2)
    with pytest.raises(ProcessEnded, match="exit code -9"):
        crew.call("where", Unsendable())


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["maker", "leader"])
def test_they_end_with_who_made_and_who_leads_them_whatever_they_are_at(dies: str) -> None:
    code = (
        "from cluster.process.crew import Crew; from threading import Thread\n"
        f"crew = Crew(2, {HOLDER!r}, 0); print(crew.process.pid, flush=True)\n"
        "Thread(target=crew.call, args=('hang',), daemon=True).start(); crew.call('hang')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as maker:
        assert maker.stdout
        assert maker.stderr
        leader = psutil.Process(int(maker.stdout.readline()))
        members = [psutil.Process(int(maker.stderr.readline())) for _ in range(2)]
        os.kill(maker.pid if dies == "maker" else leader.pid, signal.SIGKILL)
        maker.wait(60)
        maker.stderr.read()
    gone, alive = psutil.wait_procs([leader, *members], 60)
    assert (len(gone), alive) == (3, [])


def test_close_ends_them_amid_a_call(crew: Crew) -> None:
    pids = [crew.call("where", 0)[1] for _ in range(3)]
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(crew.call, "hang")
        wait_until(lambda: crew.free.qsize() == 3 * QUEUE - 1)
        crew.close()
        assert isinstance(hanging.exception(60), ProcessEnded)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_the_group_leaves_them_alone_and_stdout_is_the_commands(number: int) -> None:
    code = (
        "import os, signal; from cluster.process.crew import Crew\n"
        f"signal.signal({number}, lambda *_: None)\n"
        f"crew = Crew(2, {HOLDER!r}, 1)\n"
        f"os.killpg(0, {number}); crew.call('where', 2); os.killpg(0, {number})\n"
        "crew.call('shout'); print(crew.call('where', 2)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, process_group=0)
    assert (done.stdout, done.stderr) == ("3\n", "a program's\n")
