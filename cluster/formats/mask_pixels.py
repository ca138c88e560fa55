"""The pixels of a true object's masks, read as wsolevaluation does. It alone of the formats needs OpenCV."""

from pathlib import Path

import cv2
import numpy as np

from cam_ops.arrays import U8
from cam_ops.errors import BadImage
from cam_ops.metrics.wsol import IGNORED, INSIDE
from cam_ops.pictures.decode import decode


def read_mask(masks: list[str], ignore: str | None, side: int) -> U8:
    """Return the union of instance masks, uint8 (side, side): 1 inside, IGNORED where only the other mask is, else 0.

    Each is read in grey, resized to the nearest pixel, and inside where above 0.5. Raises BadImage.
    """
    inside_SS = np.zeros((side, side), np.bool_)
    for path in masks:
        inside_SS |= _read(path, side)
    mask_SS = np.where(inside_SS, INSIDE, 0).astype(np.uint8)
    if ignore:
        mask_SS[_read(ignore, side) & ~inside_SS] = IGNORED
    return mask_SS


def _read(path: str, side: int) -> np.ndarray:
    try:
        pixels_HW3 = decode(Path(path).read_bytes())
    except (OSError, BadImage) as error:
        raise BadImage("mask unreadable", f"cannot read the mask {path}: {error}") from None
    grey_HW = cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.resize(grey_HW, (side, side), interpolation=cv2.INTER_NEAREST) > 0.5
