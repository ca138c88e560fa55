"""A network by name with the weights that were asked for: the library's, random ones, or those of a file."""

import hashlib
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.foreign import visible
from cam_ops.network.names import LIBRARYS, TENSORFLOW_SCALED
from cam_ops.network.weights.checkpoints import UNREADABLE, first_line, read_checkpoint, repeats
from cam_ops.network.weights.matching import Expected, is_auxiliary, match, some
from cam_ops.network.weights.named import names_in
from cam_ops.network.weights.positions import Positions, embeddings_in
from cam_ops.network.zoo import Architecture
from cam_ops.settings import MAX_IMAGE_SIZE, ModelConfig, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """A network with its weights in place."""

    network: nn.Module
    path: str  # for the model's digest
    size: Size  # of the input that it is built for
    categories: list[str] | None  # as the weights name them
    notes: tuple[str, ...]


def with_weights(known: Architecture, config: ModelConfig) -> Weighted:
    """Return the network with --weights, built for inputs of --image-size where it takes one size only.

    Raises UsageError where a file of weights cannot be read or does not fit, or the network cannot be built at that
    size; MachineError where weights cannot be found or downloaded.
    """
    size = config.image_size or known.size
    weights = config.weights or "DEFAULT"
    if weights not in LIBRARYS:
        return _from_file(known, Path(weights), config)
    notes: tuple[str, ...] = ()
    sized = {"image_size": size} if known.is_sized and size != known.size else {}
    if weights == "random":
        network, categories = _built(known, known.build, sized), None
    else:
        network, categories = _built(known, known.pretrained, sized)
        if sized:
            own = f"what in them depends on {known.size} px is resized"
            notes = (f"weights: the default ones, in a network for inputs of {size} px; {own}",)
    path = _scale(known, network, config, is_usual=weights == "DEFAULT")
    return Weighted(network=network, path=path, size=size, categories=categories, notes=notes)


def _from_file(known: Architecture, path: Path, config: ModelConfig) -> Weighted:
    size = config.image_size or known.size
    arguments: dict[str, Any] = {"image_size": size} if known.is_sized and size != known.size else {}
    if not known.num_classes:
        arguments["num_classes"] = 1000
    as_built, template = dict(arguments), _built(known, known.build, arguments)
    state = template.state_dict()
    positions = embeddings_in(state, size) if known.is_sized and isinstance(size, int) else None
    expected = Expected(
        name=known.name,
        state=state,
        num_classes=known.num_classes or 1000,
        positions=None if positions is None else positions.name,
        cure=f"is --model the network that was trained{', and --image-size its size' if known.is_sized else ''}?",
        rewritten=_timms_rewriting(template) if known.path.startswith("timm") else None,
    )
    loaded = read_checkpoint(path)
    fit, notes = match(loaded, expected, path, config.checkpoint_key)
    categories, said_names = _categories(names_in(loaded, fit.num_classes), path)
    notes += said_names
    taken = dict(fit.state)
    if positions is not None and isinstance(size, int):
        taken[positions.name], size, said = _positioned(positions, taken[positions.name], path, size, config)
        notes += said
        if said:
            arguments["image_size"] = size
    if fit.num_classes != expected.num_classes:
        arguments["num_classes"] = fit.num_classes
    network = template if arguments == as_built else _built(known, known.build, arguments)
    _put(network, taken, path, known)
    digits = TENSORFLOW_SCALED.get(known.name)
    is_official = digits is not None and hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)
    if digits and not is_official and config.transform_input is None:
        notes += (
            f"weights: {path} does not say how its network's input was scaled; taken is --transform-input no; give yes "
            f"if it was fine-tuned from torchvision's default weights of {known.name}",
        )
    scaled = _scale(known, network, config, is_usual=is_official)
    return Weighted(network=network, path=scaled, size=size, categories=categories, notes=notes)


def _categories(found: dict[str, list[str]], path: Path) -> tuple[list[str] | None, tuple[str, ...]]:
    """Return the names that a file gives its classes, and what is to be said of them."""
    if not found:
        return None, ()
    (key, names), *others = found.items()
    for other, others_names in others:
        if others_names != names:
            one, two = visible(key), visible(other)
            return None, (f"weights: {path} names the classes twice, and not alike ({one}, {two}); neither is taken",)
    return names, (f"weights: the classes' names are those of {visible(key)} in {path}",)


def _positioned(
    positions: Positions, found_1ND: Tensor, path: Path, side: int, config: ModelConfig
) -> tuple[Tensor, int, tuple[str, ...]]:
    """Return the position embeddings of a file for inputs of --image-size, or else the size that they are for.

    Beside them the side of the input, which is `side` where nothing else is said, and what is to be said.
    """
    own = positions.side_of(found_1ND)
    if own is None or own > MAX_IMAGE_SIZE:
        raise UsageError(f"{path}: expected position embeddings for a square of patches, got {tuple(found_1ND.shape)}")
    if own == side // positions.patch_px * positions.patch_px:
        return found_1ND, side, ()
    if config.image_size is None:
        said = f"weights: position embeddings are for inputs of {own} px, which the network is built for"
        return found_1ND, own, (said,)
    said = f"weights: position embeddings for {own} px are resized to {side} px, as --image-size says"
    return positions.resized(found_1ND, side), side, (said,)


def _scale(known: Architecture, network: nn.Module, config: ModelConfig, is_usual: bool) -> str:
    """Let a network scale its input as TensorFlow's, where it `is_usual` or the flag says so; return its path."""
    if known.name not in TENSORFLOW_SCALED:
        return known.path
    is_wanted = is_usual if config.transform_input is None else config.transform_input == "yes"
    network.transform_input = is_wanted  # type: ignore[assignment]
    return known.path if is_wanted == is_usual else f"{known.path}:transform_input={is_wanted}"


def _built(known: Architecture, build: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call `build`, which may not be able to make the network at another size."""
    if "image_size" not in arguments:
        return build(**arguments)
    try:
        return build(**arguments)
    except (AssertionError, TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UsageError(
            f"{known.name} cannot be built for inputs of {arguments['image_size']} px ({first_line(error)}); give "
            f"--image-size {known.size}, or a multiple of its patches"
        ) from None


def _put(network: nn.Module, taken: dict[str, Tensor], path: Path, known: Architecture) -> None:
    """Put weights into their network; of a head for training only which they lack, it has none afterwards."""
    own = network.state_dict()
    for head in {name.partition(".")[0] for name in own if is_auxiliary(name) and name not in taken}:
        setattr(network, head, None)
    state = OrderedDict(taken)
    state._metadata = own._metadata  # type: ignore[attr-defined]  # versions; the names are today's
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        _, *lines = str(error).splitlines()  # the first says that there are errors
        raise UsageError(
            f"{path} does not fit {known.name}: {visible(' '.join(map(str.strip, lines)))[:300]}"
        ) from None
    if lost := [name for name in (*missing, *unexpected) if not name.endswith("num_batches_tracked")]:
        raise UsageError(f"{path} does not fit {known.name}: {some(lost)} cannot be put in place")


def _timms_rewriting(template: nn.Module) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return how timm translates weights that were published by other names, as it does when it downloads them."""
    translate = getattr(sys.modules[type(template).__module__], "checkpoint_filter_fn", None)

    def rewritten(state: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and not repeats(value)}
        try:
            with warnings.catch_warnings(action="ignore"):
                return dict(translate(tensors, template)) if translate else state
        except UNREADABLE:  # no such weights
            return state

    return rewritten
