"""Find, without naming layers, where a network is cut for maps, and prove what lies behind the cut.

A network y = h(GAP(A)) with an affine h has an exact class activation map (Zhou et al. 2016, section 2):
M_c = sum_k W_ck A_k, with mean_xy(M_c) + b_c = y_c. This module finds A by watching one dry run for global spatial
averages, proves that the logits depend on the picture only through one of them (swap test), tries whether the rest is
affine, and reads W and b off it. Kinds of heads:

* `affine`: h is affine (linear layer, 1x1 convolution, batch norm, several of them averaged);
* `score-map`: h is the identity: the network averages a map per class (SqueezeNet);
* `norm-affine`: a layer norm lies between the average F and the affine rest (ConvNeXt): y_c = const +
  sum_k W_ck g_k (F_k - mean F) / s(F) with s(F) = sqrt(var F + eps). Folding the gain g and the mean into W leaves an
  affine head on the features A / s(F), one number an image: that decomposition is as exact;
* `pooled`: h is anything else (MobileNetV3): gradient methods, for which h alone is differentiated;
* `layer`: nothing is averaged (VGG, ViT with a class token), or the user names layers: gradient methods, for which the
  network is differentiated from that layer on.

Letters: B batch, C channels, H, W grid, K classes.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.grids import fits
from cam_ops.network.layers import Spatial, behind_norm, named_modules, spatial_calls
from cam_ops.network.takes import noise
from cam_ops.network.watch import Place, Seen, Watch, first_run, run_from
from cam_ops.settings import DECOMPOSABLE, Kind, Size

SWAP_TOLERANCE = 1e-4  # of the difference between pictures, float32
ROUNDING = 1e-6  # of the logits: CaiT with random weights tells pictures apart by 5e-6 of them
AFFINE_TOLERANCE = 1e-4  # affine heads measure 1e-7 in float32, MobileNetV3 and ConvNeXt 0.1 and more
PROBE_SCALES = (1.0, 10.0)  # root mean square of the probes: near 0 a curved head looks straight
CONTRASTS = (1.0, 1e3, 1e6)  # of the noise: in networks with random weights weak signals drown in biases


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a network is cut, and what is known of the part behind the cut.

    `places` are one global average, or one or more named modules. `weight_KC` and `bias_K`, float32, stand for the
    decomposable kinds only.
    """

    kind: Kind
    places: tuple[Place, ...]
    grid: tuple[int, int]  # of the maps: the finest of the places
    num_channels: int  # of the last place
    num_classes: int
    weight_KC: Tensor | None = None
    bias_K: Tensor | None = None
    norm_eps: float | None = None  # of the folded layer norm: the head is affine in A / sqrt(var F + eps)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modules that the network is cut at; empty where it is cut at its global average."""
        return tuple(place.name for place in self.places if place.name)

    def on(self, device: torch.device) -> "Head":
        """Return the head with its weights on a device."""
        if self.kind not in DECOMPOSABLE:
            return self
        weight_KC, bias_K = self.affine()
        return replace(self, weight_KC=weight_KC.to(device), bias_K=bias_K.to(device))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return W (K, C) and b (K,) of a decomposable head."""
        assert self.weight_KC is not None
        assert self.bias_K is not None
        return self.weight_KC, self.bias_K


def find_head(network: nn.Module, image_size: Size, layers: tuple[str, ...] = (), num_channels: int = 3) -> Head:
    """Find and prove the head of `network`, which is in eval mode, float32, on any device; `layers` name the cut.

    Costs a few forward passes on noise of that size, seeded. Raises UsageError with the reason
    where the network cannot be cut.
    """
    images_BCHW, logits_BK, calls = dry_run(network, image_size, num_channels)
    if layers:
        return _cut_at_layers(network, images_BCHW, logits_BK, layers)
    pools = [seen for seen in calls if seen.place.cut == "pool" and _averages_all(seen, images_BCHW)]
    for pool in reversed(pools):
        if _logits_depend_only_on(network, images_BCHW, logits_BK, pool):
            norms = [seen for seen in calls[calls.index(pool) :] if _is_norm_of(seen, pool)]
            return _read_head(network, images_BCHW, logits_BK, pool, norms[0] if norms else None)
    return _cut_at_last_layer(network, images_BCHW, logits_BK)


def dry_run(network: nn.Module, image_size: Size, num_channels: int = 3) -> tuple[Tensor, Tensor, list[Seen]]:
    """Run the network on noise; return pictures that its logits tell apart, these logits, and the calls watched."""
    device = next(chain(network.parameters(), network.buffers()), torch.empty(0)).device
    noise_BCHW = noise(2, num_channels, image_size).to(device)
    for contrast in CONTRASTS:
        calls: list[Seen] = []
        images_BCHW = contrast * noise_BCHW
        with Watch(network, partial(_record, calls), images_BCHW.shape[2:]):
            logits_BK = first_run(network, images_BCHW)
        _check_logits(logits_BK)
        again_BK = first_run(network, images_BCHW)
        if not torch.allclose(logits_BK, again_BK, rtol=1e-3, atol=1e-3 * float(logits_BK.abs().max())):
            raise UsageError(
                "the network gives other logits each time for the same pictures; does it drop out in eval mode?"
            )
        if not logits_BK.equal(logits_BK.roll(1, 0)):
            return images_BCHW, logits_BK, calls
    raise UsageError("the network gives the same logits for different pictures; are its weights whole?")


def _record(calls: list[Seen], seen: Seen) -> Tensor:
    calls.append(replace(seen, given=seen.given.clone(), returned=seen.returned.clone()))
    return seen.returned


def _check_logits(logits_BK: Any) -> None:
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2:
        raise UsageError(
            f"expected the network to return logits of shape (batch, classes), it returned "
            f"{tuple(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__}; "
            "wrap it in a module whose forward returns only the logits"
        )
    if (logits_BK >= 0).all() and torch.allclose(logits_BK.sum(1), torch.ones_like(logits_BK[:, 0]), atol=1e-4):
        raise UsageError("the network returns probabilities; return logits, without the softmax, as maps explain those")
    if not logits_BK.isfinite().all():
        raise UsageError("the network's logits on noise are not finite; are its weights whole?")


def _averages_all(pool: Seen, images_BCHW: Tensor) -> bool:
    """Is the result the mean of a whole grid over the picture, and not of what lies under a kernel, or of padding?"""
    mean_BC = pool.given.mean((2, 3))
    rows, columns = pool.given.shape[2:]
    return (
        fits((rows, columns), images_BCHW.shape[2:])
        and pool.returned.numel() == mean_BC.numel()
        and torch.allclose(pool.returned.flatten(1), mean_BC, rtol=1e-3, atol=1e-5 * float(mean_BC.abs().max()))
    )


def _is_norm_of(seen: Seen, pool: Seen) -> bool:
    pooled_BC = pool.returned.flatten(1)
    return seen.place.cut == "norm" and seen.given.shape == pooled_BC.shape and torch.equal(seen.given, pooled_BC)


def swap_test(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, place: Place) -> bool:
    """Do the logits depend on the picture only through one call's result?"""
    kept: list[Seen] = []

    def keep(seen: Seen) -> Tensor:
        if seen.place == place:
            kept.append(replace(seen, returned=seen.returned.clone()))
        return seen.returned

    with torch.no_grad(), Watch(network, keep, images_BCHW.shape[2:], [place.name] if place.name else []):
        network(images_BCHW)
    return _logits_depend_only_on(network, images_BCHW, logits_BK, kept[0])


