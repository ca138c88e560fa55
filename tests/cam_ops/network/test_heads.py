"""The head finder against what is known of real networks, and the maps against the definition and other libraries."""

import gc
import resource

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.explainer import Explainer, completeness_residuals
from cam_ops.explain.methods import check_method
from cam_ops.explain.passes import Pass, gradients_of, one_class, run
from cam_ops.network.heads import Head, find_head
from cam_ops.network.layers import named_modules, spatial_calls
from cam_ops.settings import Method
from tests.support.networks import TwoChannels

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
OTHERS = ["resnext50_32x4d", "densenet121", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0", "shufflenet_v2_x0_5"]


def maps_of(
    network: nn.Module, head: Head, images: torch.Tensor, image_P: list[int], class_P: list[int], method: Method = "cam"
) -> tuple[torch.Tensor, Pass]:
    """Return the raw maps of the pairs (image_P, class_P), and the pass that they come from."""
    explainer = Explainer(network=network, head=head, method=method)
    passed = explainer.run(images)
    pairs = torch.tensor(image_P, dtype=torch.int64), torch.tensor(class_P, dtype=torch.int64)
    return explainer.maps(passed, *pairs).detach(), passed


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    for module in network.modules():  # random statistics, so that no batch norm is the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.1, 0.1)
    return network.requires_grad_(False)


def last_linear(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


@pytest.mark.parametrize("name", RESNETS + OTHERS)
def test_the_head_is_the_last_linear_layer_and_maps_add_up_to_logits(name: str) -> None:
    network = network_of(name)
    head = find_head(network, 64)
    linear = last_linear(network)
    assert torch.equal(head.weight_KC, linear.weight)
    torch.testing.assert_close(head.bias_K, linear.bias, rtol=0, atol=0)
    images = torch.randn(2, 3, 64, 64)
    cams_PHW, passed = maps_of(network, head, images, [0, 0, 1], [3, 999, 3])
    assert cams_PHW.shape[1:] == head.grid == (2, 2)
    image_P, class_P = torch.tensor([0, 0, 1]), torch.tensor([3, 999, 3])
    assert torch.equal(passed.logits_BK, network(images))
    residual_P = (cams_PHW.mean((1, 2)) + head.bias_K[class_P] - passed.logits_BK[image_P, class_P]).abs()
    assert (residual_P / passed.logits_BK.abs().amax(1)[image_P]).max() < 1e-5
    assert completeness_residuals(passed, head, image_P, class_P).max() < 1e-5


def test_a_layer_norm_after_pooling_is_folded() -> None:
    network = network_of("convnext_tiny")
    norm, linear = network.classifier[0], network.classifier[2]
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.uniform_(-0.5, 0.5)
    linear.bias.data.uniform_(-0.5, 0.5)
    head = find_head(network, 96)
    images = torch.randn(2, 3, 96, 96)
    cams_PHW, passed = maps_of(network, head, images, [0, 1, 1], [3, 3, 999])
    raw_BCHW = network.features(images)
    assert completeness_residuals(passed, head, torch.tensor([0, 1, 1]), torch.tensor([3, 3, 999])).max() < 1e-5
    pooled_C = raw_BCHW[1].mean((1, 2))
    centred_CHW = raw_BCHW[1] - raw_BCHW[1].mean(0)  # by hand: the norm's own arithmetic, cell by cell
    weight_C = linear.weight[999] * norm.weight / (pooled_C.var(correction=0) + norm.eps).sqrt()
    expected_hw = (weight_C[:, None, None] * centred_CHW).sum(0)
    torch.testing.assert_close(cams_PHW[2], expected_hw, rtol=1e-4, atol=1e-5)
    # The head does not depend on the length of F, so the raw Grad-CAM map sums to 0 whatever the picture shows.
    gradcams_PHW, _ = maps_of(network, head, images, [0, 1], [3, 999], "gradcam")
    assert (gradcams_PHW.sum((1, 2)).abs() < 1e-4 * gradcams_PHW.abs().sum((1, 2))).all()
    assert head.kind == "norm-affine"


def test_two_channels_by_hand() -> None:
    network = TwoChannels().eval()
    head = find_head(network, 8)
    image_1CHW = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]], [[9.0, 9.0]]]])
    cams_PHW, passed = maps_of(network, head, image_1CHW, [0, 0], [0, 1])
    assert cams_PHW.tolist() == [[[1.0, 3.0]], [[0.0, 0.0]]]
    assert passed.logits_BK.tolist() == [[2.5, 0.0]]


