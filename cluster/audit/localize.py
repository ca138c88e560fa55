"""One image's map and boxes of its true class against its true boxes and masks.

Conventions of boxes, see docs/audit.md: `OnPixels` and `AtLevels` take wsolevaluation's integers on its S x S grid,
`AsWritten` half-open pixels of the picture. Letters: G true boxes, N boxes; S, L, D, E as in `cam_ops.metrics.wsol`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cam_ops.arrays import F32, F64, I64, U8
from cam_ops.errors import BadImage
from cam_ops.metrics import localization, wsol
from cam_ops.metrics.level_sets import LevelSets, best_overlap
from cam_ops.metrics.localization import CORRECT_IOU, Failure
from cluster.audit.shard import ShardIndex, true_corners, true_integers
from cluster.formats.pixels.mask_pixels import read_mask

NOTHING_TRUE = "no true box or mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPixels:
    """A map against the pixels of true masks, or of true boxes, filled."""

    histogram_2E: I64  # scores inside and outside
    truth_area: float  # share of the grid that is inside
    points_inside: bool
    energy_inside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLevels:
    """A map's boxes at all thresholds against true boxes, and two boxes that know nothing of the map."""

    passes_2DL: U8  # 1 where the box of a level reaches an IoU: the largest contour's, any contour's
    best_iou: float  # of the largest contour at the image's own best threshold
    centre_iou: float
    whole_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AsWritten:
    """The boxes of the run's tables against true boxes."""

    iou: float  # of the best box, 0 where there is none
    best_iou: float  # of any box
    reachable_iou: float
    failure: Failure | None
    truth_area: float  # of the largest true box, as a share of the picture
    slices: frozenset[str]  # of SLICES

    @property
    def correct(self) -> bool:
        """Whether the best box is right."""
        return self.iou >= CORRECT_IOU


@dataclass(frozen=True, slots=True, kw_only=True)
class Localized:
    """How well an image's true class is localized, by what its truth says of it."""

    pixels: OnPixels | None  # None without a mask, where other images have masks
    levels: AtLevels | None  # None without a true box
    written: AsWritten | None  # None without a true box


def localize(
    levels: LevelSets,
    index: ShardIndex,
    image: dict[str, Any],
    truth: dict[str, Any],
    is_top: bool | None,
    *,
    has_masks: bool,
) -> Localized:
    """Judge an image, rows of IMAGES and TRUTH, that has a map of its true class and a true box or mask.

    `is_top`: that class has the highest score, None where that is not known. `has_masks`: the truth has masks, if not
    of this image; pixels are then counted by masks alone. Raises BadImage for a mask that cannot be read, and
    where masks are empty and there is no box either.
    """
    row, true_class = image["row"], truth["true_class"]
    at = index.map_at[row, true_class]
    width, height, rectangle_4 = image["width"], image["height"], index.rectangle_P4[at]
    objects = [box for box in truth["boxes"] if not box["crowd"]]
    map_SS = wsol.enlarged_map(index.raw_Phw[at], rectangle_4, width, height)
    score_SS = wsol.score_map(map_SS)
    scaled_by = truth["truth_width"] or width, truth["truth_height"] or height
    truth_G4 = wsol.resized_boxes(true_integers(objects), *scaled_by)
    pixels = None
    if truth["masks"] or not has_masks:
        mask_SS = _mask(truth, (width, height)) if has_masks else wsol.filled(truth_G4)
        pixels = _on_pixels(map_SS, score_SS, mask_SS) if mask_SS is not None else None
    if not objects and not pixels:
        raise BadImage(NOTHING_TRUE, "its masks are empty")
    if not objects:
        return Localized(pixels=pixels, levels=None, written=None)
    boxes_N4 = index.boxes_N4[index.boxes_of(row, true_class)]
    return Localized(
        pixels=pixels,
        levels=_at_levels(levels, score_SS, truth_G4),
        written=_as_written(boxes_N4, true_corners(objects), rectangle_4, width * height, is_top),
    )


def _mask(truth: dict[str, Any], size: tuple[int, int]) -> U8 | None:
    return read_mask(truth["masks"], truth["ignore"], wsol.SIDE, truth["turn"], size)


def _on_pixels(map_SS: F64, score_SS: F64, mask_SS: U8) -> OnPixels:
    inside_SS = (mask_SS == wsol.INSIDE).astype(np.uint8)
    return OnPixels(
        histogram_2E=wsol.score_histograms(score_SS, mask_SS),
        truth_area=float(inside_SS.mean()),
        points_inside=localization.points_inside(map_SS, inside_SS),
        energy_inside=localization.energy_inside(map_SS, inside_SS),
    )


def _at_levels(levels: LevelSets, score_SS: F64, truth_G4: I64) -> AtLevels:
    found = levels.overlaps(score_SS, truth_G4)
    overlap_2L = np.stack([found.largest_L, found.all_L])
    centre_4, whole_4 = localization.trivial_boxes(wsol.SIDE)
    return AtLevels(
        passes_2DL=(overlap_2L[:, None] >= wsol.IOU_D[:, None]).astype(np.uint8),
        best_iou=float(found.largest_L.max()),
        centre_iou=best_overlap(centre_4, truth_G4),
        whole_iou=best_overlap(whole_4, truth_G4),
    )


def _as_written(boxes_N4: F32, truth_G4: F64, rectangle_4: F32, num_pixels: int, is_top: bool | None) -> AsWritten:
    overlap_NG = localization.overlaps(boxes_N4, truth_G4)
    reachable_iou = localization.reachable_overlap(truth_G4, rectangle_4)
    largest_area = localization.areas(truth_G4).max()
    number = "one_object" if len(truth_G4) == 1 else "several_objects"
    return AsWritten(
        iou=float(overlap_NG[:1].max(initial=0)),
        best_iou=float(overlap_NG.max(initial=0)),
        reachable_iou=reachable_iou,
        failure=localization.failure_of(boxes_N4[:1], truth_G4, reachable_iou, is_top),
        truth_area=float(largest_area / num_pixels),
        slices=frozenset({localization.size_name(float(largest_area)), number}),
    )
