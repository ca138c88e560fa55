"""Pictures to try a network with, and its first run: whether it takes them, alone as in company.

Letters: B batch, C channels, H, W the picture, K classes.
"""

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from cam_ops.errors import CamrayError, UsageError
from cam_ops.network.takes import IDENTITY, Normalisation, device_of, noises, runs, what_it_takes
from cam_ops.settings import Size

ALONE_TOLERANCE = 1e-3  # of the largest logit: other kernels run for other batches
MAX_CHARACTERS = 300
OWN = Path(__file__).parents[1], Path(torch.__file__).parent


Given = ParamSpec("Given")
Value = TypeVar("Value")


def trial_pictures(
    network: nn.Module, image_size: Size, number: int = 2, normalisation: Normalisation = IDENTITY
) -> Tensor:
    """Return seeded noise (B, C, H, W) that the network takes: normal, or else as normalised pixels have it.

    Some networks look whether their input lies where pixels do. Raises UsageError where it takes neither.
    """
    device = device_of(network)
    normal_BCHW, pixels_BCHW = (noise.to(device) for noise in noises(number, image_size, normalisation))
    given_BCHW = normal_BCHW.clone()
    if runs(network, given_BCHW):
        if not given_BCHW.equal(normal_BCHW):
            raise UsageError(
                "the network changes the pictures that it is given, as x -= mean does in place; let its forward begin "
                "with a copy of them, x = x.clone()"
            )
        return normal_BCHW
    first_run(network, pixels_BCHW, normalisation)
    return pixels_BCHW


def first_run(network: nn.Module, images_BCHW: Tensor, normalisation: Normalisation = IDENTITY) -> Any:
    """Run a network for the first time, without gradients; raise UsageError if it fails, in whatever way."""
    try:
        with torch.no_grad():
            return network(images_BCHW)
    except Exception as error:
        kind = {1: "gray", 3: "RGB"}[images_BCHW.shape[1]]
        raise UsageError(
            f"the network cannot take {kind} pictures of {images_BCHW.shape[3]}x{images_BCHW.shape[2]} pixels "
            f"({shown(error)}); "
            f"{what_it_takes(network, images_BCHW, normalisation) or 'check --image-size, --scales and --model'}"
        ) from error


def shown(error: Exception) -> str:
    """Return what an error says in its first line, and the last line of the user's own code that it passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(folder) for folder in OWN)]
    where = f", in {own[-1].filename} line {own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:MAX_CHARACTERS]}{where}"


def in_a_sentence(look: Callable[Given, Value]) -> Callable[Given, Value]:
    """Let a look at a network raise UsageError where the network fails, in whatever way."""

    @wraps(look)
    def looked(*args: Given.args, **kwargs: Given.kwargs) -> Value:
        try:
            return look(*args, **kwargs)
        except CamrayError:
            raise
        except Exception as error:
            raise UsageError(
                "the network fails where its gradients are asked for, or something else stands in a result's place "
                f"({shown(error)})"
            ) from error

    return looked


def check_alone(network: nn.Module, images_BCHW: Tensor, logits_BK: Tensor) -> None:
    """Raise UsageError unless a picture alone has the logits that it has among others."""
    try:
        with torch.no_grad():
            alone_1K: Any = network(images_BCHW[:1])
    except Exception as error:
        raise UsageError(
            f"the network fails on a single picture ({shown(error)}), as the last batch may have; {_cause(network)}"
        ) from error
    if alone_1K.shape != logits_BK[:1].shape:
        raise UsageError(
            f"the network returns {tuple(alone_1K.shape)} for one picture, {tuple(logits_BK.shape)} for "
            f"{len(logits_BK)}; a squeeze() without its dimension does that"
        )
    if not torch.allclose(alone_1K[0], logits_BK[0], rtol=0, atol=ALONE_TOLERANCE * float(logits_BK.abs().max())):
        raise UsageError(f"the network gives a picture other logits in other company; {_cause(network)}")


def _cause(network: nn.Module) -> str:
    """Name what lets pictures influence each other, as far as modules tell."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            why = "has no running statistics" if module.running_mean is None else "is in training mode after eval()"
            return f"the batch norm {name} {why}"
    return "see what its forward does across the batch"