def test_logits_that_are_all_0_are_explained() -> None:
    network = torch.nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = find_head(network.eval().requires_grad_(False), 16)
    passed = run(network, torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)]), head)
    residual_P = completeness_residuals(passed, head, torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert residual_P[0] == 0
    assert residual_P[1] < 1e-5


def test_the_map_is_the_formula_s_plain_loop() -> None:
    network = network_of("resnet18")
    blobs: list[np.ndarray] = []
    network.layer4.register_forward_hook(lambda module, given, output: blobs.append(output.numpy()))
    image_1CHW = torch.randn(1, 3, 128, 128)
    predicted = int(network(image_1CHW).argmax())
    weight_KC = network.fc.weight.numpy()
    expected_hw = np.zeros((4, 4), np.float32)
    for k, weight in enumerate(weight_KC[predicted]):
        expected_hw += weight * blobs[0][0, k]
    head = find_head(network, 128)
    cam_hw = maps_of(network, head, image_1CHW, [0], [predicted])[0][0]
    np.testing.assert_allclose(cam_hw, expected_hw, rtol=1e-4, atol=1e-6)


def test_densenet_maps_the_activated_features_that_it_averages() -> None:
    network = network_of("densenet121")
    head = find_head(network, 64)
    assert run(network, torch.randn(1, 3, 64, 64), head).features[0].min() == 0


def test_squeeze_and_excite_means_are_not_taken_for_the_head() -> None:
    network = network_of("efficientnet_b0")
    head = find_head(network, 64)
    assert head.places[0].index == sum(isinstance(m, nn.AdaptiveAvgPool2d) for m in network.modules()) - 1
    assert head.weight_KC.shape == (1000, 1280)


def test_one_by_one_convolution_and_batch_norm_after_pooling_are_folded() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 2)
    convolution = nn.Conv2d(4, 3, 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), norm, convolution, nn.Flatten()).eval()
    network.requires_grad_(False)
    head = find_head(network, 8)
    scale_C = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    torch.testing.assert_close(head.weight_KC, convolution.weight[:, :, 0, 0].detach() * scale_C)


def test_grad_cam_of_another_library_is_the_positive_part_of_the_map() -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = network_of("resnet18")
    image_1CHW = torch.randn(1, 3, 96, 96)
    head = find_head(network, 96)
    cam_hw = maps_of(network, head, image_1CHW, [0], [7])[0][0].clamp(min=0)
    network.requires_grad_(True)
    with GradCAM(network, [network.layer4[-1]]) as library:
        activations, gradients = None, None
        library(image_1CHW, [ClassifierOutputTarget(7)])
        activations = library.activations_and_grads.activations[0].numpy()
        gradients = library.activations_and_grads.gradients[0].numpy()
    weights = gradients.mean((2, 3), keepdims=True)
    theirs_hw = np.maximum((weights * activations).sum(1)[0], 0) * gradients.shape[2] * gradients.shape[3]
    np.testing.assert_allclose(cam_hw.detach(), theirs_hw, rtol=1e-4, atol=1e-5)


