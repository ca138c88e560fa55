"""From a batch of pictures to the raw maps of the wanted classes, by any method, at any cut.

Letters: B batch, C channels, H, W grid, N = H * W cells, K classes, P explained (image, class) pairs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.explain.attention import Blocks, legrad
from cam_ops.explain.methods import FROM_FEATURES, FROM_GRADIENTS, ablationcam, cam, scorecam, smooth_gradcam_plus_plus
from cam_ops.explain.passes import (
    Pass,
    Ranks,
    Target,
    gradients_at_stage,
    gradients_of,
    one_class,
    ranks_of,
    run,
    scores_without_channel,
)
from cam_ops.explain.refine import affinity, cell_scale, evidence, of_pairs, refine
from cam_ops.network.heads import Head
from cam_ops.network.stages import Stages
from cam_ops.settings import ATTENTION, DECOMPOSABLE, Method

FINER_CLASSES, FINER_STRENGTH = 3, 0.6  # the paper's defaults
NOISY_PASSES, NOISE = 4, 0.3  # torch-cam's defaults; the noise's standard deviation in units of the network's input
MAX_FEATURE_VALUES = 2**27  # gathered for pairs at once: 512 MiB
TINY = 1e-12  # as torch.nn.functional.normalize has it
TOGETHER = 64  # masked pictures in one forward pass

NEEDS_GRADIENTS = frozenset((*FROM_GRADIENTS, "smoothgradcam++", "ablationcam"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """A network, where it is cut, a method, and what its maps are refined from."""

    network: nn.Module
    head: Head
    method: Method
    blocks: Blocks | None = None  # for legrad
    stages: Stages | None = None  # None: they are not refined

    @property
    def is_forward_only(self) -> bool:
        """Do logits and features of one pass suffice, without a gradient and without a further pass?"""
        if self.method in ("scorecam", *ATTENTION):
            return False
        return self.method not in NEEDS_GRADIENTS or self.head.kind in ("affine", "score-map")

    @property
    def grid(self) -> tuple[int, int]:
        """Grid (H, W) of the maps before they are refined."""
        return self.head.grid if self.blocks is None else self.blocks.grid

    @property
    def refined_grid(self) -> tuple[int, int]:
        """Grid of the refined maps; that of the maps themselves where they are not refined."""
        return self.grid if self.stages is None else self.stages.fine_grid

    def on(self, device: torch.device) -> "Explainer":
        """Return the explainer with the head's weights on a device; the network must be there."""
        return replace(self, head=self.head.on(device))

    def run(self, images_BCHW: Tensor, traced: bool = False) -> Pass:
        """Run the network once; keep what `maps` and `refined` need. See `cam_ops.explain.passes.run` for `traced`."""
        gradients, guided = self.method in NEEDS_GRADIENTS, self.method == "bagcam" and not self.is_forward_only
        passed = run(self.network, images_BCHW, self.head, gradients, guided, self.stages, traced)
        if guided and self.stages is not None:  # maps are refined by the gradient itself
            unguided = run(self.network, images_BCHW, self.head, stages=self.stages)
            return replace(passed, refinable=unguided.refinable)
        return passed

    def maps(self, passed: Pass, image_P: Tensor, class_P: Tensor, ranks: Ranks | None = None) -> Tensor:
        """Return the raw map of each (image, class) pair, float32 (P, H, W); those of several layers are fused.

        Where their `ranks` are given, the host need not wait for a GPU to know them.
        """
        if self.blocks is not None:
            return legrad(self.network, passed.images_BCHW, self.blocks, image_P, class_P)
        together = max(1, MAX_FEATURE_VALUES // max(features_BCHW[0].numel() for features_BCHW in passed.features))
        if len(image_P) <= together:
            return self._maps_of_some(passed, image_P, class_P, ranks)
        parts = zip(torch.split(image_P, together), torch.split(class_P, together), strict=True)
        return torch.cat([self._maps_of_some(passed, some_P, classes_P) for some_P, classes_P in parts])

    def refined(
        self,
        passed: Pass,
        maps_PHW: Tensor,
        image_P: Tensor,
        class_P: Tensor,
        inside_B4: Tensor,
        ranks: Ranks | None = None,
    ) -> Tensor:
        """Return the maps refined, float32 (P, Q, V); `inside_B4` is where the picture lies, in units of the input."""
        assert passed.refinable is not None
        coarse_BCKL = passed.refinable.coarse_BCKL
        evidence_PKL = maps_PHW.new_empty(len(image_P), *coarse_BCKL.shape[2:])
        target = one_class(image_P, class_P, ranks)
        for pairs, gradient_PCKL in gradients_at_stage(passed, target, cell_scale(coarse_BCKL)):
            evidence_PKL[pairs] = evidence(coarse_BCKL[image_P[pairs]], gradient_PCKL)
        resemblance = affinity(coarse_BCKL, passed.refinable.fine_BDQV, inside_B4)
        spread, is_orphan_PI = of_pairs(resemblance.weight_BIJ, image_P, ranks), resemblance.is_orphan_BI[image_P]
        return refine(maps_PHW, evidence_PKL, spread, is_orphan_PI, self.refined_grid, inside_B4[image_P])

    def _maps_of_some(self, passed: Pass, image_P: Tensor, class_P: Tensor, ranks: Ranks | None = None) -> Tensor:
        """Return the maps of as many pairs as may have their features gathered at once."""
        return fuse([self._map(passed, place, image_P, class_P, ranks) for place in range(len(self.head.places))])

    def _map(self, passed: Pass, place: int, image_P: Tensor, class_P: Tensor, ranks: Ranks | None) -> Tensor:
        """Return the maps at one place of the cut, (P, h, w)."""
        features_PCN = _of_pairs(passed.features[place].flatten(2), image_P, ranks)
        if self.method == "cam":
            weight_KC, _ = self.head.affine()
            maps_PN = cam(_decomposed(features_PCN, self.head), weight_KC[class_P])
        elif self.method in FROM_FEATURES:
            maps_PN = FROM_FEATURES[self.method](features_PCN)
        elif self.method == "ablationcam":
            maps_PN = ablationcam(features_PCN, self._drops(passed, features_PCN, place, image_P, class_P))
        elif self.method == "scorecam":
            maps_PN = scorecam(features_PCN, self._masked_scores(passed, place, image_P, class_P))
        elif self.method == "smoothgradcam++":
            maps_PN = smooth_gradcam_plus_plus(features_PCN, *self._noisy_gradients(passed, place, image_P, class_P))
        else:
            target = one_class(image_P, class_P, ranks)
            if self.method == "finercam":
                target = replace(finer_target(passed.logits_BK, image_P, class_P), ranks=ranks)
            gradient_PCX = gradients_of(passed, self.head, target)[place]
            maps_PN = FROM_GRADIENTS[self.method](features_PCN, gradient_PCX)
        return maps_PN.reshape(-1, *passed.features[place].shape[2:])

    def _drops(self, passed: Pass, features_PCN: Tensor, place: int, image_P: Tensor, class_P: Tensor) -> Tensor:
        """Return (y - y_without_k) / y of each pair and channel, (P, C)."""
        logit_P = passed.logits_BK[image_P, class_P]
        if passed.graph_BK is None:  # W_ck F_k = N g_k mean_xy(A_k)
            gradient_PC1 = gradients_of(passed, self.head, one_class(image_P, class_P))[place]
            return (gradient_PC1 * features_PCN).sum(2) / logit_P[:, None]
        drop_PC = features_PCN.new_empty(features_PCN.shape[:2])
        for image in set(image_P.tolist()):
            pairs = (image_P == image).nonzero().flatten()
            without_CK = scores_without_channel(self.network, passed, self.head, place, image, TOGETHER)
            drop_PC[pairs] = 1 - without_CK[:, class_P[pairs]].mT / logit_P[pairs, None]
        return drop_PC

    def _masked_scores(self, passed: Pass, place: int, image_P: Tensor, class_P: Tensor) -> Tensor:
        """Return the class score of each pair's picture masked by each channel, (P, C)."""
        features_BCHW = passed.features[place]
        score_PC = features_BCHW.new_empty(len(image_P), features_BCHW.shape[1])
        for image in set(image_P.tolist()):
            picture_1CHW = passed.images_BCHW[image : image + 1]
            logits: list[Tensor] = []
            for some_CHW in torch.split(features_BCHW[image], TOGETHER):
                masks_C1HW = functional.interpolate(some_CHW[:, None], picture_1CHW.shape[2:], mode="bilinear")
                low_C111, high_C111 = masks_C1HW.amin((2, 3), keepdim=True), masks_C1HW.amax((2, 3), keepdim=True)
                masks_C1HW = (masks_C1HW - low_C111) / (high_C111 - low_C111).clamp(min=1e-8)
                with torch.no_grad():
                    logits.append(self.network(picture_1CHW * masks_C1HW.to(picture_1CHW.dtype)).float())
            pairs = (image_P == image).nonzero().flatten()
            score_PC[pairs] = torch.cat(logits)[:, class_P[pairs]].mT
        return score_PC

    def _noisy_gradients(
        self, passed: Pass, place: int, image_P: Tensor, class_P: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means of g, g^2 and g^3 over noisy copies; each picture gets the same noise."""
        target = one_class(image_P, class_P)
        if passed.graph_BK is None:
            gradient = gradients_of(passed, self.head, target)[place]
            return gradient, gradient**2, gradient**3
        generator = torch.Generator().manual_seed(0)
        powers: list[Tensor] = []
        for _ in range(NOISY_PASSES):
            noise_CHW = NOISE * torch.randn(passed.images_BCHW.shape[1:], generator=generator).to(passed.images_BCHW)
            noisy = run(self.network, passed.images_BCHW + noise_CHW, self.head, gradients=True)
            gradient = gradients_of(noisy, self.head, target)[place]
            powers.append(torch.stack([gradient, gradient**2, gradient**3]))
        first, second, third = torch.stack(powers).mean(0)
        return first, second, third


def completeness_residuals(
    passed: Pass, head: Head, image_P: Tensor, class_P: Tensor, cams_PHW: Tensor | None = None
) -> Tensor | None:
    """Return |mean(M_c) + b_c - y_c| / max |y| of each pair's class activation map M_c, shape (P,).

    It is 0 where the features and the head explain the score fully, whatever the method, if all logits are 0, too; None
    where the head has no decomposition. `cams_PHW` are the maps M_c where they are at hand.
    """
    if head.kind not in DECOMPOSABLE:
        return None
    weight_KC, bias_K = head.affine()
    if cams_PHW is None:
        mean_PC = _decomposed(passed.features[0].flatten(2), head).mean(2)[image_P]
        explained_P = (weight_KC[class_P] * mean_PC).sum(1) + bias_K[class_P]
    else:
        explained_P = cams_PHW.mean((1, 2)) + bias_K[class_P]
    far_P = (explained_P - passed.logits_BK[image_P, class_P]).abs()
    return torch.where(far_P == 0, far_P, far_P / passed.logits_BK.abs().amax(1)[image_P])  # all logits may be 0


def _of_pairs(features_BCN: Tensor, image_P: Tensor, ranks: Ranks | None) -> Tensor:
    """Return the features of each pair's image; no copy is made where each image has one pair."""
    if len(image_P) == len(features_BCN) and (ranks or ranks_of(image_P)).is_whole:
        return features_BCN
    return features_BCN[image_P]


def finer_target(logits_BK: Tensor, image_P: Tensor, class_P: Tensor) -> Target:
    """Return y_c - 0.6 mean_d y_d over the three classes d whose scores are closest to y_c: Finer-CAM's target."""
    logits_PK = logits_BK[image_P]
    distance_PK = (logits_PK - logits_PK.gather(1, class_P[:, None])).abs()
    distance_PK.scatter_(1, class_P[:, None], float("inf"))
    similar = min(FINER_CLASSES, logits_BK.shape[1] - 1)
    similar_PJ = distance_PK.topk(similar, largest=False).indices
    coefficient_J = logits_BK.new_tensor([1.0] + [-FINER_STRENGTH / similar] * similar)
    return Target(
        image_P=image_P,
        class_PJ=torch.cat([class_P[:, None], similar_PJ], 1),
        coefficient_PJ=coefficient_J.expand(len(class_P), -1),
    )


def fuse(maps: list[Tensor]) -> Tensor:
    """Fuse maps (P, h, w) of several layers on the finest of their grids: the mean of each divided by its peak.

    A single layer's maps stay as they are. Layers differ in scale by orders of magnitude, hence the division; the peak
    is the largest absolute value, so that signs and zero stay where they are.
    """
    if len(maps) == 1:
        return maps[0]
    scaled = [layer_Phw / layer_Phw.abs().amax((1, 2), keepdim=True).clamp(min=1e-30) for layer_Phw in maps]
    return mean_on_finest_grid(scaled)


def mean_on_finest_grid(maps: list[Tensor]) -> Tensor:
    """Return the mean of maps (P, h, w) of the same rectangle on the finest of their grids.

    Grids are aligned by their outlines: a cell is an area, not a point (half-pixel centres, bilinear).
    """
    grid = max((layer_Phw.shape[1], layer_Phw.shape[2]) for layer_Phw in maps)
    total_PHW = torch.stack([_enlarged(layer_Phw, grid) for layer_Phw in maps])
    return total_PHW.mean(0)


def _enlarged(map_Phw: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(map_Phw.shape[1:]) == grid or not len(map_Phw):
        return map_Phw if len(map_Phw) else map_Phw.new_empty(0, *grid)
    return functional.interpolate(map_Phw[:, None], grid, mode="bilinear", align_corners=False)[:, 0]


def _decomposed(features_BCN: Tensor, head: Head) -> Tensor:
    """Return the features that the head is affine in."""
    if head.kind == "cosine":
        length_B: Tensor = features_BCN.mean(2).norm(dim=1)
        return features_BCN / length_B[:, None, None].clamp(min=TINY)
    if head.norm_eps is None:
        return features_BCN
    variance_B = features_BCN.mean(2).var(1, correction=0)
    return features_BCN / (variance_B + head.norm_eps).sqrt()[:, None, None]
