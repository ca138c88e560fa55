"""Find, without naming layers, the tensor that a network averages and the affine head behind the average.

A network y = h(GAP(A)) with an affine h has an exact class activation map (Zhou et al. 2016, section 2):
M_c = sum_k W_ck A_k, with mean_xy(M_c) + b_c = y_c. This module finds A by watching one dry run for global spatial
averages, proves that the logits depend on the picture only through one of them (swap test), proves that the rest
is affine, and reads W and b off it.

Where a layer norm lies between the average F and the affine rest (ConvNeXt),
y_c = const + sum_k W_ck g_k (F_k - mean F) / s(F) with s(F) = sqrt(var F + eps). Folding the gain g and the mean into W
leaves an affine head on the features A / s(F), one number an image: that decomposition is as exact.
Letters: B batch, C channels, H, W grid, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.errors import UsageError

SWAP_TOLERANCE = 1e-4  # of the difference between pictures, float32
AFFINE_TOLERANCE = 1e-4  # affine heads measure 1e-7 in float32, MobileNetV3 and ConvNeXt 0.1 and more
PROBE_SCALES = (1.0, 10.0)  # root mean square of the probes: near 0 a curved head looks straight

Cut = Literal["pool", "norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The affine head of a network, behind its `pool_index`-th global average."""

    pool_index: int
    weight_KC: Tensor  # float32
    bias_K: Tensor  # float32
    grid: tuple[int, int]
    norm_eps: float | None = None  # of the folded layer norm: the head is affine in A / sqrt(var F + eps)

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.bias_K.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One call that a network could be cut at: a global spatial average, or a layer norm of one vector per image."""

    cut: Cut
    index: int  # among the calls of its kind
    given: Tensor  # (B, C, H, W) of an average, (B, C) of a norm
    returned: Tensor
    norm: "_Norm | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    """Gain, offset and epsilon of a layer norm."""

    gain_C: Tensor | float
    offset_C: Tensor | float
    eps: float


class _Watch(TorchFunctionMode):
    """While entered, calls `on_call(seen)` at each possible cut; what that returns stands in for the call's result."""

    def __init__(self, on_call: Callable[[_Seen], Tensor]) -> None:
        super().__init__()
        self.on_call = on_call
        self.counts: dict[Cut, int] = {"pool": 0, "norm": 0}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        features_BCHW = _averaged_tensor(func, args, kwargs, returned)
        if features_BCHW is not None:
            return self._call(_Seen(cut="pool", index=self.counts["pool"], given=features_BCHW, returned=returned))
        if func is functional.layer_norm:
            given, norm = _layer_norm_of(*args, **kwargs)
            if given.numel() == given.shape[0] * given.shape[-1]:
                index = self.counts["norm"]
                return self._call(_Seen(cut="norm", index=index, given=given.flatten(1), returned=returned, norm=norm))
        return returned

    def _call(self, seen: _Seen) -> Tensor:
        self.counts[seen.cut] += 1
        return self.on_call(seen)


def _layer_norm_of(
    given: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, _Norm]:
    """Name the arguments of functional.layer_norm."""
    gain, offset = 1.0 if weight is None else weight, 0.0 if bias is None else bias
    return given, _Norm(gain_C=gain, offset_C=offset, eps=eps)


def _averaged_tensor(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any
) -> Tensor | None:
    """Return what `func` averaged over its whole grid, as (B, C, H, W), or None if it did nothing of the kind."""
    features = args[0] if args else kwargs.get("input")
    if not isinstance(features, Tensor) or features.ndim != 4:
        return None
    if func in (functional.adaptive_avg_pool2d, functional.avg_pool2d, torch._C._nn.avg_pool2d):
        return features if returned.shape[2:] == (1, 1) else None
    if func in (torch.mean, Tensor.mean):
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        if isinstance(dims, (tuple, list)) and len(dims) == 2:
            spatial = sorted(d % 4 for d in dims)
            if 0 not in spatial:
                return features.movedim(spatial, (2, 3))
    return None


