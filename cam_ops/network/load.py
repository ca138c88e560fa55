"""Build a classifier, load its weights without running code from the file, and name it by a digest of its content."""

import hashlib
import pickle
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ClassList, class_list, numbered_classes
from cam_ops.errors import MachineError, UsageError
from cam_ops.network.dilation import dilate_last_stage
from cam_ops.network.factory import call_factory
from cam_ops.network.names import factory_name, is_factory
from cam_ops.network.takes import said_size, size_that_runs
from cam_ops.network.zoo import TENSORFLOW_SCALED, Architecture, find_architecture
from cam_ops.settings import Channels, Interpolation, ModelConfig, Preprocessing, Size

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where trainers keep the state_dict in a checkpoint
UNREADABLE = (  # what torch and safetensors raise for files that are damaged or of another kind
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, safetensors.SafetensorError),
)
NUM_CHANNELS: dict[Channels, int] = {"rgb": 3, "gray": 1}
USUAL_SIZE = 224
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A network in eval mode, float32, on the CPU, with all that is known about it."""

    network: nn.Module
    name: str
    digest: str  # sha256 over the factory's path and the sorted state_dict: names, dtypes, shapes, bytes
    preprocessing: Preprocessing
    said: str  # of its input, what was found by trying; empty where nothing was
    class_names: str | None  # the user's list, which `classes_for` reads
    categories: list[str] | None  # as the weights name them


def load_classifier(config: ModelConfig) -> Classifier:
    """Build the network that `config` names, load its weights, and dilate it if asked to.

    Raises UsageError for an unknown name, a weights file that does not fit or needs code to load, a factory where
    neither it nor flags say mean and std, and a network that cannot be dilated; MachineError for weights, or a
    factory's file, that cannot be found or downloaded.
    """
    if is_factory(config.model):
        name = path = factory_name(config.model)
        (network, preprocessing, has_size), categories = _from_factory(config), None
    else:
        known = find_architecture(config.model)
        name, path, (network, categories) = known.name, known.path, _with_weights(known, config.weights or "DEFAULT")
        if config.channels == "gray":
            raise UsageError(
                f"--channels gray: {config.model} takes RGB; a network of one channel comes from a factory"
            )
        preprocessing, has_size = (
            _preprocessing(config, known.mean, known.std, known.size, known.interpolation, known.crop_fraction),
            True,
        )
    network.eval().requires_grad_(False)
    digest, said = model_digest(path, network.state_dict()), ""  # before it runs, which some networks count
    if not has_size:
        preprocessing, said = _of_own_size(network, preprocessing, config.model)
    if config.dilate:
        dilate_last_stage(network, preprocessing.image_size, len(preprocessing.mean))
    return Classifier(
        network=network,
        name=name,
        digest=digest,
        preprocessing=preprocessing,
        said=said,
        class_names=config.class_names,
        categories=categories,
    )


def classes_for(classifier: Classifier, num_classes: int) -> ClassList:
    """Return the names of the network's `num_classes` classes: the user's, else the weights', else their numbers.

    Raises UsageError where there are more or fewer.
    """
    if classifier.class_names:
        return read_class_names(Path(classifier.class_names), num_classes)
    names = classifier.categories
    if not names:
        return numbered_classes(num_classes)
    if len(names) != num_classes:
        raise UsageError(
            f"the network {classifier.name} has {num_classes} classes, its weights name {len(names)}; give "
            "--class-names with one entry a class"
        )
    return class_list([()] * num_classes, names)


def model_digest(path: str, state: dict[str, Tensor]) -> str:
    """Return the sha256 of the factory's import path and of the state_dict's sorted names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(path.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def _from_factory(config: ModelConfig) -> tuple[nn.Module, Preprocessing, bool]:
    """Return the network, its input, and whether flags or factory say the size of that."""
    if config.weights is not None:
        raise UsageError(f"--weights does not go with the factory {config.model}: it puts its own weights in place")
    network, said = call_factory(config.model)
    mean, std = config.mean or said.mean, config.std or said.std
    channels = config.channels or said.channels or "rgb"
    if mean is None or std is None:
        needed, example = "one number each for gray", "{'mean': (0.5,), 'std': (0.25,)}"
        if channels == "rgb":
            needed = "three numbers each for RGB"
            example = "{'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}"
        raise UsageError(
            f"the factory {config.model} needs --mean and --std, {needed} in 0..1; or let it return its network and "
            f"these: return network, {example}"
        )
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != NUM_CHANNELS[channels]:
            raise UsageError(
                f"expected {NUM_CHANNELS[channels]} number(s) for --{name}, as the network's input is {channels}, got "
                f"{len(numbers)}; give --channels gray with one number each, or --channels rgb with three"
            )
    size = config.image_size or said.image_size
    crop_fraction = said.crop_fraction or 224 / 256
    shape = _preprocessing(config, mean, std, size or USUAL_SIZE, said.interpolation or "bilinear", crop_fraction)
    return network, shape, size is not None


def _of_own_size(network: nn.Module, shape: Preprocessing, model: str) -> tuple[Preprocessing, str]:
    """Return an input of the size that the network says, where it takes not the usual one, and what is to be said."""
    size = size_that_runs(network, len(shape.mean), shape.image_size)
    if size == shape.image_size:
        return shape, ""
    said = f"{model} takes no pictures of {USUAL_SIZE}x{USUAL_SIZE} pixels; {said_size(size)} is taken"
    return replace(shape, image_size=size), said


def _with_weights(known: Architecture, weights: str) -> tuple[nn.Module, list[str] | None]:
    """Return the network with `weights`, and the names of its classes where the weights have them."""
    if weights == "DEFAULT":
        return known.pretrained()
    return (known.build() if weights == "random" else _network_from_file(known, Path(weights))), None


def _network_from_file(known: Architecture, path: Path) -> nn.Module:
    state = load_state_dict(path)
    network = known.build()
    num_classes = _num_classes_in(state, network.state_dict())
    if num_classes is not None:
        network = known.build(num_classes=num_classes)
    expected = network.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or misshapen:
        raise UsageError(
            f"{path} does not fit {known.name}: missing {_some(missing)}; unexpected {_some(unexpected)}; "
            f"of another shape {_some(misshapen)}; is --model the network that was trained?"
        )
    network.load_state_dict(state)
    digits = TENSORFLOW_SCALED.get(known.name)
    if digits and hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits):
        network.transform_input = True  # type: ignore[assignment]
    return network


def _num_classes_in(state: dict[str, Tensor], expected: dict[str, Tensor]) -> int | None:
    """Return the number of classes of `state` where it differs from 1000: the first axis of the head's parameters."""
    for key, tensor in expected.items():
        found = state.get(key)
        if found is None or found.shape == tensor.shape:
            continue
        if tensor.shape[0] == 1000 and found.shape[1:] == tensor.shape[1:]:
            return int(found.shape[0])
    return None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return shown or "nothing"


def _preprocessing(
    config: ModelConfig, mean: Any, std: Any, size: Size, interpolation: Interpolation, crop_fraction: float
) -> Preprocessing:
    return Preprocessing(
        image_size=config.image_size or size,
        mean=config.mean or mean,
        std=config.std or std,
        interpolation=interpolation,
        resize=config.resize,
        crop_fraction=crop_fraction,
        decode=config.decode,
    )
