"""A network that says on which node it works, and waits there until it may go on: tests decide what mid-run is.

A node of a test has CAMRAY_TEST_NODE, its name, and CAMRAY_TEST_GATE, a folder. With its first picture the network
leaves the file `at-NAME` there; as many pass as the file `go-NAME` says, at first none. A picture is what is white at
its first pixel. Anywhere but in an actor the network behaves.
"""

import os
import time
from pathlib import Path

import torch
from torch import nn

from tests.support.killers import in_ray_worker
from tests.support.networks import TwoChannels


class Gated(TwoChannels):
    """Waits at the gate of its node; batches have one picture."""

    def __init__(self) -> None:
        super().__init__()
        self.num_passed = 0

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if in_ray_worker() and bool((images_BCHW[:, :, 0, 0] == 1).all(1).any()):
            gate, node = Path(os.environ["CAMRAY_TEST_GATE"]), os.environ["CAMRAY_TEST_NODE"]
            (gate / f"at-{node}").touch()
            while self.num_passed >= num_allowed(gate / f"go-{node}"):
                time.sleep(0.02)
            self.num_passed += 1
        return super().forward(images_BCHW)


def num_allowed(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def gated() -> nn.Module:
    """Factory: `--model tests.support.gated:gated`."""
    return Gated()
