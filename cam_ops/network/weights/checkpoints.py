"""Read a file of weights without running code from it, and find the state_dicts in it.

torch's restricted unpickler reads it. What the file names beside tensors, such as the classes of hyper-parameters, is
not looked up: a `Skipped` stands in for each, which takes what it is given and does nothing.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cam_ops.errors import UsageError
from cam_ops.foreign import visible
from cam_ops.network.names import check_file
from cam_ops.outside import POINTER, RAISE, bounded_memory, raised, refuse_pointer

UNREADABLE = (  # what torch and safetensors raise for files that are damaged or of another kind
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, safetensors.SafetensorError, zipfile.BadZipFile, MemoryError, ArithmeticError),
)
PLAIN = "save it with torch.save(network.state_dict(), ...) or as .safetensors"
MOST_NAMES = 500  # of classes that a file names; a trainer's checkpoint has about twenty
DEEPEST = 4  # dictionaries around a state_dict, as {"callbacks": {"EMA": {"state": {"model": ...}}}}
MOST_DICTIONARIES = 10_000
MOST_UNPACKED = 4  # times the size of the file
MOST_TAKEN = 2  # times the size of the file, of memory
ALWAYS_TAKEN = 2**29  # bytes beside that
MOST_PICKLED = 2**25  # bytes beside tensors that are read, in all rounds
USUAL_PICKLED = 2**20  # of the older format, which does not say it
LONGEST = 200  # characters of a key that leads to a state_dict


class Skipped(list):  # type: ignore[type-arg]  # a list, as torch lets these take items
    """What stands for an object of a class that a file names; `named` is the class."""

    named = ""

    def __new__(cls, *_: object) -> "Skipped":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Take what the object holds, and keep none of it."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # a key, or in a set
    __eq__ = object.__eq__


def read_checkpoint(path: Path) -> object:
    """Return what a .safetensors or torch-saved file holds; no code of it runs.

    Raises MachineError where there is no such file, UsageError where it cannot be read.
    """
    check_file(path)
    most_bytes = raised(MOST_TAKEN * path.stat().st_size + ALWAYS_TAKEN)
    with path.open("rb") as file:
        refuse_pointer(path, file.read(len(POINTER)))
    try:
        with bounded_memory(most_bytes):
            if path.suffix.lower() == ".safetensors":
                return safetensors.torch.load_file(path)
            return _unpickled(path)
    except MemoryError:
        raise UsageError(
            f"to read the weights file {path} takes more than {most_bytes} bytes of memory, which is not how weights "
            f"are saved; {PLAIN}, {RAISE}"
        ) from None
    except UNREADABLE as error:
        raise UsageError(
            f"cannot read the weights file {path}: it is damaged, or of another kind ({first_line(error)})"
        ) from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S{1,200})", str(error))  # the rest is advice on how to run it all the same
        if named:
            raise refused_code(path, named[1]) from None
        raise UsageError(f"{path} is no file of weights that torch can read safely; {PLAIN}") from None


def refused_code(path: Path, named: str) -> UsageError:
    """Return the refusal of a file in which an object of the class `named` stands where weights are expected."""
    return UsageError(
        f"{path} is not a plain state_dict: loading it would run code that it names, {named[:LONGEST]!r}, which is "
        f"refused; {PLAIN}"
    )


def state_dicts_in(loaded: object) -> dict[str, dict[str, Any]]:
    """Return the dictionaries that hold tensors by name, by the dotted keys under which they stand.

    The file's own is "". A key that is no text, such as those of an optimizer's state, leads nowhere.
    """
    found = (
        (place, {key: value for key, value in inner.items() if isinstance(key, str)})
        for place, inner in dictionaries_in(loaded)
    )
    return {place: named for place, named in found if any(isinstance(value, Tensor) for value in named.values())}


def dictionaries_in(loaded: object) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield the dictionaries in what a file holds, each once, with the dotted keys under which they stand."""
    seen: set[int] = set()
    waiting = deque([("", loaded, 0)])
    while waiting and len(seen) < MOST_DICTIONARIES:
        place, inner, depth = waiting.popleft()
        if not isinstance(inner, dict) or id(inner) in seen:
            continue
        seen.add(id(inner))
        yield place, inner
        if depth < DEEPEST:
            inner_ones = {
                key: value
                for key, value in inner.items()
                if isinstance(key, str) and isinstance(value, dict) and len(key) <= LONGEST
            }
            waiting.extend((f"{place}.{key}" if place else key, value, depth + 1) for key, value in inner_ones.items())


