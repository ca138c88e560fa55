"""Find, without naming layers, the tensor that a network averages and the affine head behind the average.

A network y = h(GAP(A)) with an affine h has an exact class activation map (Zhou et al. 2016, section 2):
M_c = sum_k W_ck A_k, with mean_xy(M_c) + b_c = y_c. This module finds A by watching one dry run for global spatial
averages, proves that the logits depend on the picture only through one of them (swap test), proves that the rest
is affine, and reads W and b off it. Letters: B batch, C channels, H, W grid, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.errors import UsageError

SWAP_TOLERANCE = 1e-4  # relative, float32
AFFINE_TOLERANCE = 1e-4  # affine heads measure 1e-7 in float32, MobileNetV3 0.26, ConvNeXt 0.42


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The affine head of a network, behind its `pool_index`-th global average."""

    pool_index: int
    weight_KC: Tensor  # float32
    bias_K: Tensor  # float32
    grid: tuple[int, int]

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.bias_K.shape[0])


class _WatchPools(TorchFunctionMode):
    """While entered, calls `on_pool(index, features_BCHW, pooled)` for each global spatial average.

    What `on_pool` returns stands in for the average.
    """

    def __init__(self, on_pool: Callable[[int, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.on_pool = on_pool
        self.num_pools = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        features_BCHW = _averaged_tensor(func, args, kwargs, returned)
        if features_BCHW is None:
            return returned
        self.num_pools += 1
        return self.on_pool(self.num_pools - 1, features_BCHW, returned)


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


def forward_with_features(network: nn.Module, images_BCHW: Tensor, pool_index: int) -> tuple[Tensor, Tensor]:
    """Run `network` once; return the features it averages, float32 (B, C, H, W), and its logits, float32 (B, K).

    The features are a copy made at the moment of averaging: nothing that runs later can alter them.
    """
    kept: list[Tensor] = []

    def keep(index: int, features_BCHW: Tensor, pooled: Tensor) -> Tensor:
        if index == pool_index:
            kept.append(features_BCHW.detach().to(torch.float32, copy=True))
        return pooled

    with _WatchPools(keep):
        logits_BK = network(images_BCHW)
    return kept[0], logits_BK.float()


def find_head(network: nn.Module, image_size: int) -> Head:
    """Find and prove the affine head of `network`, which is in eval mode, float32, on any device.

    Costs a few forward passes on noise of `image_size` pixels a side, seeded. Raises UsageError with the reason
    if the logits are not an affine function of one global spatial average.
    """
    device = next(chain(network.parameters(), network.buffers()), torch.empty(0)).device
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(3, 3, image_size, image_size, generator=generator).to(device)
    pools: list[tuple[Tensor, Tensor]] = []

    def record(index: int, features_BCHW: Tensor, pooled: Tensor) -> Tensor:
        pools.append((features_BCHW, pooled.clone()))
        return pooled

    try:
        with torch.no_grad(), _WatchPools(record):
            logits_BK = network(images_BCHW)
    except Exception as error:
        raise UsageError(
            f"the network cannot take RGB pictures of {image_size}x{image_size} pixels "
            f"({type(error).__name__}: {error}); check --image-size and --model"
        ) from error
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2:
        raise UsageError(
            f"expected the network to return logits of shape (batch, classes), it returned "
            f"{tuple(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__}; "
            "wrap it in a module whose forward returns only the logits"
        )
    if not logits_BK.isfinite().all():
        raise UsageError("the network's logits on noise are not finite; are its weights whole?")
    if not pools:
        raise UsageError(
            "the network never averages a feature map over its whole grid, so it has no class activation map; "
            "networks that end in global average pooling and a linear layer are supported"
        )
    for pool_index in reversed(range(len(pools))):
        features_BCHW, pooled = pools[pool_index]
        if _logits_depend_only_on(network, images_BCHW, logits_BK, pool_index, pooled):
            return _read_affine_head(network, images_BCHW, pool_index, features_BCHW, pooled)
    raise UsageError(
        f"the network averages {len(pools)} feature map(s) over their whole grid, but its logits depend on the "
        "picture through other paths too, so no map decomposes them"
    )


def _run_with_pooled(network: nn.Module, images_BCHW: Tensor, pool_index: int, substitute: Tensor) -> Tensor:
    """Run `network` with its `pool_index`-th average replaced by `substitute`; return the logits."""

    def replace(index: int, features_BCHW: Tensor, pooled: Tensor) -> Tensor:
        return substitute if index == pool_index else pooled

    with _WatchPools(replace):
        logits_BK: Tensor = network(images_BCHW)
    return logits_BK


def _logits_depend_only_on(
    network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, pool_index: int, pooled: Tensor
) -> bool:
    """Swap test: other pictures, but the pooled vectors of these; are the logits those of these?"""
    with torch.no_grad():
        swapped_BK = _run_with_pooled(network, images_BCHW.roll(1, 0), pool_index, pooled)
    return bool((swapped_BK - logits_BK).norm() <= SWAP_TOLERANCE * logits_BK.norm())


def _read_affine_head(
    network: nn.Module, images_BCHW: Tensor, pool_index: int, features_BCHW: Tensor, pooled: Tensor
) -> Head:
    if pooled[0].numel() != features_BCHW.shape[1]:
        raise UsageError(
            f"expected one average per channel ({features_BCHW.shape[1]}), the network makes {pooled[0].numel()}"
        )
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(2, *pooled.shape[1:], generator=generator).to(pooled) * 2
    first, second = pooled[:2] * noise
    probes = torch.stack([first, second, first + second])
    with torch.no_grad():
        first_K, second_K, sum_K = _run_with_pooled(network, images_BCHW, pool_index, probes)
        bias_K = _run_with_pooled(network, images_BCHW[:1], pool_index, torch.zeros_like(pooled[:1]))[0]
    curvature = (sum_K - first_K - second_K + bias_K).norm() / (first_K - bias_K).norm()
    if not curvature < AFFINE_TOLERANCE:
        raise UsageError(
            "the network's head, from its pooled features to its logits, is not affine (relative curvature "
            f"{curvature.item():.1e}, at most {AFFINE_TOLERANCE:.0e} expected): a class activation map would not "
            "add up to the class score; use a network that ends in global average pooling and a linear layer"
        )
    weight_KC = _jacobian(network, images_BCHW[:1], pool_index, pooled[:1])
    return Head(
        pool_index=pool_index,
        weight_KC=weight_KC,
        bias_K=bias_K.detach().float(),
        grid=(int(features_BCHW.shape[2]), int(features_BCHW.shape[3])),
    )


def _jacobian(network: nn.Module, image_1CHW: Tensor, pool_index: int, pooled_1C: Tensor) -> Tensor:
    """Return d logits / d pooled, shape (K, C): exactly the rows of a linear layer's weight."""
    leaf = pooled_1C.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits_1K = _run_with_pooled(network, image_1CHW, pool_index, leaf)
    identity_KK = torch.eye(logits_1K.shape[1], device=logits_1K.device)
    rows = [
        torch.autograd.grad(logits_1K, leaf, chunk[:, None], retain_graph=True, is_grads_batched=True)[0].flatten(1)
        for chunk in torch.split(identity_KK, 1024)
    ]
    return torch.cat(rows).float()
