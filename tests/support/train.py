"""Train small networks on shapes, from class labels alone: `python -m tests.support.train SET OUT --network small_vit`.

Writes `OUT/NETWORK.safetensors`. The functions without arguments return trained networks, weights from the folder
`CAMRAY_SHAPES_NETS`: `label --model tests.support.train:small_vit --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25`.

Letters: B batch, C, H, W as ever, K classes.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18
from torchvision.models.vision_transformer import interpolate_embeddings

from tests.support.shapes import CLASSES, SIZE_PX

MEAN, STD = 0.5, 0.25
BATCH = 32
PATCH_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One cycle of AdamW. Small pictures first, as they cost a third and teach nearly as much."""

    num_steps: int
    sizes_px: tuple[int, ...]  # one is drawn for each batch
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is built for a size of its input, and trained."""

    build: Callable[[int], nn.Module]
    phases: tuple[Phase, ...]


def shapes_resnet18() -> nn.Module:
    """Factory: `--model tests.support.train:shapes_resnet18`."""
    return _trained("shapes_resnet18")


def small_convnext() -> nn.Module:
    """Factory: `--model tests.support.train:small_convnext`."""
    return _trained("small_convnext")


def small_vit() -> nn.Module:
    """Factory: `--model tests.support.train:small_vit`; it takes 128 pixels only."""
    return _trained("small_vit")


def _build_resnet18(size_px: int) -> nn.Module:
    network: nn.Module = resnet18(num_classes=len(CLASSES))
    return network


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block, but with batch norm: torchvision's, with layer norm, was right in 14 % after 9,600 pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.project = nn.Conv2d(4 * width, width, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        hidden_BCHW = functional.gelu(self.expand(self.norm(self.depthwise(features_BCHW))))
        added_BCHW: Tensor = features_BCHW + self.project(hidden_BCHW)
        return added_BCHW


class SmallConvNeXt(nn.Module):
    """Four stages of ConvNeXt's blocks, strides 4 to 32; average, layer norm and a linear layer, as ConvNeXt ends."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256)
        depths = (1, 2, 2, 1)
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.GELU()),
            *(nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)),
        )
        stages: list[nn.Module] = []
        for before, width, depth in zip((0, *widths), widths, depths, strict=False):
            if before:
                stages += [nn.Sequential(nn.BatchNorm2d(before), nn.Conv2d(before, width, 2, stride=2))]
            stages += [nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], len(CLASSES))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        pooled_BC = self.stages(self.stem(images_BCHW)).mean((2, 3))
        logits_BK: Tensor = self.head(self.norm(pooled_BC))
        return logits_BK


def _build_convnext(size_px: int) -> nn.Module:
    return SmallConvNeXt()


