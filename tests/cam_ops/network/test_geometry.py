"""Networks that do more to their input than to look at it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification

from cam_ops.errors import UsageError
from cam_ops.network.heads import find_head
from cam_ops.network.outputs import return_logits

SIDE = 64


class Sees(nn.Module):
    """A small network behind something that is done to the picture."""

    def __init__(self, done: Callable[[Tensor], Tensor], ends_in_average: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.done, self.ends_in_average = done, ends_in_average
        self.conv, self.more = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = self.more(self.conv(self.done(images_BCHW)).relu()).relu()
        return self.fc(features.mean((2, 3)) if self.ends_in_average else features.logsumexp((2, 3)))


@pytest.mark.parametrize("ends_in_average", [True, False])
@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (lambda x: x[:, :, 8:-8, 8:-8], "do not depend on the borders of its input, .* --resize center-crop"),
        (lambda x: functional.interpolate(x[:, :, 6:-6, 6:-6], (SIDE, SIDE)), "do not depend on the borders"),
        (lambda x: x[:, :, :, :32], "do not depend on the right of its input, .* give an --image-size that"),
        (lambda x: x[:, :, 10:, 10:], "do not depend on the left and top of its input"),
        (lambda x: functional.interpolate(x[:, :, :-10], (SIDE, SIDE)), "do not depend on the bottom of its input"),
        (lambda x: x.flip(3), "lie mirrored or turned over its input"),
        (lambda x: x.flip(2), "lie mirrored or turned over its input"),
        (lambda x: x.transpose(2, 3), "lie mirrored or turned over its input"),
        (lambda x: x.rot90(1, (2, 3)), "lie mirrored or turned over its input"),
        (lambda x: x + x.flip(3), "are the same for a picture and its mirror image, .* cannot tell left and right"),
        (lambda x: torch.maximum(x, x.flip(2)), "are the same for .* cannot tell top and bottom"),
    ],
)
def test_networks_whose_maps_would_lie_elsewhere_are_refused(
    done: Callable[[Tensor], Tensor], reason: str, ends_in_average: bool
) -> None:
    with pytest.raises(UsageError, match=f"the network's features.* {reason}"):
        find_head(Sees(done, ends_in_average).eval().requires_grad_(False), SIDE)


@pytest.mark.parametrize(
    ("done", "sides"),
    [
        (lambda x: functional.pad(x, (16, 0, 0, 0)), r"80x64, .* --image-size 64 80 if"),
        (lambda x: functional.pad(x, (2, 14, 2, 14)), "80x80"),
        (nn.ZeroPad2d((0, 8, 0, 8)), "72x72"),
        (nn.ReflectionPad2d((8, 0, 8, 0)), "72x72"),
        (lambda x: functional.pad(x, (8, 8, 8, 8)), "80x80"),
        (lambda x: functional.pad(x, (8, 8, 8, 8), mode="reflect"), "80x80"),
        (lambda x: functional.conv2d(x, torch.ones(3, 1, 3, 3), padding=20, groups=3), "102x102"),  # as FCN's first
        (lambda x: functional.conv2d(functional.pad(x, (9, 9, 9, 9)), torch.ones(3, 3, 5, 5)), "78x78"),
    ],
)
def test_padding_moves_maps_and_is_refused(done: Callable[[Tensor], Tensor], sides: str) -> None:
    with pytest.raises(UsageError, match=f"pads its input of 64x64 pixels to {sides}"):
        find_head(Sees(done, ends_in_average=True).eval().requires_grad_(False), SIDE)


@pytest.mark.parametrize(
    "done",
    [
        lambda x: x.roll(8, 3),
        lambda x: torch.roll(x, (16, -16), dims=(2, 3)),
        lambda x: x.roll((32, 32), (-2, -1)),
        lambda x: torch.roll(input=x, shifts=5),
    ],
)
def test_rolled_pictures_are_refused(done: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UsageError, match="rolls its input, so that its maps lie elsewhere"):
        find_head(Sees(done, ends_in_average=True).eval().requires_grad_(False), SIDE)


def test_steps_that_do_not_fit_are_no_padding() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert find_head(network.eval().requires_grad_(False), 72).grid == (5, 5)


class PadsFeatures(Sees):
    """Pads the grid that it averages, 8x8."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__(lambda x: x, ends_in_average=True)
        self.widths = widths

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = functional.pad(self.more(self.conv(images_BCHW).relu()).relu(), self.widths)
        return self.fc(features.mean((2, 3)))


@pytest.mark.parametrize("widths", [(2, 2, 2, 2), (1, 0, 1, 0), (0, 1, 0, 1), (3, 1, 2, 2)])
def test_features_with_padding_around_are_refused(widths: tuple[int, int, int, int]) -> None:
    network = PadsFeatures(widths).eval().requires_grad_(False)
    with pytest.raises(UsageError, match=r"have cells along a border that no picture changes, .* give --layer with"):
        find_head(network, SIDE)
    assert find_head(network, SIDE, ("more",)).grid == (8, 8)


