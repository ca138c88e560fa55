"""Decode a picture.

Pictures are uint8 RGB arrays of shape (H, W, 3) **after EXIF orientation**; all coordinates of the project
refer to them, also where a picture was decoded at a reduced scale. Letters: H, W height and width of an array.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageOps
from PIL.Image import Image

from cam_ops.arrays import U8
from cam_ops.errors import BadImage
from cam_ops.pictures.formats import OPENCV
from cam_ops.pictures.header import JPEG, PILLOW_ERRORS, PNG, Header, open_picture, read_header, why_not_decoded
from cam_ops.pictures.orientation import orientation_of, turned
from cam_ops.settings import Preprocessing, height_and_width

STL10_SIDE = 96
STL10_BYTES = 3 * STL10_SIDE * STL10_SIDE
PNG_KIND_AT, PNG_PALETTE, PNG_ALPHA = 25, 3, (4, 6)  # a byte of its header
SCALES = (8, 4, 2)  # that libjpeg decodes at by smaller inverse transforms: 1 / n, sizes rounded up
FLAGS = {  # the `GRAYSCALE` ones carry the scale alone; the `COLOR` ones ask for BGR as well, which excludes RGB
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture's pixels, perhaps fewer than it has, and its own size, which coordinates refer to."""

    pixels_HWC: U8
    width: int
    height: int


def whole(image_HWC: U8) -> Decoded:
    """Return a picture at its full scale."""
    height, width = image_HWC.shape[:2]
    return Decoded(pixels_HWC=image_HWC, width=width, height=height)


def decode(encoded: bytes) -> U8:
    """Return the picture as RGB, shape (H, W, 3), with its EXIF orientation applied.

    Raises BadImage with status ``empty``, ``too_large`` (bounds are checked on the header, before
    decoding), ``truncated`` or ``undecodable``.
    """
    return _decode_at(1, encoded, read_header(encoded)).pixels_HWC


def decode_values(encoded: bytes) -> npt.NDArray[np.generic]:
    """Return a picture's own values, (H, W) or (H, W, C), with its EXIF orientation applied.

    Depth and channels are the file's: 16 bits stay 16 bits, a PNG's alpha is the last channel. Of a palette they are
    the numbers of its colours, not the colours. Colours stand in OpenCV's order. Raises BadImage as `decode` does.
    """
    header = read_header(encoded)
    kind = encoded[PNG_KIND_AT] if encoded.startswith(PNG) else None
    values: npt.NDArray[np.generic] | None
    try:
        if kind == PNG_PALETTE or header.form not in OPENCV:
            with open_picture(io.BytesIO(encoded), header.form) as picture:
                values = np.asarray(picture)
        else:
            flags = cv2.IMREAD_UNCHANGED if kind in PNG_ALPHA else cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
            values = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
            if values is not None and kind not in PNG_ALPHA:
                return values  # turned by OpenCV
        if values is not None:
            return turned(values, orientation_of(encoded)[0])
    except PILLOW_ERRORS:
        pass
    except cv2.error as error:
        raise BadImage("undecodable", str(error).strip()) from None
    raise why_not_decoded(encoded, header.form)


def decode_for(encoded: bytes, config: Preprocessing) -> Decoded:
    """Return the picture with the pixels that the network's input is made from.

    With ``config.decode`` ``reduced`` a large JPEG is decoded at 1/2, 1/4 or 1/8, at which it is still no smaller than
    that input. Raises what `decode` raises.
    """
    header = read_header(encoded)
    may_reduce = config.decode == "reduced" and encoded.startswith(JPEG)
    return _decode_at(_scale(header.width, header.height, config) if may_reduce else 1, encoded, header)


def _scale(width: int, height: int, config: Preprocessing) -> int:
    """Return the largest n so that the picture at 1/n has the input's pixels, and shows whether it was turned.

    Sides that differ by a few pixels may be equal at 1/n; such a picture is decoded at a scale at which they differ.
    """
    most = min(_per_pixel(width, height, config), _per_pixel(height, width, config))  # it may be turned yet
    for n in SCALES:
        if most >= n and (width == height or -(-width // n) != -(-height // n)):
            return n
    return 1


def _per_pixel(width: int, height: int, config: Preprocessing) -> float:
    """Return how many of the picture's pixels, in a row, become one of the network's input, where those are fewest."""
    high, wide = height_and_width(config.image_size)
    if config.resize == "letterbox":
        return max(width / wide, height / high)
    if config.resize == "center-crop":
        width, height = crop_of(width, height, config)
    return min(width / wide, height / high)


def crop_of(width: int, height: int, config: Preprocessing) -> tuple[int, int]:
    """Return width and height of the centred part that ``center-crop`` keeps, in pixels of the picture.

    It is the largest of the input's proportions, times `crop_fraction`.
    """
    high, wide = height_and_width(config.image_size)
    whole = (width, width * high / wide) if width * high <= height * wide else (height * wide / high, height)
    crop_width, crop_height = (max(1, round(side * config.crop_fraction)) for side in whole)
    return crop_width, crop_height


def _decode_at(scale: int, encoded: bytes, header: Header) -> Decoded:
    """Decode at 1 / `scale` a picture with the given header, whose size is that before EXIF orientation."""
    pixels_HWC = _by_opencv(scale, encoded, header) if header.form in OPENCV else _by_pillow(encoded, header)
    width, height = header.width, header.height
    for wide, high in ((width, height), (height, width)):  # as it is, or turned by its EXIF orientation
        if pixels_HWC.shape[:2] == (-(-high // scale), -(-wide // scale)):
            return Decoded(pixels_HWC=pixels_HWC, width=wide, height=high)
    high, wide = pixels_HWC.shape[:2]
    raise BadImage("undecodable", f"it has {wide}x{high} pixels, by its header {width}x{height}")


def _by_opencv(scale: int, encoded: bytes, header: Header) -> U8:
    try:
        decoded_HWC = cv2.imdecode(np.frombuffer(encoded, np.uint8), FLAGS[scale])
    except cv2.error as error:
        raise BadImage("undecodable", str(error).strip()) from None
    if decoded_HWC is None:
        raise why_not_decoded(encoded, header.form)
    return np.asarray(decoded_HWC, np.uint8)


def _by_pillow(encoded: bytes, header: Header) -> U8:
    try:
        with open_picture(io.BytesIO(encoded), header.form) as picture:
            return _rgb(ImageOps.exif_transpose(picture))
    except PILLOW_ERRORS:
        raise why_not_decoded(encoded, header.form) from None


def _rgb(picture: Image) -> U8:
    """Return pixels as RGB; of 16 bits the upper eight, transparency dropped."""
    if not picture.mode.startswith("I"):
        return np.array(picture.convert("RGB"))
    grey_HW = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    return np.repeat(grey_HW[..., None], 3, axis=2)


def decode_stl10(raw: bytes) -> U8:
    """Return one picture of STL10's binary files as RGB, shape (96, 96, 3).

    Its `STL10_BYTES` bytes are the red, green and blue planes, each column by column
    (https://cs.stanford.edu/~acoates/stl10). Raises BadImage with status ``truncated`` where there are fewer.
    """
    if len(raw) < STL10_BYTES:
        raise BadImage("truncated", f"{len(raw)} of the {STL10_BYTES} bytes of an STL10 picture are left")
    planes_CWH = np.frombuffer(raw, np.uint8).reshape(3, STL10_SIDE, STL10_SIDE)
    return np.ascontiguousarray(planes_CWH.transpose(2, 1, 0))
