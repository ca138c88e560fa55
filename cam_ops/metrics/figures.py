"""From an audit's counts to figures by the field's names, each with its interval.

Letters as in `cam_ops.metrics.counts`; T = 1000 thresholds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cam_ops.arrays import F64, I64
from cam_ops.metrics import wsol
from cam_ops.metrics.bootstrap import interval
from cam_ops.metrics.counts import FIGURES, MICRO, SLICES, Counts

Unit = Literal["percent", "ratio"]
MOST: dict[Unit, float] = {"percent": 100.0, "ratio": np.inf}
LARGEST, ALL = 0, 1  # contours
AT_50 = 1  # place among IOU_D

NAMES = {"oracle": "box_acc_oracle", "centre_box_50": "centre_box", "whole_image_50": "whole_image"}
"""Figures that are called otherwise when they are told; `box_acc_oracle` takes each image's best threshold."""

OF_PIXELS = ("pointing_game", "energy_pointing_game", "energy_ratio")  # masks do for these

NO_IMAGES = "no image has both a map of its true class and what this figure needs"
NO_MASKS = "the truth has no masks; see px_ap_box_filled"
NO_BOXES = "the truth has masks alone"
NO_CLASSES = "the truth and the run share no class; --class-map WORD=CLASS says what a word of the truth means"
NONE_CHOSEN = "--calibrate drew none of the images; a larger share or another --seed may"
BEST = "at the threshold that is best on the audited images themselves, as the literature reports it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: of the images, and of each bootstrap replicate of them; NaN where it cannot be had."""

    value_R: F64
    images: int
    unit: Unit = "percent"
    reason: str | None = None  # why there is no value
    note: str | None = None
    threshold: float | tuple[float, ...] | None = None

    def document(self) -> dict[str, object]:
        """Return the figure as it stands in metrics.json; its interval ends where its values do."""
        low, high = np.clip(interval(float(self.value_R[0]), self.value_R[1:]), 0, MOST[self.unit])
        shown = {"value": self.value_R[0], "low": low, "high": high}
        document: dict[str, object] = {name: float(x) if np.isfinite(x) else None for name, x in shown.items()}
        document |= {"images": self.images, "unit": self.unit}
        document["reason"] = self.reason or (NO_IMAGES if document["value"] is None else None)
        document["note"] = self.note
        return document | ({} if self.threshold is None else {"threshold": self.threshold})


def missing(reason: str, num_rows: int) -> Figure:
    """Return a figure that cannot be had."""
    return Figure(value_R=np.full(num_rows, np.nan), images=0, reason=reason)


def figures_of(counts: Counts, *, has_masks: bool, has_boxes: bool, calibrate: bool) -> dict[str, Figure]:
    """Return every figure that sums over images give, by name."""
    num_rows = len(counts.images_R)
    pixels = _pixels(counts.pixels_R2E, int(counts.figure("pointing_game")[0, 1]))
    no_pixels = missing(NO_MASKS if has_boxes else NO_IMAGES, num_rows)
    figures = {"px_ap": pixels} if has_masks else {"px_ap": no_pixels, "px_ap_box_filled": pixels}
    boxes = {
        **_best(counts),
        **(_chosen(counts) if calibrate else {}),
        **_means(counts.figures_RF2),
        **_trivial(counts),
    }
    if not has_boxes:
        boxes = {name: figure if name in OF_PIXELS else missing(NO_BOXES, num_rows) for name, figure in boxes.items()}
    return {**boxes, **figures}


def slices_of(counts: Counts) -> dict[str, dict[str, Figure]]:
    """Return the figures that are means over images, of each slice of them."""
    return {name: _means(slice_RF2) for name, slice_RF2 in zip(SLICES, counts.slices_SRF2, strict=True)}


def _share(numerator_R: I64, denominator_R: I64) -> F64:
    """Return percent, NaN where there is nothing to divide by; of more axes, too."""
    percent_R = np.full(numerator_R.shape, np.nan)
    np.divide(100.0 * numerator_R, denominator_R, out=percent_R, where=denominator_R > 0)
    return percent_R


def _means(figures_RF2: I64) -> dict[str, Figure]:
    figures = {}
    for f, name in enumerate(FIGURES):
        sums_R, images_R = figures_RF2[:, f].T
        figures[NAMES.get(name, name)] = Figure(value_R=_share(sums_R, images_R) / MICRO, images=int(images_R[0]))
    inside = figures["energy_pointing_game"]
    with np.errstate(divide="ignore"):
        ratio_R = inside.value_R / (100 - inside.value_R)
    figures["energy_ratio"] = Figure(value_R=ratio_R, images=inside.images, unit="ratio")
    return figures


