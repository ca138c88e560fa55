"""What lies behind a global average: probed by other vectors in its place, told by kind, and read off.

Letters: B batch, C channels, K classes, N probes, S their scales.
"""

import math
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.network.watch import Place, Seen, run_from
from cam_ops.settings import Kind

AFFINE_TOLERANCE = 1e-4  # affine heads measure 1e-7 in float32, MobileNetV3 and ConvNeXt 0.1 and more
LINEAR_TOLERANCE = 1e-5
PROBE_SCALES = (1.0, 10.0)  # root mean square of the probes: near 0 a curved head looks straight
MAX_VALUES = 2**24  # of unit vectors at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """A head's kind; weight and bias, float32, of those that decompose, and the epsilon of a folded layer norm."""

    kind: Kind
    weight_KC: Tensor | None = None
    bias_K: Tensor | None = None
    norm_eps: float | None = None


def read_out(network: nn.Module, image_1CHW: Tensor, pool: Seen, norm: Seen | None) -> Readout:
    """Try whether the head is affine in the average, in a layer norm of it, or in its direction, and read it off."""
    if _curvature(network, image_1CHW, pool) < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, image_1CHW, pool)
        is_square = weight_KC.shape[0] == weight_KC.shape[1]
        is_identity = is_square and not bias_K.any() and weight_KC.equal(_eye_like(weight_KC))
        return Readout(kind="score-map" if is_identity else "affine", weight_KC=weight_KC, bias_K=bias_K)
    if norm is not None and norm.norm is not None and _curvature(network, image_1CHW, norm) < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, image_1CHW, norm)
        gained_KC = weight_KC * norm.norm.gain_C
        return Readout(
            kind="norm-affine",
            weight_KC=gained_KC - gained_KC.mean(1, keepdim=True),
            bias_K=bias_K + (weight_KC * norm.norm.offset_C).sum(1),
            norm_eps=norm.norm.eps,
        )
    if (cosine := _read_cosine(network, image_1CHW, pool)) is not None:
        return Readout(kind="cosine", weight_KC=cosine[0], bias_K=cosine[1])
    return Readout(kind="pooled")


def _eye_like(weight_KC: Tensor) -> Tensor:
    return torch.eye(weight_KC.shape[0], device=weight_KC.device)


def _curvature(network: nn.Module, image_1CHW: Tensor, at: Seen) -> float:
    """Return the largest |h(a + b) - h(a) - h(b) + h(0)| / |h(a) - h(0)| for random a, b in place of a call."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(PROBE_SCALES), *at.returned.shape[1:])
    scale_S = torch.tensor(PROBE_SCALES).reshape(-1, *[1] * (len(shape) - 1))
    first, second = (scale_S * torch.randn(shape, generator=generator) for _ in range(2))
    probes = torch.cat([first, second, first + second, torch.zeros_like(first[:1])]).to(at.returned)
    logits_NK = _run_behind(network, image_1CHW, at.place, probes)
    first_SK, second_SK, sum_SK, zero_1K = torch.split(logits_NK, len(PROBE_SCALES))
    curvature_S = (sum_SK - first_SK - second_SK + zero_1K).norm(dim=1) / (first_SK - zero_1K).norm(dim=1)
    return float(curvature_S.nan_to_num(nan=float("inf")).max())


def _run_behind(network: nn.Module, image_1CHW: Tensor, place: Place, substitutes: Tensor) -> Tensor:
    """Return the logits (N, K) of what lies behind a call for N other results of it, if possible by way of one picture.

    Some networks remember how many pictures they were given.
    """
    with torch.no_grad():
        with suppress(RuntimeError, ValueError, LookupError, AssertionError):
            logits_NK = run_from(network, image_1CHW, place, substitutes)
            if logits_NK.ndim == 2 and len(logits_NK) == len(substitutes):
                return logits_NK
        return run_from(network, image_1CHW.expand(len(substitutes), -1, -1, -1), place, substitutes)


def _read_affine(network: nn.Module, image_1CHW: Tensor, at: Seen) -> tuple[Tensor, Tensor]:
    """Return W (K, C) of an affine head, a linear layer's own or its jacobian, and b (K,), its value at 0."""
    if (found := _linear_weight(network, image_1CHW, at)) is not None:
        return found
    leaf = torch.zeros_like(at.returned[:1]).requires_grad_()
    with torch.enable_grad():
        logits_1K = run_from(network, image_1CHW, at.place, leaf.clone())
    bias_K = logits_1K[0].detach().float()
    if logits_1K.requires_grad:
        weight_KC = _jacobian(logits_1K, leaf)
        probes = _probes(at)
        expected_NK = bias_K + probes.flatten(1).float() @ weight_KC.mT
        if _are_close(expected_NK, _run_behind(network, image_1CHW, at.place, probes), bias_K, AFFINE_TOLERANCE):
            return weight_KC, bias_K
    # the network runs its head without gradients, or with others than its own, as one that reverses them
    unit_CC = torch.eye(leaf.numel(), device=leaf.device).reshape(-1, *leaf.shape[1:])
    weight_CK = _run_behind(network, image_1CHW, at.place, unit_CC) - logits_1K.detach()
    return weight_CK.mT.float(), bias_K


