"""Ray actors that die: bounded retries, and the reason in the result. Addresses at which something else listens."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray.exceptions import RuntimeEnvSetupError

from cam_ops.errors import MachineError
from cluster.executors.ray_actors import RayExecutor, _meaning
from cluster.executors.remote import ReplicaDied
from tests.support.command import ROOT, Command, result_of

pytestmark = pytest.mark.ray


def label(pictures: Path, out: Path, factory: str, marker: Path) -> Command:
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(pictures / "rings" / "99-white.png")
    flags = ["--model", f"tests.support.killers:{factory}", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    more = ["--replicas", 1, "--shard-size", 1, "--batch-size", 1]
    env = {"CAMRAY_TEST_MARKER": str(marker)}
    return Command("label", "--images", pictures, "--out", out, *flags, *more, env=env)


def test_replicas_that_die_while_loading_are_not_started_for_ever(pictures: Path, tmp_path: Path) -> None:
    failed = label(pictures, tmp_path / "run", "starts_once", tmp_path / "marker")
    assert failed.code == 6
    assert "3 replica(s) died while loading their model" in failed.result["error"]
    assert "Traceback" not in failed.err


def test_a_node_that_cannot_make_the_jobs_environment_is_a_replica_that_died() -> None:
    death = _meaning(RuntimeEnvSetupError("OSError: no space left on device"))
    assert isinstance(death, ReplicaDied)
    assert str(death) == "OSError: no space left on device"


LISTEN = """
import json, psutil, ray
from cluster.executors.ray_actors import RayExecutor
executor = RayExecutor(None)
ray.get(ray.remote(lambda: 0).remote())
here = psutil.Process()
sockets = [socket for process in (here, *here.children(recursive=True)) for socket in process.net_connections()]
print(json.dumps([socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]))
executor.close()
"""


def test_a_ray_of_our_own_listens_on_loopback_alone() -> None:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", LISTEN], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    addresses = json.loads(ended.stdout.splitlines()[-1])
    assert len(addresses) > 5
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}


START = """
import json, os, sys, psutil
from jobs.commands import run
code = run(sys.argv[1:])
left, mark = [], os.environ["CAMRAY_TEST_MARKER"]
for process in psutil.process_iter():
    try:
        if process.pid != os.getpid() and process.environ().get("CAMRAY_TEST_MARKER") == mark:
            left += [process.name()] if "ray" in process.name() or "/ray/" in " ".join(process.cmdline()) else []
    except psutil.Error:
        pass
print(json.dumps(left))
sys.exit(code)
"""
NO_REGISTRATION = "NodeInfoGcsService.grpc_server.RegisterNode=300000000:300000000"  # microseconds: as if overloaded


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("RAY_gcs_server_port_wait_time_s", "0", "Timed out waiting for file"),
        pytest.param(
            *("RAY_testing_asio_delay_us", NO_REGISTRATION, "The current node timed out during startup"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_ray_of_our_own_that_does_not_come_up_is_tried_twice_then_exit_6_and_nothing_of_it_is_left(
    pictures: Path, tmp_path: Path, setting: str, value: str, reason: str
) -> None:
    words = ["label", "--images", str(pictures), "--out", str(tmp_path / "run"), "--model", "resnet18"]
    env = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", START, *words, "--weights", "random"],
        cwd=ROOT,
        env={**env, setting: value, "CAMRAY_TEST_MARKER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    *said, left = ended.stdout.splitlines()
    result = result_of("\n".join(said))
    assert (ended.returncode, result["status"]) == (6, "environment")
    assert result["error"].startswith(f"cannot start Ray on this machine: {reason}")
    assert result["error"].endswith("--executor inline; Ray's logs are in /tmp/ray/session_latest/logs")
    assert ended.stderr.count("; trying once more\n") == 1
    assert "Traceback" not in ended.stderr
    assert json.loads(left) == []


def test_what_listens_and_is_not_ray_is_refused_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            MachineError, match=f"cannot join the Ray cluster at {address}: .* did not answer as Ray does"
        ):
            RayExecutor(address)


def test_an_address_that_no_host_can_have_is_refused() -> None:
    with pytest.raises(MachineError, match=r"cannot join the Ray cluster at a\.\.b:1: "):
        RayExecutor("a..b:1")


def test_sigterm_while_a_cluster_is_asked_whether_it_is_ray_exits_130(pictures: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = ["label", "--images", str(pictures), "--out", str(tmp_path / "run"), "--model", "resnet18"]
        address = ["--weights", "random", "--ray-address", f"127.0.0.1:{silent.getsockname()[1]}"]
        command = [sys.executable, "-m", "jobs", *words, *address]
        driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        silent.accept()[0].close()  # of the first look at the port; gRPC comes next
        with silent.accept()[0]:
            driver.terminate()
            out = driver.communicate(timeout=240)[0]
    assert (driver.returncode, result_of(out)["status"]) == (130, "interrupted")


LIMITS = """
import json, os
from cluster.executors.ray_actors import RayExecutor
from cluster.executors.work import Replicas, Work
executor = RayExecutor(None)
work = Work(device="cpu", factory="tests.support.limited:Limited", arguments=())
found = []
for limits in (None, "3"):
    if limits:
        os.environ["CAMRAY_FILE_LIMITS"] = limits
    reports = executor.run(work, Replicas(1, True), [0], lambda shard: False, None)
    found += [report.statuses for report in reports]
print(json.dumps(found))
executor.close()
"""


def test_replicas_have_the_limits_of_their_driver_whatever_those_of_the_cluster_are() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "CAMRAY_FILE_LIMITS")}
    ended = subprocess.run(
        [sys.executable, "-c", LIMITS], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == [{"as usual": 1}, {"3": 1}]


CREWED = """
import json
from cluster.executors.ray_actors import RayExecutor
from cluster.executors.work import Replicas, Work
executor = RayExecutor(None)
work = Work(device="cpu", factory="tests.support.crewed:Crewed", arguments=())
events = []
reports = executor.run(work, Replicas(1, True), range(4), lambda shard: False, None, events.append)
print(json.dumps([sorted([report.shard, *report.statuses] for report in reports), [event.kind for event in events]]))
executor.close()
"""


def test_a_replica_whose_own_process_dies_of_a_shard_is_one_that_died() -> None:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", CREWED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    shards, events = json.loads(ended.stdout.splitlines()[-1])
    assert shards == [[shard, f"{int(shard == 1)} deaths"] for shard in range(4)]
    assert events == ["replica_up", "replica_died", "replica_up"]
    assert "a process of camray ended with exit code -11" in ended.stderr
