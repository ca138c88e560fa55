"""The network of a run as a replica has it."""

from pathlib import Path

import torch

from cam_ops.settings import ModelConfig
from cluster.machine.network import load_mapper
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command

MODEL = ModelConfig(model="tests.support.networks:wants_tf32", mean=(0, 0, 0), std=(1, 1, 1), image_size=32)


def test_fp32_stays_fp32_whatever_a_factory_does_to_its_process(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model", MODEL.model, "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--precision", "fp32"]
    assert Command("label", "--images", pictures, "--out", tmp_path / "run", "--executor", "inline", *flags).code == 0
    load_mapper(existing_run(RunDir(str(tmp_path / "run"))).request, MODEL)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
