"""What pictures a network takes: noise to try it with, and what it says of its size.

Networks say that by an attribute, as torchvision's vision transformers do, in a config, as Hugging Face's, or in the
config of their default weights, as timm's. What is said is believed only after the network has run with it.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cam_ops.settings import MAX_IMAGE_SIZE, PerChannel, Size, height_and_width

SAID = ("image_size", "img_size")
CONFIGS = ("config", "default_cfg", "pretrained_cfg")  # attributes that may say it in turn, as input_size too
UNREADABLE = (TypeError, ValueError, ArithmeticError, RuntimeError)  # what numbers raise, and tensors
MAX_SAID = 4  # sizes that are tried
WRAP = "wrap it in a module whose forward makes its channels of RGB, or of one with --channels gray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What is subtracted from pixels in 0..1 before the network gets it, and what that is divided by."""

    mean: PerChannel = (0.0, 0.0, 0.0)
    std: PerChannel = (1.0, 1.0, 1.0)

    def of(self, num_channels: int) -> "Normalisation":
        """Return that of another number of channels: the first one's, of each."""
        if num_channels == len(self.mean):
            return self
        return Normalisation(mean=self.mean[:1] * num_channels, std=self.std[:1] * num_channels)  # type: ignore[arg-type]


IDENTITY = Normalisation()


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are."""
    return next(chain(network.parameters(), network.buffers()), torch.empty(0)).device


def noises(num: int, size: Size, normalisation: Normalisation) -> tuple[Tensor, Tensor]:
    """Return pictures of noise, seeded, float32 (num, C, H, W): normal, and uniform as normalised pixels are."""
    shape = (num, len(normalisation.mean), *height_and_width(size))
    normal_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pixels_BCHW = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    return normal_BCHW, (pixels_BCHW - mean_C11) / std_C11


def what_it_takes(network: nn.Module, images_BCHW: Tensor, normalisation: Normalisation) -> str | None:
    """Say what pictures a network takes that has failed on these, and which flags make them; None where none is found.

    Tried are sizes that it says, one channel, three, and those of its first convolution.
    """
    num_channels, height, width = images_BCHW.shape[1:]
    sizes = dict.fromkeys([(height, width), *map(height_and_width, own_sizes(network))])
    first = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 1)
    for size, number in product(sizes, dict.fromkeys((num_channels, 1, 3, first))):
        if _takes(network, size, normalisation.of(number)):
            words = [] if number == num_channels else [_said_channels(number)]
            words += [] if size == (height, width) else [said_size(size)]
            return "; ".join(words) or None
    return None


def failure_of(network: nn.Module, images_BCHW: Tensor) -> Exception | None:
    """Return how a network fails on pictures, in whatever way; None where it takes them."""
    try:
        with torch.no_grad():
            network(images_BCHW)
    except Exception as error:  # noqa: BLE001  a user's network may fail in any way
        return error
    return None


def runs(network: nn.Module, images_BCHW: Tensor) -> bool:
    """Say whether a network takes pictures without an error, of whatever kind."""
    return failure_of(network, images_BCHW) is None


def _takes(network: nn.Module, size: Size, normalisation: Normalisation) -> bool:
    """Say whether a network takes normal noise, or at least what lies where pixels do."""
    return any(runs(network, noise.to(device_of(network))) for noise in noises(2, size, normalisation))


def size_that_runs(network: nn.Module, usual: Size, normalisation: Normalisation) -> Size:
    """Return `usual`, or where the network does not take that, the first size that it says and takes."""
    return next((size for size in [usual, *own_sizes(network)] if _takes(network, size, normalisation)), usual)


def own_sizes(network: nn.Module) -> list[Size]:
    """Return the first sizes that a network, or a part of it, says of its input."""
    said = chain.from_iterable(_said_by(vars(module)) for module in network.modules())
    return list(islice(dict.fromkeys(said), MAX_SAID))


def _said_by(attributes: Mapping[str, Any]) -> Iterator[Size]:
    said = [attributes.get(name) for name in SAID]
    for config in map(attributes.get, CONFIGS):
        values = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
        said += [values.get(name) for name in (*SAID, "input_size")]
    for value in said:
        with suppress(*UNREADABLE):
            yield size_of(value)


def said_size(size: Size) -> str:
    """Say what the network says, and the flag."""
    height, width = height_and_width(size)
    shown, flag = (height, height) if height == width else (f"{width}x{height}", f"{height} {width}")
    return f"it says that it takes {shown}: --image-size {flag}"


def _said_channels(number: int) -> str:
    if number == 1:
        return "it takes pictures of one channel: --channels gray"
    if number == 3:
        return "it takes RGB: --channels rgb"
    return f"it takes pictures of {number} channels: {WRAP}"


def size_of(value: Any) -> Size:
    """Read the size of an input: a square's side, (height, width), or these behind a number of channels.

    Raises one of `UNREADABLE` for anything else, and for sides that are not 8 to `MAX_IMAGE_SIZE` pixels.
    """
    sides = list(value)[-2:] if isinstance(value, (tuple, list, np.ndarray)) else [value, value]
    height, width = (int(side) for side in sides)
    whole = [float(side) for side in sides] == [height, width] and not isinstance(value, bool)
    if not whole or not all(8 <= side <= MAX_IMAGE_SIZE for side in (height, width)):
        raise ValueError
    return height if height == width else (height, width)
