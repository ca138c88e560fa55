"""Kills at every step of a shard and of a run, replicas that hang, pictures that kill: the tables stay the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from cam_ops.errors import MachineError
from cluster.machine.gpu import loading
from cluster.runs.directory import RunDir
from cluster.runs.history import read_log
from tests.support.command import ROOT, Command, table_rows
from tests.support.networks import TwoChannels

FLAGS = ["--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--precision", "fp32", "--compile", "never"]
TWO = ["--model", "tests.support.networks:two_channels", *FLAGS, "--shard-size", 1, "--batch-size", 1]
REPLICA_POINTS = ("fetch", "forward", "scratch", "heatmaps", "boxes", "images")


def tables(out: Path) -> dict[str, bytes]:
    """Return the content of all tables of a run, by name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("[bhi]*/*.parquet"))}


@pytest.fixture
def undisturbed(pictures: Path, tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "undisturbed"
    assert Command("label", "--images", pictures, "--out", out, *TWO, "--executor", "inline").code == 0
    found = tables(out)
    assert len(found) == 36
    return found


def kill_at(tmp_path: Path, *points: str, signal_name: str = "KILL") -> str:
    return " ".join(f"{point}:{signal_name}:{tmp_path}/reached-{point.replace('/', '-')}" for point in points)


def points_of(shard: int) -> list[str]:
    """Return the points of a shard at which its three files are not all there, and that at which they are."""
    scratch = f"scratch-images/shard-{shard:07d}.parquet"
    return [scratch if point == "scratch" else f"{point}-{shard}" for point in REPLICA_POINTS]


@pytest.mark.slow
def test_a_command_killed_at_every_step_of_its_way_ends_with_the_tables_of_an_undisturbed_run(
    pictures: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    command = ["label", "--images", pictures, "--out", out, *TWO, "--executor", "inline"]
    points = ["plan", "run", *points_of(3), "report-5", "totals"]
    for number, point in enumerate(points):
        killed = subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, command)],
            cwd=ROOT,
            env={**os.environ, "CAMRAY_FAILPOINTS": kill_at(tmp_path, point)},
            capture_output=True,
            timeout=900,
        )
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        assert (out / "run.json").exists() == (number > 0)
        committed = {"images/shard-0000003.parquet"} & tables(out).keys()
        assert bool(committed) == (point not in ["plan", "run", *points_of(3)[:-1]]), point
    assert Command(*command).code == 0
    assert Command("verify", out).code == 0
    assert tables(out) == undisturbed


