"""A trainer's checkpoint by the command line: what was matched is said at the start, another choice is another run."""

import argparse
from pathlib import Path

import torch
import torchvision

from tests.support.command import Command, table_rows

FLAGS = ["--model", "shufflenet_v2_x0_5", "--image-size", 64, "--precision", "fp32", "--executor", "inline"]


def test_what_was_matched_is_said_and_another_key_is_another_run(pictures: Path, tmp_path: Path) -> None:
    trained, average = (torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=4).state_dict() for _ in "12")
    where, plain, run = tmp_path / "last.ckpt", tmp_path / "plain.pth", tmp_path / "run"
    lightning = {f"model.{name}": tensor for name, tensor in trained.items()}
    content = {"state_dict": lightning, "ema": average, "hyper_parameters": argparse.Namespace(folder=Path("data"))}
    torch.save(content, where)
    torch.save(trained, plain)
    flags = ["--images", pictures, *FLAGS]
    done = Command("label", *flags, "--weights", where, "--out", run)
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if line.startswith("camray: weights: ")]
    assert said == [
        f"camray: weights: {len(trained)} tensors of {where}, key state_dict, prefix model. removed",
        "camray: weights: state_dict.model is taken; ema would fit as well: --checkpoint-key chooses",
    ]
    again = Command("label", *flags, "--weights", plain, "--out", tmp_path / "plain")
    assert (again.code, "prefix" in again.err) == (0, False)
    assert table_rows(tmp_path / "plain", "heatmaps") == table_rows(run, "heatmaps")
    same = Command("label", *flags, "--weights", where, "--checkpoint-key", "state_dict", "--out", run)
    assert same.code == 0, same.err
    other = Command("label", *flags, "--weights", where, "--checkpoint-key", "ema", "--out", run)
    assert (other.code, "model_digest was" in other.result["error"]) == (4, True)
    where.write_bytes(where.read_bytes()[:4000])
    broken = Command("label", *flags, "--weights", where, "--out", tmp_path / "broken")
    assert (broken.code, "Traceback" in broken.err) == (2, False)
    assert "cannot read the weights file" in broken.result["error"]
