"""Each CAM method: a two-channel case worked out by hand, pytorch-grad-cam, and the definition by gradients."""

import copy
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from cam_ops.heads import Head, find_head, forward_with_features
from cam_ops.methods import METHODS, Method, explain
from tests.test_heads import network_of

HAND_FEATURES = torch.tensor([[[[1.0, 3.0]], [[4.0, 0.0]]]])  # A_0 = (1, 3), A_1 = (4, 0): F = (2, 2), N = 2
HAND_HEAD = Head(pool_index=0, weight_KC=torch.tensor([[2.0, -1.0]]), bias_K=torch.tensor([0.0]), grid=(1, 2))
HAND_LOGITS = torch.tensor([[2.0]])  # 2 * 2 - 1 * 2
BY_HAND = {
    "cam": [-2.0, 6.0],
    "gradcam": [-1.0, 3.0],
    "hirescam": [-1.0, 3.0],
    "xgradcam": [-1.0, 3.0],
    "gradcam++": [2 / 6, 6 / 6],  # relu(2) / (2 + 2 * 2) = 1/3; relu(-1) = 0
    "layercam": [1.0, 3.0],
    "gradcam-elementwise": [1.0, 3.0],
    "nwc": [2.0, 6.0],
    "ablationcam": [2 * 1 - 1 * 4, 2 * 3 - 0],  # weights 2 * 2 / 2 = 2 and -1 * 2 / 2 = -1
    "eigencam": None,  # below
    "eigengradcam": None,
    "pc1": None,
}


def one(method: Method, features: torch.Tensor, logits: torch.Tensor, head: Head, class_id: int = 0) -> np.ndarray:
    return explain(method, features, logits, head, torch.tensor([0]), torch.tensor([class_id]))[0].numpy()


@pytest.mark.parametrize("method", [method for method, values in BY_HAND.items() if values])
def test_two_channels_by_hand(method: Method) -> None:
    np.testing.assert_allclose(one(method, HAND_FEATURES, HAND_LOGITS, HAND_HEAD), [BY_HAND[method]], rtol=1e-6)


def test_components_by_hand() -> None:
    assert set(BY_HAND) == set(get_args(Method)) == set(METHODS)
    # Two cells always differ along one direction, so the centred component is half their distance, (3, 4) / 2.
    features = torch.tensor([[[[1.0, 4.0]], [[1.0, 5.0]]]])
    np.testing.assert_allclose(one("pc1", features, HAND_LOGITS, HAND_HEAD), [[-2.5, 2.5]], rtol=1e-5)
    # dy/dA * A is (1, 4) and (-.5, -2.5): half the distance of the cells is |(3, -2)| / 2, CAM is higher on the right.
    half = np.sqrt(9 + 4) / 2
    np.testing.assert_allclose(one("eigengradcam", features, HAND_LOGITS, HAND_HEAD), [[-half, half]], rtol=1e-5)
    # One direction only: the uncentred projection is the features' own length, positive in sum.
    single = torch.tensor([[[[3.0, -1.0]], [[4.0, -4 / 3]]]])
    np.testing.assert_allclose(one("eigencam", single, HAND_LOGITS, HAND_HEAD), [[5.0, -5 / 3]], rtol=1e-5)


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Head, torch.Tensor, torch.Tensor, torch.Tensor]:
    network = network_of("resnet18")
    torch.manual_seed(1)
    image = torch.randn(1, 3, 96, 96)
    head = find_head(network, 96)
    features, logits = forward_with_features(network, image, head)
    return network, head, image, features, logits


def test_the_closed_forms_are_the_gradients_definitions(resnet: tuple) -> None:
    """The gradient methods computed from autograd's own gradients at the averaged features."""
    network, head, _, features, logits = resnet
    leaf = features.clone().requires_grad_()
    network.fc(leaf.mean((2, 3)))[0, 7].backward()
    g, a = leaf.grad[0], features[0]
    alpha = g**2 / (2 * g**2 + (a * g**3).sum((1, 2), keepdim=True))
    expected = {
        "gradcam": (g.mean((1, 2), keepdim=True) * a).sum(0),
        "hirescam": (g * a).sum(0),
        "layercam": (g.relu() * a).sum(0),
        "gradcam-elementwise": (g * a).relu().sum(0),
        "gradcam++": ((torch.where(g > 0, alpha, 0) * g.relu()).sum((1, 2), keepdim=True) * a).sum(0),
    }
    for method, definition in expected.items():
        np.testing.assert_allclose(one(method, features, logits, head, 7), definition, rtol=1e-4, atol=1e-6)


def test_ablation_is_what_happens_without_each_channel(resnet: tuple) -> None:
    network, head, _, features, logits = resnet
    layer = copy.deepcopy(network.fc).double()
    pooled = features[0].double().mean((1, 2))
    score, without = layer(pooled)[7], layer(pooled * (1 - torch.eye(512)))[:, 7]
    expected = (((score - without) / score)[:, None, None] * features[0]).sum(0)
    np.testing.assert_allclose(one("ablationcam", features, logits, head, 7), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("gradcam", "GradCAM"),
        ("hirescam", "HiResCAM"),
        ("xgradcam", "XGradCAM"),
        ("gradcam++", "GradCAMPlusPlus"),
        ("layercam", "LayerCAM"),
        ("gradcam-elementwise", "GradCAMElementWise"),
        ("pc1", "EigenCAM"),  # theirs is centred, unlike the paper's: it is the first principal component
        ("eigengradcam", "EigenGradCAM"),
    ],
)
def test_another_library_gives_the_same_raw_map(resnet: tuple, method: Method, name: str) -> None:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    _, head, image, features, logits = resnet
    network = network_of("resnet18").requires_grad_(True)
    targets = [ClassifierOutputTarget(7)]
    with getattr(pytorch_grad_cam, name)(network, [network.layer4[-1]]) as library:
        library.uses_gradients = True
        library(image, targets)
        activations = library.activations_and_grads.activations[0].numpy()
        gradients = library.activations_and_grads.gradients[0].numpy()
        theirs = library.get_cam_image(image, network.layer4[-1], targets, activations, gradients, False)[0]
    ours = one(method, features, logits, head, 7)
    if name == "GradCAMPlusPlus":  # its epsilon of 1e-6 outweighs gradients of 1e-3; the definition is tested above
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
        return
    if name.startswith("Eigen") and (theirs * ours).sum() < 0:
        theirs = -theirs  # they leave the sign to chance
    np.testing.assert_allclose(np.maximum(ours, 0) if name == "LayerCAM" else ours, theirs, rtol=1e-3, atol=1e-5)


def test_pairs_of_one_image_and_of_several_do_not_depend_on_each_other(resnet: tuple) -> None:
    _, head, _, features, logits = resnet
    both, scores = torch.cat([features, features.flip(3)]), logits.repeat(2, 1)
    image_P, class_P = torch.tensor([0, 0, 1]), torch.tensor([3, 7, 7])
    for method in METHODS:
        maps = explain(method, both, scores, head, image_P, class_P).numpy()
        np.testing.assert_allclose(maps[1], one(method, features, logits, head, 7), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(maps[2], maps[1][:, ::-1], rtol=1e-3, atol=1e-4)
        assert explain(method, both, scores, head, image_P[:0], class_P[:0]).shape == (0, 3, 3)
