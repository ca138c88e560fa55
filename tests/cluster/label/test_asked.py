"""What a batch asks of the device: copies, and how often the host waits for it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cam_ops.settings import ModelConfig
from cluster.label.replica import LabelReplica, open_replica
from cluster.label.rows import Picture
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.record import existing_run
from tests.support.command import Command
from tests.support.device import CUDA, Asked

RESNET = ModelConfig(model="resnet18", weights="random", image_size=64)
FLAGS = ["--model", "resnet18", "--weights", "random", "--image-size", 64, "--executor", "inline", "--compile", "never"]
FLAGS += ["--precision", "fp32", "--batch-size", 6, "--shard-size", 12]


def opened(pictures: Path, out: Path, *flags: object) -> LabelReplica:
    for name, number in (("discs", 3), ("rings", 5)):
        if (pictures / name).exists():
            (pictures / name).rename(pictures / f"{number:03d}")
    done = Command("label", "--images", pictures, "--out", out, *FLAGS, "--labels", "folder-ids", *flags)
    assert done.code == 0, done.err
    run_dir = RunDir(str(out))
    return open_replica(run_dir, RESNET, existing_run(run_dir).request.fingerprint())


def batches(replica: LabelReplica) -> list[tuple[Tensor, list[Picture]]]:
    return [(px.clone(), of) for px, of in replica.loader.open(read_shard(replica.run_dir, 0))]


def counts(pictures: Path, out: Path, *flags: object) -> dict[str, int]:
    """Return what the second batch asks for; what it gives is what it gives on the CPU."""
    replica = opened(pictures, out, *flags)
    first, second = batches(replica)
    plain = replica.explain(*second)
    with Asked() as asked:
        replica.device = CUDA
        replica.mapper.to(CUDA, torch.float32)
        replica.explain(*first)
        asked.counts.clear()
        found = replica.explain(*second)
    for one in fields(plain):
        np.testing.assert_array_equal(getattr(found, one.name), getattr(plain, one.name))
    return {name: asked.counts[name] for name in ("in", "out", "waits", "syncs")}


CASES = [(classes, refine) for refine in ("none", "affinity") for classes in ("top1", "label+top1")]


@pytest.mark.parametrize(("classes", "refine"), CASES)
def test_a_batch_waits_for_the_device_twice(classes: str, refine: str, pictures: Path, tmp_path: Path) -> None:
    asked = counts(pictures, tmp_path / "run", "--classes", classes, "--refine", refine)
    # in: pixels, where the pictures lie, the chosen pairs; out: logits, then maps and residuals
    # before, with pairs chosen on the device: 4 in, 9 out, 16 to 20 synchronisations
    assert asked == {"in": 3, "out": 3, "waits": 2, "syncs": 0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("classes", "refine"), CASES)
def test_a_gpu_is_waited_for_nowhere_else(classes: str, refine: str, pictures: Path, tmp_path: Path) -> None:
    """torch refuses all synchronisation but that for an event, by which `on_host` waits."""
    flags = ["--classes", classes, "--refine", refine]
    cpu = opened(pictures, tmp_path / "cpu", *flags, "--device", "cpu")
    gpu = opened(pictures, tmp_path / "gpu", *flags, "--device", "cuda")
    (first, second), on_cpu = batches(gpu), batches(cpu)[1]
    gpu.explain(*first)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = gpu.explain(*second)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    plain = cpu.explain(*on_cpu)
    np.testing.assert_array_equal(found.image_P, plain.image_P)
    np.testing.assert_allclose(found.logit_P, plain.logit_P, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.raw_Phw, plain.raw_Phw, rtol=0.1, atol=1e-2 * np.abs(plain.raw_Phw).max())


def test_the_stand_in_sees_what_synchronises() -> None:
    with Asked() as asked:
        there = torch.arange(6.0).reshape(2, 3).to(CUDA)
        assert (there.device, (there + 1).mean().device) == (CUDA, CUDA)
        assert asked.counts == {"in": 1, "syncs": 1}
        asked.counts.clear()
        for ask in (lambda: there.sum().item(), lambda: bool((there > 0).all()), lambda: (there > 2).nonzero()):
            ask()
        there[there > 2], there[:, torch.tensor([0, 1])]
        assert (asked.counts["syncs"], asked.counts["in"]) == (5, 1)
        asked.counts.clear()
        copies = [there.to("cpu", non_blocking=True), (there * 2).to("cpu", non_blocking=True)]
        assert asked.counts == {"out": 2, "waits": 2, "syncs": 0}  # the product is asked for after the first wait began
        assert [copy.device.type for copy in copies] == ["cpu", "cpu"]
        with pytest.raises(AssertionError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(AssertionError, match="can't convert cuda"):
            there.numpy()
