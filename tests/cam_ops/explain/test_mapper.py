"""Averages over scales and mirrored pictures, and the refusal of what does not go together."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.settings import ExplainConfig, PerChannel, RefineConfig
from tests.cam_ops.network.test_heads import network_of
from tests.support.networks import TwoChannels


def choose(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(len(logits)), torch.zeros(len(logits), dtype=torch.int64)


def red_map(images: torch.Tensor, **config: object) -> torch.Tensor:
    """Map class 0 of TwoChannels, which is the picture's red itself."""
    mapper = Mapper(TwoChannels().eval().requires_grad_(False), ExplainConfig(**config), 8)
    assert mapper.size == images.shape[2:]
    maps = mapper.explain(255 * images, choose).maps_PHW
    assert maps.shape[1:] == mapper.grid
    return maps


def test_mirrored_maps_are_laid_back_on_the_picture() -> None:
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(red_map(images), images[:, 0])
    torch.testing.assert_close(red_map(images, flip=True), images[:, 0])


def test_a_gray_network_gets_the_luminance_that_pillow_rounds() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1)
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    images_BHWC = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    mapper = Mapper(network, ExplainConfig(flip=True), 8, mean=(0.25,), std=(0.5,))
    explained = mapper.explain(torch.from_numpy(images_BHWC).permute(0, 3, 1, 2), choose)
    gray_B1HW = np.stack([np.asarray(Image.fromarray(image_HWC).convert("L"))[None] for image_HWC in images_BHWC])
    inputs_B1HW = (torch.from_numpy(gray_B1HW) / 255 - 0.25) / 0.5
    half_a_step = (0.5 + 1e-3) / 255 / 0.5  # by which it may be rounded
    most = half_a_step * float(conv.weight.abs().sum((1, 2, 3)).max())
    torch.testing.assert_close(explained.logits_BK, network(inputs_B1HW), rtol=0, atol=most)
    maps_BHW = (conv(inputs_B1HW)[:, 0] + conv(inputs_B1HW.flip(3)).flip(3)[:, 0]) / 2
    torch.testing.assert_close(explained.maps_PHW, maps_BHW, rtol=0, atol=most)
    plain = Mapper(network, ExplainConfig(), 8, mean=(0.25,), std=(0.5,))
    of_gray = plain.explain(
        torch.from_numpy(np.repeat(gray_B1HW, 3, 1)), choose
    )  # of a gray picture it is the gray itself
    torch.testing.assert_close(of_gray.maps_PHW, conv(inputs_B1HW)[:, 0])


