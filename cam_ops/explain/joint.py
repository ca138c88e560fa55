"""A network and its refined maps as two graphs without autograd, so that a compiler can have them.

The first takes the pixels and where the pictures lie in them to the logits and the features, and to all that the second
needs of them, such as the affinity; it is not known yet which classes will be explained. The second takes the class of
each picture, as a cotangent of its logits, and its map, to the refined map: a backward pass through the last stage.

Letters: B batch, Y, X height and width of the picture, K classes, K, L and Q, V rows and columns of the coarse and the
fine grid, D, O channels, h, w the map's grid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from cam_ops.explain.refine import affinity, cell_scale, evidence, of_images, refine
from cam_ops.network.grids import Grid, spatial_view


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A graph, and inputs of the shapes, number formats and layouts that it takes."""

    graph: fx.GraphModule
    inputs: tuple[Tensor, ...]


def split(traced: fx.GraphModule, pixels_BCYX: Tensor, map_grid: Grid, grid: Grid) -> tuple[Part, Part]:
    """Return both graphs of an exported network, which returns logits, features, the coarse and the fine ones.

    The first one's inputs are pixels and `inside_B4`, its outputs logits, features, and then what it hands over. The
    second one's are the cotangent (B, K), the maps (B, h, w), `inside_B4` and what it is handed; it returns the refined
    maps (B, Q, V), Q and V being `grid`.
    """
    traced = _functional(traced, pixels_BCYX)
    inside_B4 = pixels_BCYX.new_tensor([0, 0, 1, 1], dtype=torch.float32).repeat(len(pixels_BCYX), 1)
    maps_Bhw = torch.rand(len(pixels_BCYX), *map_grid, device=pixels_BCYX.device)

    def on_grid(features: Tensor) -> Tensor:
        view_BCKL = spatial_view(features, len(features), pixels_BCYX.shape[2:])
        assert view_BCKL is not None
        return view_BCKL

    def joint(pixels_BCYX: Tensor, cotangent_BK: Tensor, maps_Bhw: Tensor, inside_B4: Tensor) -> tuple[Tensor, ...]:
        network = _FromCoarse(traced)
        with torch.no_grad():
            logits_BK, *features, _, fine_BDQV = network.run(pixels_BCYX)
            scaled_BK = cotangent_BK * cell_scale(on_grid(network.leaf))
            (gradient,) = torch.autograd.grad(logits_BK, network.leaf, scaled_BK)
        coarse_BCKL = on_grid(network.leaf.detach())
        resemblance = affinity(coarse_BCKL, fine_BDQV, inside_B4)
        evidence_BKL = evidence(coarse_BCKL, on_grid(gradient))
        spread, is_orphan_BI = of_images(resemblance.weight_BIJ), resemblance.is_orphan_BI
        return logits_BK.detach(), *features, refine(maps_Bhw, evidence_BKL, spread, is_orphan_BI, grid, inside_B4)

    with torch.no_grad():
        logits_BK = traced(pixels_BCYX)[0]
    inputs = pixels_BCYX, torch.zeros_like(logits_BK), maps_Bhw, inside_B4
    decompositions = {torch.ops.aten.convolution_backward.default: _convolution_backward}
    graph = make_fx(joint, decomposition_table=decompositions)(*inputs)
    functional_joint: Any = torch.func.functionalize(graph, remove="mutations")
    graph = make_fx(functional_joint)(*inputs)
    graph.graph.eliminate_dead_code()
    return _parts(graph, inputs)


