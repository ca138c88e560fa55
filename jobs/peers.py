"""`python -m jobs.peers`: the speed of what one would run instead. For measurement only.

`blog` is the blog post's loop, `gradcam` and `torchcam` those of the packages' documentation, each decoding with Pillow
and ending in one box a picture, in float32 on all CPU cores; `ray-data` is the same arithmetic on Ray Data, compiled.
Networks have random, seeded weights: the arithmetic is the same. Prints one line of JSON.

Letters: B batch, K classes, C channels, H, W the grid of the features, h, w that of a map. Boxes are half-open, pixels
of the input.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import tyro
import tyro.conf
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from cam_ops.arrays import F32
from cam_ops.errors import CamrayError, MachineError, StorageError, UsageError
from cam_ops.network.load import load_classifier
from cam_ops.network.names import is_factory
from cam_ops.settings import ModelConfig

SIDE = 224
BATCH_SIZE = 32
THRESHOLD = 0.2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = (".jpg", ".jpeg")

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """Measure what one would run instead of camray, and print one line of JSON."""

    peer: tyro.conf.Positional[Literal["blog", "gradcam", "torchcam", "ray-data"]]
    """Whose loop."""
    model: tyro.conf.Positional[str]
    """A network as `label --model` takes it; names have random weights."""
    num_images: tyro.conf.Positional[int]
    """How many pictures; those of the folder are repeated as needed."""
    folder: tyro.conf.Positional[Path]
    """Folder of JPEG files, searched recursively."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of ray-data; the others run in fp32."""

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise UsageError(f"expected a number of images of at least 1, got {self.num_images}")
        if self.peer != "ray-data" and self.precision != "fp32":
            raise UsageError(f"the peer {self.peer} runs in fp32, got --precision {self.precision}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A network with the two places that class activation maps need."""

    network: nn.Module
    layer: str  # the last module that returns a grid, (B, C, H, W) with H > 1
    linear: str  # the last linear layer


def main() -> int:
    """Print the measurement; return the exit code of the errors."""
    try:
        config = tyro.cli(PeerConfig, prog="python -m jobs.peers")
        print(json.dumps(measure(config)), flush=True)
    except CamrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(config: PeerConfig) -> dict[str, Any]:
    """Return the JSON document: seconds for all pictures, without the building of the network."""
    files = list(islice(cycle(find_files(config.folder)), config.num_images))
    target = find_target(config.model)
    document = {"peer": config.peer, "model": config.model, "images": len(files)}
    if config.peer == "ray-data":
        from cluster.bench.ray_data import run_on_ray_data

        weight_KC, bias_K = affine_head(target)
        trunk = trunk_of(target)
        return document | run_on_ray_data(trunk, weight_KC, bias_K, [str(file) for file in files], config.precision)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    start = time.perf_counter()
    num_boxes = sum(1 for _ in boxes_of(config.peer, target, files))
    seconds = time.perf_counter() - start
    assert num_boxes == len(files)
    return document | {"seconds": round(seconds, 6), "images_per_s": round(len(files) / seconds, 2)}


def find_files(folder: Path) -> list[Path]:
    """Return the JPEG files below a folder, sorted; raises StorageError where there is none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise StorageError(f"expected JPEG files below {folder}, found none; check the folder")
    return files


def find_target(model: str) -> Target:
    """Build a network and find its last grid by running it once; raises UsageError where it has none."""
    weights = None if is_factory(model) else "random"
    network = load_classifier(ModelConfig(model=model, weights=weights, mean=MEAN, std=STD)).network
    grids: list[str] = []

    def note(name: str, returned: Any) -> None:
        if isinstance(returned, Tensor) and returned.ndim == 4 and returned.shape[2] > 1:
            grids.append(name)

    hooks = [
        module.register_forward_hook(lambda module, given, returned, name=name: note(name, returned))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not grids or not linears:
        raise UsageError(f"{model} has no module that returns a grid, or no linear layer; the peers need both")
    return Target(network=network, layer=grids[-1], linear=linears[-1])


def affine_head(target: Target) -> tuple[Tensor, Tensor]:
    """Return weight, shape (K, C), and bias, shape (K,), of the last linear layer, which the grid's mean goes into."""
    linear = target.network.get_submodule(target.linear)
    assert isinstance(linear, nn.Linear)
    weight_KC = linear.weight.detach()
    return weight_KC, weight_KC.new_zeros(len(weight_KC)) if linear.bias is None else linear.bias.detach()


def trunk_of(target: Target) -> nn.Module:
    """Return the part of the network up to its last grid: images to features, (B, C, H, W)."""
    from torchvision.models.feature_extraction import create_feature_extractor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk: nn.Module = create_feature_extractor(target.network, {target.layer: "features"})
    return trunk


def boxes_of(peer: str, target: Target, files: list[Path]) -> Iterator[Box | None]:
    """Yield the box of each picture, of the predicted class, by the loop of `peer`."""
    loops = {"blog": _blog, "gradcam": _gradcam, "torchcam": _torchcam}
    return loops[peer](target, files)


def _blog(target: Target, files: list[Path]) -> Iterator[Box | None]:
    """Map picture by picture, channel by channel; min-max on the grid, then enlarge."""
    features: list[F32] = []
    weight_KC = affine_head(target)[0].numpy()
    layer = target.network.get_submodule(target.layer)
    layer.register_forward_hook(lambda module, given, returned: features.append(returned.detach().numpy()))
    for file in files:
        features.clear()
        predicted = int(target.network(load(file)[None]).softmax(1).argmax())
        features_CHW = features[0][0]
        cam_HW = np.zeros(features_CHW.shape[1:], np.float32)
        for features_HW, weight in zip(features_CHW, weight_KC[predicted], strict=True):
            cam_HW += weight * features_HW
        cam_HW -= cam_HW.min()
        yield largest_box(cv2.resize(cam_HW / cam_HW.max(), (SIDE, SIDE)))


def _gradcam(target: Target, files: list[Path]) -> Iterator[Box | None]:
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        raise _not_installed("grad-cam", error) from None
    extractor = GradCAM(target.network.requires_grad_(True), [target.network.get_submodule(target.layer)])
    for images_BCHW in _batches(files):
        for cam_hw in extractor(input_tensor=images_BCHW, targets=None):
            yield largest_box(cam_hw)


def _torchcam(target: Target, files: list[Path]) -> Iterator[Box | None]:
    try:
        from torchcam.methods import CAM
    except ImportError as error:
        raise _not_installed("torchcam", error) from None
    extractor = CAM(target.network, target.layer, fc_layer=target.linear)
    for images_BCHW in _batches(files):
        with torch.no_grad():
            logits_BK = target.network(images_BCHW)
            cams_B1HW = extractor(logits_BK.argmax(1).tolist(), logits_BK)[0][:, None]
            cams_B1hw = nn.functional.interpolate(cams_B1HW, size=(SIDE, SIDE), mode="bilinear")
        for cam_hw in cams_B1hw[:, 0].numpy():
            yield largest_box(cam_hw)


def _not_installed(package: str, error: ImportError) -> MachineError:
    return MachineError(f"the peer needs {package}, which cannot be imported ({error}); pip install -e '.[bench]'")


_transform = v2.Compose(
    [v2.Resize((SIDE, SIDE)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
)


def load(file: Path) -> Tensor:
    """Decode with Pillow, resize and normalise as torchvision's documentation does; shape (3, SIDE, SIDE)."""
    image_CHW: Tensor = _transform(Image.open(file).convert("RGB"))
    return image_CHW


def _batches(files: list[Path]) -> Iterator[Tensor]:
    for start in range(0, len(files), BATCH_SIZE):
        yield torch.stack([load(file) for file in files[start : start + BATCH_SIZE]])


def largest_box(cam_hw: F32) -> Box | None:
    """Box the largest region at or above a fifth of the map's peak; None where there is none."""
    mask_hw = (cam_hw >= THRESHOLD * cam_hw.max()).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask_hw)
    if count < 2:
        return None
    x, y, width, height = (int(value) for value in stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4])
    return x, y, x + width, y + height


if __name__ == "__main__":
    sys.exit(main())