@pytest.mark.ray
def test_replicas_killed_at_every_step_or_stopped_leave_the_tables_of_an_undisturbed_run(
    pictures: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    points = [points_of(shard)[step] for step, shard in enumerate(range(2, 8))]
    stops = kill_at(tmp_path, "forward-10", signal_name="STOP")
    env = {"CAMRAY_FAILPOINTS": f"{kill_at(tmp_path, *points)} {stops}"}
    more = ["--replicas", 2, "--shard-timeout", 15]
    done = Command("label", "--images", pictures, "--out", out, *TWO, *more, env=env)
    assert (done.code, done.result["images"]) == (0, 12)
    assert len(list(tmp_path.glob("reached-*"))) == 7
    assert done.err.count("a replica died") >= 6
    assert "shard 10 is slow" in done.err or "shard 10 took longer than 15 s" in done.err
    history = read_log(RunDir(str(out)))
    assert history
    assert [(session.status, session.executor, session.shards) for session in history.sessions] == [("done", "ray", 12)]
    events = history.sessions[0].events
    assert (
        events["replica_died"] == done.err.count("a replica died") == sum(r.times for r in history.sessions[0].reasons)
    )
    assert events["replica_up"] >= 2 + 6
    assert history.sessions[0].shards_back >= 5  # the shard of one was committed when it died
    retried = Command("status", out, "--json").document["last_session"]["retried_shards"]
    assert sum(shard["times"] for shard in retried) == history.sessions[0].shards_back
    assert {shard["shard"] for shard in retried} >= set(range(2, 7))
    assert "the replicas' time: " in done.err
    assert {"load", "network", "boxes", "publish", "fetch", "decode"} == history.stage_seconds.keys()
    lines = [json.loads(line) for line in next((out / "log").iterdir()).read_text().splitlines()]
    up = {line["place"] for line in lines if line["event"] == "replica_up"}
    assert {line["place"] for line in lines if line["event"] in ("shard_done", "replica_died")} == up
    assert Command("verify", out).code == 0
    assert tables(out) == undisturbed


@pytest.mark.long
def test_pictures_that_kill_decoder_or_network_are_found_and_remembered_and_harm_no_neighbour(
    pictures: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    flags = ["--model", "tests.support.killers:dies_on_white", *FLAGS, "--shard-size", 14, "--batch-size", 3]
    white, crash = pictures / "rings" / "05-white.png", pictures / "discs" / "04-crash.png"
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(white)
    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(crash)
    assert Command("label", "--images", pictures, "--out", whole, *flags, "--executor", "inline").code == 0
    crash.write_bytes(crash.read_bytes() + b"CRASH")
    out, crashing = tmp_path / "run", ROOT / "tests" / "support" / "crashing"
    env = {"PYTHONPATH": f"{crashing}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    more = ["--replicas", 1, "--max-error-rate", 0.2]
    done = Command("label", "--images", pictures, "--out", out, *flags, *more, env=env)
    assert (done.code, done.result["ok"], done.result["errors"]) == (0, 12, 2), done.err
    bad = {row["image_id"]: (row["status"], row["error"]) for row in table_rows(out, "images") if row["status"] != "ok"}
    assert bad == {
        "discs/04-crash.png": ("crashed_decoder", "the decoder was ended by signal 11 (SIGSEGV)"),
        "rings/05-white.png": ("crashed_network", "its replicas died while the network worked on this image alone"),
    }
    for table in ("boxes", "heatmaps"):
        assert table_rows(out, table) == [row for row in table_rows(whole, table) if row["image_id"] not in bad]
    assert Command("verify", out).code == 0
    before = tables(out)
    (out / "images" / "shard-0000000.parquet").unlink()
    again = Command("label", "--images", pictures, "--out", out, *flags, *more, env=env)
    assert (again.code, "a replica died" in again.err) == (0, False)
    assert tables(out) == before


@pytest.mark.ray
@pytest.mark.skipif(psutil.virtual_memory().available < 14 * 2**30, reason="needs 14 GiB of memory")
def test_a_machine_out_of_memory_costs_a_replica_and_no_image(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(pictures / "rings" / "05-white.png")
    flags = ["--model", "tests.support.killers:eats_memory", *FLAGS, "--shard-size", 1, "--batch-size", 1]
    memory = psutil.virtual_memory()
    env = {
        "CAMRAY_TEST_MARKER": str(tmp_path / "marker"),
        "RAY_memory_usage_threshold": str((memory.total - memory.available + 6 * 2**30) / memory.total),
    }
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert Command("label", "--images", pictures, "--out", whole, *flags, "--executor", "inline", env=env).code == 0
    done = Command("label", "--images", pictures, "--out", out, *flags, "--replicas", 2, env=env)
    assert (done.code, done.result["ok"], (tmp_path / "marker").exists()) == (0, 13, True)
    assert "killed due to the node running low on memory" in done.err
    assert tables(out) == tables(whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_cannot_be_used_is_its_machines_fault() -> None:
    with pytest.raises(MachineError, match="the GPU cannot be used: "), loading(torch.device("cuda"), "resnet18"):
        raise AssertionError("not reached")


def test_a_network_that_the_gpu_has_not_the_memory_for_is_its_machines_fault() -> None:
    with (
        pytest.raises(MachineError, match="the GPU has not the memory for resnet18"),
        loading(torch.device("cpu"), "resnet18"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


class FitsFour(TwoChannels):
    """Takes four pictures at once, as if the memory of its GPU were small, and no white one at all."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        is_white = bool((images_BCHW == 1).all((1, 2, 3)).any())
        if len(images_BCHW) > 4 or is_white:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(images_BCHW)


def fits_four() -> FitsFour:
    return FitsFour()


def test_a_gpu_out_of_memory_goes_on_in_smaller_parts(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = [*FLAGS, "--executor", "inline", "--classes", "topk:2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    label = ["label", "--images", pictures, *flags]
    assert Command(*label, "--out", whole, "--model", "tests.support.networks:two_channels").code == 0
    done = Command(*label, "--out", parts, "--model", "tests.whole.test_faults:fits_four", "--batch-size", 11)
    assert (done.code, "from now on in parts of 3 image(s)" in done.err) == (0, True)
    for table in ("boxes", "heatmaps"):
        assert without_place(table_rows(parts, table)) == without_place(table_rows(whole, table))
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(pictures / "rings" / "05-white.png")
    white = Command(
        *label, "--out", tmp_path / "white", "--model", "tests.whole.test_faults:fits_four", "--batch-size", 11
    )
    assert (white.code, white.result["ok"], white.result["errors"]) == (3, 12, 1)
    assert [row["status"] for row in table_rows(tmp_path / "white", "images")].count("cuda_oom") == 1
    assert without_place(table_rows(tmp_path / "white", "boxes")) == without_place(table_rows(whole, "boxes"))


def without_place(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in ("shard", "row")} for row in rows]
