"""Refine a map by the affinity of the network's own features: less blur, edges where the features have theirs.

C is the raw map of any method. `coarse` (B, C, K, K) and `fine` (B, D, Q, Q) are what the network makes before the last
two reductions of its grid (`cam_ops.network.stages`), g is the gradient of the class score with respect to `coarse`.

    G      = sum_k relu(g_k coarse_k)                           where the score comes from, on the coarse grid
    seed   = sqrt(relu(C enlarged to K x K) G)
    S[i,j] = (f(fine)_i . f(fine pooled)_j + f(coarse)_i . f(coarse)_j) / 2
    A      = relu(S)^2                                          i a cell of Q x Q, j of K x K
    R_i    = (sum_j A[i,j] seed_j / sum_j A[i,j])^2

f subtracts the mean over the picture's cells and makes each cell's vector one of unit length. R is a raw map like C, on
the fine grid, at least 0; R / max R depends neither on the scale of the score nor on that of the features. Where the
seed is 0 everywhere R is relu(C), enlarged; where a cell resembles none, R is the enlarged seed, squared. Cells whose
centre lies in padding take no part: they are not in means, not among the j, and R is 0 there.

Letters: B batch, P explained (image, class) pairs, K, Q sides of the grids, J = K * K, I = Q * Q, h, w the map's grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cam_ops.explain.passes import rank_within_image

Spread = Callable[[Tensor], Tensor]

FLAT = 1e-10  # squared length, relative to that of the mean, at which a cell does not differ from the mean
MANTISSA_BITS = 5  # of a stored map, of float32's 23: the fewest that keep boxes, see docs/measurements.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """How much each fine cell resembles the coarse ones."""

    weight_BIJ: Tensor  # rows add up to 1, or are 0
    is_orphan_BI: Tensor  # bool: resembles none


def cells_inside(inside_B4: Tensor, side: int) -> Tensor:
    """Return whether the centres of a grid's cells are in the picture, bool (B, side, side).

    `inside_B4` are x0, y0, x1, y1 of the picture in units of the network's square input.
    """
    centre_S = (torch.arange(side, device=inside_B4.device) + 0.5) / side
    x0_B1, y0_B1, x1_B1, y1_B1 = inside_B4.unsqueeze(2).unbind(1)
    in_x_BS, in_y_BS = (x0_B1 < centre_S) & (centre_S < x1_B1), (y0_B1 < centre_S) & (centre_S < y1_B1)
    return in_y_BS[:, :, None] & in_x_BS[:, None, :]


def affinity(coarse_BCKK: Tensor, fine_BDQQ: Tensor, inside_B4: Tensor) -> Affinity:
    """Compare each fine cell with the coarse ones; the products are made in the features' own number format."""
    dtype, num_coarse, num_fine = coarse_BCKK.dtype, coarse_BCKK.shape[2], fine_BDQQ.shape[2]
    is_key_B1KK = cells_inside(inside_B4, num_coarse)[:, None]
    coarse_BCKK, coarse_length_B = _centred(coarse_BCKK, is_key_B1KK)
    fine_BDQQ, fine_length_B = _centred(fine_BDQQ, cells_inside(inside_B4, num_fine)[:, None])
    pooled_BDKK = functional.adaptive_avg_pool2d(fine_BDQQ, num_coarse) * is_key_B1KK
    coarse_BCJ = _unit(coarse_BCKK, coarse_length_B).to(dtype).flatten(2)
    fine_BDI = _unit(fine_BDQQ, fine_length_B).to(dtype).flatten(2)
    pooled_BDJ = _unit(pooled_BDKK, fine_length_B).to(dtype).flatten(2)
    of_coarse_BJKK = (coarse_BCJ.mT @ coarse_BCJ).reshape(*coarse_BCJ.shape[::2], num_coarse, num_coarse)
    of_coarse_BJI = functional.interpolate(of_coarse_BJKK, (num_fine, num_fine), mode="bilinear").flatten(2)
    resemblance_BIJ = (fine_BDI.mT @ pooled_BDJ).float() + of_coarse_BJI.mT.float()
    weight_BIJ = (resemblance_BIJ / 2).relu().square()
    total_BI1 = weight_BIJ.sum(2, keepdim=True)
    is_orphan_BI1 = ~((total_BI1 > 0) & total_BI1.isfinite())
    weight_BIJ = torch.where(is_orphan_BI1, 0.0, weight_BIJ / total_BI1)
    return Affinity(weight_BIJ=weight_BIJ.to(dtype), is_orphan_BI=is_orphan_BI1[:, :, 0])


