"""A node whose network is silently lost: a network namespace, on a bridge whose port goes down and comes up again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.gated_runs import NUM_PICTURES, Site, label, num_committed, running_site, short_folder, tables
from tests.support.nodes import Cluster, wait_until

pytestmark = pytest.mark.ray

NAME = f"cr{os.getpid()}"  # of the namespace, and with a letter of the bridge and its port: 15 bytes at most
NETWORK = f"198.18.{os.getpid() % 256}"  # of those that RFC 2544 keeps for tests
HOST, LOST_HOST = f"{NETWORK}.1", f"{NETWORK}.2"
SETUP = f"""
ip netns add {NAME}
ip link add {NAME}b type bridge
ip link add {NAME}p type veth peer name eth0 netns {NAME}
ip link set {NAME}p master {NAME}b
ip addr add {HOST}/24 dev {NAME}b
ip link set {NAME}b up
ip link set {NAME}p up
ip -n {NAME} addr add {LOST_HOST}/24 dev eth0
ip -n {NAME} link set eth0 up
ip -n {NAME} link set lo up
"""
IMPATIENT = {  # the head gives a node up after 9 to 12 seconds, by default after about one minute
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


@contextmanager
def network() -> Iterator[None]:
    """Make a network of this machine and one namespace; skips where that is not allowed."""
    if not shutil.which("ip"):
        pytest.skip("needs `ip` (package iproute2)")
    try:
        for line in SETUP.split("\n")[1:-1]:
            done = subprocess.run(line.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"needs network namespaces and the right to make them: {line}: {done.stderr.strip()}")
        yield
    finally:
        subprocess.run(["ip", "netns", "del", NAME], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{NAME}b"], capture_output=True)


def set_link(state: str) -> None:
    """Plug the namespace's cable in, or out: packets are lost without a word, no process ends."""
    subprocess.run(["ip", "link", "set", f"{NAME}p", state], check=True)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with network(), short_folder() as folder:
        cluster = Cluster(folder, ("ip", "netns", "exec", NAME), host=HOST, **IMPATIENT)
        with running_site(cluster) as site:
            yield site


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in out.glob("images/*")}


@pytest.mark.long
def test_a_node_that_is_cut_off_costs_a_retry_and_what_it_publishes_late_is_the_same(
    site: Site, tmp_path: Path
) -> None:
    site.cluster.add("cut")
    site.cluster.add("kept", plain=True)
    with label(site, tmp_path / "out") as driver:
        wait_until(lambda: site.arrived("cut", "kept"))
        set_link("down")
        site.open("kept", NUM_PICTURES - 3)  # it waits with one shard, so that none is copied for being slow
        wait_until(lambda: "a replica died, 2 shard(s) go back to the queue" in driver.said(), 90)
        assert site.cluster.nodes["cut"].process.poll() is None
        site.open("kept", NUM_PICTURES - 1)
        wait_until(lambda: num_committed(driver.out) == NUM_PICTURES - 1)  # one of them was the lost node's
        before = inodes(driver.out)
        site.open("cut")
        wait_until(lambda: num_committed(driver.out) == NUM_PICTURES)  # the last one by the node that is cut off
        late = [name for name, inode in inodes(driver.out).items() if before.get(name) not in (None, inode)]
        assert len(late) == 1
        set_link("up")
        site.open("kept")
        code, result = driver.end()
    assert (code, result["images"], result["ok"]) == (0, NUM_PICTURES, NUM_PICTURES)
    assert tables(driver.out) == site.expected
    assert Command("verify", driver.out).code == 0
    assert site.cluster.nodes["cut"].process.wait(90) != 0  # Ray lets no node come back: it ends, to be started again
