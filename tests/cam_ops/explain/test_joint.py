"""The two graphs that are compiled: they give what the network and autograd give."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from cam_ops.explain.forward import Forward, _fold_norms
from cam_ops.explain.joint import _convolution_backward, split
from cam_ops.explain.mapper import Mapper
from cam_ops.settings import ExplainConfig, Method, RefineConfig
from tests.cam_ops.network.test_heads import network_of

NETWORKS = ["resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1", "efficientnet_b0", "swin_t"]
GEOMETRIES = [
    (kernel, stride, padding, dilation, groups, size)
    for kernel, stride, padding, dilation, groups, size in itertools.product(
        (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2), (1, 2, 6), (7, 8)
    )
    if dilation * (kernel - 1) + 1 <= size + 2 * padding
]


def test_a_convolution_s_gradient_is_a_convolution() -> None:
    torch.manual_seed(0)
    for kernel, stride, padding, dilation, groups, size in GEOMETRIES:
        images = torch.randn(2, 6, size, size + 1, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(12, 6 // groups, kernel, kernel, dtype=torch.float64)
        result = functional.conv2d(images, weight, None, stride, padding, dilation, groups)
        cotangent = torch.randn_like(result)
        (expected,) = torch.autograd.grad(result, images, cotangent)
        pairs = [stride] * 2, [padding] * 2, [dilation] * 2
        found = _convolution_backward(
            cotangent, images.detach(), weight, None, *pairs, False, [0, 0], groups, [True, False, False]
        )
        is_known = dilation == 1 or (stride == 1 and dilation * (kernel - 1) >= padding)
        assert (found is not NotImplemented) == is_known
        if is_known:
            torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize(
    ("name", "size", "method"),
    [*((name, (64, 64), "cam") for name in NETWORKS), ("resnet18", (64, 96), "cam"), ("resnet18", (64, 64), "bagcam")],
)
def test_both_graphs_together_give_what_the_network_gives(name: str, size: tuple[int, int], method: Method) -> None:
    network = network_of(name)
    mapper = Mapper(network, ExplainConfig(method=method), size, refine=RefineConfig(refine="affinity"))
    assert mapper.can_compile
    forward: Forward = mapper.views[0].forward
    explainer, stages = forward.explainer, forward.explainer.stages
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    inside = torch.tensor([[0.0, 0.2, 1.0, 0.8], [0.0, 0.0, 1.0, 1.0]])
    with torch.no_grad():
        traced = torch.export.export(forward, (pixels,)).module()
        _fold_norms(traced, forward.state_dict())
        first, second = split(traced, pixels, explainer.grid, stages.fine_grid)
        passed = explainer.run(forward.normalised(pixels))
        images, classes = torch.tensor([0, 1]), torch.tensor([7, 3])
        maps = explainer.maps(passed, images, classes)
        expected = explainer.refined(passed, maps, images, classes, inside)
        logits, features, *handed = first.graph(pixels, inside)
        cotangent = functional.one_hot(classes, logits.shape[1]).float()
        (found,) = second.graph(cotangent, maps, inside, *handed)
    torch.testing.assert_close(logits, passed.logits_BK, rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    torch.testing.assert_close(features, passed.features[0], rtol=1e-3, atol=1e-4 * float(features.abs().max()))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3 * float(expected.max()))
    assert not any(isinstance(module, nn.Conv2d) for module in second.graph.modules())
    assert not any("backward" in str(node.target) and "conv" in str(node.target) for node in second.graph.graph.nodes)