def _centred(features_BCHW: Tensor, is_in_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the mean over the cells inside, 0 outside, float32; also return that mean's squared length, (B,)."""
    features_BCHW = features_BCHW.float()
    in_B1HW = is_in_B1HW.float()
    count_B111 = in_B1HW.sum((2, 3), keepdim=True).clamp(min=1)
    mean_BC11 = (features_BCHW * in_B1HW).sum((2, 3), keepdim=True) / count_B111
    return (features_BCHW - mean_BC11) * in_B1HW, mean_BC11.square().sum((1, 2, 3))


def _unit(features_BCHW: Tensor, length_B: Tensor) -> Tensor:
    """Return each cell's vector at unit length; 0 where it is but the rounding error of a mean of that length."""
    square_B1HW = features_BCHW.square().sum(1, keepdim=True)
    is_flat_B1HW = square_B1HW <= FLAT * length_B[:, None, None, None]
    inverse_B1HW = torch.where(is_flat_B1HW, 0.0, square_B1HW.clamp(min=torch.finfo(torch.float32).tiny).rsqrt())
    return features_BCHW * inverse_B1HW


def evidence(coarse_PCKK: Tensor, gradient_PCKK: Tensor) -> Tensor:
    """Return G of each pair, float32 (P, K, K), in units of the score where the gradient is `cell_scale` times g."""
    return (coarse_PCKK * gradient_PCKK).relu().sum(1, dtype=torch.float32)


def cell_scale(coarse_BCKK: Tensor) -> float:
    """Return what a gradient is multiplied by: the number of cells, so that grids of any size have one unit.

    It also keeps it within the range of half precision.
    """
    return float(coarse_BCKK[0, 0].numel())


def refine(
    cam_Phw: Tensor, evidence_PKK: Tensor, spread: Spread, is_orphan_PI: Tensor, side: int, inside_P4: Tensor
) -> Tensor:
    """Return the refined map R of each pair, float32 (P, Q, Q), Q being `side`.

    `spread` takes seeds (P, J) to sum_j A[i,j] seed_j / sum_j A[i,j], float32 (P, I): `of_pairs` or `of_images`.
    """
    num_coarse = evidence_PKK.shape[2]
    cam_P1hw = (cam_Phw * cells_inside(inside_P4, cam_Phw.shape[2]))[:, None]
    seed_PKK = (_enlarged(cam_P1hw, num_coarse, "bicubic").relu() * evidence_PKK).sqrt()
    seed_PKK = seed_PKK * cells_inside(inside_P4, num_coarse)
    peak_P11 = seed_PKK.amax((1, 2), keepdim=True)
    has_seed_P11 = (peak_P11 > 0) & peak_P11.isfinite()
    unit_PKK = torch.where(has_seed_P11, seed_PKK / peak_P11, 0.0)
    lone_PI = _enlarged(unit_PKK[:, None], side, "bilinear").flatten(1)
    refined_PI = torch.where(is_orphan_PI, lone_PI, spread(unit_PKK.flatten(1))).square()
    refined_PQQ = refined_PI.reshape(-1, side, side) * peak_P11.square()
    plain_PQQ = _enlarged(cam_P1hw.relu(), side, "bicubic").relu()
    return torch.where(has_seed_P11, refined_PQQ, plain_PQQ) * cells_inside(inside_P4, side)


def of_pairs(weight_BIJ: Tensor, image_P: Tensor) -> Spread:
    """Spread the seeds of pairs, all those of an image at once."""
    rank_P = rank_within_image(image_P)
    num_ranks = int(rank_P.max()) + 1 if len(rank_P) else 1

    def spread(seed_PJ: Tensor) -> Tensor:
        seed_BRJ = weight_BIJ.new_zeros(len(weight_BIJ), num_ranks, weight_BIJ.shape[2])
        seed_BRJ[image_P, rank_P] = seed_PJ.to(weight_BIJ.dtype)
        return (seed_BRJ @ weight_BIJ.mT)[image_P, rank_P].float()

    return spread


def of_images(weight_BIJ: Tensor) -> Spread:
    """Spread one seed of each image."""
    return lambda seed_BJ: (weight_BIJ @ seed_BJ[:, :, None].to(weight_BIJ.dtype))[:, :, 0].float()


def _enlarged(map_P1hw: Tensor, side: int, mode: str) -> Tensor:
    """Return maps (P, side, side); cells are areas (half-pixel centres)."""
    return functional.interpolate(map_P1hw, (side, side), mode=mode, align_corners=False)[:, 0]


def rounded(maps_PQQ: Tensor) -> Tensor:
    """Round float32 maps to `MANTISSA_BITS`, half to even: what is stored, and boxed; the other bits cost the disk."""
    dropped = 23 - MANTISSA_BITS
    bits_PQQ = maps_PQQ.contiguous().view(torch.int32)
    half_PQQ = (1 << (dropped - 1)) - 1 + ((bits_PQQ >> dropped) & 1)
    rounded_PQQ = ((bits_PQQ + half_PQQ) >> dropped << dropped).view(torch.float32)
    return torch.where(maps_PQQ.isfinite(), rounded_PQQ, maps_PQQ)
