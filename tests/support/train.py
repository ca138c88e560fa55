"""Train small networks on shapes, from class labels alone: `python -m tests.support.train SET OUT --network small_vit`.

Writes `OUT/NETWORK.safetensors`. The functions without arguments return trained networks, weights from the folder
`CAMRAY_SHAPES_NETS`: `label --model tests.support.train:small_vit --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25`.

Letters: B batch, C, H, W as ever, K classes.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from tests.support.shapes import CLASSES, SIZE_PX

MEAN, STD = 0.5, 0.25
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is built and trained."""

    build: Callable[[], nn.Module]
    num_steps: int
    learning_rate: float
    sizes_px: tuple[tuple[int, ...], tuple[int, ...]]  # drawn for each batch: in the first two thirds, and after


def shapes_resnet18() -> nn.Module:
    """Factory: `--model tests.support.train:shapes_resnet18`."""
    return _trained("shapes_resnet18")


def small_convnext() -> nn.Module:
    """Factory: `--model tests.support.train:small_convnext`."""
    return _trained("small_convnext")


def small_vit() -> nn.Module:
    """Factory: `--model tests.support.train:small_vit`; it takes 128 pixels only."""
    return _trained("small_vit")


def _build_resnet18() -> nn.Module:
    network: nn.Module = resnet18(num_classes=len(CLASSES))
    return network


def _build_convnext() -> nn.Module:
    # Blocks scaled by 1e-6, as large ConvNeXts begin, are not felt within a few hundred steps.
    widths = ((48, 96, 2), (96, 192, 2), (192, 256, 3), (256, None, 1))
    return ConvNeXt([CNBlockConfig(*w) for w in widths], layer_scale=0.5, num_classes=len(CLASSES))


def _build_vit() -> nn.Module:
    return VisionTransformer(
        image_size=SIZE_PX,
        patch_size=8,
        num_layers=8,
        num_heads=4,
        hidden_dim=128,
        mlp_dim=256,
        num_classes=len(CLASSES),
    )


ANY_SIZE = (96, 112), (128, 144, 160)
RECIPES = {
    "shapes_resnet18": Recipe(build=_build_resnet18, num_steps=300, learning_rate=2e-3, sizes_px=ANY_SIZE),
    "small_convnext": Recipe(build=_build_convnext, num_steps=600, learning_rate=3e-3, sizes_px=ANY_SIZE),
    "small_vit": Recipe(build=_build_vit, num_steps=600, learning_rate=1e-3, sizes_px=((128,), (128,))),
}


def train(recipe: Recipe, folder: Path, seed: int, num_steps: int) -> nn.Module:
    """Return a network in eval mode, trained on ``folder/CLASS/*.png`` with AdamW and one cycle."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).glob("*.png"))]
    network = recipe.build().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, num_steps, pct_start=0.15)
    correct, start = [], time.monotonic()
    for step in range(num_steps):
        if step * BATCH % len(files) < BATCH:
            order = random.permutation(len(files))
        chosen = [files[order[(step * BATCH + i) % len(files)]] for i in range(BATCH)]
        size_px = int(random.choice(recipe.sizes_px[3 * step >= 2 * num_steps]))
        images_BCHW = functional.interpolate(
            torch.stack([_augmented(random, path) for path, _ in chosen]), size=size_px, mode="bilinear", antialias=True
        )
        labels_B = torch.tensor([label for _, label in chosen])
        logits_BK = network(images_BCHW.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        functional.cross_entropy(logits_BK, labels_B, label_smoothing=0.05).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        correct.append(float((logits_BK.argmax(1) == labels_B).float().mean()))
        if step % 50 == 49:
            seconds = time.monotonic() - start
            print(f"step {step + 1}: {np.mean(correct[-50:]):.3f} right in training, {seconds:.0f} s", flush=True)
    return network.eval()


def _augmented(random: np.random.Generator, path: Path) -> Tensor:
    """Return a picture (C, H, W), normalised, turned by right angles, mirrored, its colours exchanged or inverted."""
    image_HWC = cv2.imread(str(path))[..., random.permutation(3)]
    image_HWC = np.rot90(image_HWC, random.integers(4))
    if random.integers(2):
        image_HWC = image_HWC[:, ::-1]
    if random.integers(2):
        image_HWC = 255 - image_HWC
    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1), np.float32))
    return (image_CHW / 255 - MEAN) / STD


def _trained(name: str) -> nn.Module:
    network = RECIPES[name].build()
    network.load_state_dict(load_file(Path(os.environ["CAMRAY_SHAPES_NETS"]) / f"{name}.safetensors"))
    return network.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="where tests.support.shapes left the split train")
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", choices=RECIPES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of 64 pictures each; else the recipe's")
    asked: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = RECIPES[asked.network]
    network = train(recipe, asked.set / "train", asked.seed, asked.steps or recipe.num_steps)
    asked.out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, asked.out / f"{asked.network}.safetensors")


if __name__ == "__main__":
    main()