def _jacobian(logits_1K: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradients (K, C) of the logits."""
    num_classes = logits_1K.shape[1]
    rows = []
    for some in torch.split(torch.arange(num_classes, device=leaf.device), max(1, MAX_VALUES // num_classes)):
        unit_SK = functional.one_hot(some, num_classes).to(logits_1K)
        row_SC = torch.autograd.grad(logits_1K, leaf, unit_SK[:, None], retain_graph=True, is_grads_batched=True)[0]
        rows.append(row_SC.flatten(1))
    return torch.cat(rows).float()


def _probes(at: Seen) -> Tensor:
    """Return two random vectors in the place of a call's result."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, *at.returned.shape[1:], generator=generator).to(at.returned)


def _are_close(expected_NK: Tensor, found_NK: Tensor, zero_K: Tensor, tolerance: float) -> bool:
    return bool((expected_NK - found_NK).norm() <= tolerance * (found_NK - zero_K).norm())


def _linear_weight(network: nn.Module, image_1CHW: Tensor, at: Seen) -> tuple[Tensor, Tensor] | None:
    """Return W (K, C) and b (K,) of a head that is one linear layer or 1x1 convolution; None where it is more.

    Of 20,000 classes the jacobian would take trillions of operations.
    """
    probes = torch.cat([torch.zeros_like(at.returned[:1]), _probes(at)])
    zero_1K, logits_NK = torch.split(_run_behind(network, image_1CHW, at.place, probes), [1, 2])
    shape = logits_NK.shape[1], at.returned[0].numel()
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.numel() == math.prod(shape):
            weight_KC = module.weight.reshape(shape).float()
            expected_NK = zero_1K + probes[1:].flatten(1) @ weight_KC.mT
            if _are_close(expected_NK, logits_NK, zero_1K, LINEAR_TOLERANCE):
                return weight_KC.detach().clone(), zero_1K[0].float()
    return None


def _read_cosine(network: nn.Module, image_1CHW: Tensor, pool: Seen) -> tuple[Tensor, Tensor] | None:
    """Return W (K, C) and b (K,) of a head h(F) = W F / |F| + b; None where it is no such head.

    Then h(F) + h(-F) = 2 b, h(s F) = h(F) for s > 0, and |F| (h(F) - b) is linear.
    """
    shape = pool.returned.shape[1:]
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, *shape, generator=generator).to(pool.returned)
    probes = torch.stack([first, -first, second, -second, first + second, 10 * first])
    logits_NK = _run_behind(network, image_1CHW, pool.place, probes)
    bias_K = (logits_NK[0] + logits_NK[1]) / 2
    length_N1 = probes.flatten(1).norm(dim=1, keepdim=True)
    linear_NK = (logits_NK - bias_K) * length_N1
    errors = (
        logits_NK[2] + logits_NK[3] - 2 * bias_K,
        logits_NK[5] - logits_NK[0],
        (linear_NK[4] - linear_NK[0] - linear_NK[2]) / length_N1[4],
    )
    if not max(float(error_K.norm()) for error_K in errors) < AFFINE_TOLERANCE * float((logits_NK[0] - bias_K).norm()):
        return None
    unit_CC = torch.eye(math.prod(shape), device=pool.returned.device).reshape(-1, *shape).to(pool.returned)
    rows = [_run_behind(network, image_1CHW, pool.place, some) - bias_K for some in torch.split(unit_CC, 1024)]
    return torch.cat(rows).mT.float().contiguous(), bias_K.float()
