"""Several nodes on this machine: killed, added, without a head, stopped by `ray job stop`, blind to the run's folder.

One cluster serves all tests, as starting nodes is what costs most; the last of them kills its head.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, Command, result_of
from tests.nodes import RAY, Cluster, wait_until

NUM_PICTURES = 16
FLAGS = [
    *("--model", "tests.gated:gated", "--mean", "0", "0", "0", "--std", "1", "1", "1", "--image-size", "32"),
    *("--shard-size", "1", "--batch-size", "1", "--precision", "fp32"),
]
HIDE = 'mount -t tmpfs none "$0" && exec "$@"'  # run by `unshare`: in the mount namespace of that process alone


@dataclass(frozen=True, slots=True)
class Site:
    """The cluster, the pictures, a folder that only this process sees, and what an undisturbed run writes."""

    cluster: Cluster
    gate: Path
    pictures: Path
    hidden: Path
    is_hidden: bool
    expected: dict[str, bytes]

    def arrived(self, *nodes: str) -> bool:
        return all((self.gate / f"at-{node}").exists() for node in nodes)

    def open(self, node: str, num_pictures: int = NUM_PICTURES) -> None:
        (self.gate / f"go-{node}").write_text(str(num_pictures))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="cr", dir=os.path.realpath(tempfile.gettempdir())))  # sockets need it short
    hidden = folder / "hidden"
    for name in ("gate", "pictures", "hidden"):
        (folder / name).mkdir()
    generator = np.random.default_rng(0)
    for i in range(NUM_PICTURES):
        image_HWC = generator.integers(0, 200, (48, 64, 3), np.uint8)
        image_HWC[:8, :8] = 255  # the gate is at pictures that begin in white
        Image.fromarray(image_HWC).save(folder / "pictures" / f"{i:02d}.png")
    done = Command("label", "--images", folder / "pictures", "--out", folder / "inline", *FLAGS, "--executor", "inline")
    assert (done.code, done.result["ok"]) == (0, NUM_PICTURES)
    hide = ("unshare", "--mount", "sh", "-c", HIDE, str(hidden))
    can_hide = not subprocess.run([*hide, "true"], capture_output=True).returncode if shutil.which("unshare") else False
    env = {"CAMRAY_TEST_GATE": str(folder / "gate"), "PYTHONPATH": str(ROOT)}
    cluster = Cluster(folder, hide if can_hide else (), **env)
    try:
        cluster.start()
        yield Site(cluster, folder / "gate", folder / "pictures", hidden, can_hide, tables(folder / "inline"))
    finally:
        cluster.close()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def closed_gate(site: Site) -> None:
    """No test finds a gate that another has opened."""
    for path in site.gate.iterdir():
        path.unlink()


def tables(out: Path) -> dict[str, bytes]:
    """Return each file of the tables, by name: equal runs have equal bytes."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("[bhi]*/*")}


def num_committed(out: Path) -> int:
    return len(list(out.glob("images/shard-*.parquet")))


@dataclass(frozen=True, slots=True)
class Driver:
    """A running `label` and its output."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def said(self) -> str:
        return (self.log / "err").read_text()

    def end(self, timeout_s: float = 400) -> tuple[int, dict]:
        code = self.process.wait(timeout_s)
        return code, result_of((self.log / "out").read_text(), self.said())


def words(site: Site, out: Path) -> list[str]:
    return ["label", "--images", str(site.pictures), "--out", str(out), *FLAGS]


@contextmanager
def label(site: Site, out: Path) -> Iterator[Driver]:
    """Run `label` on the cluster beside this process."""
    log = out.with_suffix(".log")
    log.mkdir()
    command = [sys.executable, "-m", "jobs", *words(site, out), "--ray-address", site.cluster.address]
    with (log / "out").open("wb") as stdout, (log / "err").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=site.cluster.env, stdout=stdout, stderr=stderr)
    try:
        yield Driver(process, out, log)
    finally:
        process.kill()
        process.wait()


def test_a_node_that_is_added_in_mid_run_gets_work(site: Site, tmp_path: Path) -> None:
    site.cluster.have("a")
    with label(site, tmp_path / "out") as driver:
        wait_until(lambda: site.arrived("a"))
        site.open("b")
        site.cluster.add("b")
        wait_until(lambda: num_committed(driver.out) >= NUM_PICTURES // 2)  # all by b: a waits at its first picture
        site.open("a")
        code, result = driver.end()
    assert (code, result["images"], result["ok"]) == (0, NUM_PICTURES, NUM_PICTURES)
    assert tables(driver.out) == site.expected


def test_a_run_goes_on_without_a_node_that_dies_and_waits_for_another_when_the_last_one_does(
    site: Site, tmp_path: Path
) -> None:
    site.cluster.have("a", "b")
    with label(site, tmp_path / "out") as driver:
        wait_until(lambda: site.arrived("a", "b"))
        site.cluster.kill("a")
        site.open("b", 5)
        wait_until(lambda: num_committed(driver.out) == 5)
        site.cluster.kill("b")
        wait_until(lambda: "no machine is left that has room for a replica: waiting for one" in driver.said())
        site.open("b")
        site.cluster.add("b")
        code, result = driver.end()
    assert (code, result["images"], result["ok"]) == (0, NUM_PICTURES, NUM_PICTURES)
    assert tables(driver.out) == site.expected
    assert Command("verify", driver.out).code == 0


def job(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", *arguments]
    return subprocess.run(command, cwd=ROOT, env=site.cluster.env, capture_output=True, text=True, timeout=400)


def test_ray_job_stop_exits_130_and_the_same_job_submitted_again_finishes(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "out"
    entry_point = ["--working-dir", ".", "--", "python", "-m", "jobs", *words(site, out)]
    site.cluster.have("b")
    site.open("b", 5)
    assert job(site, "submit", "--no-wait", "--submission-id", "first", *entry_point).returncode == 0
    wait_until(lambda: num_committed(out) == 5)
    assert job(site, "stop", "first").returncode == 0
    log = job(site, "logs", "first").stdout
    result = result_of(next(line for line in log.splitlines() if line.startswith("CAMRAY_RESULT")))
    assert (result["exit_code"], result["status"]) == (130, "interrupted")
    before = tables(out)
    assert before.items() <= site.expected.items()  # what is there is whole
    assert num_committed(out) == 5
    site.open("b")
    again = job(site, "submit", "--submission-id", "second", *entry_point)
    assert again.returncode == 0, again.stdout
    assert f"resuming {out}: 5 of {NUM_PICTURES} shards committed" in again.stdout
    assert tables(out) == site.expected


def test_an_out_that_no_node_sees_is_exit_5_and_a_node_that_does_not_see_it_is_avoided(site: Site) -> None:
    if not site.is_hidden:
        pytest.skip("needs `unshare --mount`: root, and the permission to mount")
    site.cluster.have("b")
    with label(site, site.hidden / "out") as driver:
        code, result = driver.end()
    assert (code, result["status"]) == (5, "storage")
    assert f"the node {socket.gethostname()} does not see the run at {driver.out}" in result["error"]
    assert "Traceback" not in driver.said()
    assert num_committed(driver.out) == 0
    site.cluster.add("seeing", plain=True)
    site.open("seeing")
    shutil.rmtree(driver.log)
    with label(site, site.hidden / "out") as driver:
        code, result = driver.end()
    assert (code, result["ok"]) == (0, NUM_PICTURES)
    assert "a replica could not start: the node" in driver.said()
    assert tables(driver.out) == site.expected


def test_a_run_without_its_head_is_exit_6_and_another_cluster_finishes_it(site: Site, tmp_path: Path) -> None:
    site.cluster.have("b")
    site.open("b", 5)
    with label(site, tmp_path / "out") as driver:
        wait_until(lambda: num_committed(driver.out) == 5)
        site.cluster.kill("head")
        code, result = driver.end()
    assert (code, result["status"]) == (6, "environment")
    assert "the head of the Ray cluster at" in result["error"]
    assert "has not answered for 30 s" in result["error"]
    assert "Traceback" not in driver.said()
    before = tables(driver.out)
    assert before.items() <= site.expected.items()
    site.open("own")
    again = Command(*words(site, driver.out), env={**site.cluster.env, "CAMRAY_TEST_NODE": "own"})
    assert again.code == 0
    assert f"resuming {driver.out}: 5 of {NUM_PICTURES} shards committed" in again.err
    assert "started a Ray of its own" in again.err
    assert tables(driver.out) == site.expected
