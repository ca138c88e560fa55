"""What an audit counts: sums over images of whole numbers, which parts of a run may be added up in any order.

Letters: R = 1 + B rows, each image once and then each bootstrap replicate; M images; F = len(FIGURES), with 2 for a
figure's numerator and denominator; D = 3 IoUs, L = 255 levels, 2 before them for the largest contour and for all; E
bins of pixel scores, 2 before them for inside and outside; S = len(SLICES).
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cam_ops.arrays import F64, I64, U8, Bools
from cam_ops.metrics.bootstrap import U64, poisson_weights, uniforms
from cam_ops.metrics.level_sets import NUM_LEVELS
from cam_ops.metrics.signals import ClassSums
from cam_ops.metrics.wsol import IOU_D, NUM_BINS

MICRO = 10**6  # steps of shares, so that their sums are whole numbers too
SPLIT_STREAM = 2**32  # of uniforms: beyond all replicates

FIGURES = (
    "gt_known_loc",
    "top1_loc",
    "top5_loc",
    "mean_best_iou",
    "oracle",
    "pointing_game",
    "energy_pointing_game",
    "reachable_50",
    "reachable_70",
    *(f"{box}_{iou}" for box in ("centre_box", "whole_image") for iou in (30, 50, 70)),
)
SLICES = ("small", "medium", "large", "one_object", "several_objects")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How images are weighted: bootstrap replicates, and the share that is fitted to; the others are held out."""

    num_replicates: int = 200
    calibrate: float = 0.0
    seed: int = 0

    @property
    def rows(self) -> range:
        """All rows: each image once, then the replicates."""
        return range(1 + self.num_replicates)

    def weights(self, seed_M: U64, rows: range | None = None) -> F64:
        """Return the weight of each image in each row, (R, M), or in successive ones of them."""
        rows = self.rows if rows is None else rows
        once_RM = np.ones((int(rows.start == 0), len(seed_M)))
        first = max(0, rows.start - 1)
        return np.concatenate([once_RM, poisson_weights(seed_M, rows.stop - 1 - first, first)])

    def chosen(self, seed_M: U64) -> Bools:
        """Say which images are fitted to, (M,); `seed` draws others. A larger share has them, too."""
        place = SPLIT_STREAM + self.seed
        chosen_M: Bools = uniforms(seed_M, range(place, place + 1))[0] < self.calibrate
        return chosen_M


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageValues:
    """What each of M images adds to the sums."""

    seed_M: U64
    passes_M2DL: U8  # 1 where the box of a level reaches an IoU
    pixels_M2E: I64
    figures_MF2: I64
    slices_MS: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The sums."""

    curve_R2DL: I64
    chosen_R2DL: I64  # of the images that the threshold is chosen on
    images_R: I64
    chosen_images_R: I64  # with true boxes
    pixels_R2E: I64
    figures_RF2: I64
    slices_SRF2: I64
    corloc: dict[int, I64] = field(default_factory=dict)  # by class: images found and images, (R, 2)
    classes: ClassSums | None = None
    excluded: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Counts") -> "Counts":
        """Add the sums over other images."""
        corloc = dict(self.corloc)
        for class_id, found_R2 in other.corloc.items():
            corloc[class_id] = corloc[class_id] + found_R2 if class_id in corloc else found_R2
        return Counts(
            curve_R2DL=self.curve_R2DL + other.curve_R2DL,
            chosen_R2DL=self.chosen_R2DL + other.chosen_R2DL,
            images_R=self.images_R + other.images_R,
            chosen_images_R=self.chosen_images_R + other.chosen_images_R,
            pixels_R2E=self.pixels_R2E + other.pixels_R2E,
            figures_RF2=self.figures_RF2 + other.figures_RF2,
            slices_SRF2=self.slices_SRF2 + other.slices_SRF2,
            corloc=corloc,
            classes=_joined(self.classes, other.classes),
            excluded=self.excluded + other.excluded,
            failures=self.failures + other.failures,
        )

    def figure(self, name: str) -> I64:
        """Return a figure's numerators and denominators, (R, 2)."""
        return self.figures_RF2[:, FIGURES.index(name)]


def _joined(one: ClassSums | None, other: ClassSums | None) -> ClassSums | None:
    return one + other if one and other else one or other


def count(values: ImageValues, split: Split) -> Counts:
    """Add up what images say."""
    weight_RM = split.weights(values.seed_M)
    chosen_RM = weight_RM * split.chosen(values.seed_M)
    has_boxes_M = values.figures_MF2[:, FIGURES.index("oracle"), 1]
    return Counts(
        curve_R2DL=_sums(weight_RM, values.passes_M2DL),
        chosen_R2DL=_sums(chosen_RM, values.passes_M2DL) if split.calibrate else _none(weight_RM, values.passes_M2DL),
        images_R=weight_RM.sum(1).astype(np.int64),
        chosen_images_R=(chosen_RM @ has_boxes_M).astype(np.int64),
        pixels_R2E=_sums(weight_RM, values.pixels_M2E),
        figures_RF2=_sums(weight_RM, values.figures_MF2),
        slices_SRF2=np.stack([_sums(weight_RM * slice_M, values.figures_MF2) for slice_M in values.slices_MS.T]),
    )


def _sums(weight_RM: F64, values_MX: np.ndarray) -> I64:
    """Return weighted sums over images, exact: all numbers are whole and below 2**53."""
    flat_MX = values_MX.reshape(len(values_MX), math.prod(values_MX.shape[1:])).astype(np.float64)
    return (weight_RM @ flat_MX).astype(np.int64).reshape(len(weight_RM), *values_MX.shape[1:])


def _none(weight_RM: F64, values_MX: np.ndarray) -> I64:
    return np.zeros((len(weight_RM), *values_MX.shape[1:]), np.int64)


def no_counts(split: Split) -> Counts:
    """Return the sums over no image."""
    nothing = ImageValues(
        seed_M=np.zeros(0, np.uint64),
        passes_M2DL=np.zeros((0, 2, len(IOU_D), NUM_LEVELS), np.uint8),
        pixels_M2E=np.zeros((0, 2, NUM_BINS), np.int64),
        figures_MF2=np.zeros((0, len(FIGURES), 2), np.int64),
        slices_MS=np.zeros((0, len(SLICES)), np.bool_),
    )
    return count(nothing, split)
