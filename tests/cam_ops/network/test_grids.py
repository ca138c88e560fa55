"""Which axes lie over the picture: layouts and token counts of rectangles, worked out by hand."""

import pytest
import torch
import torchvision
from torch import nn

from cam_ops.errors import UsageError
from cam_ops.network.grids import Grid, fits, spatial_view, token_grid
from cam_ops.network.heads import find_head


@pytest.mark.parametrize(
    ("grid", "size", "expected"),
    [
        ((7, 7), (224, 224), True),
        ((7, 8), (224, 224), False),
        ((3, 5), (96, 160), True),
        ((5, 3), (96, 160), False),
        ((3, 6), (96, 161), True),  # rounded up
        ((3, 8), (150, 299), True),  # Inception: 150 and 299 less its borders, over 32
        ((5, 9), (96, 160), True),  # SqueezeNet
        ((6, 11), (96, 160), True),
        ((6, 14), (96, 160), False),
        ((1, 8), (32, 256), True),
        ((8, 1), (32, 256), False),
        ((49, 49), (96, 160), False),
    ],
)
def test_a_grid_has_the_proportions_of_the_input(grid: Grid, size: Grid, expected: bool) -> None:
    assert fits(grid, size) is expected
    assert fits(grid[::-1], size[::-1]) is expected


@pytest.mark.parametrize(
    ("num_tokens", "size", "grid"),
    [
        (197, (224, 224), (14, 14)),
        (196, (224, 224), (14, 14)),
        (205, (224, 224), None),  # nine tokens before 14 x 14
        (60, (96, 160), (6, 10)),  # patches of 16
        (61, (96, 160), (6, 10)),
        (65, (96, 160), (6, 10)),
        (66 + 1, (96, 160), None),  # 6 x 11 patches of 14, behind one, or 6 x 10 of 16 behind seven?
        (15, (96, 160), (3, 5)),
        (240, (96, 160), (12, 20)),
        (6, (70, 100), None),  # 2 x 3 squares of 32 are not the whole of it
        (193, (192, 256), (12, 16)),
    ],
)
def test_tokens_are_the_input_cut_into_squares(num_tokens: int, size: Grid, grid: Grid | None) -> None:
    assert token_grid(num_tokens, size) == grid
    assert token_grid(num_tokens, size[::-1]) == (grid and grid[::-1])


def test_both_layouts_and_tokens_are_seen_as_the_same_grid() -> None:
    features_BCHW = torch.randn(2, 32, 6, 10)
    tokens_BTC = torch.cat([torch.randn(2, 1, 32), features_BCHW.flatten(2).transpose(1, 2)], 1)
    for output in (features_BCHW, features_BCHW.permute(0, 2, 3, 1), tokens_BTC):
        view = spatial_view(output, 2, (96, 160))
        assert view is not None
        assert torch.equal(view, features_BCHW)
        if output.ndim == 4:
            assert spatial_view(output, 2, (160, 96)) is None
            assert spatial_view(output, 2, (96, 96)) is None


def test_of_two_layouts_the_exact_one_is_taken_or_none() -> None:
    output = torch.randn(2, 6, 10, 17)  # 10 x 17 would do as well, for another 96 x 160
    view = spatial_view(output, 2, (96, 160))
    assert view is not None
    assert torch.equal(view, output.permute(0, 3, 1, 2))
    assert spatial_view(torch.randn(2, 8, 12, 18), 2, (96, 144)) is None  # 8 of 12 x 18, or 18 of 8 x 12?


class Turned(nn.Module):
    """Averages features of which rows and columns are exchanged: nothing says which way they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).transpose(2, 3).mean((2, 3)))


def test_a_grid_that_is_turned_is_no_grid() -> None:
    network = Turned().eval().requires_grad_(False)
    with pytest.raises(UsageError, match="lie mirrored or turned over its input"):
        find_head(network, 64)
    head = find_head(network, (64, 128))
    assert (head.kind, head.layers, head.grid) == ("layer", ("conv",), (8, 16))  # before it is turned


def test_a_transformer_of_one_size_is_refused_in_a_sentence() -> None:
    network = torchvision.models.VisionTransformer(64, 16, 1, 1, 8, 8).eval().requires_grad_(False)
    with pytest.raises(UsageError, match=r"pictures of 96x64 pixels .*; it says that it takes 64: --image-size 64"):
        find_head(network, (64, 96))
