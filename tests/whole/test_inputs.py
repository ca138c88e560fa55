"""Networks whose input is no square of RGB: flags, what run.json has, and maps that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command import Command, table_rows

NETS = """
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 2)
        self.fc.weight.data = torch.tensor([[1.0], [-1.0]])
        self.fc.bias.data = torch.zeros(2)

    def forward(self, images):
        return self.fc(images[:, :1].mean((2, 3)))

def bright():
    return Bright()

class Gray(Bright):
    def forward(self, images):
        assert images.shape[1] == 1
        return super().forward(images)

def gray():
    return Gray()
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def label(images: Path, out: Path, *flags: object) -> Command:
    fixed = ["--precision", "fp32", "--executor", "inline", "--shard-size", 4, "--refine", "none"]
    return Command("label", "--images", images, "--out", out, *fixed, *flags)


def test_a_gray_network_maps_luminance_and_an_older_run_goes_on(pictures: Path, nets: Path, tmp_path: Path) -> None:
    out, flags = tmp_path / "run", ["--model", f"{nets}:gray", "--image-size", 48]
    refused = label(pictures, out, *flags, "--mean", 0, 0, 0, "--std", 1, 1, 1)
    assert (refused.code, "takes pictures of one channel: --channels gray" in refused.result["error"]) == (2, True)
    flags += ["--channels", "gray", "--mean", 0, "--std", 1]
    done = label(pictures, out, *flags)
    assert done.code == 0, done.err
    document = json.loads((out / "run.json").read_text())
    assert (document["request"]["preprocessing"]["mean"], document["config"]["model"]["channels"]) == ([0], "gray")
    for row in table_rows(out, "heatmaps"):
        picture = Image.open(pictures / row["image_id"]).convert("RGB")
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(tensor, (48, 48), mode="bilinear", antialias=True)[0]
        gray = Image.fromarray(resized.permute(1, 2, 0).numpy()).convert("L")
        expected = np.asarray(gray, np.float32) / 255 * (1 if row["class_id"] == 0 else -1)
        np.testing.assert_allclose(np.reshape(row["heatmap"], (48, 48)), expected, atol=0.51 / 255)

    del document["config"]["model"]["channels"]  # as of before there was the flag
    shard = out / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    (out / "run.json").write_text(json.dumps(document))
    again = label(pictures, out, *flags)
    assert (again.code, shard.read_bytes() == content) == (0, True), again.err