def test_maps_of_two_scales_meet_on_the_finer_grid() -> None:
    coarse = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(2, 3, 1, 1)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)  # the picture at 16 pixels, in 2x2 blocks
    maps = red_map(fine, scales=(1.0, 2.0))
    # At 8 pixels the antialiased picture weighs its neighbours, alike on both sides; inside, where the picture is a
    # plane, it is the blocks. Enlarged again, a quarter of a block's step lies between block and pixel.
    plane = coarse[:, 0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    step = torch.tensor([-0.25, 0.25]).repeat(8)
    enlarged = plane + 8 * step[:, None] + step[None, :]
    torch.testing.assert_close(maps[:, 4:-4, 4:-4], ((plane + enlarged) / 2)[:, 4:-4, 4:-4], rtol=1e-4, atol=1e-3)


class Strided(nn.Module):
    """Class 0 is red, averaged over cells of 4x4 pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images, 4).mean((2, 3))


def test_a_side_is_made_of_whole_cells() -> None:
    mapper = Mapper(Strided().eval(), ExplainConfig(scales=(1.0, 1.3, 0.6)), 16)
    assert [view.size for view in mapper.views] == [(16, 16), (20, 20), (8, 8)]  # 20.8 and 9.6 pixels, in cells of 4
    assert (mapper.grid, mapper.size) == ((5, 5), (20, 20))


def test_the_first_view_decides_scores_and_classes_and_all_count_for_the_residual() -> None:
    network = network_of("resnet18")
    images = torch.randn(2, 3, 96, 96)
    both = Mapper(network, ExplainConfig(scales=(0.6667, 1.0), flip=True), 96)
    assert [(view.size[0], view.flipped) for view in both.views] == [(64, False), (64, True), (96, False), (96, True)]
    explained = both.explain(255 * images, choose)
    small = nn.functional.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    torch.testing.assert_close(explained.logits_BK, network(small), rtol=1e-4, atol=1e-4)
    assert explained.maps_PHW.shape == (2, 3, 3)
    assert explained.residual_P.max() < 1e-5
    parts = [
        Mapper(network, ExplainConfig(), 64).explain(255 * small, choose).maps_PHW,
        Mapper(network, ExplainConfig(), 64).explain(255 * small.flip(3), choose).maps_PHW.flip(2),
        Mapper(network, ExplainConfig(), 96).explain(255 * images, choose).maps_PHW,
        Mapper(network, ExplainConfig(), 96).explain(255 * images.flip(3), choose).maps_PHW.flip(2),
    ]
    to_three = torch.tensor([[5 / 6, 1 / 6], [0.5, 0.5], [1 / 6, 5 / 6]]).clamp(0, 1)
    to_three[0], to_three[2] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])  # beyond the outermost centres
    on_grid = [to_three @ part @ to_three.T if part.shape[1] == 2 else part for part in parts]
    torch.testing.assert_close(explained.maps_PHW, torch.stack(on_grid).mean(0), rtol=1e-3, atol=1e-4)


def test_each_scale_has_the_same_say_whatever_the_method_s_unit() -> None:
    network = network_of("resnet18")
    images = torch.randn(2, 3, 128, 128)
    cam, gradcam, nwc, layercam = (
        Mapper(network, ExplainConfig(method=method, scales=(1.0, 2.0)), 64).explain(255 * images, choose).maps_PHW
        for method in ("cam", "gradcam", "nwc", "layercam")
    )
    torch.testing.assert_close(gradcam * 4, cam, rtol=1e-4, atol=1e-5)  # 4 cells at the first scale
    torch.testing.assert_close(layercam * 4, nwc, rtol=1e-4, atol=1e-5)


def test_each_scale_has_the_same_say_where_layers_are_fused() -> None:
    """Fused maps have no unit: each layer's is divided by its peak."""
    network, images = network_of("resnet18"), 255 * torch.rand(2, 3, 128, 128)
    config = {"method": "layercam", "layer": ("layer3", "layer4")}
    half = functional.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    small, large = (
        Mapper(network, ExplainConfig(**config), len(pixels[0, 0])).explain(pixels, choose).maps_PHW
        for pixels in (half, images)
    )
    enlarged = functional.interpolate(small[None], large.shape[1:], mode="bilinear")[0]
    both = Mapper(network, ExplainConfig(**config, scales=(1.0, 2.0)), 64).explain(images, choose).maps_PHW
    torch.testing.assert_close(both, (enlarged + large) / 2, rtol=1e-3, atol=1e-4)


def test_where_one_side_has_no_features_to_refine_from_auto_refines_none() -> None:
    torch.manual_seed(0)
    halves = [nn.Conv2d(channels, 2, 3, stride=2, padding=1) for channels in (3, 2, 2)]
    network = (
        nn.Sequential(*halves, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval().requires_grad_(False)
    )
    assert Mapper(network, ExplainConfig(), 128, refine=RefineConfig()).grid == (64, 64)
    views = ExplainConfig(scales=(1.0, 2.0))
    mapper = Mapper(network, views, 128, refine=RefineConfig())
    assert (mapper.refinement, mapper.grid) == (None, (32, 32))
    assert "auto, as grids of 64x64 and 128x128 are too fine" in mapper.why_not
    images = 255 * torch.rand(2, 3, 256, 256)
    expected = Mapper(network, views, 128).explain(images, choose).maps_PHW
    assert torch.equal(mapper.explain(images, choose).maps_PHW, expected)
    with pytest.raises(UsageError, match=r"--refine affinity: .* too fine for it; .*; or use --refine none"):
        Mapper(network, views, 128, refine=RefineConfig(refine="affinity"))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"scales": (0.0,)}, "--scales expects numbers from 0.1 to 10, got 0.0"),
        ({"scales": (float("nan"),)}, "--scales expects numbers"),
        ({"scales": (1.0, 1.0)}, "each scale once"),
        ({"scales": (10.0,)}, "makes inputs of 5120 pixels, expected 8 to 4096"),
        ({"layer": ("layer3", "layer3"), "method": "gradcam"}, "each layer once"),
        ({"layer": ("layer3",), "method": "cam"}, "--method cam maps what the network averages; leave --layer out"),
        ({"layer": ("layer3",), "method": "legrad"}, "--method legrad looks at all attention, and at no --layer"),
        ({"scales": (1.0, 1.01)}, "makes inputs of 512 pixels like another scale"),
        ({"method": "legrad"}, "needs a vision transformer"),
    ],
)
def test_what_does_not_go_together_is_refused(config: dict, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Mapper(network_of("resnet18"), ExplainConfig(**config), 512 if config.get("scales") else 64)


class Harmed(TwoChannels):
    """Its scores rest on numbers that a shorter format cannot hold: in bfloat16 257 is 256, in float16 1e5 infinite."""

    def __init__(self, number: float, less: float) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.tensor([number, less]))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        number, less = self.numbers
        return super().forward(images_BCHW) * (number - less)


