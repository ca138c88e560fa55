"""Build a classifier with its weights, and name it by a digest of its content."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ClassList, ScoreKind, class_list, numbered_classes, whole_number
from cam_ops.errors import UsageError
from cam_ops.network.dilation import dilate_last_stage
from cam_ops.network.factory import call_factory
from cam_ops.network.hub import PREPROCESSOR, Snapshot, load_snapshot
from cam_ops.network.names import HUB, check_network, factory_name, is_factory
from cam_ops.network.outputs import SINGLE, Reading, return_logits
from cam_ops.network.takes import Normalisation, said_size, size_that_runs
from cam_ops.network.weighted import with_weights
from cam_ops.network.weights.moving import hidden_state
from cam_ops.network.zoo import find_architecture
from cam_ops.settings import Channels, Interpolation, ModelConfig, Preprocessing, Size
from cam_ops.words import folded

NUM_CHANNELS: dict[Channels, int] = {"rgb": 3, "gray": 1}
USUAL_SIZE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A network in eval mode, float32, on the CPU, with all that is known about it."""

    network: nn.Module
    name: str
    digest: str  # sha256 over the factory's path and the sorted state_dict: names, dtypes, shapes, bytes
    preprocessing: Preprocessing
    class_names: str | None  # the user's list, which `classes_for` reads
    categories: list[str] | None  # as the weights name them
    reading: Reading  # what of its results are the logits
    scores: ScoreKind | None  # what it makes of them, None where nothing tells
    notes: tuple[str, ...]  # what is to be said of its weights and its input


def load_classifier(config: ModelConfig) -> Classifier:
    """Build the network that `config` names, load its weights, and dilate it if asked to.

    Its calls return logits (B, K) from then on, whatever its forward does: see `cam_ops.network.outputs`.

    Raises UsageError for an unknown name, a weights file that does not fit or needs code to load, a factory where
    neither it nor flags say mean and std, a network that returns nothing that may be logits, or cannot be dilated;
    MachineError for weights, or a factory's file, that cannot be found or downloaded.
    """
    check_network(config)
    scores: ScoreKind | None = None
    if is_factory(config.model):
        name = path = factory_name(config.model)
        (network, preprocessing, has_size), categories = _from_factory(config), None
        notes: tuple[str, ...] = ()
    elif config.model.startswith(HUB):
        found = load_snapshot(config.model)
        name, path, network, categories = found.name, found.path, found.network, found.categories
        notes, scores = found.input.notes if found.input else (), found.scores
        preprocessing, has_size = _of_snapshot(config, found), True
        config = config if config.output else replace(config, output="logits")
    else:
        known = find_architecture(config.model)
        weighted = with_weights(known, config)
        name, path, notes = known.name, weighted.path, weighted.notes
        network, categories = weighted.network, weighted.categories
        shape = known.mean, known.std, weighted.size, known.interpolation, known.crop_fraction
        preprocessing, has_size = _preprocessing(config, *shape), True
    network.eval()  # which may return nothing: some write a train() of their own
    network.requires_grad_(False)
    state = {**network.state_dict(), **hidden_state(network)}
    digest = model_digest(path, state)  # before it runs, which some networks count
    if not has_size:
        preprocessing, notes = _of_own_size(network, preprocessing, config.model)
    normalisation = Normalisation(mean=preprocessing.mean, std=preprocessing.std)
    reading = return_logits(network, preprocessing.image_size, config.output, normalisation)
    if config.dilate:
        dilate_last_stage(network, preprocessing.image_size, normalisation)
    return Classifier(
        network=network,
        name=name,
        digest=digest
        if reading.is_plain
        else hashlib.sha256("\0".join((digest, *reading.said())).encode()).hexdigest(),
        preprocessing=preprocessing,
        class_names=config.class_names,
        categories=_of_one(categories) if reading.is_single else categories,
        scores=scores or reading.scores,
        reading=reading,
        notes=notes,
    )


def _of_one(categories: list[str] | None) -> list[str]:
    """Return the names of the two classes of one logit; a library that names one names the positive."""
    if not categories:
        return list(SINGLE)
    return [f"not {categories[0]}", categories[0]] if len(categories) == 1 else categories


def classes_for(classifier: Classifier, num_classes: int) -> ClassList:
    """Return the names of the network's `num_classes` classes: the user's, else the weights', else their numbers.

    Raises UsageError where there are more or fewer, or the user's are the weights' in another order.
    """
    names = classifier.categories
    if classifier.class_names:
        listed = read_class_names(Path(classifier.class_names), num_classes)
        _check_order(listed, names or [], classifier)
        return listed
    if not names:
        return numbered_classes(num_classes)
    if len(names) != num_classes:
        raise UsageError(
            f"the network {classifier.name} has {num_classes} classes, its weights name {len(names)}; give "
            "--class-names with one entry a class"
        )
    return class_list([()] * num_classes, names)


def _check_order(listed: ClassList, names: list[str], classifier: Classifier) -> None:
    """Raise UsageError where a list gives a class a name that the weights give another one, whose own it gives away.

    Other words for the same classes, in whatever number, contradict nothing.
    """
    if any(whole_number(name) is not None for name in names):
        return  # as numbers they mean places as well
    own = {folded(name): class_id for class_id, name in enumerate(names)}
    places = {own[word]: ids[0] for word, ids in listed.folded_ids.items() if word in own and len(ids) == 1}
    moved = {class_id: place for class_id, place in places.items() if class_id != place}
    for class_id in sorted(moved.keys() & moved.values()):
        raise UsageError(
            f"--class-names {classifier.class_names} has classes of the weights in another order: class {class_id} is "
            f"{listed.names[class_id][:200]!r} there, and {names[class_id][:200]!r} by the weights of "
            f"{classifier.name}; put them in that order, or leave --class-names out"
        )


def model_digest(path: str, state: dict[str, Tensor]) -> str:
    """Return the sha256 of the factory's import path and of the state_dict's sorted names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(path.encode())
    for name in sorted(state):
        if not isinstance(state[name], Tensor):  # a module's extra state, which is no weight
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_factory(config: ModelConfig) -> tuple[nn.Module, Preprocessing, bool]:
    """Return the network, its input, and whether flags or factory say the size of that."""
    network, said = call_factory(config.model, config.channels)
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


def _of_own_size(network: nn.Module, shape: Preprocessing, model: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return an input of the size that the network says, where it takes not the usual one, and what is to be said."""
    normalisation = Normalisation(mean=shape.mean, std=shape.std)
    size = size_that_runs(network, shape.image_size, normalisation)
    if size == shape.image_size:
        return shape, ()
    said = f"{model} takes no pictures of {USUAL_SIZE}x{USUAL_SIZE} pixels; {said_size(size)} is taken"
    return replace(shape, image_size=size), (said,)


def _of_snapshot(config: ModelConfig, found: Snapshot) -> Preprocessing:
    """Return the network's input; raises UsageError where nothing says mean and std."""
    made = found.input
    if made is not None:
        size = found.size or USUAL_SIZE
        return _preprocessing(config, made.mean, made.std, size, made.interpolation, made.crop_fraction)
    if config.mean is None or config.std is None:
        raise UsageError(f"--model {config.model} needs --mean and --std, as there is no {PREPROCESSOR}")
    return _preprocessing(config, config.mean, config.std, found.size or USUAL_SIZE, "bilinear", 224 / 256)


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
