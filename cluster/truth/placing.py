"""Boxes of a truth, as they stand in its files, to pixels of the picture that is seen.

Letters: N boxes, I images. A truth has a frame of its own: pictures as they are seen, or as their files store them
before EXIF turns them (`turn_I`, 1 where it does not matter); and perhaps a size of its own, that of a copy.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F64, I32, I64, Bools
from cam_ops.pictures.orientation import AS_STORED, QUARTER, turned_boxes
from cluster.formats.entries import MAX_SIDE, Frame, are_alike

ROUNDING_PX: dict[Frame, float] = {"fractions": 0.01}  # YOLO writes six decimals
TOLERANCE_PX = 1e-6  # sums of float64, as COCO's x + width
FRACTIONS = -1.0, 2.0  # what ends of a box can be: objects may leave the picture
OUTSIDE_PX = 1  # ImageNet's own boxes end a pixel outside
SHIFTS: dict[Frame, tuple[int, ...]] = {"inclusive": (0, 0, 1, 1), "from-1": (-1, -1, 0, 0)}  # to half-open pixels


def half_open(raw_N4: F64, frame: Frame, sizes_N2: I64) -> F64:
    """Return a truth's boxes as half-open pixels; `sizes_N2` are the widths and heights that fractions are of."""
    boxes_N4 = raw_N4 * np.tile(sizes_N2, 2) if frame == "fractions" else raw_N4 + np.array(SHIFTS.get(frame, [0] * 4))
    whole_N4 = np.rint(boxes_N4)
    return np.where(np.abs(boxes_N4 - whole_N4) < ROUNDING_PX.get(frame, TOLERANCE_PX), whole_N4, boxes_N4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Widths and heights of images, 0 where unknown, and what the truth says of them."""

    pictures_I2: I64  # as they are seen
    turn_I: I32
    own_I2: I64  # in the truth's frame
    scale_by_I2: I64  # what the truth's coordinates are fractions of: its own sizes, or the pictures'
    is_swapped_I: Bools
    is_other_I: Bools  # of a copy, larger or smaller
    is_shape_I: Bools  # of a copy of another shape: whether it was stretched, cut or padded is not known

    def shown(self, sizes_I2: I64) -> I64:
        """Return widths and heights in the truth's frame as they are in that of what is seen."""
        return np.where((self.turn_I >= QUARTER)[:, None], sizes_I2[:, ::-1], sizes_I2)


def sizes_of(pictures_I2: I64, said_I2: I64, turn_I: I32) -> Sizes:
    """Compare the truth's sizes with the pictures' own, in its frame. Swapped ones are not taken."""
    own_I2 = np.where((turn_I >= QUARTER)[:, None], pictures_I2[:, ::-1], pictures_I2)
    is_said_I: Bools = np.all(said_I2 > 0, axis=1)
    differs_I = is_said_I & np.all(own_I2 > 0, axis=1) & np.any(own_I2 != said_I2, axis=1)
    is_swapped_I = differs_I & np.all(own_I2 == said_I2[:, ::-1], axis=1)
    is_alike_I = are_alike(said_I2, own_I2)
    return Sizes(
        pictures_I2=pictures_I2,
        turn_I=turn_I,
        own_I2=own_I2,
        scale_by_I2=np.where((is_said_I & ~is_swapped_I)[:, None], said_I2, own_I2),
        is_swapped_I=is_swapped_I,
        is_other_I=differs_I & ~is_swapped_I & is_alike_I,
        is_shape_I=differs_I & ~is_swapped_I & ~is_alike_I,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Boxes in the picture that is seen."""

    ours_N4: F64  # half-open pixels
    wsol_N4: I32  # wsolevaluation's integers, of the truth's own size
    is_box_N: Bools  # neither empty, inverted nor out of all bounds
    is_outside_N: Bools


def placed(raw_N4: F64, at_N: I64, frame: Frame, sizes: Sizes) -> Placed:
    """Place boxes, as they stand in the truth's files, of the images `at_N`."""
    scale_by_N2, turn_N = sizes.scale_by_I2[at_N], sizes.turn_I[at_N]
    factor_I2 = np.where(sizes.is_other_I[:, None], sizes.own_I2 / np.maximum(sizes.scale_by_I2, 1), 1)
    with np.errstate(invalid="ignore", over="ignore"):
        pixels_N4 = half_open(raw_N4, frame, scale_by_N2)
        fits_N2 = (np.abs(pixels_N4) <= MAX_SIDE).reshape(-1, 2, 2).all(axis=1) & (pixels_N4[:, :2] < pixels_N4[:, 2:])
        is_box_N: Bools = np.all(fits_N2, axis=1)
        if frame == "fractions":
            is_box_N &= np.all((raw_N4 >= FRACTIONS[0]) & (raw_N4 <= FRACTIONS[1]), axis=1)
        turned_N4 = turned_boxes(np.where(is_box_N[:, None], pixels_N4, 0), turn_N, scale_by_N2)
    ours_N4 = turned_N4 * np.tile(sizes.shown(factor_I2)[at_N], 2)
    shown_N2 = sizes.pictures_I2[at_N]
    is_outside_N2 = (ours_N4[:, :2] < -OUTSIDE_PX) | (ours_N4[:, 2:] > shown_N2 + OUTSIDE_PX)
    kept_N4 = np.where((is_box_N & (turn_N == AS_STORED))[:, None], raw_N4, _raw(turned_N4, frame))
    return Placed(
        ours_N4=ours_N4,
        wsol_N4=_wsol_integers(kept_N4, turned_N4, frame),
        is_box_N=is_box_N,
        is_outside_N=np.any(is_outside_N2, axis=1),
    )


def _raw(half_open_N4: F64, frame: Frame) -> F64:
    """Return half-open pixels as a truth in pixels would have them."""
    shifted_N4: F64 = half_open_N4 - np.array(SHIFTS.get(frame, [0] * 4))
    return shifted_N4


def _wsol_integers(raw_N4: F64, half_open_N4: F64, frame: Frame) -> I32:
    """Return the integers that wsolevaluation takes for boxes: the truth's own where its ends are inside."""
    if frame in ("inclusive", "from-1"):
        return raw_N4.astype(np.int32)
    ends_N2 = np.ceil(half_open_N4[:, 2:]) - 1
    return np.hstack([np.trunc(half_open_N4[:, :2]), ends_N2]).astype(np.int32)