class Stem(nn.Module):
    """Three strided convolutions with batch norms, in calls of functions: to who watches modules there is one grid.

    With patches cut out alone, and positions learned from nothing, a transformer was right in 14 % in the same time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, 32, 64, width)
        self.weights = nn.ParameterList(
            nn.init.kaiming_normal_(torch.empty(after, before, 3, 3)) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for after in widths[1:])
        self.last = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width, 1, 1)))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden_BCHW = images_BCHW
        for weight, norm in zip(self.weights, self.norms, strict=True):
            hidden_BCHW = functional.conv2d(hidden_BCHW, weight, stride=2, padding=1)
            hidden_BCHW = functional.batch_norm(
                *(hidden_BCHW, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)
            ).relu()
        return functional.conv2d(hidden_BCHW, self.last)


def _build_vit(size_px: int) -> nn.Module:
    """torchvision's, with few blocks, a convolutional stem, and positions that begin as waves."""
    width, side = 128, size_px // PATCH_PX
    sizes = {"num_layers": 4, "num_heads": 4, "hidden_dim": width, "mlp_dim": 256}
    network: nn.Module = VisionTransformer(image_size=size_px, patch_size=PATCH_PX, num_classes=len(CLASSES), **sizes)
    network.conv_proj = Stem(width)
    at_N = torch.arange(side) / side * 16
    frequency_F = 100 ** -(torch.arange(width // 4) / (width // 4))
    phases = [at_NN.flatten()[:, None] * frequency_F for at_NN in torch.meshgrid(at_N, at_N, indexing="xy")]
    waves_LC = torch.cat([wave for phase_LF in phases for wave in (phase_LF.sin(), phase_LF.cos())], 1)
    with torch.no_grad():
        network.encoder.pos_embedding[0, 1:] = 0.5 * waves_LC
    return network


RECIPES = {
    "shapes_resnet18": Recipe(
        build=_build_resnet18,
        phases=(
            Phase(num_steps=250, sizes_px=(80,), learning_rate=1e-3),
            Phase(num_steps=40, sizes_px=(112, 128, 144), learning_rate=3e-4),
        ),
    ),
    "small_convnext": Recipe(
        build=_build_convnext,
        phases=(
            Phase(num_steps=450, sizes_px=(96,), learning_rate=2e-3),
            Phase(num_steps=60, sizes_px=(112, 128, 144), learning_rate=5e-4),
        ),
    ),
    "small_vit": Recipe(
        build=_build_vit,
        phases=(
            Phase(num_steps=400, sizes_px=(64,), learning_rate=1e-3),
            Phase(num_steps=40, sizes_px=(128,), learning_rate=2.5e-4),
        ),
    ),
}


def train(recipe: Recipe, folder: Path, seed: int) -> nn.Module:
    """Return a network in eval mode, for pictures as they are, trained on ``folder/CLASS/*.png``."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).glob("*.png"))]
    batches = _batches(random, files)
    network = recipe.build(min(recipe.phases[0].sizes_px))
    for phase in recipe.phases:
        network = _enlarged(network, recipe, max(phase.sizes_px))
        _train_phase(network.train(), phase, random, batches)
    return network.eval()


def _batches(random: np.random.Generator, files: list[tuple[Path, int]]) -> Iterator[list[tuple[Path, int]]]:
    """Yield batches for ever, in another order each time round; what is left of a round is left out."""
    while True:
        order = random.permutation(len(files))
        for first in range(0, len(files) - BATCH + 1, BATCH):
            yield [files[i] for i in order[first : first + BATCH]]


def _enlarged(network: nn.Module, recipe: Recipe, size_px: int) -> nn.Module:
    """Return the network for another size of its input: of a vision transformer with its positions interpolated."""
    if not isinstance(network, VisionTransformer):
        return network.to(memory_format=torch.channels_last)
    enlarged = recipe.build(size_px)
    enlarged.load_state_dict(interpolate_embeddings(size_px, PATCH_PX, network.state_dict()))
    return enlarged


def _train_phase(
    network: nn.Module, phase: Phase, random: np.random.Generator, batches: Iterator[list[tuple[Path, int]]]
) -> None:
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, phase.learning_rate, phase.num_steps, pct_start=0.15)
    right: list[float] = []
    start = time.monotonic()
    for step in range(1, phase.num_steps + 1):
        chosen = next(batches)
        images_BCHW = torch.stack([_augmented(random, path) for path, _ in chosen])
        size_px = int(random.choice(phase.sizes_px))
        images_BCHW = functional.interpolate(images_BCHW, size=size_px, mode="bilinear", antialias=True)
        labels_B = torch.tensor([label for _, label in chosen])
        logits_BK = network(images_BCHW.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits_BK, labels_B, label_smoothing=0.05)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right.append(float((logits_BK.argmax(1) == labels_B).float().mean()))
        if step % 50 == 0:
            print(f"step {step}: {np.mean(right[-50:]):.3f} right, {time.monotonic() - start:.0f} s", flush=True)


def _augmented(random: np.random.Generator, path: Path) -> Tensor:
    """Return a picture (C, H, W), RGB, normalised, turned by right angles and mirrored at random."""
    image_HWC = np.rot90(np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1], int(random.integers(4)))
    if random.integers(2):
        image_HWC = image_HWC[:, ::-1]
    image_CHW = torch.from_numpy(np.ascontiguousarray(image_HWC.transpose(2, 0, 1), np.float32))
    return (image_CHW / 255 - MEAN) / STD


def _trained(name: str) -> nn.Module:
    network = RECIPES[name].build(SIZE_PX)
    network.load_state_dict(load_file(Path(os.environ["CAMRAY_SHAPES_NETS"]) / f"{name}.safetensors"))
    return network.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="where tests.support.shapes left the split train")
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", choices=RECIPES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=1, help="train so many times longer than the recipe says")
    asked: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = RECIPES[asked.network]
    phases = tuple(replace(phase, num_steps=phase.num_steps * asked.times) for phase in recipe.phases)
    network = train(replace(recipe, phases=phases), asked.set / "train", asked.seed)
    asked.out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, asked.out / f"{asked.network}.safetensors")


if __name__ == "__main__":
    main()
