"""Decode a picture.

Pictures are uint8 RGB arrays of shape (H, W, 3) **after EXIF orientation**; all coordinates of the project
refer to them. Letters: H, W the picture's height and width.
"""

import io
import re
import struct

import cv2
import numpy as np
from PIL import Image

from cam_ops.arrays import U8

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own bound: 256 MiB of RGB
STL10_SIDE = 96
STL10_BYTES = 3 * STL10_SIDE * STL10_SIDE
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
PILLOW_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, ArithmeticError, EOFError, struct.error)


_ADDRESS = re.compile(r" object at 0x[0-9a-f]+")  # the tables hold nothing that changes from run to run


class BadImage(Exception):
    """A picture that cannot be used; `status` is the word for its row in the images table."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def decode(encoded: bytes) -> U8:
    """Return the picture as RGB, shape (H, W, 3), with its EXIF orientation applied.

    Raises BadImage with status ``empty``, ``too_large`` (bounds are checked on the header, before
    decoding), ``truncated`` or ``undecodable``.
    """
    if not encoded:
        raise BadImage("empty", "the file has no bytes")
    if len(encoded) > MAX_BYTES:
        raise BadImage("too_large", f"{len(encoded)} bytes, the limit is {MAX_BYTES}")
    width, height = _header_size(encoded)
    if width * height > MAX_PIXELS:
        raise BadImage("too_large", f"{width}x{height} pixels, the limit is {MAX_PIXELS}")
    try:
        image_HWC = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise BadImage("undecodable", str(error).strip()) from None
    if image_HWC is None:
        raise _why_not_decoded(encoded)
    return np.asarray(image_HWC, np.uint8)


def decode_stl10(raw: bytes) -> U8:
    """Return one picture of STL10's binary files as RGB, shape (96, 96, 3).

    Its `STL10_BYTES` bytes are the red, green and blue planes, each column by column
    (https://cs.stanford.edu/~acoates/stl10). Raises BadImage with status ``truncated`` where there are fewer.
    """
    if len(raw) < STL10_BYTES:
        raise BadImage("truncated", f"{len(raw)} of the {STL10_BYTES} bytes of an STL10 picture are left")
    planes_CWH = np.frombuffer(raw, np.uint8).reshape(3, STL10_SIDE, STL10_SIDE)
    return np.ascontiguousarray(planes_CWH.transpose(2, 1, 0))


def _header_size(encoded: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as picture:
            return picture.size
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", str(error)) from None
    except PILLOW_ERRORS as error:
        if _riff_is_cut(encoded):  # Pillow opens a WebP file only if it is whole
            raise BadImage("truncated", "the WebP file is shorter than its header says") from None
        raise BadImage(
            "undecodable", f"no header of a JPEG, PNG, WebP, BMP or TIFF file ({type(error).__name__})"
        ) from None


def _why_not_decoded(encoded: bytes) -> BadImage:
    """OpenCV 5 returns None for every damaged picture; Pillow says whether it merely ends too early."""
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as picture:
            picture.load()
    except PILLOW_ERRORS as error:
        cut = "truncated" in str(error) or "unexpected end" in str(error).lower()
        return BadImage(
            "truncated" if cut else "undecodable", f"{type(error).__name__}: {_ADDRESS.sub('', str(error))}"
        )
    return BadImage("undecodable", "OpenCV cannot decode it")


def _riff_is_cut(encoded: bytes) -> bool:
    return encoded[:4] == b"RIFF" and int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
