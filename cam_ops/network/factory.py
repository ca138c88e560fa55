"""A user's own network: ``package.module:function``, or ``FILE.py:function`` for a file by its path.

The function takes no arguments and returns the network with its weights in place, or a pair of that and what is to be
known of its input. A name that is the network itself will do. Here the user's own code runs.
"""

import copy
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cam_ops.errors import CamrayError, UsageError
from cam_ops.network.inputs import EXPECTED, Inputs, read_inputs
from cam_ops.network.names import check_factory_file, factory_parts, is_file
from cam_ops.network.weights.moving import move
from cam_ops.settings import Channels
from cam_ops.words import near

EXTRA = "_extra_state"  # of a module's own, beside its tensors


def call_factory(model: str, channels: Channels | None = None) -> tuple[nn.Module, Inputs]:
    """Return the network of a factory, float32 and on the CPU, and what it says of its input; flags say `channels`.

    Raises UsageError where it cannot be imported, fails or returns something else, MachineError where there is no such
    file on this machine.
    """
    place, function = factory_parts(model)
    factory = _imported(model, place, function)
    try:  # the module keeps a network of its own as it is
        found = copy.deepcopy(factory) if isinstance(factory, nn.Module) else factory()
    except CamrayError:
        raise
    except (Exception, SystemExit) as error:  # a user's function may fail in any way
        raise UsageError(f"the factory {model} failed: {type(error).__name__}: {error}") from error
    network, said = found, None
    if isinstance(found, (tuple, list)):
        if len(found) != 2:
            raise UsageError(f"{model} returns {len(found)} things; expected the network, or it and {EXPECTED}")
        network, said = found
    network = _unwrapped(network)
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        raise UsageError(f"expected {model} to return a plain torch.nn.Module, got {type(network).__name__}")
    try:
        network.eval()
    except NotImplementedError as error:  # of torch.export
        raise UsageError(
            f"expected {model} to return a network in Python, got an exported program ({error}); return the network "
            "that was exported"
        ) from error
    except Exception as error:  # of a user's own train()
        raise UsageError(f"the network of {model} fails in its eval(): {type(error).__name__}: {error}") from error
    if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        raise UsageError(f"the network of {model} has lazy parameters without a shape; run it once in the factory")
    _check_state(network, model)
    _check_numbers(network, model)
    _check_float32(network, model)
    return move(network, torch.device("cpu"), torch.float32), read_inputs(said, model, channels)


def _unwrapped(network: Any) -> Any:
    """Return a network without the wrappers that replicas have no use for, wherever they are in it.

    What torch.compile runs cannot be watched; DataParallel copies the network to all GPUs of the machine.
    """
    network = _inside(network)
    if isinstance(network, nn.Module):
        for module in list(network.modules()):
            module._compiled_call_impl = None  # of its method compile()
            for name, child in module._modules.items():
                module._modules[name] = _inside(child)
    if "torch._dynamo" in sys.modules:  # functions that torch.compile made
        torch.compiler.set_stance("force_eager")
    return network


def _inside(network: Any) -> Any:
    """Return what is in all wrappers of a network; what it is, where it is none."""
    while isinstance(network, nn.Module):
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif "_orig_mod" in network._modules:  # torch.compile's; a user's own may pass on all names
            network = network._modules["_orig_mod"]
        else:
            break
    return network


def _check_state(network: nn.Module, model: str) -> None:
    """Raise UsageError where weights are kept as something else than tensors, as those of quantised layers are."""
    for name, value in network.state_dict().items():
        if not isinstance(value, torch.Tensor) and not name.endswith(EXTRA):
            raise UsageError(
                f"the network of {model} keeps {name} as {type(value).__name__}, and not as a tensor, as quantised "
                "ones do; return it as it was before"
            )


def _check_numbers(network: nn.Module, model: str) -> None:
    """Raise UsageError where tensors are not dense, or have a shape and no numbers, as on torch's device `meta`."""
    numbers = dict([*network.named_parameters(), *network.named_buffers()])
    if sparse := [name for name, tensor in numbers.items() if tensor.layout != torch.strided]:
        raise UsageError(
            f"the network of {model} keeps {sparse[0]} as a sparse tensor ({len(sparse)} such in all); let it keep "
            "that as to_dense() makes it"
        )
    if parts := [name for name, tensor in numbers.items() if tensor.is_meta]:
        raise UsageError(
            f"the network of {model} has no numbers in {parts[0]} ({len(parts)} such in all), which is on the device "
            "meta; load its weights in the factory, with load_state_dict(..., assign=True)"
        )


def _check_float32(network: nn.Module, model: str) -> None:
    """Raise UsageError where a network has numbers that float32 cannot hold; whole ones stay as they are."""
    numbers = dict([*network.named_parameters(), *network.named_buffers()])
    if parts := [name for name, tensor in numbers.items() if tensor.is_complex()]:
        raise UsageError(
            f"the network of {model} has complex numbers in {parts[0]} ({len(parts)} such in all): a forward pass "
            "in float32, bf16 or fp16 would lose their imaginary parts; let it keep pairs of real numbers instead, as "
            "torch.view_as_real gives, and make complex ones of them in forward"
        )
    for name, tensor in numbers.items():
        if tensor.dtype == torch.float64 and not torch.equal(tensor.float().isfinite(), tensor.isfinite()):
            raise UsageError(f"the network of {model} has numbers in {name} that float32 cannot hold; scale them")


def _imported(model: str, place: str, function: str) -> Callable[[], object]:
    try:
        module = _module_of(Path(place).expanduser()) if is_file(place) else importlib.import_module(place)
    except CamrayError:
        raise
    except (Exception, SystemExit) as error:
        cure = ""
        if "relative import" in str(error):
            cure = "; a module of a package is given as package.module:function, from the folder that holds the package"
        elif isinstance(error, SystemExit):
            cure = "; put what it does as a program, such as reading flags, below `if __name__ == '__main__':`"
        raise UsageError(
            f"--model {model}: cannot import the factory: {type(error).__name__}: {error}{cure}"
        ) from error
    found = getattr(module, function, None)
    if found is None:
        close = near(function, [name for name, value in vars(module).items() if callable(value)])
        similar = f"; similar names are {', '.join(close)}" if close else ""
        raise UsageError(f"--model {model}: cannot import the factory: {place} has no {function}{similar}")
    if not callable(found):  # as a network is, too
        kind = type(found).__name__
        raise UsageError(f"--model {model} is no function, it is {kind}; name one that returns the network")
    return found  # type: ignore[no-any-return]


def _module_of(path: Path) -> ModuleType:
    """Import a file once, with its folder where Python looks first, as of a script; its siblings can be imported.

    It bears a name of our own: a file may be called as a library is.
    """
    check_factory_file(path)
    path = path.absolute()
    name = f"camray_model_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