@pytest.mark.parametrize(
    ("numbers", "dtype", "far"),
    [((257.0, 256.0), torch.bfloat16, "by 1 of"), ((1e5, 1e5 - 1), torch.float16, "by nan of")],
)
def test_logits_that_another_number_format_changes_are_refused(
    numbers: tuple[float, float], dtype: torch.dtype, far: str
) -> None:
    mapper = Mapper(Harmed(*numbers).eval().requires_grad_(False), ExplainConfig(), 32)
    mapper.check(torch.float32)
    with pytest.raises(UsageError, match=f"other logits in .*float16, {far} the largest; try --precision fp32"):
        mapper.check(dtype)
    if dtype == torch.float16:
        mapper.check(dtype, may_overflow=True)


class Seen(nn.Module):
    """Keeps a copy of what it is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, 2, 3, 2, 1)
        self.fc = nn.Linear(2, 2)
        self.images: list[torch.Tensor] = []

    def forward(self, images_BCYX: torch.Tensor) -> torch.Tensor:
        self.images.append(images_BCYX.clone())
        logits_BK: torch.Tensor = self.fc(self.inner(images_BCYX).relu().mean((2, 3)))
        return logits_BK


IMAGENET: tuple[PerChannel, PerChannel] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES: tuple[PerChannel, PerChannel] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
UNEVEN: tuple[PerChannel, PerChannel] = (0.485, 0.349, 0.406), (0.229, 0.261, 0.225)  # 89 is another by multiplication


@pytest.mark.parametrize("rows_first", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [IMAGENET, HALVES, UNEVEN])
def test_a_network_is_given_normalised_pixels_batch_after_batch(
    scale: tuple[PerChannel, PerChannel], channels: int, dtype: torch.dtype, rows_first: bool
) -> None:
    torch.manual_seed(0)
    mean, std = (values[:channels] for values in scale)
    mapper = Mapper(Seen(channels).eval(), ExplainConfig(), (32, 40), mean=mean, std=std)
    mapper.to(torch.device("cpu"), dtype)
    network = mapper.views[0].explainer.network
    for num_images in (3, 2, 3):
        pixels = torch.randint(0, 256, (num_images, 32, 40, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        pixels = pixels.contiguous() if rows_first else pixels
        grey = (pixels.double() * torch.tensor([0.299, 0.587, 0.114])[:, None, None].double()).sum(1, keepdim=True)
        scaled = (pixels.double() if channels == 3 else grey) / 255
        expected = (scaled - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        network.images.clear()
        with torch.no_grad():
            mapper.explain(pixels, lambda logits: (torch.tensor([0]), torch.tensor([0])))
        tolerance = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(network.images[0].double(), expected, rtol=0, atol=tolerance)
        if channels == 3:  # to the bit, as the formula says
            exact = (pixels.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
            assert network.images[0].equal(exact.to(dtype))


class Exits(nn.Module):
    """Ends early where a picture is bright."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.early, self.late = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.Linear(8, 4),
            nn.Linear(8, 4),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images).relu()
        early = self.early(features.mean((2, 3)))
        if images.mean() > 0.7:
            return early
        return self.late(self.second(features).relu().mean((2, 3)))


def test_a_network_that_ends_early_is_refused_at_the_picture_where_it_does() -> None:
    mapper = Mapper(Exits().eval().requires_grad_(False), ExplainConfig(), 32)
    assert mapper.explain(torch.full((1, 3, 32, 32), 99.0), choose).residual_P.max() < 1e-5
    with pytest.raises(UsageError, match=r"took another way with these pictures than with noise, .* the whole way"):
        mapper.explain(torch.full((1, 3, 32, 32), 255.0), choose)