def forward_with_features(network: nn.Module, images_BCHW: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Run `network` once; return the features that `head` is affine in, float32 (B, C, H, W), and the logits (B, K).

    The features are a copy made at the moment of averaging: nothing that runs later can alter them.
    """
    kept: list[Tensor] = []

    def keep(seen: _Seen) -> Tensor:
        if (seen.cut, seen.index) == ("pool", head.pool_index):
            kept.append(seen.given.detach().to(torch.float32, copy=True))
        return seen.returned

    with _Watch(keep):
        logits_BK = network(images_BCHW)
    features_BCHW = kept[0]
    if head.norm_eps is not None:
        variance_B = features_BCHW.mean((2, 3)).var(1, correction=0)
        features_BCHW /= (variance_B + head.norm_eps).sqrt()[:, None, None, None]
    return features_BCHW, logits_BK.float()


def find_head(network: nn.Module, image_size: int) -> Head:
    """Find and prove the affine head of `network`, which is in eval mode, float32, on any device.

    Costs a few forward passes on noise of `image_size` pixels a side, seeded. Raises UsageError with the reason
    if the logits are not an affine function of one global spatial average, or of its layer norm.
    """
    device = next(chain(network.parameters(), network.buffers()), torch.empty(0)).device
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(3, 3, image_size, image_size, generator=generator).to(device)
    calls: list[_Seen] = []

    def record(seen: _Seen) -> Tensor:
        calls.append(replace(seen, given=seen.given.clone(), returned=seen.returned.clone()))
        return seen.returned

    try:
        with torch.no_grad(), _Watch(record):
            logits_BK = network(images_BCHW)
    except Exception as error:
        raise UsageError(
            f"the network cannot take RGB pictures of {image_size}x{image_size} pixels "
            f"({type(error).__name__}: {error}); check --image-size and --model"
        ) from error
    _check_logits(logits_BK)
    pools = [seen for seen in calls if seen.cut == "pool"]
    if not pools:
        raise UsageError(
            "the network never averages a feature map over its whole grid, so it has no class activation map; "
            "networks that end in global average pooling and a linear layer are supported"
        )
    for pool in reversed(pools):
        if _logits_depend_only_on(network, images_BCHW, logits_BK, pool):
            norms = [seen for seen in calls[calls.index(pool) :] if _is_norm_of(seen, pool)]
            return _read_head(network, images_BCHW, pool, norms[0] if norms else None)
    raise UsageError(
        f"the network averages {len(pools)} feature map(s) over their whole grid, but its logits depend on the "
        "picture through other paths too, so no map decomposes them"
    )


def _check_logits(logits_BK: Any) -> None:
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2:
        raise UsageError(
            f"expected the network to return logits of shape (batch, classes), it returned "
            f"{tuple(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__}; "
            "wrap it in a module whose forward returns only the logits"
        )
    if not logits_BK.isfinite().all():
        raise UsageError("the network's logits on noise are not finite; are its weights whole?")


def _is_norm_of(seen: _Seen, pool: _Seen) -> bool:
    pooled_BC = pool.returned.flatten(1)
    return seen.cut == "norm" and seen.given.shape == pooled_BC.shape and torch.equal(seen.given, pooled_BC)


def _run_cut(network: nn.Module, images_BCHW: Tensor, at: _Seen, substitute: Tensor) -> Tensor:
    """Run `network` with the result of the call `at` replaced by `substitute`; return the logits."""

    def put(seen: _Seen) -> Tensor:
        return substitute if (seen.cut, seen.index) == (at.cut, at.index) else seen.returned

    with _Watch(put):
        logits_BK: Tensor = network(images_BCHW)
    return logits_BK


def _logits_depend_only_on(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, pool: _Seen) -> bool:
    """Swap test: other pictures, but the pooled vectors of these; are the logits those of these?"""
    with torch.no_grad():
        swapped_BK = _run_cut(network, images_BCHW.roll(1, 0), pool, pool.returned)
    return bool((swapped_BK - logits_BK).norm() <= SWAP_TOLERANCE * (logits_BK - logits_BK.roll(1, 0)).norm())


def _read_head(network: nn.Module, images_BCHW: Tensor, pool: _Seen, norm: _Seen | None) -> Head:
    """Prove the head affine in the average, or else in the layer norm of the average, and read it off."""
    channels, height, width = pool.given.shape[1:]
    if pool.returned[0].numel() != channels:
        raise UsageError(f"expected one average per channel ({channels}), the network makes {pool.returned[0].numel()}")
    head = Head(pool_index=pool.index, weight_KC=torch.empty(0), bias_K=torch.empty(0), grid=(height, width))
    curvature = _curvature(network, images_BCHW, pool)
    if curvature < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, images_BCHW[:1], pool)
        return replace(head, weight_KC=weight_KC, bias_K=bias_K)
    if norm is not None and norm.norm is not None and _curvature(network, images_BCHW, norm) < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, images_BCHW[:1], norm)
        gained_KC = weight_KC * norm.norm.gain_C
        return replace(
            head,
            weight_KC=gained_KC - gained_KC.mean(1, keepdim=True),
            bias_K=bias_K + (weight_KC * norm.norm.offset_C).sum(1),
            norm_eps=norm.norm.eps,
        )
    raise UsageError(
        "the network's head, from its pooled features to its logits, is not affine (relative curvature "
        f"{curvature:.1e}, at most {AFFINE_TOLERANCE:.0e} expected): a class activation map would not "
        "add up to the class score; use a network that ends in global average pooling and a linear layer"
    )


def _curvature(network: nn.Module, images_BCHW: Tensor, at: _Seen) -> float:
    """Return the largest |h(a + b) - h(a) - h(b) + h(0)| / |h(a) - h(0)| for random a, b in place of a call."""
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for scale in PROBE_SCALES:
        first, second = scale * torch.randn(2, *at.returned.shape[1:], generator=generator).to(at.returned)
        probes = torch.stack([first, second, first + second])
        with torch.no_grad():
            first_K, second_K, sum_K = _run_cut(network, images_BCHW, at, probes)
            zero_K = _run_cut(network, images_BCHW[:1], at, torch.zeros_like(probes[:1]))[0]
        curvature = (sum_K - first_K - second_K + zero_K).norm() / (first_K - zero_K).norm()
        largest = max(largest, float("inf") if curvature.isnan() else float(curvature))
    return largest


def _read_affine(network: nn.Module, image_1CHW: Tensor, at: _Seen) -> tuple[Tensor, Tensor]:
    """Return W (K, C) and b (K,) of an affine head: its jacobian, exactly a linear layer's rows, and its value at 0."""
    leaf = torch.zeros_like(at.returned[:1]).requires_grad_()
    with torch.enable_grad():
        logits_1K = _run_cut(network, image_1CHW, at, leaf)
    identity_KK = torch.eye(logits_1K.shape[1], device=logits_1K.device)
    rows = [
        torch.autograd.grad(logits_1K, leaf, chunk[:, None], retain_graph=True, is_grads_batched=True)[0].flatten(1)
        for chunk in torch.split(identity_KK, 1024)
    ]
    return torch.cat(rows).float(), logits_1K[0].detach().float()
