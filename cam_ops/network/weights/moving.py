"""What a network's modules keep beside parameters and buffers: plain attributes, which `Module.to` leaves behind.

They are tensors and modules, alone or in lists, tuples and dictionaries, of a module or of its class.
"""

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.takes import Normalisation, failure_of, noises
from cam_ops.network.trial import shown
from cam_ops.settings import Size

TORCHS_OWN = frozenset(vars(nn.Module()))
MAX_DEPTH = 4  # of lists in lists


def move(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Bring a network to `device`, and its floating-point numbers to `dtype`, in place; return it."""

    def moved(_: str, value: Tensor | nn.Module) -> Tensor | nn.Module:
        if isinstance(value, nn.Module):
            return value.to(device, dtype)
        return value.to(device, dtype if value.is_floating_point() else None)

    network.to(device, dtype)
    _map_beside(network, moved)
    return network


def hidden_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `state_dict` lacks, by name: of modules that stand in plain lists."""
    found: dict[str, Tensor] = {}

    def note(name: str, value: Tensor | nn.Module) -> Tensor | nn.Module:
        if isinstance(value, nn.Module):
            found.update({f"{name}.{inner}": tensor for inner, tensor in value.state_dict().items()})
        elif isinstance(value, nn.Parameter):
            found[name] = value
        return value

    _map_beside(network, note)
    known = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    return {name: value for name, value in found.items() if id(value) not in known}


def check_runs_there(
    network: nn.Module, size: Size, normalisation: Normalisation, device: torch.device, dtype: torch.dtype
) -> None:
    """Raise UsageError where a network that ran on the CPU fails on `device`, to which it was moved."""
    for noise_1CHW in noises(1, size, normalisation):
        failure = failure_of(network, noise_1CHW.to(device, dtype))
        if failure is None:
            return
        if isinstance(failure, (torch.OutOfMemoryError, torch.AcceleratorError)):
            raise failure
    assert failure is not None
    raise UsageError(
        f"the network runs on the CPU, but fails on {device.type} ({shown(failure)}); let its modules keep all "
        "tensors that its forward uses, by register_buffer, and make others on its input's device"
    ) from failure


def _map_beside(network: nn.Module, change: Callable[[str, Any], Any]) -> None:
    """Put `change(name, value)` in the place of each tensor and of each module that a plain attribute keeps."""
    seen = set(map(id, network.modules()))
    waiting = list(network.named_modules())

    def changed(name: str, value: Any, depth: int = 0) -> Any:
        """Return the same object where nothing in it changes."""
        if isinstance(value, nn.Module):
            if id(value) in seen:
                return value
            inner = [(f"{name}.{path}" if path else name, part) for path, part in value.named_modules()]
            waiting.extend(found for found in inner if id(found[1]) not in seen)
            seen.update(map(id, value.modules()))
            return change(name, value)
        if isinstance(value, Tensor):
            return change(name, value)
        if depth < MAX_DEPTH and isinstance(value, dict):
            new = {key: changed(f"{name}.{key}", old, depth + 1) for key, old in value.items()}
            if any(new[key] is not value[key] for key in new):
                value = copy(value)
                value.update(new)
        elif depth < MAX_DEPTH and type(value) in (list, tuple):
            items = [changed(f"{name}.{i}", old, depth + 1) for i, old in enumerate(value)]
            if any(new is not old for new, old in zip(items, value, strict=True)):
                return type(value)(items)
        return value

    while waiting:
        path, module = waiting.pop(0)
        for name, value in _plain(module):
            if (new := changed(f"{path}.{name}" if path else name, value)) is not value:
                vars(module)[name] = new


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Return a module's own attributes, and those of its class that it has no own ones for."""
    kinds = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    found: dict[str, Any] = {}
    for kind in reversed(kinds):
        found |= {name: value for name, value in vars(kind).items() if isinstance(value, (Tensor, list, tuple, dict))}
    found |= vars(module)
    return ((name, value) for name, value in found.items() if name not in TORCHS_OWN)
