"""Which pictures a network takes: named in a refusal where it runs with them, and taken where nobody says a size."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from cam_ops.errors import UsageError
from cam_ops.network.heads import find_head
from cam_ops.network.load import load_classifier
from cam_ops.network.takes import Normalisation
from cam_ops.settings import ModelConfig


def averaging(num_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(num_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small_vit(side: int, **changes: Any) -> nn.Module:
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=side, num_classes=5, depth=2, **changes)
    return network


class Wrapped(nn.Module):
    """Says a size in a config, as Hugging Face's networks do; what it says need not be what it takes."""

    def __init__(self, said: object, taken: int, num_channels: int = 3) -> None:
        super().__init__()
        self.config, self.taken, self.conv = type("Config", (), {})(), taken, averaging(num_channels)
        self.config.image_size = said

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[2] != self.taken:
            raise RuntimeError(f"only {self.taken}")
        return self.conv(images)


class WrappedPixels(Wrapped):
    """Looks whether its input are pixels, before it divides by the largest."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.min() >= 0, "pixels from 0 to 1"
        assert images.max() <= 1, "pixels from 0 to 1"
        return super().forward(images / images.amax((1, 2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("network", "num_channels", "words"),
    [
        (lambda: averaging(1), 3, "; it takes pictures of one channel: --channels gray"),
        (lambda: averaging(3), 1, "; it takes RGB: --channels rgb"),
        (lambda: averaging(4), 3, "; it takes pictures of 4 channels: wrap it in a module whose forward makes its"),
        (lambda: torchvision.models.VisionTransformer(96, 16, 1, 1, 8, 8), 3, "takes 96: --image-size 96"),
        (lambda: small_vit(96), 3, "; it says that it takes 96: --image-size 96"),
        (lambda: nn.Sequential(small_vit(96)), 3, "; it says that it takes 96: --image-size 96"),
        (lambda: small_vit(96, in_chans=1), 3, "--channels gray; it says that it takes 96: --image-size 96"),
        (lambda: Wrapped(64, 64), 3, "; it says that it takes 64: --image-size 64"),
        (lambda: Wrapped([64, 64], 64), 3, "; it says that it takes 64: --image-size 64"),
        (lambda: WrappedPixels(64, 64), 3, "; it says that it takes 64: --image-size 64"),
        (lambda: WrappedPixels(64, 64, 1), 3, "--channels gray; it says that it takes 64: --image-size 64"),
        (lambda: Wrapped(64, 32), 3, "; check --image-size, --scales and --model"),
        (lambda: Wrapped(float("inf"), 32), 3, "; check --image-size, --scales and --model"),
        (lambda: Wrapped(torch.zeros(3), 32), 3, "; check --image-size, --scales and --model"),
        (lambda: Wrapped(10**6, 10**6), 3, "; check --image-size, --scales and --model"),
    ],
)
def test_a_refusal_names_the_pictures_that_the_network_takes(network: Any, num_channels: int, words: str) -> None:
    numbers = Normalisation(mean=(0.0,) * num_channels, std=(1.0,) * num_channels)
    with pytest.raises(UsageError, match=r"cannot take (RGB|gray) pictures of 224x224") as refused:
        find_head(network().eval().requires_grad_(False), 224, normalisation=numbers)
    assert words in str(refused.value)


FACTORIES = """
from tests.cam_ops.network.test_takes import Wrapped, WrappedPixels, small_vit

SAID = {"mean": (0, 0, 0), "std": (1, 1, 1)}

def of_96():
    return small_vit(96), SAID

def of_96_says_64():
    return small_vit(96), {**SAID, "image_size": 64}

def of_96_and_pixels():
    return WrappedPixels(96, 96), SAID

def takes_the_usual():
    return Wrapped(96, 224), SAID

def takes_none():
    return Wrapped(96, 32), SAID
"""


def test_without_a_size_that_of_the_network_is_taken_and_said(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FACTORIES)

    def taken(name: str, **flags: Any) -> tuple[object, str]:
        found = load_classifier(ModelConfig(model=f"{tmp_path}/nets.py:{name}", **flags))
        return found.preprocessing.image_size, "; ".join(found.notes)

    size, said = taken("of_96")
    assert size == 96
    assert "no pictures of 224x224 pixels; it says that it takes 96: --image-size 96 is taken" in said
    assert taken("of_96_and_pixels")[0] == 96
    assert taken("takes_the_usual") == (224, "")
    with pytest.raises(UsageError, match="cannot take RGB pictures of 64x64"):  # as the factory says
        taken("of_96_says_64")
    with pytest.raises(UsageError, match=r"cannot take RGB pictures of 224x224 .* takes 96: --image-size 96"):
        taken("of_96", image_size=224)
    with pytest.raises(UsageError, match="cannot take RGB pictures of 224x224"):
        taken("takes_none")


COUNTS = """
import torch
from tests.support.networks import TwoChannels

class Counts(TwoChannels):
    def __init__(self):
        super().__init__()
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, images):
        self.num_calls += 1
        return super().forward(images)

def net():
    return Counts(), {"mean": (0, 0, 0), "std": (1, 1, 1)}
"""


def test_the_weights_are_named_before_the_network_is_tried(tmp_path: Path) -> None:
    (tmp_path / "counts.py").write_text(COUNTS)
    found = [load_classifier(ModelConfig(model=f"{tmp_path}/counts.py:net", image_size=s)) for s in (None, 224)]
    assert found[0].network.num_calls > 1
    assert found[0].digest == found[1].digest


def test_a_size_too_small_for_any_flag_is_refused_in_the_same_sentence() -> None:
    with pytest.raises(UsageError, match="cannot take RGB pictures of 4x4 pixels"):
        find_head(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten()).eval(), 4)
