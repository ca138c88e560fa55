"""Read a file of weights without running code from it."""

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cam_ops.errors import MachineError, UsageError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where trainers keep the state_dict in a checkpoint
UNREADABLE = (  # what torch and safetensors raise for files that are damaged or of another kind
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, safetensors.SafetensorError),
)
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors or torch-saved state_dict, also inside a checkpoint; no code in the file can run.

    Prefixes that DataParallel and torch.compile put before every name are removed.
    """
    if not path.is_file():
        raise MachineError(f"expected a weights file at {path}, there is none; check --weights")
    try:
        if path.suffix.lower() == ".safetensors":
            loaded: Any = safetensors.torch.load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UsageError(f"cannot read the weights file {path}: {error}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S{1,200})", str(error))  # the rest is advice on how to run it all the same
        code = f"code that it names, {named[1]!r}" if named else "code from the file"
        raise UsageError(
            f"{path} is not a plain state_dict: loading it would run {code}, which is refused; save it with "
            "torch.save(network.state_dict(), ...) or as .safetensors"
        ) from None
    while isinstance(loaded, dict) and (inner := next((w for w in WRAPPERS if isinstance(loaded.get(w), dict)), None)):
        loaded = loaded[inner]
    if not isinstance(loaded, dict) or not loaded or not all(map(_is_parameter, loaded.items())):
        raise UsageError(f"expected a state_dict (names to dense real tensors) in {path}, found something else")
    state: dict[str, Tensor] = loaded
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_parameter(entry: tuple[Any, Any]) -> bool:
    name, tensor = entry
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        return False
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_complex()
