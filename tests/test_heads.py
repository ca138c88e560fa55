"""The head finder against what is known of real networks, and the maps against the definition and other libraries."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.heads import Head, find_head, forward_with_features
from cam_ops.methods import check_method, completeness_residuals, explain
from tests.conftest import TwoChannels

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
OTHERS = ["resnext50_32x4d", "densenet121", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0", "shufflenet_v2_x0_5"]


def class_activation_maps(
    features: torch.Tensor, head: Head, image: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    return explain("cam", features, torch.ones(len(features), head.num_classes), head, image, classes)


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
    with torch.no_grad():
        features_BCHW, logits_BK = forward_with_features(network, torch.randn(2, 3, 64, 64), head)
    assert features_BCHW.shape[2:] == head.grid == (2, 2)
    image_P, class_P = torch.tensor([0, 0, 1]), torch.tensor([3, 999, 3])
    cams_PHW = explain("cam", features_BCHW, logits_BK, head, image_P, class_P)
    torch.testing.assert_close(
        cams_PHW.mean((1, 2)) + head.bias_K[class_P], logits_BK[image_P, class_P], rtol=1e-4, atol=1e-5
    )
    assert completeness_residuals(features_BCHW, logits_BK, head, image_P, class_P).max() < 1e-5


def test_a_layer_norm_after_pooling_is_folded() -> None:
    network = network_of("convnext_tiny")
    norm, linear = network.classifier[0], network.classifier[2]
    norm.weight.data.uniform_(0.5, 1.5)
    norm.bias.data.uniform_(-0.5, 0.5)
    linear.bias.data.uniform_(-0.5, 0.5)
    head = find_head(network, 96)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        features_BCHW, logits_BK = forward_with_features(network, images, head)
        raw_BCHW = network.features(images)
    image_P, class_P = torch.tensor([0, 1, 1]), torch.tensor([3, 3, 999])
    assert completeness_residuals(features_BCHW, logits_BK, head, image_P, class_P).max() < 1e-5
    pooled_C = raw_BCHW[1].mean((1, 2))
    centred_CHW = raw_BCHW[1] - raw_BCHW[1].mean(0)  # by hand: the norm's own arithmetic, cell by cell
    weight_C = linear.weight[999] * norm.weight / (pooled_C.var(correction=0) + norm.eps).sqrt()
    expected_hw = (weight_C[:, None, None] * centred_CHW).sum(0)
    cam_hw = class_activation_maps(features_BCHW, head, image_P, class_P)[2]
    torch.testing.assert_close(cam_hw, expected_hw, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="layer norm"):
        check_method("gradcam", head)


def test_two_channels_by_hand() -> None:
    network = TwoChannels().eval()
    head = find_head(network, 8)
    image_1CHW = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]], [[9.0, 9.0]]]])
    features_BCHW, logits_BK = forward_with_features(network, image_1CHW, head)
    cams_PHW = class_activation_maps(features_BCHW, head, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert cams_PHW.tolist() == [[[1.0, 3.0]], [[0.0, 0.0]]]
    assert logits_BK.tolist() == [[2.5, 0.0]]


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
    features_BCHW, _ = forward_with_features(network, image_1CHW, head)
    cam_hw = class_activation_maps(features_BCHW, head, torch.tensor([0]), torch.tensor([predicted]))[0]
    np.testing.assert_allclose(cam_hw, expected_hw, rtol=1e-4, atol=1e-6)


def test_densenet_maps_the_activated_features_that_it_averages() -> None:
    network = network_of("densenet121")
    head = find_head(network, 64)
    features_BCHW, _ = forward_with_features(network, torch.randn(1, 3, 64, 64), head)
    assert features_BCHW.min() == 0


def test_squeeze_and_excite_means_are_not_taken_for_the_head() -> None:
    network = network_of("efficientnet_b0")
    head = find_head(network, 64)
    assert head.pool_index == sum(isinstance(m, nn.AdaptiveAvgPool2d) for m in network.modules()) - 1
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
    features_BCHW, _ = forward_with_features(network, image_1CHW, head)
    cam_hw = class_activation_maps(features_BCHW, head, torch.tensor([0]), torch.tensor([7]))[0].clamp(min=0)
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
    features_BCHW, _ = forward_with_features(network, image_1CHW, head)
    ours_hw = class_activation_maps(features_BCHW, head, torch.tensor([0]), torch.tensor([5]))[0]
    torch.testing.assert_close(ours_hw, theirs_hw, rtol=1e-4, atol=1e-5)


class Skips(nn.Module):
    """Its logits see the picture past the average too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(functional.adaptive_avg_pool2d(images, 1).flatten(1)) + images[:, 0, 0, :4]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: network_of("vgg11"), "never averages"),
        (lambda: network_of("mobilenet_v3_small"), "not affine"),
        (lambda: torchvision.models.mobilenet_v3_small(), "not affine"),  # its features are tiny before any training
        (lambda: network_of("maxvit_t"), "not affine"),
        (Skips, "other paths"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "logits of shape"),
        (lambda: nn.Conv2d(1, 4, 3), "cannot take RGB pictures of 224x224"),
    ],
)
def test_a_network_without_an_exact_map_is_refused_with_the_reason(network: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        find_head(network().eval(), 224)
