"""Networks that look at their input, or at other pictures beside the one that they are given."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.network.heads import find_head
from cam_ops.network.takes import Normalisation
from cam_ops.network.trial import trial_pictures


class Plain(nn.Module):
    """A convolution, an average, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Identity(), nn.Linear(8, 5)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(images_BCHW)).relu().mean((2, 3)))


class LooksAtPixels(Plain):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        assert images_BCHW.min() >= 0, "pixels from 0 to 1"
        assert images_BCHW.max() <= 1, "pixels from 0 to 1"
        return super().forward(images_BCHW)


class LooksAtBytes(Plain):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        if images_BCHW.min() < 0 or not 200 < images_BCHW.max() <= 255:
            raise ValueError("expected 0..255")
        return super().forward(images_BCHW / 255)


class OfTheBatch(Plain):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return super().forward(images_BCHW) + images_BCHW.mean()


class StaysInTraining(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def train(self, mode: bool = True) -> "StaysInTraining":
        return self


class WithoutStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)


class Squeezes(Plain):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return functional.log_softmax(super().forward(images_BCHW).squeeze(), dim=1)


class ChangesItsInput(Plain):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return super().forward(images_BCHW.sub_(0.45).div_(0.25))


class Remembers(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(3))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.center += 1e-4 * (images_BCHW.mean((0, 2, 3)) - self.center)
        return super().forward(images_BCHW - self.center[:, None, None])


def test_noise_is_normal_unless_the_network_wants_pixels() -> None:
    assert trial_pictures(Plain(), 16).min() < -2
    pixels = trial_pictures(LooksAtPixels(), 16)
    assert 0 <= pixels.min() < 0.01
    assert 0.99 < pixels.max() <= 1
    of_bytes = Normalisation(std=(1 / 255, 1 / 255, 1 / 255))
    assert trial_pictures(LooksAtBytes(), 16, normalisation=of_bytes).max() > 200
    assert find_head(LooksAtBytes().eval(), 16, normalisation=of_bytes).kind == "affine"
    with pytest.raises(UsageError, match=r"ValueError: expected 0..255, in .*test_trial.py line \d+\); check"):
        find_head(LooksAtBytes().eval(), 16)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (OfTheBatch, "other logits in other company; see what its forward does across the batch"),
        (ChangesItsInput, r"changes the pictures that it is given, .* x = x.clone\(\)"),
        (Remembers, "remembers earlier pictures in center, so that its logits depend on them"),
        (StaysInTraining, r"other logits in other company; the batch norm norm is in training mode after eval\(\)"),
        (WithoutStatistics, "other logits in other company; the batch norm norm has no running statistics"),
        (Squeezes, r"fails on a single picture \(IndexError: .*, in .*test_trial.py line \d+\), as the last"),
    ],
)
def test_pictures_that_influence_each_other_are_refused(network: type[nn.Module], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_head(network().eval().requires_grad_(False), 16)
