"""Fit a picture into the network's input.

Letters: H, W height and width of an array, Y, X of the network's input. Rectangles are float32
``(x0, y0, x1, y1)``, half-open, in pixels of the picture.
"""

import math

import numpy as np
import torch

from cam_ops.arrays import F32, U8
from cam_ops.pictures.decode import Decoded, crop_of
from cam_ops.settings import Interpolation, Preprocessing, height_and_width


def fit(picture: Decoded, config: Preprocessing) -> tuple[U8, F32]:
    """Resize a picture to the network's input; say which rectangle of the picture that input covers.

    Returns the input, uint8 RGB of shape (Y, X, 3), and the rectangle, shape (4,). ``warp`` covers exactly the
    whole picture; ``letterbox`` keeps the aspect ratio and pads with the mean colour, so its rectangle reaches
    beyond the picture; ``center-crop`` covers a centred part of it with the
    input's proportions. Resampling is antialiased, as in
    torchvision's own evaluation transforms. A picture at a reduced scale has the rectangle of its full scale; where its
    size is no multiple of the scale, the input is displaced by less than one of its pixels.
    """
    height, width, image_HWC = picture.height, picture.width, picture.pixels_HWC
    high, wide = height_and_width(config.image_size)
    if config.resize == "warp":
        return _resample(image_HWC, high, wide, config.interpolation), _rectangle(0, 0, width, height)
    if config.resize == "center-crop":
        crop_width, crop_height = crop_of(width, height, config)
        x, y = (width - crop_width) // 2, (height - crop_height) // 2
        edges = x, y, x + crop_width, y + crop_height
        return _resample(_inside(picture, *edges), high, wide, config.interpolation), _rectangle(*edges)
    scale = min(high / height, wide / width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    x, y = (wide - new_width) // 2, (high - new_height) // 2
    input_YX3 = np.empty((high, wide, 3), np.uint8)
    input_YX3[:] = np.round(np.array(config.mean) * 255)
    input_YX3[y : y + new_height, x : x + new_width] = _resample(image_HWC, new_height, new_width, config.interpolation)
    per_x, per_y = width / new_width, height / new_height
    return input_YX3, _rectangle(-x * per_x, -y * per_y, (wide - x) * per_x, (high - y) * per_y)


def _inside(picture: Decoded, x0: int, y0: int, x1: int, y1: int) -> U8:
    """Return the pixels of a part of the picture; in one at a reduced scale its edges are rounded."""
    height, width = picture.pixels_HWC.shape[:2]
    top, bottom = (math.floor(edge * height / picture.height + 0.5) for edge in (y0, y1))
    left, right = (math.floor(edge * width / picture.width + 0.5) for edge in (x0, x1))
    return picture.pixels_HWC[top:bottom, left:right]


def _resample(image_HWC: U8, height: int, width: int, interpolation: Interpolation) -> U8:
    image_1HWC = np.ascontiguousarray(image_HWC).reshape(1, *image_HWC.shape)
    image_1CHW = torch.from_numpy(image_1HWC.transpose(0, 3, 1, 2))  # channels last, for torch
    resized_1CHW = torch.nn.functional.interpolate(image_1CHW, size=(height, width), mode=interpolation, antialias=True)
    resized_CHW: U8 = resized_1CHW.numpy()[0]
    return resized_CHW.transpose(1, 2, 0)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> F32:
    return np.array([x0, y0, x1, y1], np.float32)
