"""Several nodes on this machine: killed, added, without a head, stopped by `ray job stop`, blind to the run's folder.

One cluster serves all tests, as starting nodes is what costs most; the last of them kills its head.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from cluster.executors.ray_nodes import MOST_UPLOADED
from tests.support.command import ROOT, Command, result_of
from tests.support.gated_runs import NUM_PICTURES, Site, label, num_committed, running_site, short_folder, tables
from tests.support.nodes import RAY, Cluster, wait_until
from tests.support.scrape import scraped

pytestmark = pytest.mark.ray

HIDE = 'mount -t tmpfs none "$0" && exec "$@"'  # run by `unshare`: in the mount namespace of that process alone


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with short_folder() as folder:
        (folder / "hidden").mkdir()
        hide = ("unshare", "--mount", "sh", "-c", HIDE, str(folder / "hidden"))
        can_hide = shutil.which("unshare") and not subprocess.run([*hide, "true"], capture_output=True).returncode
        with running_site(Cluster(folder, hide if can_hide else ())) as site:
            yield site


@pytest.fixture(autouse=True)
def closed_gate(site: Site) -> None:
    """No test finds a gate that another has opened."""
    for path in site.gate.iterdir():
        path.unlink()


@pytest.mark.parametrize("more", [(), ("--replicas", "3")])
def test_a_node_that_is_added_in_mid_run_gets_work(site: Site, tmp_path: Path, more: tuple[str, ...]) -> None:
    site.cluster.have("a")
    with label(site, tmp_path / "out", *more) as driver:
        wait_until(lambda: site.arrived("a"))
        assert ("the others begin when it has more" in driver.said()) == bool(more)
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
        expected = {
            "camray_images_total status=ok": 5,
            "camray_shards_total": 5,
            "camray_replica_deaths_total at=work": 1,
            "camray_shards_retried_total": 2,
            "camray_shards_at_work": 2,
            "camray_shards_waiting": NUM_PICTURES - 7,
            "camray_replicas": 1,
        }
        wait_until(lambda: expected.items() <= scraped(site.folder).items(), 60)
        stages = {name for name in scraped(site.folder) if name.startswith("camray_stage_seconds_total stage=")}
        assert {name.partition("=")[2] for name in stages} == {"fetch", "decode", "load", "network", "boxes", "publish"}
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
    entry_point = ["--working-dir", ".", "--", "python", "-m", "jobs", *site.words(out)]
    site.cluster.have("b")
    site.open("b", 5)
    assert job(site, "submit", "--no-wait", "--submission-id", "first", *entry_point).returncode == 0
    wait_until(lambda: num_committed(out) == 5)
    assert job(site, "stop", "first").returncode == 0
    log = job(site, "logs", "first").stdout
    result = result_of(next(line for line in log.splitlines() if line.startswith("CAMRAY_RESULT")))
    assert (result["exit_code"], result["status"]) == (130, "interrupted")
    assert result["images"] == sum(pq.read_metadata(path).num_rows for path in (out / "images").iterdir())
    before = tables(out)
    assert before.items() <= site.expected.items()  # what is there is whole
    assert num_committed(out) == 5
    site.open("b")
    taken = job(site, "submit", "--submission-id", "first", *entry_point)
    assert (taken.returncode, "already exists" in taken.stdout + taken.stderr) == (1, True)
    again = job(site, "submit", "--submission-id", "second", *entry_point)
    assert again.returncode == 0, again.stdout
    assert f"resuming {out}: 5 of {NUM_PICTURES} shards committed" in again.stdout
    assert tables(out) == site.expected


def test_a_network_and_its_variables_come_with_the_job_and_a_folder_of_pictures_does_not(
    site: Site, tmp_path: Path
) -> None:
    site.cluster.have("b")
    site.open("b")
    module, code, out = tmp_path / "mynets", tmp_path / "code", tmp_path / "out"
    for folder in (module, code / "pictures"):
        folder.mkdir(parents=True)
    net = (
        "import os\nfrom tests.support.gated import gated\ndef net():\n    return {'7': gated}[os.environ['NETS']]()\n"
    )
    (module / "__init__.py").write_text(net)
    environment = json.dumps({"py_modules": [str(module)], "env_vars": {"NETS": "7", "PYTHONPATH": str(ROOT)}})
    words = [{"tests.support.gated:gated": "mynets:net"}.get(word, word) for word in site.words(out)]
    entry_point = ["--working-dir", str(code), "--runtime-env-json", environment, "--", "python", "-m", "jobs", *words]
    (code / "pictures" / "a.jpg").write_bytes(os.urandom(MOST_UPLOADED))
    refused = job(site, "submit", *entry_point)
    assert (refused.returncode, "Maximum request body size" in refused.stderr) == (1, True)
    (code / ".rayignore").write_text("pictures/\n")
    done = job(site, "submit", *entry_point)
    assert (done.returncode, num_committed(out)) == (0, NUM_PICTURES), done.stdout
    assert Command("verify", out).code == 0


def test_a_driver_of_another_ray_is_told_both_versions(site: Site) -> None:
    other = "import ray, runpy; ray.__version__ = '2.0.0'; runpy.run_module('jobs', run_name='__main__')"
    command = [sys.executable, "-c", other, "doctor", "--ray-address", site.cluster.address]
    done = subprocess.run(command, cwd=ROOT, env=site.cluster.env, capture_output=True, text=True, timeout=400)
    said = f"started with: Ray: {ray.__version__} Python: {platform.python_version()} This process on "
    error = result_of(done.stdout)["error"]
    assert (done.returncode, said in error) == (6, True), error
    assert f" Ray: 2.0.0 Python: {platform.python_version()}; install the same versions here" in error


def test_an_out_that_no_node_sees_is_exit_5_and_a_node_that_does_not_see_it_is_avoided(site: Site) -> None:
    if not site.cluster.prefix:
        pytest.skip("needs `unshare --mount`: root, and the permission to mount")
    site.cluster.have("b")
    with label(site, site.folder / "hidden" / "out") as driver:
        code, result = driver.end()
    assert (code, result["status"]) == (5, "storage")
    assert f"the node {socket.gethostname()} does not see the run at {driver.out}" in result["error"]
    assert "Traceback" not in driver.said()
    assert num_committed(driver.out) == 0
    site.cluster.add("seeing", plain=True)
    _what_doctor_says(site)
    shutil.rmtree(driver.log)
    with label(site, site.folder / "hidden" / "out") as driver:
        wait_until(lambda: "a replica could not start: the node" in driver.said())
        site.open("seeing")
        code, result = driver.end()
    assert (code, result["ok"]) == (0, NUM_PICTURES)
    assert tables(driver.out) == site.expected


def _what_doctor_says(site: Site) -> None:
    words = "--images", site.folder / "pictures", "--out", site.folder / "hidden" / "run"
    done = Command("doctor", *words, "--ray-address", site.cluster.address, "--json", env=site.cluster.env)
    found = json.loads(done.out)["findings"]
    assert done.code == 6
    assert [each["says"] for each in found if each["check"] == "ray"] == ["3 node(s), 2 CPU(s), 0 GPU(s)"]
    assert len([each for each in found if each["check"] == "node" and each["verdict"] == "ok"]) == 3
    (blind,) = (each for each in found if each["verdict"] == "fail")
    assert blind["check"] == "out"
    assert "hidden/run is not the folder that the driver sees" in blind["says"]
    assert not (site.folder / "hidden" / "run").exists()


def test_a_node_that_loses_the_run_s_folder_in_mid_run_is_avoided_and_another_does_its_shards(
    site: Site, tmp_path: Path
) -> None:
    if not site.cluster.prefix:
        pytest.skip("needs `unshare --mount`: root, and the permission to mount")
    if "seeing" not in site.cluster.nodes:
        site.cluster.add("seeing", plain=True)
    site.cluster.have("b", "seeing")
    with label(site, tmp_path / "out") as driver:
        wait_until(lambda: site.arrived("b", "seeing"))
        inside_b = ("nsenter", "--mount", f"--target={site.cluster.nodes['b'].process.pid}")
        subprocess.run([*inside_b, "mount", "-t", "tmpfs", "none", str(driver.out)], check=True)
        site.open("b")
        wait_until(lambda: "a replica cannot go on, 2 shard(s) go to other machines: " in driver.said())
        site.open("seeing")
        code, result = driver.end()
    assert (code, result["ok"]) == (0, NUM_PICTURES)
    assert f"the node {socket.gethostname()} does not see it any more" in driver.said()
    assert tables(driver.out) == site.expected


@pytest.mark.long
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
    again = Command(*site.words(driver.out), env={**site.cluster.env, "CAMRAY_TEST_NODE": "own"})
    assert again.code == 0
    assert f"resuming {driver.out}: 5 of {NUM_PICTURES} shards committed" in again.err
    assert "started a Ray of its own" in again.err
    assert tables(driver.out) == site.expected
