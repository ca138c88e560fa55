"""What maps are refined from: in networks whose layers are known from their definitions, and where there is nothing."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.stages import find_stages
from cam_ops.settings import ExplainConfig, RefineConfig
from tests.cam_ops.explain.test_mapper import Strided
from tests.cam_ops.network.test_heads import network_of
from tests.support.networks import Chain, TwoChannels


@pytest.mark.parametrize(
    ("name", "side", "coarse", "fine", "grids"),
    [
        ("resnet18", 64, "layer3", "layer2", (4, 8)),
        ("resnet50", 96, "layer3", "layer2", (6, 12)),
        ("densenet121", 64, "features.denseblock3", "features.denseblock2", (4, 8)),  # transitions reduce
        ("mobilenet_v2", 64, "features.13", "features.6", (4, 8)),  # 14 and 7 have stride 2
        ("convnext_tiny", 64, "features.5", "features.3", (4, 8)),  # 6 and 4 reduce
        ("swin_t", 64, "features.5", "features.3", (4, 8)),
        ("vgg11", 64, "features.19", "features.14", (4, 8)),  # the ReLUs before the last pools, 20 and 15
        ("squeezenet1_1", 96, "features.7", "features.4", (11, 23)),  # the fire modules before the last pools, 8 and 5
    ],
)
def test_the_layers_are_those_before_the_last_two_reductions(
    name: str, side: int, coarse: str, fine: str, grids: tuple[int, int]
) -> None:
    stages = find_stages(network_of(name), side)
    assert stages.layers == (coarse, fine)
    assert (stages.coarse_grid, stages.fine_grid) == tuple((side, side) for side in grids)


def test_in_the_demo_s_network_they_are_the_blocks_before_11_and_5() -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    network = lite.EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
    stages = find_stages(network, 64)
    assert [block._depthwise_conv.stride[0] for block in network._blocks[5:12]] == [2, 1, 1, 1, 1, 1, 2]
    assert stages.layers == ("_blocks.10", "_blocks.4")


def transformer(num_layers: int) -> nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=num_layers, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    nn.init.normal_(network.heads.head.weight)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("num_layers", "coarse", "fine"), [(12, 8, 5), (8, 5, 3), (6, 4, 2), (4, 2, 1)]
)  # from 0: the 9th and 6th of 12; of 4 there are fewer blocks than parts of a block
def test_a_transformer_has_the_blocks_at_three_quarters_and_half_of_its_depth(
    num_layers: int, coarse: int, fine: int
) -> None:
    stages = find_stages(transformer(num_layers), 32)
    assert stages.layers == (f"encoder.layers.encoder_layer_{coarse}", f"encoder.layers.encoder_layer_{fine}")
    assert stages.coarse_grid == stages.fine_grid == (4, 4)


def test_a_chain_of_convolutions() -> None:
    stages = find_stages(Chain(), 64)
    assert (stages.layers, stages.coarse_grid, stages.fine_grid) == (("c", "b"), (8, 8), (16, 16))


class Padded(Chain):
    """Pads before each convolution: 33x33 and 17x17 are grids of no features of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pads = nn.ModuleList(nn.ZeroPad2d((0, 1, 0, 1)) for _ in range(4))
        for conv in (self.a, self.b, self.c, self.d):
            conv.padding = (0, 0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for pad, conv in zip(self.pads, (self.a, self.b, self.c, self.d), strict=True):
            images = conv(pad(images)).relu()
        return self.fc(images.mean((2, 3)))


class Steps(Chain):
    """Its last convolution is a block of three steps, of which the first two work on the grid that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).requires_grad_(False)


class OneRelu(Chain):
    """One ReLU, at work on each grid: its name says only the last of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for conv in (self.a, self.b, self.c, self.d):
            images = self.relu(conv(images))
        return self.fc(images.mean((2, 3)))


@pytest.mark.parametrize("kind", [Padded, Steps, OneRelu])
def test_what_does_not_count(kind: Callable[[], nn.Module]) -> None:
    network = kind()
    assert find_stages(network, 64).layers == ("c", "b")
    found = Mapper(network, ExplainConfig(), 64, refine=RefineConfig()).refinement
    again = Mapper(network, ExplainConfig(), 64, refine=RefineConfig(refine_layers=found.layers))
    assert again.refinement == found


class Skip(Chain):
    """A part of the picture passes the third convolution by."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        past = nn.functional.avg_pool2d(images, 16)[:, :1]
        return self.fc((self.d(self.stage(images)).relu() + 0.01 * past).mean((2, 3)))


class Split(Chain):
    """Two branches, added only on the last grid."""

    def __init__(self) -> None:
        super().__init__()
        self.other = Chain()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc((self.d(self.stage(images)) + self.other.d(self.other.stage(images.flip(1)))).mean((2, 3)))


class FrozenFront(Chain):
    """All but its last convolution runs without gradients."""

    def stage(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().stage(images)


class FrozenEnd(Chain):
    """Its head runs without gradients."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stage = self.stage(images)
        with torch.no_grad():
            return self.fc(self.d(stage).relu().mean((2, 3)))


class FrozenMiddle(Chain):
    """The last convolution runs without gradients; those of the head do not matter."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stage = self.stage(images)
        with torch.no_grad():
            features = self.d(stage).relu()
        return self.fc(features.mean((2, 3)))


class Once(nn.Module):
    """Reduces its grid once, from 16x16 to 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 5, 3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(images).relu()).mean((2, 3))


