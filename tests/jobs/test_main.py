"""The process of a command: a signal at any moment ends it with its exit code and its line, and without a traceback."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.command import ROOT, result_of
from tests.support.nodes import wait_until

FLAGS = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
SENDER = """
import os, signal, sys
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, number, how = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
class Sender:
    def find_spec(self, wanted, *_):
        if wanted == name and self in sys.meta_path:
            sys.meta_path.remove(self)
            {
                "raised": lambda: os.kill(os.getpid(), signal.Signals[number]),
                "swallowed": self.swallow,
                "in exec": lambda: exec(f"os.kill(os.getpid(), signal.{number}); pass"),
            }[how]()
    def swallow(self):
        try:
            os.kill(os.getpid(), signal.Signals[number])
        except KeyboardInterrupt:
            pass
if __name__ == "__main__":
    sys.meta_path.insert(0, Sender())
    from jobs.__main__ import main
    main()
"""


def signalled_at(
    module: str, signal_name: str, how: str, pictures: Path, executor: str
) -> subprocess.CompletedProcess[str]:
    """Run `label`, which sends itself a signal when it begins to import a module."""
    words = ["label", "--images", pictures, "--out", pictures.parent / "run", "--executor", executor, *FLAGS]
    (pictures.parent / "sender.py").write_text(SENDER)
    command = [sys.executable, "-m", "sender", module, signal_name, how, *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(pictures.parent)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("module", "how", "executor"),
    [
        ("tyro", "raised", "inline"),
        ("cluster.label.driver", "swallowed", "inline"),
        ("cluster.executors.inline", "in exec", "inline"),
        ("torch", "swallowed", "inline"),
        ("ray", "swallowed", "ray"),
    ],
)
def test_an_interrupt_amid_an_import_is_neither_lost_nor_a_traceback(
    signal_name: str, module: str, how: str, executor: str, pictures: Path
) -> None:
    done = signalled_at(module, signal_name, how, pictures, executor)
    assert (done.returncode, result_of(done.stdout)["status"]) == (130, "interrupted"), done.stderr
    assert (done.stdout.count("CAMRAY_RESULT"), "Traceback" in done.stderr) == (1, False), done.stderr


def processes_with(variable: str, value: str) -> list[str]:
    """Return the command lines of this machine's processes that have an environment variable of that value."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(variable) == value:
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["gcs_server", "raylet/raylet", "agent"])
def test_an_interrupt_while_ray_starts_leaves_no_process_behind(
    begun: str, pictures: Path, interruptible: None
) -> None:
    words = ["label", "--images", pictures, "--out", pictures.parent / "run", "--replicas", 1, *FLAGS]
    command, env = [sys.executable, "-m", "jobs", *map(str, words)], os.environ | {"OF_TEST": str(pictures)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as job:
        wait_until(lambda: any(begun in line for line in processes_with("OF_TEST", str(pictures))))
        os.killpg(job.pid, signal.SIGINT)
        stdout, stderr = job.communicate(timeout=120)
    assert (job.returncode, stdout.count("CAMRAY_RESULT"), "Traceback" in stderr) == (130, 1, False), stderr
    assert processes_with("OF_TEST", str(pictures)) == []
