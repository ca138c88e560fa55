"""What a user's factory says of its network's input: a mapping, timm's data config, or torchvision's preset.

Mean and std are for RGB scaled to 0..1, or of one number for gray. What is not said is None; a name that means nothing
here is refused, as it may be one that is misspelt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import numpy as np
from torchvision.transforms._presets import ImageClassification

from cam_ops.errors import UsageError
from cam_ops.network.takes import UNREADABLE, WRAP, size_of
from cam_ops.settings import MAX_IMAGE_SIZE, Channels, Interpolation, PerChannel, Size

OURS = ("mean", "std", "image_size", "interpolation", "crop_fraction", "channels")
TIMMS = {"input_size": "image_size", "crop_pct": "crop_fraction"}
CHANNELS: dict[str, Channels] = {"3": "rgb", "rgb": "rgb", "1": "gray", "gray": "gray"}
SILENT = ("crop_mode",)  # of timm's: --resize says how a picture fits
INTERPOLATIONS = ("bilinear", "bicubic")
EXPECTED = f"a mapping with {', '.join(OURS)}, or transforms() of torchvision's weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What is said of a network's input."""

    channels: Channels | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    image_size: Size | None = None
    interpolation: Interpolation | None = None
    crop_fraction: float | None = None


def read_inputs(given: object, model: str, channels: Channels | None = None) -> Inputs:
    """Return what `given`, which came with the network of `model`, says; a flag may say its `channels`.

    Raises UsageError where it means nothing.
    """
    if given is None:
        return Inputs()
    if isinstance(given, ImageClassification):
        given = {
            "mean": given.mean,
            "std": given.std,
            "image_size": given.crop_size[0],
            "interpolation": given.interpolation,
            "crop_fraction": given.crop_size[0] / given.resize_size[0],
        }
    if not isinstance(given, Mapping):
        raise UsageError(f"{model} returns {type(given).__name__} beside the network; expected {EXPECTED}")
    names = [str(name) for name in given if name not in SILENT]
    said = {TIMMS.get(name, name): value for name, value in given.items() if name not in SILENT}
    if len(said) < len(names):
        raise UsageError(f"{model} says one thing of its input by two names: {', '.join(map(str, given))}; keep one")
    if strange := [name for name in names if name not in (*OURS, *TIMMS)]:
        shown = ", ".join(strange[:5])
        raise UsageError(f"{model} says {shown} of its input, which means nothing here; expected {EXPECTED}")
    if "gray" in (channels, _channels(given, None, None, model)):
        said |= {name: (said[name],) for name in ("mean", "std") if _is_number(said.get(name))}
    mean = _of(
        said, "mean", _mean, "three numbers for RGB in 0..1, as torchvision writes them, or (0.5,) for gray", model
    )
    std = _of(said, "std", _std, "three numbers above 0 for RGB in 0..1, or (0.5,) for gray", model)
    return Inputs(
        channels=_channels(given, mean, std, model),
        mean=mean,
        std=std,
        image_size=_of(
            said, "image_size", size_of, f"a side, or height and width, of 8 to {MAX_IMAGE_SIZE} pixels", model
        ),
        interpolation=_of(said, "interpolation", _interpolation, " or ".join(INTERPOLATIONS), model),
        crop_fraction=_of(said, "crop_fraction", _fraction, "a number above 0, at most 1", model),
    )


def _of(said: Mapping[Any, Any], name: str, read: Any, expected: str, model: str) -> Any:
    """Return what is said by `name`, None where nothing is."""
    value = said.get(name)
    if value is None:
        return None
    try:
        return read(value)
    except UNREADABLE:
        raise UsageError(f"{model} says {name} {str(value)[:100]} of its input; expected {expected}") from None


def _channels(given: Mapping[Any, Any], mean: PerChannel | None, std: PerChannel | None, model: str) -> Channels | None:
    """Return the one meaning of all that is said of channels: by that name, before a size, by the length of others."""
    said: dict[str, Any] = {name: len(numbers) for name, numbers in (("mean", mean), ("std", std)) if numbers}
    said |= {"channels": given["channels"]} if given.get("channels") is not None else {}
    for name in ("image_size", "input_size"):
        if isinstance(given.get(name), (tuple, list, np.ndarray)) and len(given[name]) == 3:
            said[name] = given[name][0]
    found = {name: CHANNELS.get(str(value)) for name, value in said.items()}
    for name, value in said.items():
        if found[name] is None:
            raise UsageError(
                f"{model} says by {name} that its network takes {str(value)[:100]} channels; expected 3, which is rgb, "
                f"or 1, which is gray: {WRAP}"
            )
    if len({*found.values()}) > 1:
        raise UsageError(f"{model} says two things of channels: " + ", ".join(f"{n} {c}" for n, c in found.items()))
    return next(iter(found.values()), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or getattr(value, "shape", None) == ()


def _numbers(value: Any) -> PerChannel:
    numbers = tuple(float(number) for number in value)
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise ValueError
    return cast(PerChannel, numbers)


def _mean(value: Any) -> PerChannel:
    mean = _numbers(value)
    if max(mean) > 1:  # of 0..255
        raise ValueError
    return mean


def _std(value: Any) -> PerChannel:
    std = _numbers(value)
    if min(std) <= 0 or max(std) > 1:  # of 0..255
        raise ValueError
    return std


def _interpolation(value: Any) -> Interpolation:
    word = value.value if isinstance(value, Enum) else value
    if word not in INTERPOLATIONS:
        raise ValueError
    return cast(Interpolation, word)


def _fraction(value: Any) -> float:
    fraction = float(value)
    if not 0 < fraction <= 1:
        raise ValueError
    return fraction
