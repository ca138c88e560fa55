"""Dilation doubles the grid and changes nothing else: torchvision's own, the original at every second position."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from cam_ops.errors import UsageError
from cam_ops.network.dilation import dilate_last_stage
from cam_ops.network.load import load_classifier
from cam_ops.settings import ModelConfig
from tests.support.command import Command, table_rows


def lively(network: nn.Module) -> nn.Module:
    """Give norms, biases and layer scales values as training does, so that every part of the network matters."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.ndim == 1 or name.endswith("layer_scale"):
            tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return network.eval().requires_grad_(False)


def build(name: str, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return lively(torchvision.models.get_model(name, weights=None, **arguments))


def noise(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def features(network: nn.Module, stage: str, images_BCHW: torch.Tensor) -> torch.Tensor:
    """What the child named `stage` returns."""
    returned: list[torch.Tensor] = []
    with network.get_submodule(stage).register_forward_hook(lambda module, args, output: returned.append(output)):
        network(images_BCHW)
    return returned[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_dilated_network_is_torchvisions(name: str) -> None:
    ours, theirs = build(name), build(name, replace_stride_with_dilation=[False, False, True])
    theirs.load_state_dict(ours.state_dict())
    dilate_last_stage(ours, 96)
    assert str(ours) == str(theirs)  # every stride, padding and dilation
    assert torch.equal(ours(noise(96)), theirs(noise(96)))


def test_dilated_for_a_rectangle_it_is_torchvision_s() -> None:
    ours, theirs = build("resnet50"), build("resnet50", replace_stride_with_dilation=[False, False, True])
    dilate_last_stage(ours, (64, 96))
    assert str(ours) == str(theirs)


def test_twice_dilated_is_torchvisions_with_two_dilated_stages() -> None:
    ours, theirs = build("resnet50"), build("resnet50", replace_stride_with_dilation=[False, True, True])
    dilate_last_stage(ours, 64)
    dilate_last_stage(ours, 64)
    assert str(ours) == str(theirs)
    assert features(ours, "layer4", noise(64)).shape[2:] == (8, 8)


def test_in_a_basic_block_what_worked_on_the_strided_grid_is_dilated() -> None:
    network = build("resnet18")
    dilate_last_stage(network, 64)
    found = [(c.stride, c.dilation, c.padding) for b in network.layer4 for c in (b.conv1, b.conv2)]
    assert found == [((1, 1), (1, 1), (1, 1)), *[((1, 1), (2, 2), (2, 2))] * 3]
    assert network.layer4[0].downsample[0].stride == (1, 1)
    assert network.layer3[0].conv1.stride == (2, 2)


@pytest.mark.parametrize(
    ("name", "stage", "size", "grid"),
    [
        ("resnet18", "layer4", 64, 4),
        ("resnet18", "layer4", 80, 5),  # the last stage is given 5x5 and made 3x3 of it
        ("resnet34", "layer4", 96, 6),
        ("resnet50", "layer4", 64, 4),
        ("regnet_x_400mf", "trunk_output", 64, 4),
        ("mobilenet_v2", "features", 64, 4),
        ("mnasnet0_5", "layers", 64, 4),
        ("shufflenet_v2_x0_5", "conv5", 64, 4),
    ],
)
def test_every_second_position_is_the_originals(name: str, stage: str, size: int, grid: int) -> None:
    network = build(name)
    before_BCHW = features(network, stage, noise(size))
    dilate_last_stage(network, size)
    after_BCHW = features(network, stage, noise(size))
    assert after_BCHW.shape[2:] == (grid, grid)
    assert (after_BCHW[..., ::2, ::2] - before_BCHW).abs().max() < 1e-5 * before_BCHW.abs().max()


class Tail(nn.Module):
    """A strided convolution, and `rest` behind it."""

    def __init__(self, rest: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.rest = rest
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.pool(self.rest(self.first(images_BCHW))).flatten(1)


def test_padding_in_words_follows_the_dilation() -> None:
    network = Tail(nn.Conv2d(4, 4, 3, padding="same")).eval()
    before_BCHW = features(network, "rest", noise(32))
    dilate_last_stage(network, 32)
    torch.testing.assert_close(features(network, "rest", noise(32))[..., ::2, ::2], before_BCHW, rtol=1e-4, atol=1e-5)


def test_a_convolution_that_runs_twice_is_dilated_once() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    dilate_last_stage(Tail(nn.Sequential(shared, nn.ReLU(), shared)).eval(), 32)
    assert (shared.dilation, shared.padding) == ((2, 2), (2, 2))


def random(name: str) -> nn.Module:
    """As --weights random: norms and biases do nothing, and squeeze-and-excitation next to nothing."""
    return load_classifier(ModelConfig(model=name, weights="random")).network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: random("vgg11"), "no convolution of stride 2 makes the network's last grid, 7x7"),
        (lambda: random("densenet121"), "no convolution of stride 2 makes"),
        (lambda: random("googlenet"), "no convolution of stride 2 makes"),
        (lambda: random("vit_b_32"), "no convolution of stride 2 makes"),
        (lambda: random("swin_t"), "no convolution of stride 2 makes"),
        (lambda: random("maxvit_t"), "does not run once the convolutions that make its last grid have stride 1"),
        (lambda: random("efficientnet_b0"), "changes the network's features by .* squeeze-and-excitation"),
        (lambda: random("mobilenet_v3_small"), "changes the network's features"),
        # 2x2 without padding has 13x13 places in 14x14, whose cells would not lie where the map is drawn
        (lambda: random("convnext_tiny"), "the grid of the last stage's input, 14x14, it became 13x13"),
        (lambda: random("regnet_y_400mf"), "changes the network's features"),
        (lambda: Tail(nn.Conv2d(4, 4, 4, padding="same")), "changes the network's features by .* uneven padding"),
        (lambda: Tail(nn.AdaptiveAvgPool2d(16)), "expected dilation to keep the grid .* it became 16x16"),
        (lambda: Tail(nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate")), "expected dilation to keep the grid"),
        (lambda: Tail(nn.Conv2d(4, 4, 3)), "no convolution of stride 2 makes the network's last grid, 14x14"),
        (lambda: Tail(nn.Conv2d(9, 4, 3)), "cannot take RGB pictures of 224x224 pixels"),
        (lambda: nn.Flatten(), "no convolution of stride 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_a_network_that_would_not_be_the_same_is_refused(network: Callable[[], nn.Module], reason: str) -> None:
    side = 32 if isinstance(network(), Tail) and "224" not in reason else 224
    with pytest.raises(UsageError, match=reason):
        dilate_last_stage(network().eval(), side)


def test_a_last_stage_of_one_position_asks_for_larger_pictures() -> None:
    with pytest.raises(UsageError, match=r"at least 2x2 positions, of pictures of 32x32 .* a larger --image-size"):
        dilate_last_stage(build("resnet18"), 32)


@pytest.mark.slow
def test_the_command_maps_on_twice_the_grid_and_is_another_request(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "flags.yaml").write_text(
        "dilate: true\nmodel: resnet18\nweights: random\nimage_size: 64\nprecision: fp32\n"
    )

    def label(out: Path, *more: object) -> Command:
        flags = ("--executor", "inline", "--refine", "none", "--config", tmp_path / "flags.yaml")
        return Command("label", "--images", pictures, "--out", out, *flags, *more)

    dilated, plain = tmp_path / "dilated", tmp_path / "plain"
    assert label(dilated).code == label(plain, "--no-dilate").code == 0
    assert json.loads((dilated / "run.json").read_text())["grid"] == [4, 4]
    assert json.loads((plain / "run.json").read_text())["grid"] == [2, 2]
    assert {len(heatmap["heatmap"]) for heatmap in table_rows(dilated, "heatmaps")} == {16}
    assert all(heatmap["residual"] < 1e-4 for heatmap in table_rows(dilated, "heatmaps"))
    assert Command("verify", dilated).code == 0
    refused = label(dilated, "--no-dilate")
    assert refused.code == 4
    assert "(dilate was True, now False)" in refused.result["error"]
    unfit = label(tmp_path / "unfit", "--model", "densenet121")
    assert (unfit.code, "no convolution of stride 2" in unfit.result["error"]) == (2, True)
