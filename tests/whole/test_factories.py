"""A network in a file of the user's own: typed from any folder, resumed where the file moved, on Ray and inline."""

import json
import os
from pathlib import Path

import pytest

from tests.support.command import ROOT, Command, table_rows

BIRDS = """
from layers import scale
from tests.support.networks import two_channels

def net():
    network = two_channels()
    network.fc.weight.data *= scale
    return network, {"mean": (0, 0, 0), "std": (1, 1, 1), "image_size": 32}
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "birds.py").write_text(BIRDS)
    (folder / "layers.py").write_text("scale = 2\n")
    (tmp_path / "here").mkdir()
    return folder


def label(pictures: Path, out: Path, model: object, cwd: Path, *more: object) -> Command:
    flags = ["--images", pictures, "--out", out, "--shard-size", 4, "--precision", "fp32", "--model", model, *more]
    return Command("label", *flags, cwd=cwd, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.ray
def test_a_file_is_a_model_from_any_folder_wherever_it_moves(pictures: Path, nets: Path, tmp_path: Path) -> None:
    out, here = tmp_path / "run", tmp_path / "here"
    done = label(pictures, out, "../nets/birds.py:net", here, "--executor", "ray", "--replicas", 1)
    assert done.code == 0, done.err
    document = json.loads((out / "run.json").read_text())
    assert document["request"]["model"] == "birds.py:net"
    assert (
        document["request"]["preprocessing"] | {"image_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}
        == (document["request"]["preprocessing"])
    )
    by_module = tmp_path / "by-module"
    flags = ["--executor", "inline", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    assert label(pictures, by_module, "birds:net", nets, *flags).code == 0
    assert table_rows(by_module, "heatmaps") == table_rows(out, "heatmaps")

    shard = out / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    moved = nets.rename(tmp_path / "elsewhere")
    for model, cwd in (("birds.py:net", moved), (moved / "birds.py:net", here)):
        again = label(pictures, out, model, cwd, "--executor", "inline")
        assert (again.code, again.result["images"]) == (0, 12), again.err
        assert shard.read_bytes() == content
    (moved / "layers.py").write_text("scale = 3\n")
    refused = label(pictures, out, "birds.py:net", moved, "--executor", "inline")
    assert (refused.code, "model_digest was" in refused.result["error"]) == (4, True)


HEADLESS = """
import torch
from torchvision.models import resnet18

def whole():
    torch.manual_seed(0)
    return resnet18()

def backbone():
    network = whole()
    network.fc = torch.nn.Identity()
    return network
"""


def test_a_backbone_without_its_head_is_asked_for(pictures: Path, nets: Path, tmp_path: Path) -> None:
    (nets / "features.py").write_text(HEADLESS)
    asked = "returns 512, as many as its features have channels, and nothing names classes; is that a backbone without"
    flags = ["--image-size", 64, "--mean", 0, 0, 0, "--std", 1, 1, 1, "--executor", "inline", "--limit", 2]
    names = tmp_path / "names.txt"
    names.write_text("".join(f"part {number}\n" for number in range(512)))
    for name, more, is_asked in (
        ("backbone", [], True),
        ("backbone", ["--class-names", names], False),
        ("whole", [], False),
    ):
        done = label(pictures, tmp_path / f"{name}{len(more)}", f"features:{name}", nets, *flags, *more)
        assert (done.code, asked in done.err) == (0, is_asked), done.err


@pytest.mark.parametrize(
    ("model", "code", "reason"),
    [
        ("../nets/brids.py:net", 6, "expected the factory's file at"),
        ("../nets/birds.py", 2, "names no function; give"),
        ("../nets/birds.py:nest", 2, "has no nest; similar names are net"),
        ("../nets/birds:net", 2, "is no package.module; a file is given as FILE.py:net"),
    ],
)
def test_a_path_that_leads_to_no_network_is_a_sentence(
    pictures: Path, nets: Path, tmp_path: Path, model: str, code: int, reason: str
) -> None:
    model = os.path.relpath(tmp_path / "here" / model)  # from where this process is
    flags = ["--out", tmp_path / "run", "--model", model, "--executor", "inline"]
    refused = Command("label", "--images", pictures, *flags)
    assert (refused.code, reason in refused.result["error"]) == (code, True), refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "got --mean 123.7 116.3 103.5; divide both by 255"),
        ((0, 0, 0), (255, 255, 255), "got --std 255.0 255.0 255.0; divide both by 255"),
    ],
)
def test_mean_and_std_of_another_scale_are_refused(
    pictures: Path, tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...], reason: str
) -> None:
    flags = ["--mean", *mean, "--std", *std, "--executor", "inline"]
    refused = Command("label", "--images", pictures, "--out", tmp_path / "run", "--model", "birds:net", *flags)
    assert (refused.code, reason in refused.result["error"]) == (2, True)
