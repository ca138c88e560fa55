"""Maps of inputs that are no square: against autograd with plain hooks, and turned pictures against turned networks."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.settings import BoxConfig, ExplainConfig, MapConfig, RefineConfig
from tests.cam_ops.network.test_heads import network_of

SIZE = (64, 96)


def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(len(logits)), torch.full((len(logits),), 3)


def by_autograd(network: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a module returns for each picture, and the gradient of class 3 with respect to it."""
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _module, _given, returned: kept.append(returned))
    with torch.enable_grad():
        logits = network(images.clone().requires_grad_())
        (gradient,) = torch.autograd.grad(logits[:, 3].sum(), kept[0])
    handle.remove()
    return kept[0].detach(), gradient


@pytest.mark.parametrize(
    ("name", "layer", "channels_last"),
    [
        ("resnet18", "layer4", False),
        ("mobilenet_v3_small", "features", False),
        ("squeezenet1_1", "classifier", False),
        ("convnext_tiny", "features", False),
        ("swin_t", "norm", True),
    ],
)
@pytest.mark.parametrize("size", [(96, 160), (160, 96)])
def test_gradcam_is_what_autograd_and_a_hook_give(
    name: str, layer: str, channels_last: bool, size: tuple[int, int]
) -> None:
    network = network_of(name)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    mapper = Mapper(network, ExplainConfig(method="gradcam"), size)
    assert mapper.head.kind != "layer"
    features, gradient = by_autograd(network, layer if name != "squeezenet1_1" else "classifier.2", images)
    if channels_last:
        features, gradient = features.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    if layer == "classifier":
        features = features.relu()
        gradient = torch.zeros_like(features)
        gradient[:, 3] = 1 / features[0, 0].numel()
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1)
    maps = mapper.explain(255 * images, choose).maps_PHW
    assert maps.shape == expected.shape
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_transformer_s_layer_is_mapped_on_the_grid_of_its_patches() -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=(96, 160), depth=3, num_classes=7, reg_tokens=4)
    images = torch.randn(2, 3, 96, 160)
    mapper = Mapper(
        network.eval().requires_grad_(False), ExplainConfig(method="gradcam", layer=("blocks.1",)), (96, 160)
    )
    features, gradient = by_autograd(network, "blocks.1", images)
    patches, gradient = features[:, 5:], gradient[:, 5:]  # behind a class token and four registers
    expected = (patches * gradient.mean(1, keepdim=True)).sum(2).reshape(2, 6, 10)
    torch.testing.assert_close(mapper.explain(255 * images, choose).maps_PHW, expected, rtol=1e-3, atol=1e-6)


def test_scales_of_a_rectangle_are_in_whole_cells_of_pictures_with_its_proportions() -> None:
    network = network_of("resnet18")
    mapper = Mapper(network, ExplainConfig(scales=(1.0, 1.5)), SIZE)
    assert [view.size for view in mapper.views] == [(64, 96), (96, 128)]  # cells of 32: 3 and 4.5
    assert (mapper.size, mapper.grid) == ((96, 144), (3, 4))
    with pytest.raises(UsageError, match=r"--scales 10.0 makes inputs of 5120 pixels"):
        Mapper(network, ExplainConfig(scales=(1.0, 10.0)), (64, 512))
    with pytest.raises(UsageError, match=r"--scales 1.01 makes inputs of 96x64 pixels like another scale"):
        Mapper(network, ExplainConfig(scales=(1.0, 1.01)), SIZE)
    fixed = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, depth=2).eval().requires_grad_(False)
    with pytest.raises(
        UsageError, match=r"--scales 1.5: .* 144x96 pixels .*; it says that it takes 96x64: --image-size 64 96"
    ):
        Mapper(fixed, ExplainConfig(scales=(1.0, 1.5)), SIZE)


def turned(network: nn.Module) -> nn.Module:
    """Exchange rows and columns of each kernel."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.transpose(2, 3).contiguous()
    return network


@pytest.mark.parametrize("explain", [{}, {"scales": (1.0, 1.5)}, {"method": "layercam", "layer": ("layer3",)}])
def test_a_turned_picture_has_the_turned_map_of_a_turned_network(explain: dict[str, Any]) -> None:
    config, refine = ExplainConfig(**explain), RefineConfig(refine="affinity")
    pixels = torch.randint(0, 256, (2, 3, 96, 144), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if "scales" not in explain:
        pixels = pixels[:, :, :64, :96]
    inside = torch.tensor([[0.0, 0.2, 1.0, 0.8], [0.0, 0.0, 1.0, 1.0]])
    mapper = Mapper(network_of("resnet18"), config, SIZE, refine=refine)
    assert mapper.size == pixels.shape[2:]
    found = mapper.explain(pixels, choose, inside)
    other = Mapper(turned(network_of("resnet18")), config, SIZE[::-1], refine=refine)
    back = other.explain(pixels.transpose(2, 3).contiguous(), choose, inside[:, [1, 0, 3, 2]])
    assert mapper.grid == other.grid[::-1]
    assert mapper.grid[0] < mapper.grid[1]
    torch.testing.assert_close(
        found.logits_BK, back.logits_BK, rtol=1e-3, atol=1e-4 * float(found.logits_BK.abs().max())
    )
    largest = float(found.maps_PHW.abs().max())
    turned_back = back.maps_PHW.transpose(1, 2)
    torch.testing.assert_close(found.maps_PHW, turned_back, rtol=0.1, atol=1e-2 * largest)  # they are stored rounded
    torch.testing.assert_close(
        found.cams_Phw, back.cams_Phw.transpose(1, 2), rtol=1e-2, atol=1e-3 * float(found.cams_Phw.abs().max())
    )


def test_mirrored_is_mirrored() -> None:
    pixels = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mapper = Mapper(network_of("resnet18"), ExplainConfig(flip=True), SIZE)
    maps = mapper.explain(pixels, choose).maps_PHW
    torch.testing.assert_close(mapper.explain(pixels.flip(3), choose).maps_PHW.flip(2), maps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["default", "blog"])
def test_boxes_of_a_rectangle_are_those_of_the_turned_one_turned(recipe: Any) -> None:
    generator = np.random.default_rng(0)
    raw_Phw = generator.normal(size=(6, 3, 5)).astype(np.float32)
    rectangle_P4 = np.array([[0, 0, 200, 90]] * 3 + [[0, -30, 200, 120]] * 3, np.float32)
    size_P2 = np.array([[200, 90]] * 6)
    maps, config = MapConfig(recipe=recipe, normalise="minmax"), BoxConfig(components="all", threshold=(0.4,))
    found = boxes_from_heatmaps(raw_Phw, rectangle_P4, size_P2, (48, 80), maps, config)
    swapped = [1, 0, 3, 2]
    other = boxes_from_heatmaps(
        raw_Phw.transpose(0, 2, 1).copy(), rectangle_P4[:, swapped], size_P2[:, ::-1], (80, 48), maps, config
    )
    assert len(found.map_N) > 6

    def rows(boxes: Any, boxes_N4: np.ndarray) -> list[list[float]]:
        columns = (boxes.map_N, boxes_N4, boxes.peak_N, boxes.energy_N, boxes.area_fraction_N)
        return sorted(np.column_stack(columns).round(4).tolist())

    np.testing.assert_allclose(rows(found, found.boxes_N4), rows(other, other.boxes_N4[:, swapped]), atol=1e-3)
