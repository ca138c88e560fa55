"""`bench gpu` and `make gpu`, rehearsed: on the CPU, where float32 must agree with itself; and without a GPU."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cam_ops.boxes.extract import MapBoxes
from cluster.bench.config import BenchConfig
from cluster.bench.device import _Measured, _parts
from cluster.bench.gpu import same_boxes
from tests.support.command import ROOT, Command

SMALL = ["--device", "cpu", "--num-images", 16, "--batch-sizes", 2, 4]


def measured(*flags: object) -> list[dict[str, Any]]:
    done = Command("bench", "gpu", *flags, "--json", process=True)
    assert done.code == 0, done.err
    figures: list[dict[str, Any]] = done.document["figures"]
    return figures


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("jobs.bench_model:head_only", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.long),  # its compilation takes a minute
    ],
)
def test_a_rehearsal_on_the_cpu_measures_every_part(model: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    flags = ["--images", pictures, "--models", "jobs.bench_model:no_such", model, *SMALL, "--out", out]
    done = Command("bench", "gpu", *flags, env={"CAMRAY_CACHE": str(tmp_path / "cache")})
    all_figures = [json.loads(line) for line in out.read_text().splitlines()]
    assert "no_such" in all_figures[1]["failed"]  # and the other network's parts are measured
    figures = [one for one in all_figures if one.get("model") == model]
    assert (done.code, [figure for figure in figures if "failed" in figure]) == (0, [])
    of = {name: [one for one in figures if one["section"] == f"gpu, {name}"] for name in ("agreement", "replica")}
    fp32, bf16, fp16 = of["agreement"]
    assert (fp32["scores"], fp32["maps"], fp32["best class"], fp32["boxes"]) == (
        "0.0e+00",
        "0.0e+00",
        "1.0000",
        "1.0000",
    )
    assert float(bf16["scores"]) > float(fp16["scores"]) > 0
    forward = [one for one in figures if one["section"] == "gpu, forward"]
    assert [(one["batch"], one["compiled"]) for one in forward] == [(2, False), (4, False), (4, True)]
    assert all(float(one["forward"]) > 0 for one in forward)
    assert [one["decoding processes"] for one in of["replica"] if not one["compiled"]][-2:] == [1, 4]
    assert all(float(one["replica"]) > 0 for one in of["replica"])


def test_a_part_that_fails_says_so_in_a_line_and_the_next_has_a_fresh_process(tmp_path: Path) -> None:
    config = BenchConfig(images=str(tmp_path), device="cpu")
    one = _Measured(config, tmp_path, "resnet18")
    one.has_run = True  # as if somebody had removed it since
    for part in _parts(config)[:2]:
        figure = one.figure(part, time.monotonic() + 60)
        assert f"{tmp_path}/gpu-resnet18, it holds no run.json" in figure["failed"]
        assert "\n" not in figure["failed"]
        assert one.process is None


def test_a_part_that_is_too_slow_is_ended(tmp_path: Path) -> None:
    config = BenchConfig(images=str(tmp_path), device="cpu")
    one = _Measured(config, tmp_path, "resnet18")
    one.has_run = True
    slow = replace(_parts(config)[0], most_s=0.01)  # Python itself takes longer to start
    assert "no answer in time" in one.figure(slow, time.monotonic() + 60)["failed"]


def test_what_there_is_no_time_for_is_left_out_and_said(pictures: Path) -> None:
    figures = measured("--images", pictures, "--models", "resnet18", *SMALL, "--seconds", 0)
    assert [figure["failed"] for figure in figures[1:]] == ["no time left; use a longer --seconds"] * 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_one_sentence_says_so(pictures: Path) -> None:
    done = Command("bench", "gpu", "--images", pictures)
    assert (done.code, "the GPU cannot be used" in done.result["error"]) == (6, True)
    command = [sys.executable, "-m", "tests.support.gpu"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (made.returncode, made.stdout, made.stderr.count("\n")) == (6, "", 1)
    assert made.stderr.startswith("make gpu needs a GPU: the GPU cannot be used")


def test_same_boxes_are_counted_map_by_map() -> None:
    exact = boxes([(0, (0, 0, 100, 100)), (0, (200, 0, 300, 100)), (1, (0, 0, 50, 50))])
    found = boxes([(0, (0, 0, 100, 99.5)), (0, (200, 0, 300, 98)), (2, (0, 0, 50, 50))])  # IoU 0.995, 0.98; no box
    assert same_boxes(exact, found) == 1
    assert same_boxes(exact, exact) == 3


def boxes(rows: list[tuple[int, tuple[float, float, float, float]]]) -> MapBoxes:
    map_N, boxes_N4 = np.array([place for place, _ in rows]), np.array([box for _, box in rows], np.float32)
    zeros_N = np.zeros(len(rows), np.float32)
    return MapBoxes(
        map_N=map_N,
        boxes_N4=boxes_N4,
        peak_N=zeros_N,
        energy_N=zeros_N,
        area_fraction_N=zeros_N,
        rank_N=np.zeros(len(rows), np.int64),
        threshold_N=zeros_N,
    )