def test_torch_cam_gives_the_same_map() -> None:
    from torchcam.methods import CAM

    network = network_of("resnet18")
    image_1CHW = torch.randn(1, 3, 96, 96)
    with CAM(network, "layer4", fc_layer="fc") as extractor:
        logits = network(image_1CHW)
        theirs_hw = extractor(5, logits, normalized=False)[0][0]
    head = find_head(network, 96)
    ours_hw = maps_of(network, head, image_1CHW, [0], [5])[0][0]
    torch.testing.assert_close(ours_hw, theirs_hw, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet50", "layer4"), ("efficientnet_b0", "features.8"), ("regnet_y_400mf", "trunk_output"), ("swin_t", "norm")],
)
def test_at_the_averaged_layer_autograd_gives_the_closed_forms(name: str, layer: str) -> None:
    """Cut by name, the network behind the cut is truly differentiated; cut at its average, W / N is taken instead."""
    network = network_of(name)
    images = torch.randn(2, 3, 96, 96)
    by_name, by_average = find_head(network, 96, (layer,)), find_head(network, 96)
    assert (by_name.kind, by_average.kind) == ("layer", "affine")
    cams_PHW, _ = maps_of(network, by_average, images, [0, 1, 1], [3, 3, 999])
    num_cells = cams_PHW[0].numel()
    for method in ("gradcam", "hirescam", "xgradcam"):
        for head in (by_name, by_average):
            maps_PHW, _ = maps_of(network, head, images, [0, 1, 1], [3, 3, 999], method)
            assert_close_to(maps_PHW * num_cells, cams_PHW)
    for method in ("gradcam++", "layercam", "gradcam-elementwise", "nwc", "ablationcam", "bagcam", "finercam"):
        closed_PHW, _ = maps_of(network, by_average, images, [0, 1, 1], [3, 3, 999], method)
        differentiated_PHW, passed = maps_of(network, by_name, images, [0, 1, 1], [3, 3, 999], method)
        if method == "ablationcam":  # y - y_without_k cancels most of y, both in float32
            torch.testing.assert_close(differentiated_PHW, closed_PHW, rtol=1e-2, atol=1e-3 * float(closed_PHW.max()))
        else:
            assert_close_to(differentiated_PHW, closed_PHW)
    nwc_PHW, _ = maps_of(network, by_average, images, [0], [3], "nwc")
    elementwise_PHW, passed = maps_of(network, by_average, images, [0], [3], "gradcam-elementwise")
    assert_close_to(maps_of(network, by_average, images, [0], [3], "layercam")[0] * num_cells, nwc_PHW)
    same = torch.allclose(elementwise_PHW * num_cells, nwc_PHW, rtol=1e-3)
    assert same == bool((passed.features[0] >= 0).all()) == (name in ("resnet50", "regnet_y_400mf"))


def assert_close_to(maps: torch.Tensor, expected: torch.Tensor) -> None:
    """Relative to the largest value."""
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()


def test_behind_the_average_of_any_head_the_gradient_is_one_number_a_channel() -> None:
    network = network_of("mobilenet_v3_small")
    images, image_P, class_P = torch.randn(3, 3, 96, 96), torch.tensor([0, 0, 0, 2]), torch.tensor([3, 7, 999, 7])
    pooled, layer = find_head(network, 96), find_head(network, 96, ("features",))
    assert (pooled.kind, layer.kind) == ("pooled", "layer")
    target = one_class(image_P, class_P)
    (pooled_PC1,) = gradients_of(run(network, images, pooled, gradients=True), pooled, target)
    (layer_PCN,) = gradients_of(run(network, images, layer, gradients=True), layer, target)
    assert pooled_PC1.shape[2] == 1
    assert layer_PCN.shape[2] == 9
    assert_close_to(layer_PCN, pooled_PC1.expand_as(layer_PCN))
    for pair in range(4):  # all in one backward pass, or each in its own by plain autograd through the whole network
        leaf = network.features(images[image_P[pair]][None]).requires_grad_()
        network.classifier(network.avgpool(leaf).flatten(1))[0, class_P[pair]].backward()
        assert_close_to(layer_PCN[pair], leaf.grad[0].flatten(1))


@pytest.mark.parametrize(("name", "first_behind"), [("mobilenet_v3_small", "classifier.0.weight"), ("vgg11", None)])
def test_the_graph_begins_at_the_cut(name: str, first_behind: str | None) -> None:
    network = network_of(name)
    head = find_head(network, 64)
    network.requires_grad_(True)
    passed = run(network, torch.randn(1, 3, 64, 64), head, gradients=True)
    reached = torch.autograd.grad(passed.graph_BK.sum(), list(network.parameters()), allow_unused=True)
    names = [n for (n, _), gradient in zip(network.named_parameters(), reached, strict=True) if gradient is not None]
    assert names == [n for n, _ in network.named_parameters() if n.startswith("classifier")]
    assert first_behind is None or names[0] == first_behind