def _logits_depend_only_on(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, seen: Seen) -> bool:
    """Other pictures, but the pooled vectors of these; are the logits those of these?"""
    with torch.no_grad():
        swapped_BK = run_from(network, images_BCHW.roll(1, 0), seen.place, seen.returned.clone())
    difference = (logits_BK - logits_BK.roll(1, 0)).norm()
    rounding = min(ROUNDING * logits_BK.norm(), 0.3 * difference)
    return bool((swapped_BK - logits_BK).norm() <= SWAP_TOLERANCE * difference + rounding)


def _read_head(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, pool: Seen, norm: Seen | None) -> Head:
    """Try whether the head is affine in the average, or in the layer norm of the average, and read it off."""
    channels, height, width = pool.given.shape[1:]
    head = Head(
        kind="pooled",
        places=(pool.place,),
        grid=(height, width),
        num_channels=channels,
        num_classes=logits_BK.shape[1],
    )
    if _curvature(network, images_BCHW, pool) < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, images_BCHW[:1], pool)
        is_identity = weight_KC.shape[0] == channels and not bias_K.any() and weight_KC.equal(_eye_like(weight_KC))
        return replace(head, kind="score-map" if is_identity else "affine", weight_KC=weight_KC, bias_K=bias_K)
    if norm is not None and norm.norm is not None and _curvature(network, images_BCHW, norm) < AFFINE_TOLERANCE:
        weight_KC, bias_K = _read_affine(network, images_BCHW[:1], norm)
        gained_KC = weight_KC * norm.norm.gain_C
        return replace(
            head,
            kind="norm-affine",
            weight_KC=gained_KC - gained_KC.mean(1, keepdim=True),
            bias_K=bias_K + (weight_KC * norm.norm.offset_C).sum(1),
            norm_eps=norm.norm.eps,
        )
    return head


