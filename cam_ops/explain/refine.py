"""Refine a map by the affinity of the network's own features: less blur, edges where the features have theirs.

C is the raw map of any method. `coarse` (B, C, K, L) and `fine` (B, D, Q, V) are what the network makes before the last
two reductions of its grid (`cam_ops.network.stages`), g is the gradient of the class score with respect to `coarse`.

    G      = sum_k relu(g_k coarse_k)                           where the score comes from, on the coarse grid
    seed   = sqrt(relu(C enlarged to K x L) G)
    S[i,j] = (f(fine)_i . f(fine pooled)_j + f(coarse)_i . f(coarse)_j) / 2
    A      = relu(S)^2                                          i a cell of Q x V, j of K x L
    R_i    = (sum_j A[i,j] seed_j / sum_j A[i,j])^2

f subtracts the mean over the picture's cells and makes each cell's vector one of unit length. R is a raw map like C, on
the fine grid, at least 0; R / max R depends neither on the scale of the score nor on that of the features. Where the
seed is 0 everywhere R is relu(C), enlarged; where a cell resembles none, R is the enlarged seed, squared. Cells whose
centre lies in padding take no part: they are not in means, not among the j, and R is 0 there.

Letters: B batch, P explained (image, class) pairs, K, L and Q, V rows and columns of the two grids, J = K * L,
I = Q * V, h, w the map's grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cam_ops.explain.passes import Ranks, ranks_of
from cam_ops.network.grids import Grid

Spread = Callable[[Tensor], Tensor]

FLAT = 1e-10  # squared length, relative to that of the mean, at which a cell does not differ from the mean
MANTISSA_BITS = 5  # of a stored map, of float32's 23: the fewest that keep boxes, see docs/measurements.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """How much each fine cell resembles the coarse ones."""

    weight_BIJ: Tensor  # rows add up to 1, or are 0
    is_orphan_BI: Tensor  # bool: resembles none


def cells_inside(inside_B4: Tensor, grid: Grid) -> Tensor:
    """Return whether the centres of a grid's cells are in the picture, bool (B, h, w).

    `inside_B4` are x0, y0, x1, y1 of the picture in units of the network's input.
    """
    y_h, x_w = ((torch.arange(cells, device=inside_B4.device) + 0.5) / cells for cells in grid)
    x0_B1, y0_B1, x1_B1, y1_B1 = inside_B4.unsqueeze(2).unbind(1)
    in_x_Bw, in_y_Bh = (x0_B1 < x_w) & (x_w < x1_B1), (y0_B1 < y_h) & (y_h < y1_B1)
    return in_y_Bh[:, :, None] & in_x_Bw[:, None, :]


def affinity(coarse_BCKL: Tensor, fine_BDQV: Tensor, inside_B4: Tensor) -> Affinity:
    """Compare each fine cell with the coarse ones; the products are made in the features' own number format."""
    dtype, coarse_grid, fine_grid = coarse_BCKL.dtype, _grid(coarse_BCKL), _grid(fine_BDQV)
    is_key_B1KL = cells_inside(inside_B4, coarse_grid)[:, None]
    coarse_BCKL, coarse_length_B = _centred(coarse_BCKL, is_key_B1KL)
    fine_BDQV, fine_length_B = _centred(fine_BDQV, cells_inside(inside_B4, fine_grid)[:, None])
    pooled_BDKL = functional.adaptive_avg_pool2d(fine_BDQV, coarse_grid) * is_key_B1KL
    coarse_BCJ = _unit(coarse_BCKL, coarse_length_B).to(dtype).flatten(2)
    fine_BDI = _unit(fine_BDQV, fine_length_B).to(dtype).flatten(2)
    pooled_BDJ = _unit(pooled_BDKL, fine_length_B).to(dtype).flatten(2)
    of_coarse_BJKL = (coarse_BCJ.mT @ coarse_BCJ).reshape(*coarse_BCJ.shape[::2], *coarse_grid)
    of_coarse_BJI = functional.interpolate(of_coarse_BJKL, fine_grid, mode="bilinear").flatten(2)
    resemblance_BIJ = (fine_BDI.mT @ pooled_BDJ).float() + of_coarse_BJI.mT.float()
    weight_BIJ = (resemblance_BIJ / 2).relu().square()
    total_BI1 = weight_BIJ.sum(2, keepdim=True)
    is_orphan_BI1 = ~((total_BI1 > 0) & total_BI1.isfinite())
    weight_BIJ = torch.where(is_orphan_BI1, 0.0, weight_BIJ / total_BI1)
    return Affinity(weight_BIJ=weight_BIJ.to(dtype), is_orphan_BI=is_orphan_BI1[:, :, 0])