def test_a_network_without_an_average_is_cut_before_its_last_pooling_and_in_place_operations_do_no_harm() -> None:
    network = network_of("vgg11")
    head = find_head(network, 64)
    assert head.layers == ("features.19",)  # the last ReLU: features.20 only pools
    images = torch.randn(2, 3, 64, 64)
    inner = find_head(network, 64, ("features.18",))  # the convolution, whose result that ReLU overwrites
    passed = run(network, images, inner, gradients=True)
    assert passed.features[0].min() < 0
    assert torch.equal(passed.features[0], network.features[:19](images))
    assert torch.equal(run(network, images, head).features[0], passed.features[0].relu())
    leaf = network.features[:19](images).requires_grad_()
    network.classifier(network.avgpool(network.features[19:](leaf.clone())).flatten(1))[1, 5].backward()
    (gradient_PCN,) = gradients_of(passed, inner, one_class(torch.tensor([1]), torch.tensor([5])))
    assert_close_to(gradient_PCN[0], leaf.grad[1].flatten(1))
    assert torch.equal(passed.logits_BK, network(images))


def test_a_class_token_s_transformer_is_cut_where_its_patches_still_matter() -> None:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval().requires_grad_(False)
    network.heads.head.weight.normal_()
    head = find_head(network, 32)
    assert head.layers == ("encoder.layers.encoder_layer_2.ln_1",)
    assert head.grid == (4, 4)
    images = torch.randn(2, 3, 32, 32)
    patches = run(network, images, head).features[0]
    tokens: list[torch.Tensor] = []
    network.encoder.layers[2].ln_1.register_forward_hook(lambda *call: tokens.append(call[2]))
    network(images)
    torch.testing.assert_close(
        patches[1, :, 2, 3], tokens[0][1, 1 + 2 * 4 + 3]
    )  # row 2, column 3, after the class token
    with pytest.raises(UsageError, match="do not depend on its cells"):
        find_head(network, 32, ("encoder.ln",))
    with pytest.raises(UsageError, match=r"gives no spatial features; expected one of .*encoder_layer_2\.ln_1"):
        find_head(network, 32, ("heads.head",))
    with pytest.raises(UsageError, match=r"no such module; similar names are encoder\.layers\.encoder_layer_2"):
        find_head(network, 32, ("encoder.layers.encoder_layer_",))


class Tokens(nn.Module):
    """Averages tokens in one of the ways that networks do."""

    def __init__(self, average: str) -> None:
        super().__init__()
        self.average, self.conv, self.fc = average, nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        pooled = {
            "mean([2, 3])": lambda: features.mean([2, 3]),
            "mean((-1, -2), keepdim)": lambda: features.mean(dim=(-1, -2), keepdim=True).flatten(1),
            "NHWC mean((1, 2))": lambda: features.permute(0, 2, 3, 1).mean((1, 2)),
            "flatten(2).mean(-1)": lambda: features.flatten(2).mean(-1),
            "mean(-1).mean(-1)": lambda: features.mean(-1).mean(-1),
            "mean(2).mean(2)": lambda: features.mean(2).mean(2),  # the 4 columns are no grid of 2x2
            "BTC mean(1)": lambda: features.flatten(2).transpose(1, 2).mean(dim=1),
            "BTC adaptive_avg_pool1d": lambda: functional.adaptive_avg_pool1d(features.flatten(2), 1).flatten(1),
            "adaptive_avg_pool2d": lambda: functional.adaptive_avg_pool2d(features, 1).flatten(1),
            "avg_pool2d": lambda: functional.avg_pool2d(features, 4).flatten(1),
        }[self.average]()
        return self.fc(pooled)


@pytest.mark.parametrize(
    "average",
    [
        *("mean([2, 3])", "mean((-1, -2), keepdim)", "NHWC mean((1, 2))", "flatten(2).mean(-1)", "mean(-1).mean(-1)"),
        "mean(2).mean(2)",
        *("BTC mean(1)", "BTC adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool2d"),
    ],
)
def test_an_average_is_found_however_it_is_written(average: str) -> None:
    torch.manual_seed(0)
    network = Tokens(average).eval().requires_grad_(False)
    head = find_head(network, 16)
    assert (head.kind, head.grid, head.layers) == ("affine", (4, 4), ())
    images = torch.randn(2, 3, 16, 16)
    maps_PHW, _ = maps_of(network, head, images, [1], [2])
    expected_HW = torch.einsum("k,khw->hw", network.fc.weight[2], network.conv(images)[1])
    assert_close_to(maps_PHW[0], expected_HW)


