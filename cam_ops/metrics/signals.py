"""What raw maps and boxes say without ground truth: how spread a map is, where it lies, what a class always looks at.

All is computed in float64 on a map's positive part, on the network's own grid. Letters: P maps, h, w the grid, n = h w
its cells, N boxes, C classes, G the cells a side of a density. Whether a map and that of the mirrored picture agree is
not here: a run stores their mean alone.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F32, F64, I64
from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.settings import BoxConfig, MapConfig, Size

QUANTA = 2**20  # steps of a normalised map in class sums
DENSITY_SIDE = 16
WHOLE_IMAGE = 0.95  # share of the picture from which on a box says no more than the picture
MIN_IMAGES = 20  # of a class that may be suspected
RING = 1 / 7  # of the side: one cell of most networks' own grid
MOST = 0.5  # share of its mean map's mass that is most of it
UNUSUAL = 1.5  # times the median of the other classes


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSignals:
    """Signals of P maps, all (P,); NaN where a map has no positive value."""

    entropy_P: F64  # Shannon entropy of the mass over the cells, over log n: 0 is one cell, 1 is uniform
    concentration_P: F64  # Gini index of the cells (Hurley & Rickard 2009): 0 is uniform, 1 - 1 / n is one cell
    border_mass_P: F64  # share of the mass in the ring along the border; NaN where a grid is all ring


def map_signals(raw_Phw: F32) -> MapSignals:
    """Return the signals of raw maps; values that are not finite count as 0."""
    positive_Phw = _positive(raw_Phw)
    mass_P11 = positive_Phw.sum((1, 2), keepdims=True)
    share_Phw = np.divide(positive_Phw, mass_P11, out=np.full_like(positive_Phw, np.nan), where=mass_P11 > 0)
    share_Pn = share_Phw.reshape(len(share_Phw), raw_Phw.shape[1] * raw_Phw.shape[2])
    return MapSignals(
        entropy_P=_entropy(share_Pn),
        concentration_P=_gini(share_Pn),
        border_mass_P=_border(share_Phw),
    )


def _positive(raw_Phw: F32) -> F64:
    return np.maximum(np.where(np.isfinite(raw_Phw), raw_Phw, 0), 0).astype(np.float64)


def _entropy(share_Pn: F64) -> F64:
    logs_Pn = np.log(share_Pn, out=np.zeros_like(share_Pn), where=share_Pn != 0)
    entropy_P: F64 = np.abs((share_Pn * logs_Pn).sum(1)) / np.log(max(2, share_Pn.shape[1]))
    return entropy_P


def _gini(share_Pn: F64) -> F64:
    num_cells = share_Pn.shape[1]
    weight_n = (num_cells - np.arange(num_cells) - 0.5) / num_cells
    gini_P: F64 = 1 - 2 * (np.sort(share_Pn, axis=1) * weight_n).sum(1)
    return gini_P


def _border(share_Phw: F64) -> F64:
    """Return the share outside of the inner cells; works on single maps and on stacks.

    The ring is as many cells thick as come nearest to `RING` of the side, at least one: it is the same part of the
    picture on fine grids.
    """
    if min(share_Phw.shape[-2:]) < 3:
        return np.full(share_Phw.shape[:-2], np.nan)
    rows, columns = (max(1, round(RING * side)) for side in share_Phw.shape[-2:])
    inner_Phw = share_Phw[..., rows:-rows, columns:-columns]
    border_P: F64 = share_Phw.sum((-2, -1)) - inner_Phw.sum((-2, -1))
    return border_P


def count_components(
    raw_Phw: F32, rectangle_P4: F32, size_P2: I64, size: Size, maps: MapConfig, threshold_P: F64
) -> I64:
    """Return the number of 8-connected regions of each map at its threshold, (P,); see `boxes_from_heatmaps`."""
    every = BoxConfig(components="all")
    found = boxes_from_heatmaps(raw_Phw, rectangle_P4, size_P2, size, maps, every, threshold_P)
    return np.bincount(found.map_N, minlength=len(raw_Phw))


def doubt(score_P: F32, signals: MapSignals, box_area_P: F64) -> F64:
    """Return a value by which to look at maps, highest first: (P,), 0 to 4.

    The sum of four doubts, each 0 to 1: 1 - score, entropy, border mass, and 1 where there is no box (`box_area_P` is
    NaN or 0) or one that covers `WHOLE_IMAGE` of the picture. A map without a positive value counts as uniform and as
    all border.
    """
    says_nothing_P = ~((box_area_P > 0) & (box_area_P < WHOLE_IMAGE))
    is_blank_P = np.isnan(signals.entropy_P)
    entropy_P = np.where(is_blank_P, 1, signals.entropy_P)
    border_P = np.where(is_blank_P, 1, np.nan_to_num(signals.border_mass_P))
    return (1 - score_P.astype(np.float64)) + entropy_P + border_P + says_nothing_P


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSums:
    """Sums over the C classes that occur, whole numbers: in whichever order parts are added, the sums are the same."""

    class_C: I64  # ascending, each once
    maps_Chw: I64  # sum of maps divided by their peak, in steps of 1 / QUANTA
    num_maps_C: I64  # maps in that sum
    density_CGG: I64  # number of boxes that cover the centre of each cell of the picture

    def __add__(self, other: "ClassSums") -> "ClassSums":
        """Add the sums of another part of the run, on the same grid."""
        class_C = np.union1d(self.class_C, other.class_C)
        both = ((np.searchsorted(class_C, part.class_C), part) for part in (self, other))
        maps_Chw = np.zeros((len(class_C), *self.maps_Chw.shape[1:]), np.int64)
        num_maps_C = np.zeros(len(class_C), np.int64)
        density_CGG = np.zeros((len(class_C), DENSITY_SIDE, DENSITY_SIDE), np.int64)
        for place, part in both:
            maps_Chw[place] += part.maps_Chw
            num_maps_C[place] += part.num_maps_C
            density_CGG[place] += part.density_CGG
        return ClassSums(class_C=class_C, maps_Chw=maps_Chw, num_maps_C=num_maps_C, density_CGG=density_CGG)

    def mean_maps(self) -> F64:
        """Return the mean map of each class, (C, h, w), 0..1; NaN where a class has none."""
        num_C11 = self.num_maps_C[:, None, None]
        total_Chw = self.maps_Chw / QUANTA
        return np.divide(total_Chw, num_C11, out=np.full_like(total_Chw, np.nan), where=num_C11 > 0)


def class_sums(class_P: I64, raw_Phw: F32, class_N: I64, boxes_N4: F32, size_N2: I64) -> ClassSums:
    """Add up maps by class, and boxes by class in pictures of (width, height).

    Maps without a positive value are left out.
    """
    positive_Phw = _positive(raw_Phw)
    peak_P = positive_Phw.max((1, 2), initial=0)
    kept_P = peak_P > 0
    steps_Phw = np.rint(positive_Phw[kept_P] / peak_P[kept_P, None, None] * QUANTA).astype(np.int64)
    class_C = np.union1d(class_P[kept_P], class_N).astype(np.int64)
    place_P = np.searchsorted(class_C, class_P[kept_P])
    maps_Chw = np.zeros((len(class_C), *raw_Phw.shape[1:]), np.int64)
    np.add.at(maps_Chw, place_P, steps_Phw)
    return ClassSums(
        class_C=class_C,
        maps_Chw=maps_Chw,
        num_maps_C=np.bincount(place_P, minlength=len(class_C)),
        density_CGG=_density(len(class_C), np.searchsorted(class_C, class_N), boxes_N4, size_N2),
    )


def _density(num_classes: int, place_N: I64, boxes_N4: F32, size_N2: I64) -> I64:
    """Count the boxes over each cell's centre: +1 and -1 at a box's corners, then summed along both axes."""
    in_cells_N4 = boxes_N4.astype(np.float64) / np.tile(size_N2, 2) * DENSITY_SIDE
    x0_N, y0_N, x1_N, y1_N = np.clip(np.ceil(in_cells_N4 - 0.5), 0, DENSITY_SIDE).astype(np.int64).T
    corners_CGG = np.zeros((num_classes, DENSITY_SIDE + 1, DENSITY_SIDE + 1), np.int64)
    for y_N, x_N, sign in ((y0_N, x0_N, 1), (y0_N, x1_N, -1), (y1_N, x0_N, -1), (y1_N, x1_N, 1)):
        np.add.at(corners_CGG, (place_N, y_N, x_N), sign)
    density_CGG: I64 = corners_CGG.cumsum(1).cumsum(2)[:, :-1, :-1]
    return density_CGG


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """A class whose maps lie where objects seldom do: on a caption, a watermark, a frame."""

    class_id: int
    place: str  # border, top left, top right, bottom left, bottom right
    share: float  # of the mean map's mass that lies there
    others: float  # median of that share over the other classes
    num_images: int


def suspected_shortcuts(sums: ClassSums) -> list[Shortcut]:
    """Return the classes whose mean map has more than `MOST` of its mass on the border ring or in one corner.

    A corner is a third of each side, rounded up. The share must also be `UNUSUAL` times the median of the other
    classes; classes of fewer than `MIN_IMAGES` maps neither are suspected nor count. Highest share first, one place a
    class; none on grids of fewer than three cells a side, or of one class alone.
    """
    known = np.flatnonzero(sums.num_maps_C >= MIN_IMAGES)
    if len(known) < 2 or min(sums.maps_Chw.shape[1:]) < 3:
        return []
    mass_Chw = sums.maps_Chw[known].astype(np.float64)
    mass_Chw /= mass_Chw.sum((1, 2), keepdims=True)
    found: dict[int, Shortcut] = {}
    for place, share_C in _places(mass_Chw).items():
        for at in np.flatnonzero(share_C > MOST):
            share, others = float(share_C[at]), float(np.median(np.delete(share_C, at)))
            class_id, num_images = int(sums.class_C[known[at]]), int(sums.num_maps_C[known[at]])
            before = found.get(class_id)
            if share >= UNUSUAL * others and (before is None or share > before.share):
                found[class_id] = Shortcut(
                    class_id=class_id, place=place, share=share, others=others, num_images=num_images
                )
    return sorted(found.values(), key=lambda shortcut: (-shortcut.share, shortcut.class_id))


def _places(mass_Chw: F64) -> dict[str, F64]:
    height, width = mass_Chw.shape[1:]
    rows, columns = -(-height // 3), -(-width // 3)
    return {
        "top left": mass_Chw[:, :rows, :columns].sum((1, 2)),
        "top right": mass_Chw[:, :rows, -columns:].sum((1, 2)),
        "bottom left": mass_Chw[:, -rows:, :columns].sum((1, 2)),
        "bottom right": mass_Chw[:, -rows:, -columns:].sum((1, 2)),
        "border": _border(mass_Chw),
    }