def _eye_like(weight_KC: Tensor) -> Tensor:
    return torch.eye(weight_KC.shape[0], device=weight_KC.device)


def _curvature(network: nn.Module, images_BCHW: Tensor, at: Seen) -> float:
    """Return the largest |h(a + b) - h(a) - h(b) + h(0)| / |h(a) - h(0)| for random a, b in place of a call."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(PROBE_SCALES), *at.returned.shape[1:])
    scale_S = torch.tensor(PROBE_SCALES).reshape(-1, *[1] * (len(shape) - 1))
    first, second = (scale_S * torch.randn(shape, generator=generator) for _ in range(2))
    probes = torch.cat([first, second, first + second, torch.zeros_like(first[:1])]).to(at.returned)
    logits_NK = _run_behind(network, images_BCHW[:1], at.place, probes)
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
    """Return W (K, C) and b (K,) of an affine head: its jacobian, exactly a linear layer's rows, and its value at 0."""
    leaf = torch.zeros_like(at.returned[:1]).requires_grad_()
    with torch.enable_grad():
        logits_1K = run_from(network, image_1CHW, at.place, leaf.clone())
    if not logits_1K.requires_grad:  # the network runs its head without gradients
        unit_CC = torch.eye(leaf.numel(), device=leaf.device).reshape(-1, *leaf.shape[1:])
        weight_CK = _run_behind(network, image_1CHW, at.place, unit_CC) - logits_1K
        return weight_CK.mT.float(), logits_1K[0].float()
    identity_KK = torch.eye(logits_1K.shape[1], device=logits_1K.device)
    rows = [
        torch.autograd.grad(logits_1K, leaf, chunk[:, None], retain_graph=True, is_grads_batched=True)[0].flatten(1)
        for chunk in torch.split(identity_KK, 1024)
    ]
    return torch.cat(rows).float(), logits_1K[0].detach().float()


def _cut_at_layers(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, layers: tuple[str, ...]) -> Head:
    """Cut at the last call of each named module."""
    if len(set(layers)) < len(layers):
        raise UsageError(f"--layer expects each layer once, got {' '.join(layers)}")
    known = named_modules(network)
    for layer in layers:
        if layer not in known:
            close = get_close_matches(layer, known, 3) or known[-3:]
            raise UsageError(f"--layer {layer}: the network has no such module; similar names are {', '.join(close)}")
    found = spatial_calls(network, images_BCHW, list(layers))
    for layer in layers:
        if layer not in found:
            others = spatial_calls(network, images_BCHW, known)
            accepted = [name for name, spatial in others.items() if spatial.reached]
            raise UsageError(f"--layer {layer} gives no spatial features; expected one of {_some(accepted)}")
        if not found[layer].reached:
            raise UsageError(
                f"--layer {layer}: the logits do not depend on its cells, so every map there is 0; "
                "name a layer before the last one that mixes cells"
            )
    spatial = [found[layer] for layer in layers]
    return _layer_head(spatial, logits_BK)


def _cut_at_last_layer(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor) -> Head:
    """Cut at the last spatial activation that all of the logits pass through, before mere pooling."""
    found = spatial_calls(network, images_BCHW, named_modules(network))
    candidates = [spatial for spatial in found.values() if spatial.reached]
    for i, spatial in reversed(list(enumerate(candidates))):
        if not spatial.is_pooling and _logits_depend_only_on(network, images_BCHW, logits_BK, spatial.seen):
            return _layer_head([behind_norm(candidates[i:])], logits_BK)
    if not candidates:
        raise UsageError(
            "the gradient of the network's logits reaches no module's spatial features, (B, C, H, W), (B, H, W, C) or "
            "(B, tokens, C), in at least half of their cells; a torch.no_grad or a maximum over the grid keeps it away"
        )
    raise UsageError(
        "the network neither averages one feature map nor passes through one spatial activation: its logits depend on "
        f"the picture through several paths; name one with --layer: {_some([c.seen.place.name for c in candidates])}"
    )


def _layer_head(spatial: list[Spatial], logits_BK: Tensor) -> Head:
    return Head(
        kind="layer",
        places=tuple(cut.seen.place for cut in spatial),
        grid=max(cut.grid for cut in spatial),
        num_channels=spatial[-1].num_channels,
        num_classes=logits_BK.shape[1],
    )


def _some(names: list[str]) -> str:
    """Name a few of the last modules."""
    return ", ".join(names[-8:]) + (f" or {len(names) - 8} earlier ones" if len(names) > 8 else "")
