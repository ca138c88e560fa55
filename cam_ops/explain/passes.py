"""Run a network once, keep the features at its cut, and differentiate what lies behind the cut.

The part before the cut runs without a graph. Where the head is affine nothing is differentiated at all: the gradient of
a score with respect to A_k is the constant W_ck / N on a grid of N cells. Elsewhere the graph begins at the cut: at the
pooled vector (`pooled`, `norm-affine`, `cosine`), or at the named layers. All classes of all images take one backward
pass. Where maps are refined the graph begins earlier, at the coarser of the two features that they are refined from.

Letters: B batch, C channels, H, W grid, N = H * W cells, K classes, P explained (image, class) pairs, R pairs of the
image that has most, J classes that a pair combines; of `Refinable` alone: C, D channels, K, L and Q, V rows
and columns of the grids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.network.grids import channel_axis, spatial_view
from cam_ops.network.heads import Head
from cam_ops.network.stages import Stages
from cam_ops.network.watch import Place, Seen, Watch, run_from

MAX_GRADIENT_VALUES = 2**27  # in one backward pass: 512 MiB
MAX_STAGE_VALUES = 2**24  # the same where the last stage is behind, which may be many times as wide
RELU = (functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The how-manieth pair of its image each pair is, and what the host then need not ask a GPU, which would wait."""

    rank_P: Tensor
    by_rank_P: Tensor  # indices of the pairs by rank, then as they are
    starts: tuple[int, ...]  # where each rank starts there, and the end
    is_whole: bool  # the images one after the other, one pair each

    @property
    def num(self) -> int:
        """Pairs of the image that has most."""
        return len(self.starts) - 1

    def pairs(self, first: int, num: int = 1) -> Tensor:
        """Return the indices of the pairs of some ranks, rising."""
        return self.by_rank_P[self.starts[first] : self.starts[first + num]].sort().values