def _grid(maps: Tensor) -> Grid:
    return maps.shape[-2], maps.shape[-1]


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


def evidence(coarse_PCKL: Tensor, gradient_PCKL: Tensor) -> Tensor:
    """Return G of each pair, float32 (P, K, L), in units of the score where the gradient is `cell_scale` times g."""
    if coarse_PCKL.dtype == torch.float16:  # its products may be beyond its range
        coarse_PCKL, gradient_PCKL = coarse_PCKL.float(), gradient_PCKL.float()
    return (coarse_PCKL * gradient_PCKL).relu().sum(1, dtype=torch.float32)


def cell_scale(coarse_BCKL: Tensor) -> float:
    """Return what a gradient is multiplied by: the number of cells, so that grids of any size have one unit.

    It also keeps it within the range of half precision.
    """
    return float(coarse_BCKL[0, 0].numel())


def refine(
    cam_Phw: Tensor, evidence_PKL: Tensor, spread: Spread, is_orphan_PI: Tensor, grid: Grid, inside_P4: Tensor
) -> Tensor:
    """Return the refined map R of each pair, float32 (P, Q, V), Q and V being `grid`.

    NaN where C or G is not finite, as where a gradient overflows: a map is refined or it is none.
    `spread` takes seeds (P, J) to sum_j A[i,j] seed_j / sum_j A[i,j], float32 (P, I): `of_pairs` or `of_images`.
    """
    coarse_grid = _grid(evidence_PKL)
    cam_P1hw = (cam_Phw * cells_inside(inside_P4, _grid(cam_Phw)))[:, None]
    seed_PKL = (_enlarged(cam_P1hw, coarse_grid, "bicubic").relu() * evidence_PKL).sqrt()
    seed_PKL = seed_PKL * cells_inside(inside_P4, coarse_grid)
    peak_P11 = seed_PKL.amax((1, 2), keepdim=True)
    has_seed_P11 = (peak_P11 > 0) & peak_P11.isfinite()
    unit_PKL = torch.where(has_seed_P11, seed_PKL / peak_P11, 0.0)
    lone_PI = _enlarged(unit_PKL[:, None], grid, "bilinear").flatten(1)
    refined_PI = torch.where(is_orphan_PI, lone_PI, spread(unit_PKL.flatten(1))).square()
    refined_PQV = refined_PI.reshape(-1, *grid) * peak_P11.square()
    plain_PQV = _enlarged(cam_P1hw.relu(), grid, "bicubic").relu()
    found_PQV = torch.where(has_seed_P11, refined_PQV, plain_PQV) * cells_inside(inside_P4, grid)
    return torch.where(peak_P11.isfinite(), found_PQV, torch.nan)


def of_pairs(weight_BIJ: Tensor, image_P: Tensor, ranks: Ranks | None = None) -> Spread:
    """Spread the seeds of pairs, all those of an image at once."""
    ranks = ranks or ranks_of(image_P)
    rank_P, num_ranks = ranks.rank_P, max(1, ranks.num)

    def spread(seed_PJ: Tensor) -> Tensor:
        seed_BRJ = weight_BIJ.new_zeros(len(weight_BIJ), num_ranks, weight_BIJ.shape[2])
        seed_BRJ[image_P, rank_P] = seed_PJ.to(weight_BIJ.dtype)
        return (seed_BRJ @ weight_BIJ.mT)[image_P, rank_P].float()

    return spread


def of_images(weight_BIJ: Tensor) -> Spread:
    """Spread one seed of each image."""
    return lambda seed_BJ: (weight_BIJ @ seed_BJ[:, :, None].to(weight_BIJ.dtype))[:, :, 0].float()


def _enlarged(map_P1hw: Tensor, grid: Grid, mode: str) -> Tensor:
    """Return maps on another grid; cells are areas (half-pixel centres)."""
    return functional.interpolate(map_P1hw, grid, mode=mode, align_corners=False)[:, 0]


def rounded(maps_PQV: Tensor) -> Tensor:
    """Round float32 maps to `MANTISSA_BITS`, half to even: what is stored, and boxed; the other bits cost the disk."""
    dropped = 23 - MANTISSA_BITS
    bits_PQV = maps_PQV.contiguous().view(torch.int32)
    half_PQV = (1 << (dropped - 1)) - 1 + ((bits_PQV >> dropped) & 1)
    rounded_PQV = ((bits_PQV + half_PQV) >> dropped << dropped).view(torch.float32)
    return torch.where(maps_PQV.isfinite(), rounded_PQV, maps_PQV)
