"""Small networks: of two channels, whose maps can be worked out by hand, one whose maps can be refined,
and one that boxes patches of a colour.

`--model tests.support.networks:two_channels`.
"""

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


class Chain(nn.Module):
    """Four convolutions that halve the grid, an average, a head: maps are refined from the third and the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Conv2d(given, 8, 3, 2, 1) for given in (3, 8, 8, 8))
        self.fc = nn.Linear(8, 5)
        self.fc.weight.data += 0.2  # so that most maps are positive somewhere
        self.eval().requires_grad_(False)

    def stage(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what the last convolution gets."""
        features_BCHW: torch.Tensor = self.c(self.b(self.a(images_BCHW).relu()).relu()).relu()
        return features_BCHW

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(self.d(self.stage(images_BCHW)).relu().mean((2, 3)))
        return logits_BK


class Steep(Chain):
    """Its gradients are beyond half precision where a picture is bright, and its logits are not."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        stage_BCHW = self.stage(images_BCHW)
        bright_B111 = (images_BCHW.mean((1, 2, 3), keepdim=True) - 0.9).relu()
        steep_BCHW = stage_BCHW + 100 * bright_B111 * (6e4 * (stage_BCHW - stage_BCHW.detach()))
        logits_BK: torch.Tensor = self.fc(self.d(steep_BCHW).relu().mean((2, 3)))
        return logits_BK


def steep() -> nn.Module:
    """Factory: `--model tests.support.networks:steep`."""
    return Steep()


def chain() -> nn.Module:
    """Factory: `--model tests.support.networks:chain`."""
    return Chain()


class Colours(nn.Module):
    """Features are how red, green, blue, magenta and yellow a pixel is; the head adds up each, a class a colour."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.fc = nn.Conv2d(3, 5, 1), nn.Linear(5, 5)
        rows_KC = torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, -1]], dtype=torch.float32)
        self.colours.weight.data = rows_KC[:, :, None, None]
        self.colours.bias.data = torch.tensor([0.0, 0, 0, -1, -1])
        self.fc.weight.data, self.fc.bias.data = 9 * torch.eye(5), torch.zeros(5)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(self.colours(images_BCHW).relu().mean((2, 3)))
        return logits_BK


def colours() -> nn.Module:
    """Factory: `--model tests.support.networks:colours`."""
    return Colours()


class ManyClasses(TwoChannels):
    """Red is the score of class 299, green that of 290, the others have none."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 300)
        self.fc.weight.data, self.fc.bias.data = torch.zeros(300, 2), torch.zeros(300)
        self.fc.weight.data[299, 0] = self.fc.weight.data[290, 1] = 9


def many_classes() -> nn.Module:
    """Factory: `--model tests.support.networks:many_classes`."""
    return ManyClasses()
