"""How far probabilities and shares may be trusted: reliability curve, expected calibration error, bootstrap intervals.

Letters: N images or boxes, B replicates.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F32, F64, I64, Bools
from cam_ops.metrics.bootstrap import interval

NUM_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Boxes with a probability from `low` up to, but for the last, below `high`."""

    low: float
    high: float
    boxes: int
    probability: float | None  # their mean; None where there are none
    precision: float | None  # the share of them that is right


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """What is left where only boxes with at least a probability are kept."""

    probability: float
    boxes: int
    precision: float | None  # share of the boxes kept that is right, None where there are none
    images: float  # share of the images that keep a box


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of images in percent, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    images: int


def reliability_curve(probability_N: F32, correct_N: Bools) -> tuple[ReliabilityBin, ...]:
    """Return ten bins of equal width."""
    bin_N = np.minimum((probability_N.astype(np.float64) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        inside_N = bin_N == number
        bins.append(
            ReliabilityBin(
                low=number / NUM_BINS,
                high=(number + 1) / NUM_BINS,
                boxes=int(inside_N.sum()),
                probability=_mean(probability_N[inside_N]),
                precision=_mean(correct_N[inside_N]),
            )
        )
    return tuple(bins)


def calibration_error(curve: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error: the gap between probability and precision, averaged over the boxes.

    Naeini et al. 2015, equation 3; 0 where there are no boxes.
    """
    num_boxes = sum(entry.boxes for entry in curve)
    gaps = [entry.boxes * abs((entry.probability or 0) - (entry.precision or 0)) for entry in curve]
    return sum(gaps) / max(num_boxes, 1)


def coverage_table(probability_N: F32, correct_N: Bools, image_N: I64, num_images: int) -> tuple[CoverageRow, ...]:
    """Return ten rows, for probabilities of at least 0, .1, ... .9; `image_N` says which image a box is of."""
    rows = []
    for number in range(NUM_BINS):
        kept_N = probability_N >= np.float32(number / NUM_BINS)
        rows.append(
            CoverageRow(
                probability=number / NUM_BINS,
                boxes=int(kept_N.sum()),
                precision=_mean(correct_N[kept_N]),
                images=len(np.unique(image_N[kept_N])) / max(num_images, 1),
            )
        )
    return tuple(rows)


def _mean(values_N: F32 | Bools) -> float | None:
    return round(float(values_N.mean(dtype=np.float64)), 6) if len(values_N) else None


def share_of(correct_N: Bools, weights_BN: F64) -> Share:
    """Return the percentage of images that are right, 0 where there are none; weights are those of a bootstrap."""
    return _share(correct_N.astype(np.float64), weights_BN)


def gain_of(correct_N: Bools, before_N: Bools, weights_BN: F64) -> Share:
    """Return by how many points of a hundred more images are right than before, paired image by image."""
    return _share(correct_N.astype(np.float64) - before_N, weights_BN)


def _share(value_N: F64, weights_BN: F64) -> Share:
    value = 100 * float(value_N.sum()) / max(len(value_N), 1)
    low, high = interval(value, 100 * (weights_BN @ value_N) / np.maximum(weights_BN.sum(1), 1))
    return Share(value=round(value, 3), low=round(low, 3), high=round(high, 3), images=len(value_N))
