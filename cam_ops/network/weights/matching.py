"""Match the state_dicts of a file with a network: which of them it is, below which prefix, and what is left out.

Names and shapes decide. Each reading of the file fits whole or not at all, but for what eval does not use.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cam_ops.errors import UsageError
from cam_ops.network.weights.checkpoints import PLAIN, Skipped, first_skipped, refused_code, repeats, state_dicts_in
from cam_ops.network.weights.renaming import modern
from cam_ops.outside import RAISE, raised

PREFIX = "module."  # DataParallel's
COUNTERS = ("total_ops", "total_params", "n_averaged", "num_batches_tracked")  # thop's, AveragedModel's, batch norm's
AUXILIARY = ("aux1", "aux2", "AuxLogits", "aux_logits", "aux_classifier")  # heads that only training uses
LOSSES = ("loss", "criterion", "metric")  # of the words in the name of a module beside the network
AVERAGED = ("ema", "swa", "averaged")  # of the words in what leads to weights that are a mean over training
MOST_PREFIXES = 50
MOST_NAMES = 100_000  # in all state_dicts of a file; each is held once for each prefix, and networks have thousands
MOST_DIFFERENT = 20  # networks in a file; which one is meant must be said where there are two


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a network takes: its state_dict, and what in it may be of another shape."""

    name: str
    state: dict[str, Tensor]
    num_classes: int
    positions: str | None  # the embeddings of a vision transformer's positions, (1, N, D)
    cure: str  # where nothing fits
    rewritten: Callable[[dict[str, Any]], dict[str, Any]] | None  # by the library, from names of its own past

    @cached_property
    def needed(self) -> dict[str, Tensor]:
        """What eval needs."""
        return {
            name: tensor
            for name, tensor in self.state.items()
            if not is_auxiliary(name) and not name.endswith("num_batches_tracked")
        }

    @cached_property
    def rows(self) -> set[str]:
        """Names of parameters with a row for each class."""
        return {name for name, tensor in self.state.items() if tensor.ndim and len(tensor) == self.num_classes}

    @cached_property
    def heads(self) -> set[str]:
        """Those of them that eval needs."""
        return self.rows & self.needed.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A state_dict of the file, without a prefix."""

    place: str  # the dotted keys that lead to it
    prefix: str
    state: dict[str, Any]
    outside: dict[str, Any]  # what stands beside the prefix
    reshaped: tuple[str, ...] = ()  # by the library

    @property
    def address(self) -> str:
        """What --checkpoint-key names."""
        return ".".join(filter(None, (self.place, self.prefix.rstrip("."))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A reading that fits, by the network's own names."""

    reading: Reading
    state: dict[str, Tensor]
    num_classes: int
    renamed: str  # what the head is called in the file, where it is called otherwise
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A reading that does not fit, and why."""

    num_matched: int
    why: str


def match(loaded: object, expected: Expected, path: Path, key: str | None) -> tuple[Fit, tuple[str, ...]]:
    """Return what of the file at `path` is the network, and what is to be said of it.

    Raises UsageError where nothing fits, or several readings fit and `key` names none of them.
    """
    dictionaries = state_dicts_in(loaded)
    if not dictionaries:
        if named := first_skipped(loaded):
            raise refused_code(path, named)
        raise UsageError(f"expected a state_dict (names to tensors) in {path}, found something else")
    if (num_names := sum(map(len, dictionaries.values()))) > (most := raised(MOST_NAMES)):
        raise UsageError(f"{path} has {num_names} names beside its tensors, at most {most} are read; {PLAIN}, {RAISE}")
    readings = [reading for place, state in dictionaries.items() for reading in _readings(place, state, expected)]
    if key is not None:
        readings = [reading for reading in readings if key in (reading.place, reading.address)]
        if not readings:
            raise UsageError(
                f"--checkpoint-key {key}: {path} has no weights there; it has some at {some(dictionaries)}"
            )
    tried = [_fit(reading, expected, path) for reading in readings]
    if expected.rewritten and not any(isinstance(one, Fit) for one in tried):
        again = [_rewritten(reading, expected.rewritten) for reading in readings]
        tried += [_fit(reading, expected, path) for reading in again]
    fits = [one for one in tried if isinstance(one, Fit)]
    if not fits:
        raise UsageError(max((one for one in tried if isinstance(one, Misfit)), key=lambda one: one.num_matched).why)
    for fit in fits if key is None else ():
        beside = [
            other.reading.prefix for other in fits if other is not fit and other.reading.place == fit.reading.place
        ]
        _check_what_follows(fit, expected, tuple(filter(None, beside)), path)
    return _chosen(fits, path)


def is_auxiliary(name: str) -> bool:
    """Say whether a parameter is of a head that only training uses."""
    return name.partition(".")[0] in AUXILIARY


def some(names: Iterable[str]) -> str:
    """Return the first few names in words; they may come from a file of a stranger's."""
    shown = [name if name.isprintable() and name else repr(name) for name in names]
    shown = [name if len(name) <= 100 else f"{name[:100]}..." for name in shown]
    return (", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")) or "nothing"


