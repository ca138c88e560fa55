"""A network for measuring all that is not the network: `bench --models jobs.bench_model:head_only`."""

import torch
from torch import Tensor, nn


class HeadOnly(nn.Module):
    """ResNet-50's features in shape and number, 2048 on 7x7 at 224 px, and its head; hardly anything before them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2048, 1)
        self.head = nn.Linear(2048, 1000)

    def forward(self, images_BCYX: Tensor) -> Tensor:
        """Return logits (B, 1000)."""
        # compiled, rows and then columns cost a third of both at once
        rows_BCHX = torch.unflatten(images_BCYX, 2, (-1, 32)).mean(3, dtype=torch.float32)
        means_BCHW = torch.unflatten(rows_BCHX, 3, (-1, 32)).mean(4).to(images_BCYX.dtype)
        features_BCHW = self.features(means_BCHW).relu()
        logits_BK: Tensor = self.head(features_BCHW.mean((2, 3)))
        return logits_BK


def head_only() -> nn.Module:
    """Return it with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HeadOnly()
