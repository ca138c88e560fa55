"""What a --model names: a library's network, or a factory of the user's own. Without torch, so that drivers may ask."""

import os

from cam_ops.errors import UsageError

TIMM = "timm:"
HUB = "hf:"


def is_factory(model: str) -> bool:
    """Say whether a --model is a factory, and no name of a library's network."""
    return (":" in model and not model.startswith((TIMM, HUB))) or is_file(model)


def is_file(place: str) -> bool:
    """Say whether what stands before a factory's function is a file, and no module of a package."""
    return place.endswith(".py")


def factory_parts(model: str) -> tuple[str, str]:
    """Return a factory's module or file, and its function; raises UsageError where a --model names none."""
    place, _, function = model.rpartition(":")
    if is_file(model):
        raise UsageError(f"--model {model} names no function; give {model}:FUNCTION")
    if not place or not function.isidentifier():
        raise UsageError(f"--model {model} expects package.module:function or FILE.py:function")
    if not is_file(place) and not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"--model {model}: {place} is no package.module; a file is given as FILE.py:{function}")
    return place, function


def factory_name(model: str) -> str:
    """Return what a factory is called in a run: of a file its own name alone, so that a run goes on where it moved."""
    place, function = factory_parts(model)
    return f"{os.path.basename(place)}:{function}" if is_file(place) else model


def absolute_factory(model: str) -> str:
    """Return a --model that names a file or a folder by its absolute path; any other as it is."""
    if model.startswith(HUB):
        return f"{HUB}{os.path.abspath(os.path.expanduser(model.removeprefix(HUB)))}"
    place, colon, function = model.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(place))}:{function}" if colon and is_file(place) else model