def test_a_map_per_class_before_the_average_is_used_itself() -> None:
    network = network_of("squeezenet1_1")
    images = torch.randn(1, 3, 64, 64)
    head = find_head(network, 64)
    assert head.kind == "score-map"
    with torch.no_grad():
        scores_BKHW = network.classifier[:3](network.features(images))  # with its bias and its ReLU
    assert torch.equal(maps_of(network, head, images, [0], [9])[0], scores_BKHW[:, 9])


def test_several_layers_are_fused_on_the_finest_grid() -> None:
    network = network_of("resnet18")
    images = torch.randn(2, 3, 64, 64)
    both, third, fourth = (
        maps_of(network, find_head(network, 64, layers), images, [0, 1], [3, 7], "layercam")[0]
        for layers in (("layer3", "layer4"), ("layer3",), ("layer4",))
    )
    assert both.shape == third.shape == (2, 4, 4)
    assert fourth.shape == (2, 2, 2)
    for pair in range(2):
        coarse = fourth[pair] / fourth[pair].abs().max()
        enlarged = torch.zeros(4, 4)
        for row in range(4):  # a fine cell's centre lies a quarter of a coarse cell from the nearest coarse centre
            for column in range(4):
                near = (row // 2, column // 2)
                y, x = near[0] + (row % 2 - 0.5) / 2, near[1] + (column % 2 - 0.5) / 2
                ys, xs = max(0.0, min(1.0, y)), max(0.0, min(1.0, x))
                top = coarse[0, 0] * (1 - xs) + coarse[0, 1] * xs
                bottom = coarse[1, 0] * (1 - xs) + coarse[1, 1] * xs
                enlarged[row, column] = top * (1 - ys) + bottom * ys
        expected = (third[pair] / third[pair].abs().max() + enlarged) / 2
        torch.testing.assert_close(both[pair], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vgg11", "resnet18"])
def test_memory_is_constant_over_a_long_run(name: str) -> None:
    network = network_of(name)
    head = find_head(network, 64)
    images = torch.randn(2, 3, 64, 64)

    def count_after(passes: int) -> int:
        for _ in range(passes):
            maps_of(network, head, images, [0, 0, 1], [3, 7, 999], "gradcam")
        gc.collect()
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    assert count_after(2) == count_after(20)


def test_a_frozen_densenet_of_another_library_shares_memory_with_its_relu() -> None:
    """pytorch-grad-cam keeps what DenseNet's in-place ReLU then overwrites; our copy is made in time."""
    from pytorch_grad_cam import GradCAM

    network = network_of("densenet121")
    images = torch.randn(1, 3, 64, 64)
    with GradCAM(network, [network.features]) as library:
        library.activations_and_grads(images.requires_grad_())
        theirs = library.activations_and_grads.activations[0]
    assert theirs.min() == 0  # not what the module `features` returned
    ours = run(network, images, find_head(network, 64, ("features",))).features[0]
    assert ours.min() < 0
    assert torch.equal(ours, network.features(images))


class Skips(nn.Module):
    """Its logits see the picture past the average too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(functional.adaptive_avg_pool2d(images, 1).flatten(1)) + images[:, 0, 0, :4]


class Ends(nn.Module):
    """Features of 4 channels on 4x4, and one of several ends."""

    def __init__(self, end: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.end, self.conv, self.fc, self.one = end, nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5), nn.Linear(4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        if self.end == "part":
            return self.fc(functional.avg_pool2d(features, 3).flatten(1))
        if self.end == "padded":
            return self.fc(functional.avg_pool2d(features, 6, padding=1).flatten(1)).tanh()
        if self.end == "half":
            return self.fc(features[..., :2].mean((2, 3)))
        pooled = features.mean((2, 3))
        if self.end == "no_grad":
            with torch.no_grad():
                return self.fc(pooled)
        if self.end.startswith("batch"):
            with torch.set_grad_enabled(self.end == "batch"):
                return self.fc(pooled.reshape(len(images), 4))
        if self.end == "random":
            return self.fc(functional.dropout(pooled))
        return self.fc(pooled).softmax(1) if self.end == "softmax" else self.one(pooled)


@pytest.mark.parametrize("end", ["part", "padded", "half"])
def test_an_average_of_other_than_the_whole_grid_is_none(end: str) -> None:
    head = find_head(Ends(end).eval().requires_grad_(False), 16)
    assert (head.kind, head.layers) == ("layer", ("conv",))


class Reverse(torch.autograd.Function):
    """As in networks that are trained for several domains: gradients are another function's."""

    @staticmethod
    def forward(context: object, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


class Reverses(Ends):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(Reverse.apply(2 * self.conv(images).mean((2, 3))))


def test_an_affine_head_is_read_by_its_values_where_gradients_are_others() -> None:
    network = Reverses("").eval().requires_grad_(False)
    head = find_head(network, 16)
    assert head.kind == "affine"
    torch.testing.assert_close(head.weight_KC, 2 * network.fc.weight)
    torch.testing.assert_close(head.bias_K, network.fc.bias)


class ReversesCurved(Reverses):
    """Reverses the gradients of what its classes are told by in part, before its average or behind it."""

    def __init__(self, share: float, before_average: bool) -> None:
        super().__init__("")
        self.share, self.before_average = share, before_average

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        if self.before_average:
            features = self._reversed(features)
            return self.fc(features.logsumexp((2, 3)))
        return self.fc(self._reversed(features.mean((2, 3))).tanh())

    def _reversed(self, values: torch.Tensor) -> torch.Tensor:
        return self.share * Reverse.apply(values) + (1 - self.share) * values


@pytest.mark.parametrize("before_average", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.4])
def test_gradients_that_are_not_the_logits_are_refused(share: float, before_average: bool) -> None:
    network = ReversesCurved(share, before_average).eval().requires_grad_(False)
    with pytest.raises(UsageError, match=r"gradient of the network's logits at .* is not theirs: along it they change"):
        find_head(network, 16)


@pytest.mark.parametrize("before_average", [False, True])
def test_gradients_that_are_are_taken(before_average: bool) -> None:
    network = ReversesCurved(0.0, before_average).eval().requires_grad_(False)
    assert find_head(network, 16).kind == ("layer" if before_average else "pooled")


@pytest.mark.parametrize("end", ["no_grad", "batch", "batch no_grad"])
def test_an_affine_head_is_read_without_gradients_and_where_it_fits_the_number_of_pictures_only(end: str) -> None:
    network = Ends(end).eval().requires_grad_(False)
    head = find_head(network, 16)
    assert head.kind == "affine"
    torch.testing.assert_close(head.weight_KC, network.fc.weight)
    torch.testing.assert_close(head.bias_K, network.fc.bias)


def test_a_single_class_has_no_similar_ones() -> None:
    head = find_head(Ends("one").eval().requires_grad_(False), 16)
    with pytest.raises(UsageError, match="compares classes, the network has a single one"):
        check_method("finercam", head)


class Branches(nn.Module):
    """Two branches, neither of which has all that the logits depend on, and maxima instead of averages."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.fc = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(3, 4, 8, 8), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(images), self.right(images)], 1).flatten(2)
        return self.fc(both.logsumexp(2))


@pytest.mark.parametrize("untrained", [True, False])
def test_a_curved_head_is_not_taken_for_a_straight_one(untrained: bool) -> None:
    network = torchvision.models.mobilenet_v3_small() if untrained else network_of("mobilenet_v3_small")
    head = find_head(network.eval().requires_grad_(False), 64)  # untrained features are tiny: near 0 all looks straight
    assert head.kind == "pooled"
    with pytest.raises(UsageError, match=r"--method cam does not exist .* expected one of gradcam, .*pc1"):
        check_method("cam", head)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Skips, "reaches no module's spatial features"),
        (lambda: Ends("softmax"), "returns probabilities; return logits"),
        (lambda: Ends("random"), "other logits each time"),
        (lambda: Branches(), "several paths; name one with --layer: left, right"),
        (lambda: torchvision.models.VisionTransformer(224, 56, 1, 1, 8, 8), "the same logits for different pictures"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "logits of shape"),
        (lambda: nn.Conv2d(1, 4, 3), "cannot take RGB pictures of 224x224"),
    ],
)
def test_a_network_without_an_exact_map_is_refused_with_the_reason(network: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_head(network().eval().requires_grad_(False), 224)


class Cosine(nn.Module):
    """Classes are directions: scores see that of the averaged features alone."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.conv, self.fc = how, nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 5)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = functional.adaptive_avg_pool2d(self.features(images), 1).flatten(1)
        if self.how == "by hand, with bias":
            return self.fc(pooled / pooled.norm(dim=1, keepdim=True))
        if self.how == "prototypes":
            return -torch.cdist(functional.normalize(pooled), functional.normalize(self.fc.weight)).square()
        if self.how == "of something else":
            return self.fc(functional.normalize(pooled.square()))
        return 16 * functional.linear(functional.normalize(pooled), functional.normalize(self.fc.weight))


@pytest.mark.parametrize("how", ["cosine", "by hand, with bias", "prototypes"])
def test_maps_of_cosine_heads_add_up_to_the_score(how: str) -> None:
    network = Cosine(how).eval().requires_grad_(False)
    head = find_head(network, 16)
    assert head.kind == "cosine"
    images = torch.rand(2, 3, 16, 16)
    maps_PHW, passed = maps_of(network, head, images, [0, 1, 1], [4, 0, 3])
    image_P, class_P = torch.tensor([0, 1, 1]), torch.tensor([4, 0, 3])
    assert completeness_residuals(passed, head, image_P, class_P, maps_PHW).max() < 1e-5
    torch.testing.assert_close(
        maps_PHW.mean((1, 2)) + head.bias_K[class_P], network(images)[image_P, class_P], rtol=1e-4, atol=1e-5
    )
    features = network.features(images)
    with torch.enable_grad():  # of u -> y where u = F / |F| may be any vector
        unit = functional.normalize(features.mean((2, 3))).requires_grad_()
        weight = {"cosine": 16 * functional.normalize(network.fc.weight), "by hand, with bias": network.fc.weight}
        plain = functional.linear(unit, weight.get(how, 2 * functional.normalize(network.fc.weight)))
        (gradient,) = torch.autograd.grad(plain[1, 3], unit)
    expected_HW = torch.einsum("k,khw->hw", gradient[1], features[1]) / features[1].mean((1, 2)).norm()
    torch.testing.assert_close(maps_PHW[2], expected_HW, rtol=1e-4, atol=1e-5)


def test_a_head_that_only_resembles_a_cosine_is_differentiated() -> None:
    assert find_head(Cosine("of something else").eval().requires_grad_(False), 16).kind == "pooled"


class Mirrored(nn.Module):
    """Averages with the mirrored picture: in two calls, or in one of twice as many pictures."""

    def __init__(self, together: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.together, self.conv, self.fc = together, nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 5)

    def once(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.together:
            return sum(self.once(torch.cat([images, images.flip(3)])).chunk(2)) / 2
        return (self.once(images) + self.once(images.flip(3))) / 2


def test_modules_that_see_the_mirrored_picture_as_well_are_not_mapped() -> None:
    twice, together = (Mirrored(together).eval().requires_grad_(False) for together in (False, True))
    with pytest.raises(UsageError, match="--layer conv runs 2 times in one forward pass"):
        find_head(twice, 16, ("conv",))
    with pytest.raises(UsageError, match="through several paths; name one with --layer: conv"):
        find_head(twice, 16)
    for layers in ((), ("conv",)):
        with pytest.raises(UsageError, match="spatial features"):
            find_head(together, 16, layers)


def test_a_head_of_many_classes_is_read_without_a_square_of_them() -> None:
    """Of 21,841 classes the jacobian took 3.2 GB and trillions of operations."""
    num_classes = 21_841
    plain = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    scaled = nn.Sequential(*plain, nn.BatchNorm1d(num_classes))  # is no linear layer's own weight
    scaled[-1].running_var.fill_(0.25)
    for network, scale in ((plain, 1), (scaled, 1 / (0.25 + 1e-5) ** 0.5)):
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        head = find_head(network.eval().requires_grad_(False), 16)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 700_000
        torch.testing.assert_close(head.weight_KC, plain[3].weight * scale)


class OneIdentityInManyBlocks(nn.Module):
    """One module that returns what it is given, called twice in each of many residual blocks, as timm's DropPath."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(50))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            images_BCHW = images_BCHW + self.same(0.5 * conv(images_BCHW))
            images_BCHW = images_BCHW + self.same(0.5 * images_BCHW)
        return images_BCHW.flatten(1)[:, :5]


def test_a_result_is_not_taken_for_pooling_that_is_gone_from_memory() -> None:
    network = OneIdentityInManyBlocks().eval().requires_grad_(False)
    for _ in range(10):
        calls = spatial_calls(network, torch.randn(2, 3, 8, 8), named_modules(network))
        assert [name for name, call in calls.items() if call.is_pooling] == ["same"]