def first_skipped(loaded: object) -> str | None:
    """Return the class of what a file holds in place of weights, None where it names none."""
    seen: set[int] = set()
    waiting = deque([(loaded, 0)])
    while waiting and len(seen) < MOST_DICTIONARIES:
        inner, depth = waiting.popleft()
        if isinstance(inner, Skipped):
            return inner.named
        if isinstance(inner, dict) and depth < DEEPEST and id(inner) not in seen:
            seen.add(id(inner))
            waiting.extend((value, depth + 1) for value in inner.values() if isinstance(value, (dict, Skipped)))
    return None


def repeats(tensor: Tensor) -> bool:
    """Say whether a tensor has more elements than the file holds: they would take memory once they are copied."""
    return tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()


def first_line(error: Exception) -> str:
    """Return what an error says, as one line of a message."""
    return visible((str(error).splitlines() or [""])[0][:300]) or type(error).__name__


def _unpickled(path: Path) -> object:
    """Load what torch saved; each round knows one more of the classes that it names, and how they are filled."""
    num_pickled = _check_archive(path)
    stand_ins: dict[str, Callable[..., object]] = {}
    most_names = raised(MOST_NAMES)
    for name in _names_in(path)[:most_names]:
        stand_ins[name] = _stand_in(name)
    for _ in range(min(most_names, raised(MOST_PICKLED) // max(1, num_pickled) + 1)):
        try:
            with (
                torch.serialization.safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()]),
                warnings.catch_warnings(action="ignore"),  # of protocols and old storages
            ):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if _learn(str(error), stand_ins):
                continue
            if stand_ins:  # it calls what another call gave, or the like
                raise refused_code(path, next(iter(stand_ins))) from None
            raise
    raise UsageError(
        f"{path} names more classes beside its weights than are read, {most_names} at most; {PLAIN}, {RAISE}"
    )


def _check_archive(path: Path) -> int:
    """Return how many bytes there are beside tensors.

    Raises UsageError where a zip archive unpacks to far more than it is, BadZipFile where a checksum is not its own.
    torch neither packs what it saves nor looks at checksums when it loads. Where it was told to save none they are 0.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return min(path.stat().st_size, USUAL_PICKLED)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > raised(MOST_UNPACKED * path.stat().st_size):
                raise UsageError(
                    f"{path} unpacks to {unpacked} bytes, which is not how torch saves weights; {PLAIN}, {RAISE}"
                )
            for member in [member for member in members if member.CRC]:
                with archive.open(member) as content:
                    while content.read(2**20):
                        pass
    return sum(member.file_size for member in members if member.filename.endswith(".pkl"))


def _names_in(path: Path) -> list[str]:
    """Return the names of classes in a file, where it is a zip archive as torch writes it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (*UNREADABLE, pickle.UnpicklingError):  # an older format, or damaged: loading will say
        return []


def _learn(error: str, stand_ins: dict[str, Callable[..., object]]) -> bool:
    """Say whether `error` is of a class that is not known, or of one that is a dictionary, and know it from now on."""
    if unknown := re.search(r"Unsupported global: GLOBAL (\S+) was not an allowed", error):
        names = [name for name in (unknown[1], f"builtins.{unknown[1]}") if name not in stand_ins]
        stand_ins.update((name, _stand_in(name)) for name in names)
        return bool(names)
    if filled := re.search(r"Can only SETITEMS? for dict, .* but got <class '(.+)'>", error, re.DOTALL):
        name = filled[1].removeprefix(f"{__name__}.")
        if name in stand_ins:
            stand_ins[name] = _Dictionary
            return True
    return False


def _stand_in(name: str) -> type[Skipped]:
    return type(name, (Skipped,), {"named": name})


class _Dictionary:
    """What stands for a class of dictionaries: a plain one."""

    def __new__(cls, *_: object) -> "dict[object, object]":  # type: ignore[misc]
        return {}
