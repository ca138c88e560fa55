"""Networks of two channels, whose maps can be worked out by hand: `--model tests.support.networks:two_channels`."""

import torch
from torch import nn


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


class OnlyFloat32(TwoChannels):
    """Its own arithmetic does not take another precision."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(images_BCHW.float()[:, :2].mean((2, 3)))
        return logits_BK


def only_float32() -> nn.Module:
    """Factory: `--model tests.support.networks:only_float32`."""
    return OnlyFloat32()


def compiled() -> nn.Module:
    """Factory of a network in torch.compile's wrapper."""
    return torch.compile(TwoChannels())  # type: ignore[return-value]


def wants_tf32() -> nn.Module:
    """Factory that changes the arithmetic of its process, as many a user's module does when it is imported."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return TwoChannels()


def two_channels() -> nn.Module:
    """Factory: `--model tests.support.networks:two_channels`."""
    return TwoChannels()
