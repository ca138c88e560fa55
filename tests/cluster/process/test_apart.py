"""An object in a process of its own, and the driver that therefore needs no torch."""

import logging
import os
import signal
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from cam_ops.errors import CamrayError, UsageError
from cluster.process.apart import Apart, Here, ProcessEnded
from tests.support.command import ROOT
from tests.support.hostile_text import MOVES, unseen
from tests.support.nodes import wait_until


class Counter:
    """Counts in whatever process it lives."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise UsageError(f"a start of at least 0 is expected, got {start}")
        self.count = start

    def add(self, number: int) -> tuple[int, int]:
        self.count += number
        return self.count, os.getpid()

    def fail(self) -> None:
        raise ZeroDivisionError("by zero")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def ring(self) -> None:
        warnings.warn(f"warned {MOVES}", stacklevel=1)
        logging.getLogger("camray").warning("logged %s", MOVES)
        print(f"printed {MOVES}", flush=True)
        raise RuntimeError(f"raised {MOVES}")

    def shout(self) -> None:
        print("Python's", flush=True)
        subprocess.run(["echo", "a program's"], check=True)

    def hang(self) -> None:
        print(os.getpid(), flush=True)
        signal.pause()


def test_it_keeps_its_state_in_another_process_and_here_in_this_one() -> None:
    apart, here = (
        Apart("tests.cluster.process.test_apart:Counter", 1),
        Here("tests.cluster.process.test_apart:Counter", 1),
    )
    (first, pid), (second, same_pid) = apart.call("add", 2), apart.call("add", 3)
    assert (first, second) == (3, 6)
    assert pid == same_pid != os.getpid()
    assert here.call("add", 2) == (3, os.getpid())
    apart.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_is_too_slow_is_not_taken_for_one_that_died() -> None:
    with (
        closing(Apart("tests.cluster.process.test_apart:Counter", 1)) as apart,
        pytest.raises(ProcessEnded, match=r"no answer in time .* is its machine busy"),
    ):
        apart.call("hang", timeout_s=0.1)


class Marker:
    """Leaves a file when it is made."""

    def __init__(self, path: str) -> None:
        with open(path, "x"):
            pass

    def pid(self) -> int:
        return os.getpid()


def test_the_object_is_made_before_the_first_call(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    apart = Apart("tests.cluster.process.test_apart:Marker", str(marker))
    wait_until(marker.exists)
    assert apart.call("pid") == apart.process.pid
    apart.close()


def test_errors_come_with_the_call() -> None:
    refused = Apart("tests.cluster.process.test_apart:Counter", -1)
    with pytest.raises(UsageError, match="at least 0 is expected, got -1"):
        refused.call("add", 1)
    refused.close()
    apart = Apart("tests.cluster.process.test_apart:Counter", 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
        apart.call("fail")
    assert apart.call("add", 1)[0] == 1
    with pytest.raises(CamrayError, match="ended with exit code -9"):
        apart.call("die")
    apart.close()


def test_it_ends_with_the_process_that_made_it_whatever_it_is_at() -> None:
    code = "from cluster.process.apart import Apart; Apart('tests.cluster.process.test_apart:Counter', 0).call('hang')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True) as maker:
        assert maker.stderr
        hanging = psutil.Process(int(maker.stderr.readline()))
        maker.kill()
    hanging.wait(60)


def test_what_it_prints_goes_to_stderr_as_stdout_is_the_commands() -> None:
    code = (
        "from cluster.process.apart import Apart\n"
        "Apart('tests.cluster.process.test_apart:Counter', 0).call('shout'); print('the document')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "the document\n"
    assert {"Python's", "a program's"} <= set(done.stderr.splitlines())


def test_a_driver_on_ray_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import jobs.label, cluster.executors.ray_actors, sys; sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_interrupt_of_the_group_leaves_it_alone_while_it_starts() -> None:
    code = (
        "import os, signal; from cluster.process.apart import Apart\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "apart = Apart('tests.cluster.process.test_apart:Counter', 1)\n"
        "os.killpg(0, signal.SIGINT); print(apart.call('add', 2)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, process_group=0)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_nothing_that_it_says_moves_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Apart("tests.cluster.process.test_apart:Counter", 0)) as apart, pytest.raises(RuntimeError):
        apart.call("ring")
    said = capfd.readouterr().err
    assert all(f"{how} " in said for how in ("warned", "logged", "printed", "raised"))
    assert unseen(said) == set()
