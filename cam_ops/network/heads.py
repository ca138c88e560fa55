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
* `cosine`: the affine rest sees the direction of F alone (cosine classifiers, ArcFace, prototypes): y_c = b_c +
  sum_k W_ck F_k / |F| is as exact on the features A / |F|;
* `pooled`: h is anything else (MobileNetV3): gradient methods, for which h alone is differentiated;
* `layer`: nothing is averaged (VGG, ViT with a class token), or the user names layers: gradient methods, for which the
  network is differentiated from that layer on.

Letters: B batch, C channels, H, W grid, K classes.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.geometry import check_lies_over
from cam_ops.network.grids import fits
from cam_ops.network.layers import Spatial, behind_norm, check_gradients, named_modules, spatial_calls
from cam_ops.network.outputs import refuse_probabilities
from cam_ops.network.readout import read_out
from cam_ops.network.takes import IDENTITY, Normalisation
from cam_ops.network.trial import check_alone, first_run, in_a_sentence, trial_pictures
from cam_ops.network.watch import Place, Seen, Watch, run_from
from cam_ops.settings import DECOMPOSABLE, Kind, Size

SWAP_TOLERANCE = 1e-4  # of the difference between pictures, float32
ROUNDING = 1e-6  # of the logits: CaiT with random weights tells pictures apart by 5e-6 of them
MAX_TRIES = 32  # swap tests, from the last activation back
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


@in_a_sentence
def find_head(
    network: nn.Module, image_size: Size, layers: tuple[str, ...] = (), normalisation: Normalisation = IDENTITY
) -> Head:
    """Find and prove the head of `network`, which is in eval mode, float32, on any device; `layers` name the cut.

    Costs a few forward passes on noise of that size, seeded. Raises UsageError with the reason
    where the network cannot be cut.
    """
    images_BCHW, logits_BK, calls = dry_run(network, image_size, normalisation)
    head = _cut(network, images_BCHW, logits_BK, calls, layers)
    check_lies_over(network, images_BCHW, head.places)
    if head.kind not in ("affine", "score-map"):  # no method differentiates these
        check_gradients(network, images_BCHW, head.places)
    return head


def _cut(
    network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, calls: list[Seen], layers: tuple[str, ...]
) -> Head:
    if layers:
        return _cut_at_layers(network, images_BCHW, logits_BK, layers)
    whole = [seen for seen in calls if len(seen.given) == len(images_BCHW)]  # not of pictures and their mirror images
    pools = [seen for seen in whole if seen.place.cut == "pool" and _averages_all(seen, images_BCHW)]
    for pool in reversed(pools):
        if _logits_depend_only_on(network, images_BCHW, logits_BK, pool):
            norms = [seen for seen in calls[calls.index(pool) :] if _is_norm_of(seen, pool)]
            return _read_head(network, images_BCHW, logits_BK, pool, norms[0] if norms else None)
    return _cut_at_last_layer(network, images_BCHW, logits_BK)


def dry_run(
    network: nn.Module, image_size: Size, normalisation: Normalisation = IDENTITY
) -> tuple[Tensor, Tensor, list[Seen]]:
    """Run the network on noise; return pictures that its logits tell apart, these logits, and the calls watched."""
    noise_BCHW = trial_pictures(network, image_size, normalisation=normalisation)
    for contrast in CONTRASTS:
        calls: list[Seen] = []
        images_BCHW = contrast * noise_BCHW
        with Watch(network, partial(_record, calls), images_BCHW.shape[2:]):
            logits_BK = first_run(network, images_BCHW, normalisation)
        _check_logits(logits_BK)
        kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
        again_BK = first_run(network, images_BCHW, normalisation)
        changed = [name for name, buffer in network.named_buffers() if not buffer.equal(kept.get(name, buffer))]
        if changed and not logits_BK.equal(again_BK):
            raise UsageError(
                f"the network remembers earlier pictures in {changed[0]}, so that its logits depend on them; let it do "
                "so while it is trained alone"
            )
        if not torch.allclose(logits_BK, again_BK, rtol=1e-3, atol=1e-3 * float(logits_BK.abs().max())):
            raise UsageError(
                "the network gives other logits each time for the same pictures; does it drop out in eval mode?"
            )
        if not logits_BK.equal(logits_BK.roll(1, 0)):
            check_alone(network, images_BCHW, logits_BK)
            refuse_probabilities(logits_BK)
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
    channels, height, width = pool.given.shape[1:]
    behind = read_out(network, images_BCHW[:1], pool, norm)
    return Head(
        kind=behind.kind,
        places=(pool.place,),
        grid=(height, width),
        num_channels=channels,
        num_classes=logits_BK.shape[1],
        weight_KC=behind.weight_KC,
        bias_K=behind.bias_K,
        norm_eps=behind.norm_eps,
    )


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
                f"--layer {layer}: the logits do not depend on its cells, or on a few of them alone, as behind a "
                "maximum over the grid, so that maps there are 0 nearly everywhere; name a layer before the last one "
                "that mixes cells"
            )
        if (num_calls := found[layer].seen.place.index + 1) > 1:
            raise UsageError(
                f"--layer {layer} runs {num_calls} times in one forward pass, and its maps would be those of one of "
                "them; name a module that runs once"
            )
    spatial = [found[layer] for layer in layers]
    return _layer_head(spatial, logits_BK)


def _cut_at_last_layer(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor) -> Head:
    """Cut at the last spatial activation that all of the logits pass through, before mere pooling."""
    found = spatial_calls(network, images_BCHW, named_modules(network))
    candidates = [spatial for spatial in found.values() if spatial.reached]
    for i, spatial in reversed(list(enumerate(candidates))[-MAX_TRIES:]):
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
