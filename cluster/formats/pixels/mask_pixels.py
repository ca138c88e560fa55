"""The pixels of a true object's masks. It alone of the formats needs OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt

from cam_ops.arrays import U8, Bools
from cam_ops.errors import BadImage
from cam_ops.metrics.wsol import IGNORED, INSIDE
from cam_ops.pictures.decode import decode_values
from cam_ops.pictures.header import MAX_BYTES
from cam_ops.pictures.orientation import AS_STORED, orientation_of, turned
from cluster.formats.entries import UNKNOWN, Size, are_alike
from cluster.formats.files import read_bounded

BACK = {6: 8, 8: 6}  # what undoes an orientation; the others undo themselves


def read_mask(
    masks: list[str], ignore: str | None, side: int, turn: int = AS_STORED, size: Size = UNKNOWN
) -> U8 | None:
    """Return the union of instance masks, uint8 (side, side): 1 inside, IGNORED where only the other mask is, else 0.

    Inside is what is not 0, whatever the file's depth: a grey value, a channel of colour, the number of a colour in a
    palette. Each mask is turned as EXIF's orientation `turn` of the picture says, else by its own, as a viewer shows
    it, and resized to the nearest pixel. None where nothing is inside. Raises BadImage; also where a mask has not the
    ratio of `size`, the picture's width and height as it is seen.
    """
    inside_SS, is_empty = np.zeros((side, side), np.bool_), True
    for path in masks:
        inside_HW = _read(path, turn, size)
        is_empty &= not inside_HW.any()
        inside_SS |= _resized(inside_HW, side)
    if is_empty:
        return None
    mask_SS = np.where(inside_SS, INSIDE, 0).astype(np.uint8)
    if ignore:
        mask_SS[_resized(_read(ignore, turn, size), side) & ~inside_SS] = IGNORED
    return mask_SS


def _read(path: str, turn: int, size: Size) -> Bools:
    try:
        encoded = read_bounded(path, MAX_BYTES)
        values = decode_values(encoded)
        if turn != AS_STORED:  # the pixels as the file has them are turned, not those that a viewer shows
            own = orientation_of(encoded)[0]
            values = turned(turned(values, BACK.get(own, own)), turn)
    except (OSError, BadImage) as error:
        raise BadImage("mask unreadable", f"cannot read the mask {path}: {error}") from None
    height, width = values.shape[:2]
    if None not in size and not are_alike(np.array([[width, height]]), np.array([size]))[0]:
        raise BadImage(
            "mask of another shape", f"the mask {path} has {width}x{height}, the picture {size[0]}x{size[1]}"
        )
    return _inside(values, path)


def _resized(inside_HW: Bools, side: int) -> Bools:
    resized_SS = cv2.resize(inside_HW.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized_SS > 0)


def _inside(values: npt.NDArray[np.generic], path: str) -> Bools:
    """Say which pixels are inside; raises BadImage where colour and transparency each say something else."""
    channels_HWC = values.reshape(*values.shape[:2], -1)
    if channels_HWC.shape[2] != 4:
        return np.asarray(channels_HWC.any(axis=2))
    inside_HW, is_shown_HW = channels_HWC[..., :-1].any(axis=2), channels_HWC[..., -1] != 0
    if (inside_HW & ~is_shown_HW).any() or (is_shown_HW.any() and not is_shown_HW.all() and not inside_HW.any()):
        raise BadImage("mask unreadable", f"the mask {path} says one thing by its colours, another by transparency")
    return np.asarray(inside_HW)