class SeesBothWays(Sees):
    """Adds up the features of the picture and of its mirror image, as trained test-time augmentation does."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = [self.more(self.conv(x).relu()).relu() for x in (images_BCHW, images_BCHW.flip(3))]
        return self.fc((features[0] + features[1]).mean((2, 3)))


def test_features_of_a_picture_and_its_mirror_image_are_no_map_of_either() -> None:
    network = SeesBothWays(lambda x: x, ends_in_average=True).eval().requires_grad_(False)
    with pytest.raises(UsageError, match="are the same for a picture and its mirror image"):
        find_head(network, SIDE)


@pytest.mark.parametrize("ends_in_average", [True, False])
@pytest.mark.parametrize(
    "done",
    [
        lambda x: x,
        lambda x: x.flip(1),  # of its channels
        lambda x: functional.interpolate(x, (48, 48), mode="bilinear"),
        lambda x: functional.pad(x, (2, 2, 2, 2)),
        lambda x: functional.pad(x, (0, 1, 0, 1)),  # as TensorFlow's, before a stride of 2
        lambda x: functional.conv2d(functional.pad(x, (9, 9, 9, 9)), torch.ones(3, 3, 7, 7), dilation=3),
        lambda x: functional.conv2d(x, torch.ones(3, 3, 7, 7), padding="same", dilation=3),
        lambda x: x.roll((8, 8), (2, 3)).roll((-8, 56), (2, 3)),
        lambda x: x.roll(1, 1),  # its channels
        lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True),
    ],
)
def test_others_are_not(done: Callable[[Tensor], Tensor], ends_in_average: bool) -> None:
    head = find_head(Sees(done, ends_in_average).eval().requires_grad_(False), SIDE)
    assert head.kind == ("affine" if ends_in_average else "layer")


class Averages(Sees):
    """Averages tokens that are made of the features, (B, T, C)."""

    def __init__(self, tokens_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__(lambda x: x, ends_in_average=True)
        self.tokens_of, self.mix = tokens_of, nn.Linear(8, 8)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = self.more(self.conv(images_BCHW).relu()).relu()
        return self.fc(self.mix(self.tokens_of(features_BCHW)).relu().mean(1))


def _tokens(features_BCHW: Tensor) -> Tensor:
    return features_BCHW.flatten(2).transpose(1, 2)


def _of_queries(num_queries: int) -> Callable[[Tensor], Tensor]:
    queries_QC = 3 * torch.randn(num_queries, 8, generator=torch.Generator().manual_seed(1))

    def attend(features_BCHW: Tensor) -> Tensor:
        tokens_BTC = _tokens(features_BCHW)
        return (queries_QC @ tokens_BTC.transpose(1, 2)).softmax(2) @ tokens_BTC

    return attend


def _by_windows(features_BCHW: Tensor) -> Tensor:
    batch, channels, height, width = features_BCHW.shape
    windows = features_BCHW.reshape(batch, channels, 2, height // 2, 2, width // 2)
    return windows.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)


def _to_and_fro(features_BCHW: Tensor) -> Tensor:
    turned_BCHW = features_BCHW.clone()
    turned_BCHW[:, :, 1::2] = features_BCHW[:, :, 1::2].flip(3)
    return _tokens(turned_BCHW)


@pytest.mark.parametrize(
    ("tokens_of", "grid"),
    [
        (_of_queries(4), "2x2"),
        (_of_queries(16), "4x4"),
        (_of_queries(64), "8x8"),
        (lambda x: torch.stack([x.mean((2, 3)) * factor for factor in (1, 0.5, 2, 3)], 1), "2x2"),
        (lambda x: torch.stack([x.amax((2, 3)), x.mean((2, 3)), x.std((2, 3)), x.amin((2, 3))], 1), "2x2"),
        (_by_windows, "8x8"),
        (_to_and_fro, "8x8"),
        (lambda x: _tokens(x).flip(1), "8x8"),
        (lambda x: _tokens(x)[:, torch.randperm(64, generator=torch.Generator().manual_seed(2))], "8x8"),
    ],
)
def test_tokens_that_are_no_grid_over_the_picture_are_refused(tokens_of: Callable[[Tensor], Tensor], grid: str) -> None:
    network = Averages(tokens_of).eval().requires_grad_(False)
    with pytest.raises(UsageError, match=f"do not lie over its input as a grid of {grid}, .* give --layer"):
        find_head(network, SIDE)


def test_the_module_before_them_is_mapped_instead() -> None:
    head = find_head(Averages(_of_queries(16)).eval().requires_grad_(False), SIDE, ("more",))
    assert (head.kind, head.grid) == ("layer", (8, 8))


@pytest.mark.parametrize("shift", [0, 1])
def test_tokens_in_the_order_of_the_picture_are_mapped(shift: int) -> None:
    mixed = lambda x: _tokens(x) + shift * _tokens(x).mean(1, keepdim=True)  # noqa: E731
    head = find_head(Averages(mixed).eval().requires_grad_(False), SIDE)
    assert (head.kind, head.grid) == ("affine", (8, 8))


def test_tokens_that_are_all_the_same_have_one_order() -> None:
    network = Averages(lambda x: x.mean((2, 3))[:, None].expand(-1, 16, -1)).eval().requires_grad_(False)
    assert find_head(network, SIDE).grid == (4, 4)


@pytest.mark.parametrize(("side", "seed"), [(64, 0), (64, 6), (64, 7), (96, 2), (96, 11)])
def test_a_few_cells_of_a_network_with_random_weights_are_in_order(side: int, seed: int) -> None:
    torch.manual_seed(seed)
    config = ResNetConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", embedding_size=8)
    network = ResNetForImageClassification(config).eval().requires_grad_(False)
    return_logits(network, side, "logits")
    assert find_head(network, side).grid == (side // 32, side // 32)