def ranks_of(image_P: Tensor) -> Ranks:
    """Rank the pairs; on a GPU the host waits for it."""
    rank_P = rank_within_image(image_P)
    starts = (0, *rank_P.bincount().cumsum(0).tolist())
    is_whole = bool((image_P.diff() == 1).all())
    return Ranks(rank_P=rank_P, by_rank_P=rank_P.argsort(stable=True), starts=starts, is_whole=is_whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What each of P pairs explains: sum_j coefficient_PJ * logit of class_PJ of the image image_P."""

    image_P: Tensor  # int64
    class_PJ: Tensor  # int64
    coefficient_PJ: Tensor  # float32
    ranks: Ranks | None = None


def one_class(image_P: Tensor, class_P: Tensor, ranks: Ranks | None = None) -> Target:
    """Return the target that is each pair's class score itself."""
    coefficient_P1 = torch.ones_like(class_P[:, None]).float()
    return Target(image_P=image_P, class_PJ=class_P[:, None], coefficient_PJ=coefficient_P1, ranks=ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinable:
    """What one forward pass leaves for `cam_ops.explain.refine`, in the network's number format."""

    coarse_BCKL: Tensor
    fine_BDQV: Tensor
    leaf: Tensor = field(repr=False)  # what `coarse_BCKL` shows, in the network's own layout
    graph_BK: Tensor = field(repr=False)  # the logits with their graph from there on


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one forward pass leaves: logits, and per place of the cut the features and what may be differentiated.

    Features are copies made at the moment of the call: nothing that runs later can alter them.
    """

    images_BCHW: Tensor  # as the network got them; mere pixels where it is compiled
    logits_BK: Tensor  # float32, without a graph
    features: tuple[Tensor, ...]  # float32 (B, C, H, W) each
    graph_BK: Tensor | None = field(repr=False, default=None)  # the logits with their graph; None where none is needed
    leaves: tuple[Tensor, ...] = field(repr=False, default=())
    refinable: Refinable | None = None
    handed: tuple[Tensor, ...] = field(repr=False, default=())  # of a compiled pass: what its second library takes


def run(
    network: nn.Module,
    images_BCHW: Tensor,
    head: Head,
    gradients: bool = False,
    guided: bool = False,
    stages: Stages | None = None,
    traced: bool = False,
) -> Pass:
    """Run `network` once. With `gradients` the pass can be differentiated, unless the head's kind makes that idle.

    `guided` lets only positive gradients back through each ReLU behind the cut (BagCAMs). With `stages` the pass also
    leaves what maps are refined from; where it is `traced` without a graph, which is made of the trace.
    """
    size = images_BCHW.shape[2:]
    gradients = gradients and head.kind not in ("affine", "score-map")
    places = () if stages is None else (stages.coarse, stages.fine)
    features: dict[Place, Tensor] = {}
    leaves: dict[Place, Tensor] = {}
    grids: dict[Place, Tensor] = {}

    def keep(seen: Seen) -> Tensor:
        view_BCHW = seen.given if seen.place.cut == "pool" else spatial_view(seen.given, len(images_BCHW), size)
        if seen.place in (*head.places, *places) and (view_BCHW is None or len(view_BCHW) != len(images_BCHW)):
            raise UsageError(
                f"the network works on parts of {len(images_BCHW)} pictures at a time; give --batch-size 1, or let it "
                "take batches as they are"
            )
        if seen.place in head.places:
            assert view_BCHW is not None
            features[seen.place] = view_BCHW.detach().to(torch.float32, copy=True)
        if seen.place in places:
            assert view_BCHW is not None
            grids[seen.place] = view_BCHW.detach().clone()
        if not (gradients and seen.place in head.places) and seen.place not in places[:1]:
            return seen.returned
        if traced:
            leaves[seen.place] = seen.returned.clone()
            return leaves[seen.place]
        torch.set_grad_enabled(True)  # from here on; the surrounding no_grad() restores the state
        leaf = seen.returned if seen.returned.requires_grad else seen.returned.detach().requires_grad_()
        leaves[seen.place] = leaf
        return leaf.clone()  # an in-place operation must not reach the leaf

    watch = _Guided if guided else Watch
    names = dict.fromkeys((*head.layers, *(place.name for place in places)))
    with torch.no_grad(), watch(network, keep, size, names):
        logits_BK = network(images_BCHW)
    if any(place not in features for place in head.places):
        raise UsageError(
            "the network took another way with these pictures than with noise, on which its features are not made, as "
            "one that ends early where it is sure; let its forward go the whole way"
        )
    refinable = None
    if stages is not None:
        refinable = Refinable(
            coarse_BCKL=grids[stages.coarse],
            fine_BDQV=grids[stages.fine],
            leaf=leaves[stages.coarse],
            graph_BK=logits_BK,
        )
    return Pass(
        images_BCHW=images_BCHW,
        logits_BK=logits_BK.detach().float(),
        features=tuple(features[place] for place in head.places),
        graph_BK=logits_BK if gradients else None,
        leaves=tuple(leaves[place] for place in head.places) if gradients else (),
        refinable=refinable,
    )


class _Guided(Watch):
    """Also lets only positive gradients back through each ReLU: Springenberg et al. 2015, "guided backpropagation"."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        if func in RELU and torch.is_grad_enabled() and args and args[0].requires_grad:
            given = args[0].clone()
            given.register_hook(functional.relu)
            return functional.relu(given)
        return super().__torch_function__(func, types, args, kwargs)


def gradients_of(passed: Pass, head: Head, target: Target) -> list[Tensor]:
    """Return dy/dA of each pair for each place: float32 (P, C, N), or (P, C, 1) where it is the same in all cells."""
    if passed.graph_BK is None:
        weight_KC, _ = head.affine()
        num_cells = passed.features[0][0, 0].numel()
        combined_PC = torch.einsum("pjc,pj->pc", weight_KC[target.class_PJ], target.coefficient_PJ)
        return [combined_PC[:, :, None] / num_cells]
    num_pairs = len(target.image_P)
    whole = [leaf.new_zeros(num_pairs, *leaf.shape[1:], dtype=torch.float32) for leaf in passed.leaves]
    for pairs, gradients in batches_of_gradients(passed.graph_BK, passed.leaves, target):
        for kept, gradient in zip(whole, gradients, strict=True):
            kept[pairs] = gradient.float()
    return [_on_grid(gradient, place, passed) for gradient, place in zip(whole, head.places, strict=True)]


def batches_of_gradients(
    graph_BK: Tensor, leaves: tuple[Tensor, ...], target: Target, most: int = MAX_GRADIENT_VALUES
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield indices of pairs, and the gradient of their targets with respect to each leaf's rows, (pairs, ...).

    All pairs come from one backward pass, however many an image has, unless that takes more than `most` values.
    """
    all_ranks = target.ranks or ranks_of(target.image_P)
    together = max(1, most // sum(leaf.numel() for leaf in leaves))
    for first in range(0, all_ranks.num, together):
        num = min(together, all_ranks.num - first)
        pairs = all_ranks.pairs(first, num)
        ranks, images = all_ranks.rank_P[pairs] - first, target.image_P[pairs]
        seeds_RBK = torch.zeros(num, *graph_BK.shape, dtype=graph_BK.dtype, device=graph_BK.device)
        places = (ranks[:, None], images[:, None], target.class_PJ[pairs])
        seeds_RBK.index_put_(places, target.coefficient_PJ[pairs].to(graph_BK.dtype), accumulate=True)
        computed = torch.autograd.grad(
            graph_BK, leaves, seeds_RBK if num > 1 else seeds_RBK[0], retain_graph=True, is_grads_batched=num > 1
        )
        yield pairs, [gradient[ranks, images] if num > 1 else gradient[images] for gradient in computed]


def gradients_at_stage(passed: Pass, target: Target, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices of pairs, and `scale` times dy/da of each, (pairs, C, K, L): of all pairs they take much memory.

    a are the coarse features that maps are refined from.
    """
    assert passed.refinable is not None
    leaf = passed.refinable.leaf
    scaled = replace(target, coefficient_PJ=scale * target.coefficient_PJ)
    for pairs, (gradient,) in batches_of_gradients(passed.refinable.graph_BK, (leaf,), scaled, MAX_STAGE_VALUES):
        view_PCKL = spatial_view(gradient, len(gradient), passed.images_BCHW.shape[2:])
        assert view_PCKL is not None
        yield pairs, view_PCKL


def _on_grid(gradient: Tensor, place: Place, passed: Pass) -> Tensor:
    """Return dy/dA as (P, C, N); that of a pooled vector F as (P, C, 1): dy/dA_k = dy/dF_k / N in each cell."""
    if place.cut == "pool":
        return gradient.flatten(1)[:, :, None] / passed.features[0][0, 0].numel()
    view_PCHW = spatial_view(gradient, len(gradient), passed.images_BCHW.shape[2:])
    assert view_PCHW is not None
    return view_PCHW.flatten(2)


def rank_within_image(image_P: Tensor) -> Tensor:
    """Return the how-manieth pair of its image each pair is."""
    by_image_P = image_P.argsort(stable=True)
    sorted_P = image_P[by_image_P]
    place_P = torch.arange(len(image_P), device=image_P.device)
    return torch.empty_like(place_P).scatter_(0, by_image_P, place_P - torch.searchsorted(sorted_P, sorted_P))


def scores_without_channel(
    network: nn.Module, passed: Pass, head: Head, place: int, image: int, together: int
) -> Tensor:
    """Return the logits (C, K) of one image with each channel at one place set to 0, running only what lies behind.

    The part before the cut runs on a single picture, whose features are replaced.
    """
    cut = head.places[place]
    kept: list[Tensor] = []

    def keep(seen: Seen) -> Tensor:
        if seen.place == cut:
            kept.append(seen.returned.clone())
        return seen.returned

    image_1CHW = passed.images_BCHW[image : image + 1]
    num_channels = passed.features[place].shape[1]
    logits: list[Tensor] = []
    with torch.no_grad():
        with Watch(network, keep, image_1CHW.shape[2:], head.layers):
            network(image_1CHW)
        axis = _channel_axis(kept[0], cut, num_channels, image_1CHW.shape[2:])
        for channels in torch.split(torch.arange(num_channels, device=image_1CHW.device), together):
            ablated = kept[0].repeat(len(channels), *[1] * (kept[0].ndim - 1)).movedim(axis, 1)
            ablated[torch.arange(len(channels), device=channels.device), channels] = 0
            logits.append(run_from(network, image_1CHW, cut, ablated.movedim(1, axis)).float())
    return torch.cat(logits)


def _channel_axis(returned: Tensor, place: Place, num_channels: int, size: Sequence[int]) -> int:
    if place.cut == "pool":
        return next(axis for axis in range(1, returned.ndim) if returned.shape[axis] == num_channels)
    axis = channel_axis(returned, size)
    assert axis is not None
    return axis
