"""What a calibration adds to a box recipe: thresholds of single classes, and the probability that a box is right.

A box is right where its IoU with an object of its class is at least .5. Letters: N boxes, P maps, F signals, K knots.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cam_ops.arrays import F32, F64, I32
from cam_ops.errors import UsageError

ClassThresholds = tuple[tuple[int, float], ...]
"""Thresholds of single classes, by class number."""

RIGHT_IOU = 0.5
SIGNALS = ("logit of score", "logit of energy", "log of area_fraction", "its square", "log of peak")
MIN_SHARE = 1e-6  # scores and shares are kept this far from 0 and 1, where their logarithms would be infinite
MAX_CLASSES = 2**20
MAX_KNOTS = 1000
MAX_NUMBER = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityModel:
    """A monotone map from a combined score, the weighted sum of a box's signals, to the probability of being right."""

    intercept: float
    coefficients: tuple[float, ...]  # one for each of SIGNALS
    knots: tuple[tuple[float, float], ...]  # combined score and probability, both rising; straight lines in between

    def __post_init__(self) -> None:
        numbers = [self.intercept, *self.coefficients, *(number for knot in self.knots for number in knot)]
        if len(self.coefficients) != len(SIGNALS) or not all(abs(number) <= MAX_NUMBER for number in numbers):
            raise UsageError(f"a calibration has {len(SIGNALS)} coefficients, of at most {MAX_NUMBER:.0e} as its knots")
        if not 1 <= len(self.knots) <= MAX_KNOTS or not all(0 <= probability <= 1 for _, probability in self.knots):
            raise UsageError(f"a calibration has 1 to {MAX_KNOTS} knots with probabilities from 0 to 1")
        if any(after[0] <= knot[0] or after[1] < knot[1] for knot, after in pairwise(self.knots)):
            raise UsageError("the knots of a calibration must rise")

    def probabilities(self, signals_NF: F64) -> F32:
        """Return the probability of each box, float32; beyond the knots that of the nearest one."""
        score_K, probability_K = np.array(self.knots).T
        combined_N = np.full(len(signals_NF), self.intercept)
        for signal_N, coefficient in zip(signals_NF.T, self.coefficients, strict=True):
            combined_N += coefficient * signal_N  # not a product of matrices, whose last bits depend on N
        probability_N: F32 = np.interp(combined_N, score_K, probability_K).astype(np.float32)
        return probability_N


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What applies to a run beside its normaliser and its threshold."""

    class_thresholds: ClassThresholds
    """Classes whose threshold is not the run's, in order, each once."""
    probability: ProbabilityModel

    def __post_init__(self) -> None:
        classes = [class_id for class_id, _ in self.class_thresholds]
        if len(classes) > MAX_CLASSES or not all(0 <= class_id < 2**31 for class_id in classes[:1] + classes[-1:]):
            raise UsageError(f"a calibration has at most {MAX_CLASSES} classes, numbered from 0")
        if any(after <= before for before, after in pairwise(classes)):
            raise UsageError("the classes of a calibration must be in order, each once")
        if not all(0 < threshold < 1 for _, threshold in self.class_thresholds):
            raise UsageError("the thresholds of a calibration must lie strictly between 0 and 1")


def thresholds_of(class_P: I32, class_thresholds: ClassThresholds, usual: float) -> F64:
    """Return the threshold of each class, `usual` where it has none of its own."""
    if not class_thresholds:
        return np.full(len(class_P), usual)
    own_C = np.array([class_id for class_id, _ in class_thresholds])
    threshold_C = np.array([threshold for _, threshold in class_thresholds])
    place_P = np.searchsorted(own_C, class_P).clip(max=len(own_C) - 1)
    return np.where(own_C[place_P] == class_P, threshold_C[place_P], usual)


def box_signals(score_N: F32, peak_N: F32, energy_N: F32, area_fraction_N: F32) -> F64:
    """Return what of a box its probability depends on, float64 (N, F), from the columns of the boxes table."""
    log_area_N = np.log(_clipped(area_fraction_N))
    return np.stack([_logit(score_N), _logit(energy_N), log_area_N, log_area_N**2, np.log(_clipped(peak_N))], axis=1)


def _logit(share_N: F32) -> F64:
    clipped_N = _clipped(share_N)
    logit_N: F64 = np.log(clipped_N) - np.log1p(-clipped_N)
    return logit_N


def _clipped(share_N: F32) -> F64:
    return share_N.astype(np.float64).clip(MIN_SHARE, 1 - MIN_SHARE)
