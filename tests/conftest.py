"""What several tests share: where the real data is, the command line, and a network of two channels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

ROOT = Path(__file__).parent.parent
LITE0 = [
    *("--model", "jobs.demo_model:efficientnet_lite0"),
    *("--mean", "0.49803922", "0.49803922", "0.49803922", "--std", "0.50196078", "0.50196078", "0.50196078"),
]


class Command:
    """A finished `python -m jobs ...`: exit code, output, and the document of its last line."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None, cwd: Path = ROOT, timeout_s: float = 300):
        finished = subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        self.code, self.out, self.err = finished.returncode, finished.stdout, finished.stderr
        last = self.out.splitlines()[-1] if self.out else ""
        assert last.startswith("CAMRAY_RESULT "), (self.out, self.err)
        self.result = json.loads(last.removeprefix("CAMRAY_RESULT "))
        assert self.result["exit_code"] == self.code


@pytest.fixture(scope="session")
def data() -> Path:
    """The real photos and reference answers, which lie outside the repository."""
    folder = Path(os.environ.get("CAMRAY_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "photos").is_dir():
        pytest.skip(f"needs the real data at {folder}; set CAMRAY_DATA to its folder")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve small pictures in two folders, each a bright disc on noise at another place."""
    generator = np.random.default_rng(0)
    for i in range(12):
        image_HWC = generator.integers(0, 60, (48, 64, 3), np.uint8)
        y, x = generator.integers(10, 38), generator.integers(10, 54)
        rows, columns = np.ogrid[:48, :64]
        image_HWC[(rows - y) ** 2 + (columns - x) ** 2 < 64] = (200, 220, 240)
        folder = tmp_path / "pictures" / ("discs" if i % 2 else "rings")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(folder / f"{i:02d}.png")
    return tmp_path / "pictures"


class TwoChannels(nn.Module):
    """The smallest network with a class activation map: features are red and green, the head is written by hand.

    W = [[1, 0], [2, -1]], b = [0.5, 0].
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.fc.weight.data = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
        self.fc.bias.data = torch.tensor([0.5, 0.0])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(images_BCHW[:, :2].mean((2, 3)))
        return logits_BK


def two_channels() -> nn.Module:
    """Factory: `--model tests.conftest:two_channels`."""
    return TwoChannels()
