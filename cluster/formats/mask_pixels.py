"""The pixels of a true object's masks. It alone of the formats needs OpenCV."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cam_ops.arrays import U8, Bools
from cam_ops.errors import BadImage
from cam_ops.metrics.wsol import IGNORED, INSIDE
from cam_ops.pictures.decode import decode_values
from cam_ops.pictures.orientation import AS_STORED, turned


def read_mask(masks: list[str], ignore: str | None, side: int, turn: int = AS_STORED) -> U8:
    """Return the union of instance masks, uint8 (side, side): 1 inside, IGNORED where only the other mask is, else 0.

    Inside is what is not 0, whatever the file's depth: a grey value, a channel of colour, the number of a colour in a
    palette. Each mask is turned as EXIF's orientation `turn` says, and resized to the nearest pixel. Raises BadImage.
    """
    inside_SS = np.zeros((side, side), np.bool_)
    for path in masks:
        inside_SS |= _read(path, side, turn)
    mask_SS = np.where(inside_SS, INSIDE, 0).astype(np.uint8)
    if ignore:
        mask_SS[_read(ignore, side, turn) & ~inside_SS] = IGNORED
    return mask_SS


def _read(path: str, side: int, turn: int) -> Bools:
    try:
        values = decode_values(Path(path).read_bytes())
    except (OSError, BadImage) as error:
        raise BadImage("mask unreadable", f"cannot read the mask {path}: {error}") from None
    inside_HW = turned(_inside(values, path), turn).astype(np.uint8)
    return np.asarray(cv2.resize(inside_HW, (side, side), interpolation=cv2.INTER_NEAREST) > 0)


def _inside(values: npt.NDArray[np.generic], path: str) -> Bools:
    """Say which pixels are inside; raises BadImage where colour and transparency each say something else."""
    channels_HWC = values.reshape(*values.shape[:2], -1)
    if channels_HWC.shape[2] != 4:
        return np.asarray(channels_HWC.any(axis=2))
    inside_HW, is_shown_HW = channels_HWC[..., :-1].any(axis=2), channels_HWC[..., -1] != 0
    if (inside_HW & ~is_shown_HW).any() or (is_shown_HW.any() and not is_shown_HW.all() and not inside_HW.any()):
        raise BadImage("mask unreadable", f"the mask {path} says one thing by its colours, another by transparency")
    return np.asarray(inside_HW)