def _readings(place: str, state: dict[str, Any], expected: Expected) -> Iterator[Reading]:
    """Read a state_dict below each prefix that stands before the network's first parameter, or before all names.

    Blocks may begin as their network does: prefixes of what its last parameter stands below as well come first.
    """
    today = {modern(name): value for name, value in state.items()}
    state = today if len(today) == len(state) else state
    before_heads = [name for name in expected.needed if name not in expected.heads] or [*expected.needed]
    first, last = before_heads[0], before_heads[-1]
    common = next((n * PREFIX for n in (2, 1) if all(name.startswith(n * PREFIX) for name in state)), "")
    prefixes = {name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")}
    in_turn = sorted({common, *prefixes}, key=lambda text: (text + last not in state, len(text), text))
    for prefix in in_turn[:MOST_PREFIXES]:
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        outside = {name: value for name, value in state.items() if not name.startswith(prefix)}
        yield Reading(place=place, prefix=prefix, state=inside, outside=outside)


def _rewritten(reading: Reading, rewritten: Callable[[dict[str, Any]], dict[str, Any]]) -> Reading:
    old, state = reading.state, rewritten(reading.state)
    both = [name for name, value in state.items() if isinstance(value, Tensor) and isinstance(old.get(name), Tensor)]
    reshaped = tuple(name for name in both if state[name].shape != old[name].shape)
    return replace(reading, state=state, reshaped=reshaped)


def _fit(reading: Reading, expected: Expected, path: Path) -> Fit | Misfit:
    as_saved, renamed = reading, _head_by_another_name(reading, expected)
    if renamed:
        reading = _with_head(reading, expected, renamed)
    needed, state = expected.needed, reading.state
    heads = [state[name] for name in sorted(expected.heads) if isinstance(state.get(name), Tensor)]
    lengths = [len(head) for head in heads if head.ndim and len(head)]
    num_classes = next((length for length in lengths if length != expected.num_classes), expected.num_classes)
    taken = {name: state[name] for name in needed if name in state}
    unlike = [shown for name, value in taken.items() if (shown := _unlike(name, value, expected, num_classes))]
    why_not = _why_not(reading, expected, path, unlike)
    if why_not and renamed:
        why_not = _why_not(as_saved, expected, path, unlike=[])
    if why_not:
        return Misfit(num_matched=len(taken) - len(unlike), why=why_not)
    spare = {name: tensor for name, tensor in expected.state.items() if name not in needed}
    auxiliary = [name for name in spare if is_auxiliary(name)]
    fitting = {name for name in spare if name in state and not _unlike(name, state[name], expected, num_classes)}
    if not fitting.issuperset(auxiliary):  # a head that is there in part is none
        fitting -= set(auxiliary)
    taken |= {name: state[name] for name in fitting}
    left_out = (*(reading.prefix + name for name in state if name not in taken), *reading.outside)
    return Fit(reading=reading, state=taken, num_classes=num_classes, renamed=renamed, left_out=left_out)


def _head_by_another_name(reading: Reading, expected: Expected) -> str:
    """Return what the file calls the layer that gives the logits, "" where it has it, or has not exactly one such."""
    missing = {name for name in expected.needed if name not in reading.state}
    stems = {name.rpartition(".")[0] for name in missing}
    weight = expected.state.get(f"{min(stems, default='')}.weight")
    if weight is None or len(stems) > 1 or not missing <= expected.heads:
        return ""
    inside = {reading.prefix + name: value for name, value in reading.state.items() if name not in expected.state}
    spare, kinds = inside | reading.outside, sorted(name.rpartition(".")[2] for name in missing)
    found: dict[str, list[str]] = {}
    for name in spare:
        found.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
    fitting = [
        stem
        for stem, own in found.items()
        if stem and sorted(own) == kinds and _is_layer([spare[f"{stem}.{kind}"] for kind in kinds[::-1]], weight)
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _is_layer(parameters: list[Any], like: Tensor) -> bool:
    """Say whether a weight, and a bias if any, are of a layer as `like`, but for the number of its rows."""
    if not all(isinstance(tensor, Tensor) and tensor.ndim for tensor in parameters):
        return False
    weight, *biases = parameters
    return weight.shape[1:] == like.shape[1:] and all(bias.shape == weight.shape[:1] for bias in biases)


def _with_head(reading: Reading, expected: Expected, stem: str) -> Reading:
    """Return the reading with the layer `stem` of the file by the network's own name."""
    state, outside = dict(reading.state), dict(reading.outside)
    for name in [name for name in expected.needed if name not in state]:
        own = f"{stem}.{name.rpartition('.')[2]}"
        holder, own = (outside, own) if own in outside else (state, own.removeprefix(reading.prefix))
        state[name] = holder.pop(own)
    return replace(reading, state=state, outside=outside)


def _unlike(name: str, value: object, expected: Expected, num_classes: int) -> str:
    """Say what `value` is where it cannot be the network's parameter or buffer of that name, else ""."""
    like = expected.state[name]
    if not isinstance(value, Tensor):
        return f"{name} is {'an object' if isinstance(value, Skipped) else type(value).__name__}, expected a tensor"
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"{name} is no dense tensor"
    if value.is_complex() != like.is_complex() or (like.is_floating_point() and not value.is_floating_point()):
        return f"{name} is {value.dtype}, expected {like.dtype}"
    shape = tuple(like.shape)
    is_as_wide = name in expected.heads and tuple(value.shape) == shape  # a layer of as many channels as classes
    if name in expected.rows and not is_as_wide:
        shape = (num_classes, *shape[1:])
    elif name == expected.positions and value.ndim == like.ndim:
        shape = (shape[0], value.shape[1], *shape[2:])
    if tuple(value.shape) != shape:
        return f"{name} is {tuple(value.shape)}, expected {shape}"
    if value.shape != like.shape and repeats(value):
        return f"{name} is {shape} by repeating what the file holds once"
    return ""


def _why_not(reading: Reading, expected: Expected, path: Path, unlike: list[str]) -> str:
    state = reading.state
    packed = [n for n, v in state.items() if "_packed_params" in n or (isinstance(v, Tensor) and v.is_quantized)]
    missing = [name for name in expected.needed if name not in state]
    unexpected = [name for name in state if name not in expected.state and not _is_of_no_use(name, state[name])]
    if not (missing or unexpected or unlike or packed):
        return ""
    if packed:
        return (
            f"{path} holds quantised weights ({some(packed)}), which have lost what a map needs; save the network's "
            "state_dict before it is quantised"
        )
    for name in expected.needed:
        if isinstance(value := state.get(name), Skipped):
            return str(refused_code(path, value.named))
    where = f" at {some([reading.address])}" if reading.address else ""
    return (
        f"{path} does not fit {expected.name}{where}: missing {some(missing)}; unexpected {some(unexpected)}; "
        f"of another shape or kind {some(unlike)}; {expected.cure}"
    )


def _is_of_no_use(name: str, value: object) -> bool:
    """Say whether eval does the same without what stands by a name that the network does not have."""
    return name.rpartition(".")[2] in (*COUNTERS, "_extra_state") or is_auxiliary(name) or not isinstance(value, Tensor)


def _check_what_follows(fit: Fit, expected: Expected, other_networks: tuple[str, ...], path: Path) -> None:
    """Raise UsageError where a layer beside the network may follow it, or be its head instead of its own."""
    heads = [expected.state[name] for name in expected.heads]
    widths = {fit.num_classes, *(head.shape[1] for head in heads if head.ndim > 1)}
    follows = [
        name
        for name, value in fit.reading.outside.items()
        if isinstance(value, Tensor)
        and name.rpartition(".")[2] not in COUNTERS
        and not name.startswith(other_networks)
        and not any(word in name.rpartition(".")[0].lower() for word in LOSSES)
        and (fit.renamed or (value.ndim == 2 and value.shape[1] in widths and name.count(".") <= 2))
    ]
    if follows:
        prefix, address = some([fit.reading.prefix]), some([fit.reading.address])
        raise UsageError(
            f"{path} holds {some(follows)} beside the network below {prefix}, which may take part in its logits; if it "
            f"does not, give --checkpoint-key {address}, else a --model FILE.py:function"
        )


def _chosen(fits: list[Fit], path: Path) -> tuple[Fit, tuple[str, ...]]:
    """Return the only network, or the only one that is no mean over training, with what is to be said."""
    different: list[Fit] = []
    for fit in fits:
        if len(different) < MOST_DIFFERENT and not any(_is_same(fit, other) for other in different):
            different.append(fit)
    plain = [fit for fit in different if not set(re.split(r"[._]", fit.reading.address.lower())) & set(AVERAGED)]
    taken = different if len(different) == 1 else plain
    shown = different if len(different) < MOST_DIFFERENT else fits
    addresses = [fit.reading.address for fit in shown]
    if len(taken) != 1:
        raise UsageError(
            f"{path} holds several networks that fit, at {some(addresses)}; say which: --checkpoint-key KEY"
        )
    fit = taken[0]
    if len(different) == 1:
        return fit, (_summary(fit, path),)
    others = some([address for address in addresses if address != fit.reading.address])
    choice = f"weights: {some([fit.reading.address])} is taken; {others} would fit as well: --checkpoint-key chooses"
    return fit, (_summary(fit, path), choice)


def _is_same(one: Fit, other: Fit) -> bool:
    return one.state.keys() == other.state.keys() and all(
        _are_equal(tensor, other.state[name]) for name, tensor in one.state.items()
    )


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors have the same numbers; torch does not compare those of 8 bits with others."""
    is_alike = one.dtype == other.dtype
    return torch.equal(one, other) if is_alike else torch.equal(one.double(), other.double())


def _summary(fit: Fit, path: Path) -> str:
    reading = fit.reading
    parts = (
        f"weights: {len(fit.state)} tensors of {path}",
        f"key {some([reading.place])}" if reading.place else "",
        f"prefix {some([reading.prefix])} removed" if reading.prefix else "",
        f"the head is {some([fit.renamed])}" if fit.renamed else "",
        f"{len(reading.reshaped)} resized or reshaped by timm: {some(reading.reshaped)}" if reading.reshaped else "",
    )
    left = f"left out {len(fit.left_out)}: {some(fit.left_out)}" if fit.left_out else ""
    return "; ".join(filter(None, (", ".join(filter(None, parts)), left)))