def _best(counts: Counts) -> dict[str, Figure]:
    """Return MaxBoxAcc (largest contour) and MaxBoxAccV2 (all contours, each IoU at its own threshold)."""
    images_R = counts.figure("oracle")[:, 1]
    accuracy_R2D = _share(counts.curve_R2DL.max(3), images_R[:, None, None])
    best_2D = counts.curve_R2DL[0].argmax(2)
    threshold_2D = [[_threshold(level) for level in row] for row in best_2D]
    num_images = int(images_R[0])

    def best(value_R: F64, threshold: float | tuple[float, ...]) -> Figure:
        return Figure(value_R=value_R, images=num_images, note=BEST, threshold=threshold)

    return {
        "max_box_acc": best(accuracy_R2D[:, LARGEST, AT_50], threshold_2D[LARGEST][AT_50]),
        "max_box_acc_v2": best(accuracy_R2D[:, ALL].mean(1), tuple(threshold_2D[ALL])),
        **{
            f"max_box_acc_v2_{round(100 * iou)}": best(accuracy_R2D[:, ALL, d], threshold_2D[ALL][d])
            for d, iou in enumerate(wsol.IOU_D)
        },
    }


def _threshold(level: int) -> float:
    """Return the least threshold that falls on a level."""
    return round(float(wsol.THRESHOLD_T[wsol.LEVEL_T.searchsorted(level)]), 3)


def _chosen(counts: Counts) -> dict[str, Figure]:
    """Return the accuracies of the images that are left, at thresholds chosen on the others; so in each replicate."""
    num_chosen = int(counts.chosen_images_R[0])
    if not num_chosen:
        names, num_rows = ("box_acc_calibrated", "box_acc_v2_calibrated"), len(counts.chosen_images_R)
        return {name: missing(NONE_CHOSEN, num_rows) for name in names}
    level_R2D = counts.chosen_R2DL.argmax(3)
    left_R2DL = counts.curve_R2DL - counts.chosen_R2DL
    images_R = counts.figure("oracle")[:, 1] - counts.chosen_images_R
    found_R2D = np.take_along_axis(left_R2DL, level_R2D[..., None], axis=3)[..., 0]
    accuracy_R2D = _share(found_R2D, np.where(counts.chosen_images_R > 0, images_R, 0)[:, None, None])
    note = f"at the threshold that is best on {num_chosen} other images"
    return {
        "box_acc_calibrated": Figure(
            value_R=accuracy_R2D[:, LARGEST, AT_50],
            images=int(images_R[0]),
            note=note,
            threshold=_threshold(level_R2D[0, LARGEST, AT_50]),
        ),
        "box_acc_v2_calibrated": Figure(
            value_R=accuracy_R2D[:, ALL].mean(1),
            images=int(images_R[0]),
            note=note,
            threshold=tuple(map(_threshold, level_R2D[0, ALL])),
        ),
    }


def _trivial(counts: Counts) -> dict[str, Figure]:
    """Return MaxBoxAccV2 of boxes that know nothing of the image: what a method must beat."""
    figures = {}
    for box in ("centre_box", "whole_image"):
        shares = [_share(*counts.figure(f"{box}_{round(100 * iou)}").T) / MICRO for iou in wsol.IOU_D]
        images = int(counts.figure(f"{box}_50")[0, 1])
        figures[f"{box}_v2"] = Figure(value_R=np.mean(shares, axis=0), images=images)
    return figures


def _pixels(pixels_R2E: I64, num_images: int) -> Figure:
    value_R = np.array([wsol.pixel_average_precision(counts_2E) for counts_2E in pixels_R2E])
    return Figure(value_R=value_R, images=num_images)


def corloc(counts: Counts) -> Figure:
    """Return CorLoc: by class, the share of images whose best box of it is right, averaged over classes."""
    num_rows = len(counts.images_R)
    if not counts.corloc:
        return missing(NO_IMAGES, num_rows)
    shares_CR = np.array([_share(*found_R2.T) for found_R2 in counts.corloc.values()])
    known_CR = np.isfinite(shares_CR)
    value_R = np.full(num_rows, np.nan)
    np.divide(np.where(known_CR, shares_CR, 0).sum(0), known_CR.sum(0), out=value_R, where=known_CR.any(0))
    return Figure(value_R=value_R, images=sum(int(found_R2[0, 1]) for found_R2 in counts.corloc.values()))


def curves(counts: Counts) -> dict[str, F64]:
    """Return the curves over all T thresholds, in percent, precision and recall of pixels as shares; (T,) each.

    Without true boxes those of boxes are NaN.
    """
    images = int(counts.figure("oracle")[0, 1]) or np.nan
    curve_2DT = 100.0 * counts.curve_R2DL[0][:, :, wsol.LEVEL_T] / images
    precision_E, recall_E = wsol.pixel_curve(counts.pixels_R2E[0])
    num_thresholds = len(wsol.THRESHOLD_T)
    return {
        "threshold": wsol.THRESHOLD_T,
        **{
            f"{name}_{round(100 * iou)}": curve_2DT[contours, d]
            for name, contours in (("box_acc", LARGEST), ("box_acc_v2", ALL))
            for d, iou in enumerate(wsol.IOU_D)
        },
        "px_precision": precision_E[::-1][:num_thresholds],
        "px_recall": recall_E[::-1][:num_thresholds],
    }