def _functional(traced: fx.GraphModule, pixels_BCYX: Tensor) -> fx.GraphModule:
    """Return the network without in-place operations, and without what ends gradients."""
    for node in list(traced.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.recompile()
    again: fx.GraphModule = torch.export.export(traced, (pixels_BCYX,)).run_decompositions({}).module()
    return again


def _results(graph: fx.GraphModule) -> tuple[Any, ...]:
    """Return the nodes that a graph returns."""
    results: Any = graph.graph.output_node().args[0]
    return tuple(results)


class _FromCoarse(fx.Interpreter):
    """Runs an exported network, and from its coarse features on, the last but one of its results, with a graph."""

    leaf: Tensor

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.coarse = _results(traced)[-2]

    def run_node(self, node: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(node)
        if node is not self.coarse:
            return value
        self.leaf = value.detach().requires_grad_()
        torch.set_grad_enabled(True)  # from here on; the surrounding no_grad() restores the state
        return self.leaf.clone()


def _convolution_backward(
    gradient: Tensor,
    given: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Differentiate a convolution by its input, by convolutions, which compilers and processors are best at."""
    is_known = gradient.ndim == 4 and not transposed and list(output_mask) == [True, False, False]
    if not is_known or (max(dilation) > 1 and max(stride) > 1):
        return NotImplemented
    per_group = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    turned = per_group.reshape(-1, per_group.shape[2], *weight.shape[2:])  # (inputs, outputs of a group, k, k)
    reach = [dilation[axis] * (weight.shape[2 + axis] - 1) - padding[axis] for axis in (0, 1)]
    if max(stride) == 1 and min(reach) >= 0:
        return functional.conv2d(gradient, turned.flip(2, 3), None, 1, reach, dilation, groups), None, None
    if max(dilation) > 1:
        return NotImplemented
    return _by_phases(gradient, turned, given.shape[2:], stride, padding, groups), None, None


def _by_phases(
    gradient: Tensor,
    turned: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Differentiate a strided convolution: taps k reach pixel x where x + padding - k is a multiple of the stride.

    So pixels of one remainder of (x + padding) / stride have taps of their own: one convolution of the gradient.
    """
    num_y, num_x = ((size[axis] - 1 + padding[axis]) // stride[axis] + 1 for axis in (0, 1))
    rows = []
    for phase_y in range(stride[0]):
        row = []
        for phase_x in range(stride[1]):
            taps = turned[:, :, phase_y :: stride[0], phase_x :: stride[1]]
            if not taps.numel():
                row.append(gradient.new_zeros(len(gradient), num_y, num_x, len(turned)))
                continue
            before = taps.shape[3] - 1, taps.shape[2] - 1
            after = num_x - gradient.shape[3], num_y - gradient.shape[2]
            padded = functional.pad(gradient, (before[0], after[0], before[1], after[1]))
            row.append(functional.conv2d(padded, taps.flip(2, 3), groups=groups).permute(0, 2, 3, 1))
        rows.append(torch.stack(row, 3))  # (B, y, x, phase, channels)
    woven = torch.stack(rows, 2).reshape(len(gradient), num_y * stride[0], num_x * stride[1], -1)
    (top, left), (height, width) = padding, size
    return woven[:, top : top + height, left : left + width].permute(0, 3, 1, 2)


def _parts(joint: fx.GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Part, Part]:
    """Split the graph at what depends on the classes, or on the maps."""
    pixels, cotangent, maps, inside = joint.graph.find_nodes(op="placeholder")
    is_late = _depends_on(joint.graph, (cotangent, maps))
    is_early = _depends_on(joint.graph, (pixels, inside)) - is_late
    *early_results, refined = _results(joint)
    used = {node for user in is_late for node in user.all_input_nodes}
    handed = [node for node in joint.graph.nodes if node in used & is_early and node is not inside]
    early = _cut(joint, (pixels, inside), (*early_results, *handed))
    with torch.no_grad():
        values = early(inputs[0], inputs[3])[len(early_results) :]
    late = _cut(joint, (cotangent, maps, inside, *handed), (refined,))
    return (
        Part(graph=early, inputs=(inputs[0], inputs[3])),
        Part(graph=late, inputs=(inputs[1], inputs[2], inputs[3], *values)),
    )


def _depends_on(graph: fx.Graph, sources: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(sources)
    for node in graph.nodes:
        if node.op != "output" and found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _cut(joint: fx.GraphModule, inputs: Iterable[fx.Node], results: Iterable[Any]) -> fx.GraphModule:
    """Return the part of a graph that makes results of inputs, and of constants."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in inputs}

    def copied(node: fx.Node) -> fx.Node:
        return copies[node]

    needed = {node for node in results if isinstance(node, fx.Node)} - copies.keys()
    for node in reversed(joint.graph.nodes):
        if node in needed:
            needed |= set(node.all_input_nodes) - copies.keys()
    for node in joint.graph.nodes:
        if node in needed:
            copies[node] = graph.node_copy(node, copied)
            copies[node].meta = {}  # of values of another trace
    graph.output(tuple(copies[node] for node in results))
    return fx.GraphModule(joint, graph)
