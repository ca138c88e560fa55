"""Enlarge a raw class activation map to the network's input and normalise it to 0..1.

Letters: h, w the network's own grid, Y, X height and width of the enlarged map.
"""

from math import inf
from typing import Any, TypeVar

import cv2
import numpy as np

from cam_ops.arrays import F32, F64
from cam_ops.boxes.kernels import cubic_taps, enlarge
from cam_ops.settings import MapConfig, Size, height_and_width

Floats = TypeVar("Floats", F32, F64)


def enlarge_and_normalise(raw_hw: F32, size: Size, config: MapConfig) -> tuple[F64, F64]:
    """Return the enlarged raw map and the enlarged normalised map, both float64 (Y, X).

    The normalised map lies in 0..1 (the `blog` recipe's in [0, 1]); it is all 0 where the raw map is constant, holds a
    NaN, or has nothing positive for `max`. Bicubic enlargement before normalisation is wsolevaluation's order (Choe et
    al. 2020); the `blog` recipe scales first and enlarges bilinearly, in float32, as the post does.
    """
    return Enlarger(size, config).enlarge(raw_hw)


class Enlarger:
    """Enlarges and normalises maps in memory that it keeps: fresh pages cost twice the arithmetic."""

    def __init__(self, size: Size, config: MapConfig) -> None:
        self.config = config
        self.enlarged_YX, self.scaled_YX = (np.empty(height_and_width(size)) for _ in range(2))

    def enlarge(self, raw_hw: F32) -> tuple[F64, F64]:
        """Return what `enlarge_and_normalise` does, until the next call."""
        if self.enlarge_only(raw_hw) is self.enlarged_YX:
            normalise(self.enlarged_YX, self.config.normalise, self.scaled_YX)
        return self.enlarged_YX, self.scaled_YX

    def enlarge_only(self, raw_hw: F32) -> F64:
        """Return the map that is yet to be normalised, or the blog's, which is; the enlarged one is in place."""
        low, high = raw_hw.min(), raw_hw.max()
        if not -inf < low < high < inf:
            raw_hw = np.zeros_like(raw_hw)
        if self.config.recipe == "blog":
            _bilinear(raw_hw, self.enlarged_YX)
            _bilinear(normalise(raw_hw, self.config.normalise), self.scaled_YX)
            return self.scaled_YX
        (height, width), (rows, columns) = raw_hw.shape, self.enlarged_YX.shape
        down, across = cubic_taps(height, rows), cubic_taps(width, columns)
        enlarge(raw_hw, *down, *across, np.empty((height, columns)), self.enlarged_YX)
        return self.enlarged_YX


def _bilinear(map_hw: F32, enlarged_YX: F64) -> None:
    enlarged_YX[:] = cv2.resize(map_hw, enlarged_YX.shape[::-1], interpolation=cv2.INTER_LINEAR)


def normalise(cam_HW: Floats, how: str, scaled_HW: Floats | None = None) -> Floats:
    """Scale a map to 0..1 by `how`; keeps shape and dtype. The result is written to `scaled_HW` where that is given.

    `minmax` is wsolevaluation's; `max` the original ILSVRC script's; `ivr:P` is Kim et al. 2021, "Normalization Matters
    in Weakly Supervised Object Localization". A map that normalises to nothing is all 0.
    """
    scaled_HW = np.empty_like(cam_HW) if scaled_HW is None else scaled_HW
    np.subtract(cam_HW, base_of(cam_HW, how), out=scaled_HW)
    np.maximum(scaled_HW, 0, out=scaled_HW)
    peak = scaled_HW.max()
    if peak > 0:
        scaled_HW /= peak
    return scaled_HW


def base_of(cam_HW: F32 | F64, how: str) -> Any:
    """Return the value that becomes 0, and with it all below it: a scalar of the map's dtype."""
    name, _, percentile = how.partition(":")
    if name == "minmax":
        return cam_HW.min()
    return cam_HW.dtype.type(0 if name == "max" else np.percentile(cam_HW, float(percentile)))
