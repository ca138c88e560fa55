"""Enlarge a raw class activation map to the network's input and normalise it to 0..1.

Letters: h, w the network's own grid, S the side of the enlarged map.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np

from cam_ops.arrays import F32, F64
from cam_ops.errors import UsageError

Recipe = Literal["default", "blog"]
Floats = TypeVar("Floats", F32, F64)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapConfig:
    """How a raw map becomes the picture that is thresholded."""

    recipe: Recipe = "default"
    """`default` enlarges (bicubic) and then normalises; `blog` presets the seed post's values: 128 px, no mean and
    std, top1, min-max before a bilinear enlargement, boxes at .2. Explicit flags win over the preset."""
    normalise: str = "max"
    """`minmax`; `max` (negative values to 0, divide by the peak); `ivr:P` (subtract the P-th percentile first)."""

    def __post_init__(self) -> None:
        name, _, percentile = self.normalise.partition(":")
        try:
            known = (name in ("minmax", "max") and not percentile) or (name == "ivr" and 0 <= float(percentile) < 100)
        except ValueError:
            known = False
        if not known:
            raise UsageError(f"--normalise expects minmax, max or ivr:P with 0 <= P < 100, got {self.normalise!r}")


def enlarge_and_normalise(raw_hw: F32, side: int, config: MapConfig) -> tuple[F64, F64]:
    """Return the enlarged raw map and the enlarged normalised map, both float64 (S, S).

    The normalised map lies in 0..1 (the `blog` recipe's in [0, 1]); it is all 0 where the raw map is constant, holds a
    NaN, or has nothing positive for `max`. Bicubic enlargement before normalisation is wsolevaluation's order (Choe et
    al. 2020); the `blog` recipe scales first and enlarges bilinearly, in float32, as the post does.
    """
    if not np.isfinite(raw_hw).all() or raw_hw.min() == raw_hw.max():
        raw_hw = np.zeros_like(raw_hw)
    if config.recipe == "blog":
        small_hw = normalise(raw_hw, config.normalise)
        return _enlarge(raw_hw, side, cv2.INTER_LINEAR), _enlarge(small_hw, side, cv2.INTER_LINEAR)
    enlarged_SS = _enlarge(raw_hw.astype(np.float64), side, cv2.INTER_CUBIC)
    return enlarged_SS, normalise(enlarged_SS, config.normalise)


def _enlarge(map_hw: F32 | F64, side: int, interpolation: int) -> F64:
    """Resize in the map's own precision."""
    return np.asarray(cv2.resize(map_hw, (side, side), interpolation=interpolation), np.float64)


def normalise(cam_HW: Floats, how: str) -> Floats:
    """Scale a map to 0..1 by `how`; keeps shape and dtype.

    `minmax` is wsolevaluation's; `max` the original ILSVRC script's; `ivr:P` is Kim et al. 2021, "Normalization Matters
    in Weakly Supervised Object Localization". A map that normalises to nothing is all 0.
    """
    name, _, percentile = how.partition(":")
    if name == "minmax":
        scaled_HW = cam_HW - cam_HW.min()
    elif name == "max":
        scaled_HW = np.maximum(cam_HW, 0)
    else:
        scaled_HW = np.maximum(cam_HW - np.percentile(cam_HW, float(percentile)).astype(cam_HW.dtype), 0)
    peak = scaled_HW.max()
    return scaled_HW / peak if peak > 0 else np.zeros_like(cam_HW)