class Flat(nn.Module):
    """Stays on one grid, for three modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 5, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(images))).mean((2, 3))


NO_GRADIENT = "the gradient of the logits does not reach c"
REFUSED = [
    (TwoChannels, 32, "the network reduces its grid 0 time(s), two are needed"),
    (Strided, 32, "the network reduces its grid 0 time(s), two are needed"),
    (Once, 64, "the network reduces its grid 1 time(s), two are needed"),
    (Flat, 32, "the network does not reduce its grid, and has less than 4 blocks on it"),
    (Skip, 64, "the logits see more of the picture than what c returns"),
    (Split, 64, "the logits see more of the picture than what other.c returns"),
    (FrozenFront, 64, NO_GRADIENT),
    (FrozenMiddle, 64, NO_GRADIENT),
    (FrozenEnd, 64, NO_GRADIENT),
    (Chain, 512, "grids of 64x64 and 128x128 are too fine for it; use a smaller --image-size"),
]


@pytest.mark.parametrize(("kind", "side", "reason"), REFUSED)
def test_where_there_is_nothing_auto_is_none_with_the_reason_and_affinity_is_refused(
    kind: Callable[[], nn.Module], side: int, reason: str
) -> None:
    network = kind().eval().requires_grad_(False)
    with pytest.raises(UsageError) as refusal:
        find_stages(network, side)
    assert str(refusal.value) == reason
    mapper = Mapper(network, ExplainConfig(), side, refine=RefineConfig())
    assert (mapper.refinement, mapper.why_not) == (None, f"auto, as {reason}")
    with pytest.raises(UsageError) as refusal:
        Mapper(network, ExplainConfig(), side, refine=RefineConfig(refine="affinity"))
    assert str(refusal.value) == f"--refine affinity: {reason}; or use --refine none"


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (("layer3", "layer22"), "--refine-layers layer22: the network has no such module; similar names are layer2, "),
        (("layer3", "fc"), "--refine-layers fc gives no spatial features"),
        (("avgpool", "layer3"), "--refine-layers avgpool gives no spatial features"),
        (("layer3.0.conv1", "layer2"), "the logits see more of the picture than what layer3.0.conv1 returns"),
    ],
)
def test_layers_that_will_not_do_are_refused(layers: tuple[str, str], reason: str) -> None:
    with pytest.raises(UsageError) as refusal:
        find_stages(network_of("resnet18"), 64, layers)
    assert reason in str(refusal.value)


class Enlarging(Chain):
    """Halves the grid to 4x4, then doubles it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f = (nn.ConvTranspose2d(8, 8, 2, 2).requires_grad_(False) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.f(self.e(self.d(self.stage(images))).relu()).relu().mean((2, 3)))


def test_the_deeper_layer_must_not_have_the_finer_grid() -> None:
    with pytest.raises(UsageError, match="--refine-layers d e: the deeper one has the finer grid, 8x8"):
        find_stages(Enlarging(), 64, ("d", "e"))
    assert find_stages(Enlarging(), 64, ("e", "c")).layers == ("e", "c")


def test_named_layers_are_taken_the_deeper_one_first_whatever_their_order() -> None:
    network = network_of("resnet18")
    for layers in (("layer2.1", "layer1"), ("layer1", "layer2.1")):
        stages = find_stages(network, 64, layers)
        assert (stages.layers, stages.coarse_grid, stages.fine_grid) == (("layer2.1", "layer1"), (8, 8), (16, 16))


def test_scales_take_the_layers_of_the_first() -> None:
    config = ExplainConfig(scales=(1.0, 1.5))
    mapper = Mapper(network_of("resnet18"), config, 64, refine=RefineConfig())
    found = [view.explainer.stages for view in mapper.views]
    assert [(stages.layers, stages.coarse_grid, stages.fine_grid) for stages in found] == [
        (("layer3", "layer2"), (4, 4), (8, 8)),
        (("layer3", "layer2"), (6, 6), (12, 12)),
    ]
    assert (mapper.grid, mapper.cam_grid) == ((12, 12), (3, 3))
