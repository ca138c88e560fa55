"""A network for measuring all that is not the network: `bench --models jobs.bench_model:head_only`."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class HeadOnly(nn.Module):
    """ResNet-50's features in shape and number, 2048 on 7x7 at 224 px, and its head; hardly anything before them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2048, 1)
        self.head = nn.Linear(2048, 1000)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, 1000)."""
        rows_BCHX = functional.avg_pool2d(images_BCHW, (32, 1))  # compiled, it costs a third of both at once
        features_BCHW = self.features(functional.avg_pool2d(rows_BCHX, (1, 32))).relu()
        logits_BK: Tensor = self.head(features_BCHW.mean((2, 3)))
        return logits_BK


def head_only() -> nn.Module:
    """Return it with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HeadOnly()
