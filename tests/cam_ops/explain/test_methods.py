"""Each CAM method: a two-channel case worked out by hand, other libraries, and the definition by gradients."""

from collections.abc import Callable
from math import e
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from cam_ops.explain.explainer import NOISE, NOISY_PASSES, Explainer
from cam_ops.explain.methods import eigencam, eigengradcam, methods_for, pc1, smooth_gradcam_plus_plus
from cam_ops.explain.passes import Pass
from cam_ops.network.heads import Head, find_head
from cam_ops.settings import ATTENTION, Method
from tests.cam_ops.network.test_heads import assert_close_to, maps_of, network_of

HAND_IMAGE = torch.tensor([[[[1.0, 3.0]], [[4.0, 0.0]], [[7.0, 7.0]]]])


class HandMade(nn.Module):
    """Two channels A_0 = (1, 3) and A_1 = (4, 0) of the hand-made picture: F = (2, 2), N = 2.

    Straight: W = [[2, -1], [0, 1], [1, 1]], y = (2, 2, 4). Curved: y_0 = F_0^2 - F_1 = 2, y_1 = F_0 F_1.
    """

    def __init__(self, curved: bool = False) -> None:
        super().__init__()
        self.curved, self.weight_KC = curved, torch.tensor([[2.0, -1.0], [0.0, 1.0], [1.0, 1.0]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = images[:, :2].mean((2, 3))
        if not self.curved:
            return pooled @ self.weight_KC.T
        first, second = pooled.unbind(1)
        return torch.stack([first**2 - second, first * second], 1)


STRAIGHT = {
    "cam": [-2.0, 6.0],
    "gradcam": [-1.0, 3.0],
    "hirescam": [-1.0, 3.0],
    "xgradcam": [-1.0, 3.0],
    "gradcam++": [2 / 6, 6 / 6],  # relu(2) / (2 + 2 * 2) = 1/3; relu(-1) = 0
    "smoothgradcam++": [2 / 6, 6 / 6],  # noise does not change a straight head's gradient
    "layercam": [1.0, 3.0],
    "gradcam-elementwise": [1.0, 3.0],
    "nwc": [2.0, 6.0],
    "bagcam": [3.0, 9.0],  # gA_0 = (1, 3), mean 2: 3 (1, 3); gA_1 = (-2, 0), mean -1: nothing
    "finercam": [(1.7 * 1 - 1.6 * 4) / 2, 1.7 * 3 / 2],  # W_0 - .6 (W_1 + W_2) / 2 = (1.7, -1.6)
    "ablationcam": [2.0 * 1 - 1 * 4, 2.0 * 3 - 0],  # weights 2 * 2 / 2 = 2 and -1 * 2 / 2 = -1
    # masks (0, 1) and (1, 0) leave F = (1.5, 0) and (.5, 2): y_0 = 3 and -1, softmax e^4 : 1
    "scorecam": [(e**4 + 4) / (e**4 + 1), 3 * e**4 / (e**4 + 1)],
}
CURVED = {  # dy_0/dF = (2 F_0, -1) = (4, -1), so dy_0/dA = (2, -1/2) in each cell
    "gradcam": [0.0, 6.0],
    "hirescam": [0.0, 6.0],
    "xgradcam": [0.0, 6.0],
    "gradcam++": [4 / 10, 12 / 10],  # g > 0 in channel 0 only: 2 cells of 2 / (2 + 2 * 4) = .4
    "layercam": [2.0, 6.0],
    "gradcam-elementwise": [2.0, 6.0],
    "nwc": [4.0, 12.0],
    "bagcam": [2.0 * 5, 6.0 * 5],  # gA_0 = (2, 6), mean 4: times 5; gA_1 = (-2, 0), mean -1: nothing
    "finercam": [(2 - 0.6) * 1 + (-0.5 - 0.6) * 4, (2 - 0.6) * 3],  # less .6 dy_1/dA = .6 (1, 1)
    "ablationcam": [2.0 * 1 - 1 * 4, 2.0 * 3],  # without channel 0 y = -2: (2 + 2) / 2; without 1 y = 4: (2 - 4) / 2
    "scorecam": None,  # F = (1.5, 0) and (.5, 2): y_0 = 2.25 and -1.75: e^4 : 1 once more
}
CURVED["scorecam"] = STRAIGHT["scorecam"]


@pytest.mark.parametrize(("method", "curved"), [*((m, False) for m in STRAIGHT), *((m, True) for m in CURVED)])
def test_two_channels_by_hand(method: Method, curved: bool) -> None:
    network = HandMade(curved)
    head = find_head(network, 8)
    assert head.kind == ("pooled" if curved else "affine")
    expected = torch.tensor([[(CURVED if curved else STRAIGHT)[method]]])
    torch.testing.assert_close(maps_of(network, head, HAND_IMAGE, [0], [0], method)[0], expected, rtol=1e-5, atol=1e-6)


def test_components_by_hand() -> None:
    assert {*STRAIGHT, "eigencam", "eigengradcam", "pc1", *ATTENTION} == set(get_args(Method))
    network = HandMade()
    head = find_head(network, 8)

    def one(method: Method, *channels: list[float]) -> torch.Tensor:
        image = torch.tensor([[[values] for values in (*channels, [0.0, 0.0])]])
        return maps_of(network, head, image, [0], [0], method)[0][0]

    # Two cells always differ along one direction, so the centred component is half their distance, (3, 4) / 2.
    torch.testing.assert_close(one("pc1", [1.0, 4.0], [1.0, 5.0]), torch.tensor([[-2.5, 2.5]]), rtol=1e-5, atol=0)
    # dy/dA * A is (1, 4) and (-.5, -2.5): half the distance of the cells is |(3, -2)| / 2, CAM is higher on the right.
    half = np.sqrt(9 + 4) / 2
    expected = torch.tensor([[-half, half]], dtype=torch.float32)
    torch.testing.assert_close(one("eigengradcam", [1.0, 4.0], [1.0, 5.0]), expected, rtol=1e-5, atol=0)
    # One direction only: the uncentred projection is the features' own length, positive in sum.
    expected = torch.tensor([[5.0, -5 / 3]])
    torch.testing.assert_close(one("eigencam", [3.0, -1.0], [4.0, -4 / 3]), expected, rtol=1e-5, atol=0)


CASES = {  # a network, the layer that is mapped, the size of its input; behind vgg11's lie in-place ReLUs and poolings
    "last": ("resnet18", "layer4", 96),
    "middle": ("resnet18", "layer3", 96),
    "vgg": ("vgg11", "features.15", 64),
    "pooled": ("mobilenet_v3_small", "features", 96),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Head, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return name, network, head, picture, and the features and gradients of class 7 by plain autograd."""
    name, layer, size = CASES[request.param]
    network = network_of(name)
    torch.manual_seed(1)
    image = torch.randn(1, 3, size, size)
    head = find_head(network, size, () if request.param == "pooled" else (layer,))
    features, gradient = features_and_gradient(network, layer, image)
    return request.param, network, head, image, features[0], gradient[0]


def features_and_gradient(network: nn.Module, layer: str, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a module's result and the gradient of class 7, by plain autograd through the whole network."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        return output.clone()

    handle = network.get_submodule(layer).register_forward_hook(keep)
    score = network(image.clone().requires_grad_())[0, 7]
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept)[0]


def test_the_methods_are_their_definitions(case: tuple) -> None:
    name, network, head, image, a, g = case
    denominator = 2 * g**2 + g**3 * a.sum((1, 2), keepdim=True)
    alpha = torch.where(denominator != 0, g**2 / denominator, 0)
    explained = g * a
    weight = (g * a).sum((1, 2)) / a.sum((1, 2))
    expected = {
        "gradcam": (g.mean((1, 2), keepdim=True) * a).sum(0),
        "hirescam": explained.sum(0),
        "layercam": (g.relu() * a).sum(0),
        "gradcam-elementwise": explained.relu().sum(0),
        "gradcam++": ((alpha * g.relu()).sum((1, 2), keepdim=True) * a).sum(0),
        "xgradcam": (torch.where(a.sum((1, 2)) != 0, weight, 0)[:, None, None] * a).sum(0),
    }
    if name in ("last", "pooled"):  # no ReLU behind the cut that a guided gradient would differ at
        expected["bagcam"] = ((1 + explained.mean((1, 2), keepdim=True)) * explained).relu().sum(0)
    for method, definition in expected.items():
        ours = maps_of(network, head, image, [0], [7], method)[0][0]
        assert (ours - definition).abs().max() < 2e-5 * definition.abs().max(), method


def test_bagcams_guided_gradient(case: tuple) -> None:
    """Gradients that a ReLU would let through are cut to their positive part, by hooks of the ReLU modules."""
    name, network, head, image, a, _ = case
    if name != "vgg":
        return
    kept: list[torch.Tensor] = []

    def guided(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        passed = given[0].clone()
        passed.register_hook(lambda gradient: gradient.clamp(min=0))
        return passed.relu()

    plain = network_of("vgg11")
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_forward_hook(guided)
    plain.features[15].register_forward_hook(lambda *call: kept.append(call[2]))
    (g,) = torch.autograd.grad(plain(image.clone().requires_grad_())[0, 7], kept)
    explained = g[0] * a
    expected = ((1 + explained.mean((1, 2), keepdim=True)) * explained).relu().sum(0)
    assert_close_to(maps_of(network, head, image, [0], [7], "bagcam")[0][0], expected)


@pytest.mark.slow
def test_ablation_is_what_happens_without_each_channel(case: tuple) -> None:
    name, network, head, image, a, _ = case
    if name == "middle":
        return
    layer, double = CASES[name][1], network.double()
    score, drops = double(image.double())[0, 7], []
    for k in range(0, len(a), 37):

        def ablate(module: nn.Module, given: tuple, output: torch.Tensor, k: int = k) -> torch.Tensor:
            output = output.clone()
            output[:, k] = 0
            return output

        handle = double.get_submodule(layer).register_forward_hook(ablate)
        drops.append((score - double(image.double())[0, 7]) / score)
        handle.remove()
    network.float()
    explainer = Explainer(network=network, head=head, method="ablationcam")
    passed = explainer.run(image)
    features = passed.features[0].flatten(2)
    ours = explainer._drops(passed, features, 0, torch.tensor([0]), torch.tensor([7]))[0, ::37]
    expected = torch.stack(drops).float()
    assert (ours - expected).abs().max() < 1e-3 * expected.abs().max()
    if name == "last":  # the closed form W_k F_k / y, which takes no difference of scores
        closed = Explainer(network=network, head=find_head(network, 96), method="ablationcam")
        averaged = closed.run(image)
        pair = torch.tensor([0]), torch.tensor([7])
        drops_C = closed._drops(averaged, averaged.features[0].flatten(2), 0, *pair)[0]
        assert_close_to(drops_C[::37], expected)
    maps = maps_of(network, head, image, [0], [7], "ablationcam")[0][0]
    weights = explainer._drops(passed, features, 0, torch.tensor([0]), torch.tensor([7]))[0]
    assert_close_to(maps, (weights[:, None, None] * a).sum(0))


def test_smooth_gradcam_averages_the_powers_of_noisy_gradients(case: tuple) -> None:
    name, network, head, image, a, _ = case
    generator = torch.Generator().manual_seed(0)
    powers = []
    for _ in range(NOISY_PASSES):
        noisy = image + NOISE * torch.randn(image.shape[1:], generator=generator)
        g = features_and_gradient(network, CASES[name][1], noisy)[1]
        powers.append(torch.stack([g, g**2, g**3]))
    first, second, third = torch.stack(powers).mean(0).flatten(3)
    expected = smooth_gradcam_plus_plus(a.flatten(1)[None], first, second, third)[0]
    ours = maps_of(network, head, image, [0], [7], "smoothgradcam++")[0][0].flatten()
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("method", "library"),
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
def test_pytorch_grad_cam_gives_the_same_raw_map(case: tuple, method: Method, library: str) -> None:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    name, network, head, image, _, _ = case
    targets, layer = [ClassifierOutputTarget(7)], network.get_submodule(CASES[name][1])
    ours = maps_of(network, head, image, [0], [7], method)[0][0].numpy()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # it keeps no copy of what an in-place ReLU overwrites
    network.requires_grad_(True)
    with getattr(pytorch_grad_cam, library)(network, [layer]) as cam:
        cam.uses_gradients = True
        cam(image, targets)
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy()
        theirs = cam.get_cam_image(image, layer, targets, activations, gradients, False)[0]
    network.requires_grad_(False)
    if method in ("gradcam++", "xgradcam"):  # an epsilon of 1e-6 or 1e-7 outweighs small gradients; see the definitions
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > (0.9 if name == "pooled" else 0.98)
        return
    if library.startswith("Eigen") and (theirs * ours).sum() < 0:
        theirs = -theirs  # they leave the sign to chance
    ours = np.maximum(ours, 0) if library == "LayerCAM" else ours
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("gradcam", "GradCAM"),
        ("xgradcam", "XGradCAM"),
        ("layercam", "LayerCAM"),
        ("finercam", "FinerCAM"),
        ("gradcam++", "GradCAMpp"),
    ],
)
def test_torch_cam_gives_the_same_map(case: tuple, method: Method, library: str) -> None:
    import torchcam.methods

    name, network, head, image, a, g = case
    ours = maps_of(network, head, image, [0], [7], method)[0][0].relu()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    network.requires_grad_(True)
    with getattr(torchcam.methods, library)(network, CASES[name][1], (3, *image.shape[2:])) as extractor:
        theirs = extractor(7, network(image), normalized=False)[0][0].detach()
    network.requires_grad_(False)
    if method == "gradcam++":
        # Its alpha divides a copy, so that alpha stays g^2: by its own formula, which is not the paper's. Ours is the
        # paper's definition, as the test of the definitions proves.
        weight = (g**2 * g.relu()).sum((1, 2), keepdim=True)
        theirs_by_formula = (weight * a).sum(0).relu()
        assert_close_to(theirs / theirs.max(), theirs_by_formula / theirs_by_formula.max())
        assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] < 0.9999
        return
    if method == "xgradcam" and name == "pooled":
        return  # its epsilon outweighs this untrained network's features of 1e-5
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.max()))


def test_smooth_gradcam_of_torch_cam_is_another_formula() -> None:
    """Its denominator sums A_ab D3_ab where its own docstring and the paper have (sum_ab A_ab) D3_ij.

    They agree only where the gradient is the same in all cells. With noise it clamps the last gradient, not the mean.
    """
    from torchcam.methods import SmoothGradCAMpp

    network = network_of("resnet18")
    network.fc.weight.data *= 1e4  # its epsilon of 1e-8 outweighs squares of small gradients
    image = torch.randn(1, 3, 96, 96)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for layer in ("layer4", "layer3"):
        a, g = (tensor[0] for tensor in features_and_gradient(network, layer, image))
        alpha = g**2 / (2 * g**2 + (a * g**3).sum((1, 2), keepdim=True))
        by_formula = ((alpha * g.relu()).sum((1, 2), keepdim=True) * a).sum(0).relu()
        ours = maps_of(network, find_head(network, 96, (layer,)), image, [0], [7], "gradcam++")[0][0].relu()
        network.requires_grad_(True)
        with SmoothGradCAMpp(network, layer, std=1e-9, input_shape=(3, 96, 96)) as extractor:
            theirs = extractor(7, network(image), normalized=False)[0][0].detach()
        network.requires_grad_(False)
        torch.testing.assert_close(theirs, by_formula, rtol=1e-3, atol=1e-3 * float(theirs.max()))
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.max())) == (layer == "layer4")


def test_score_cam_of_two_libraries_with_masks_of_the_input_s_size() -> None:
    """Its masks are enlarged with the corners aligned, ours by area; on one-pixel cells there is no difference."""
    import torchcam.methods
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    network = network.eval().requires_grad_(False)
    image = torch.randn(1, 3, 9, 9)
    ours = maps_of(network, find_head(network, 9), image, [0, 0], [2, 3], "scorecam")[0]
    for pair, class_id in enumerate((2, 3)):
        target = [ClassifierOutputTarget(class_id)]
        with ScoreCAM(network, [network[0]]) as cam:
            activations = network[0](image).numpy()
            theirs = cam.get_cam_image(image, network[0], target, activations, None, False)[0]
        np.testing.assert_allclose(ours[pair], theirs, rtol=1e-4, atol=1e-5)
        with torchcam.methods.ScoreCAM(network, "0", input_shape=(3, 9, 9)) as extractor:
            theirs = extractor(class_id, network(image), normalized=False)[0][0]
        torch.testing.assert_close(ours[pair].relu(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_pairs_of_one_image_and_of_several_do_not_depend_on_each_other(case: tuple) -> None:
    name, network, head, image, _, _ = case
    both = torch.cat([image, image.flip(3)])
    for method in methods_for(head):
        if method in ("scorecam", "ablationcam") and name != "last":
            continue  # minutes
        if method == "scorecam":
            continue
        maps, passed = maps_of(network, head, both, [0, 0, 1], [3, 7, 7], method)
        for pair, (picture, class_id) in enumerate([(image, 3), (image, 7), (image.flip(3), 7)]):
            alone, _ = maps_of(network, head, picture, [0], [class_id], method)
            torch.testing.assert_close(maps[pair], alone[0], rtol=1e-3, atol=1e-3 * float(alone.abs().max()))
        assert isinstance(passed, Pass)
        none, _ = maps_of(network, head, both, [], [], method)
        assert none.shape == (0, *maps.shape[1:])


@pytest.mark.parametrize("method", [eigencam, pc1, lambda features: eigengradcam(features, torch.ones(3, 4, 1))])
def test_features_that_overflow_have_no_first_component_and_leave_those_of_others(
    method: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    features = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0))
    expected = method(features.clone())
    features[1, 2, 3] = torch.inf
    found = method(features)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
