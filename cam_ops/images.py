"""Decode a picture, and fit it into the network's square input.

Pictures are uint8 RGB arrays of shape (H, W, 3) **after EXIF orientation**; all coordinates of the project
refer to them. Letters: H, W the picture's height and width, S the side of the network's input.
Rectangles are float32 ``(x0, y0, x1, y1)``, half-open, in pixels of the picture.
"""

import io
import re
import struct
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

from cam_ops.arrays import F32, U8

Resize = Literal["warp", "letterbox", "center-crop"]
Interpolation = Literal["bilinear", "bicubic"]

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
        raise BadImage("too_large", f"more than {MAX_BYTES} bytes")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the network's input; mean and std are for RGB scaled to 0..1."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    resize: Resize
    crop_fraction: float  # side of the centre crop as a fraction of the picture's shorter side


def fit(image_HWC: U8, config: Preprocessing) -> tuple[U8, F32]:
    """Resize a picture to the network's input; say which rectangle of the picture that input covers.

    Returns the input, uint8 RGB of shape (S, S, 3), and the rectangle, shape (4,). ``warp`` covers exactly the
    whole picture; ``letterbox`` keeps the aspect ratio and pads with the mean colour, so its rectangle reaches
    beyond the picture; ``center-crop`` covers a centred square inside it. Resampling is antialiased, as in
    torchvision's own evaluation transforms.
    """
    height, width = image_HWC.shape[:2]
    side = config.image_size
    if config.resize == "warp":
        return _resample(image_HWC, side, side, config.interpolation), _rectangle(0, 0, width, height)
    if config.resize == "center-crop":
        crop = max(1, round(min(height, width) * config.crop_fraction))
        x, y = (width - crop) // 2, (height - crop) // 2
        inside_HWC = image_HWC[y : y + crop, x : x + crop]
        return _resample(inside_HWC, side, side, config.interpolation), _rectangle(x, y, x + crop, y + crop)
    scale = side / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    x, y = (side - new_width) // 2, (side - new_height) // 2
    square_SS3 = np.empty((side, side, 3), np.uint8)
    square_SS3[:] = np.round(np.array(config.mean) * 255)
    square_SS3[y : y + new_height, x : x + new_width] = _resample(
        image_HWC, new_height, new_width, config.interpolation
    )
    per_x, per_y = width / new_width, height / new_height
    return square_SS3, _rectangle(-x * per_x, -y * per_y, (side - x) * per_x, (side - y) * per_y)


def _resample(image_HWC: U8, height: int, width: int, interpolation: Interpolation) -> U8:
    image_1CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).permute(2, 0, 1)[None]
    resized_1CHW = torch.nn.functional.interpolate(image_1CHW, size=(height, width), mode=interpolation, antialias=True)
    resized: U8 = resized_1CHW[0].permute(1, 2, 0).numpy()
    return resized


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> F32:
    return np.array([x0, y0, x1, y1], np.float32)
