"""Odd networks, made at random from what users put into theirs: `--model tests.support.odd_networks:network_17`.

Each knows its own logits before anything squashes or wraps them, and what they are a function of, so that plain
autograd gives the right maps.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

SIDE = 32
INPUTS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "image_size": SIDE}

BODIES = ("plain", "plain", "norms", "shared", "residual", "checkpoint", "reentrant", "in place", "numpy")
POOLS = (*("mean",) * 3, "adaptive", "avg_pool", "flat mean", "steps", "sum", "gem", "max", "both", "part", "flatten")
HEADS = ("linear", "linear", "bare", "norm", "deep", "layer norm", "cosine", "cosine by hand", "scores", "two")
REPEATS = (*("once",) * 12, "mirrored", "mirrored together", "of the batch")
ENDS = (*("logits",) * 4, "temperature", "softmax", "softmax", "log-softmax", "sigmoid", "sigmoid by hand", "tanh")
OUTPUTS = (*("plain",) * 5, "tuple", "mapping", "dataclass", "grid", "squeezed", "two", "nested")
WRAPPERS = ("none", "none", "none", "parallel", "compiled", "part compiled", "doubling hook", "input hook", "pixels")
DTYPES = (torch.float32, torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one is made of."""

    body: str
    pool: str
    head: str
    repeat: str
    end: str
    output: str
    wrapper: str
    dtype: torch.dtype
    num_classes: int

    @property
    def is_doubled(self) -> bool:
        """Does a hook of the user's double the logits?"""
        ends_in_logits = self.end in ("logits", "temperature", "tanh")
        return self.wrapper == "doubling hook" and self.output == "plain" and ends_in_logits


def recipe_of(number: int) -> Recipe:
    """Return the recipe of that number: most of each network is usual, a few things in it are odd."""
    chance = random.Random(number)
    return Recipe(
        body=chance.choice(BODIES),
        pool=chance.choice(POOLS),
        head=chance.choice(HEADS),
        repeat=chance.choice(REPEATS),
        end=chance.choice(ENDS),
        output=chance.choice(OUTPUTS),
        wrapper=chance.choice(WRAPPERS),
        dtype=chance.choice(DTYPES),
        num_classes=chance.choice((1, 2, 5, 30)),
    )


class Odd(nn.Module):
    """Three convolutions, a pooling, a head, and an end."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.third = self.second if recipe.body == "shared" else nn.Conv2d(8, 8, 3, 2, 1)
            self.norm = nn.BatchNorm2d(8) if recipe.body == "norms" else nn.Identity()
            if recipe.body == "norms":
                self.norm.running_mean.uniform_(-0.2, 0.2)
                self.norm.running_var.uniform_(0.5, 1.5)
            self.act, self.tap = nn.ReLU(inplace=recipe.body == "in place"), nn.Identity()
            width = {"both": 16, "flatten": 128}.get(recipe.pool, 8)
            num = recipe.num_classes
            self.scores = nn.Conv2d(8, num, 1)
            self.fc, self.bare = nn.Linear(width, num), nn.Linear(width, num, bias=False)
            self.deep = nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, num))
            self.before, self.layer_norm = nn.BatchNorm1d(width), nn.LayerNorm(width)
            self.before.running_var.uniform_(0.5, 1.5)
            for parameter in (self.layer_norm.weight, self.layer_norm.bias):
                parameter.data.uniform_(0.5, 1.5)
        self.recipe = recipe
        self.is_frozen = False  # holds the lengths by which features are divided

    def features(self, images: Tensor) -> Tensor:
        """Return what is pooled, (B, C, 4, 4)."""
        body = self.recipe.body
        features = self.act(self.first(images))
        if body in ("checkpoint", "reentrant"):
            features = checkpoint(self.second, features, use_reentrant=body == "reentrant")
        else:
            features = self.second(features)
        if body == "numpy":
            features = torch.from_numpy(features.numpy())
        features = self.act(self.norm(features))
        if body == "residual":
            features = features + self.act(features * 0.5)
        features = self.act(self.third(features))
        return self.tap(self.scores(features).relu() if self.recipe.head == "scores" else features)

    def pooled(self, features: Tensor) -> Tensor:
        """Return the vectors (B, C), or those of its recipe."""
        pools: dict[str, Callable[[], Tensor]] = {
            "mean": lambda: features.mean((2, 3)),
            "adaptive": lambda: functional.adaptive_avg_pool2d(features, 1).flatten(1),
            "avg_pool": lambda: functional.avg_pool2d(features, 4).flatten(1),
            "flat mean": lambda: features.flatten(2).mean(-1),
            "steps": lambda: features.mean(-1).mean(-1),
            "sum": lambda: features.sum((2, 3)) / 16,
            "gem": lambda: self.tap(features.clamp(min=1e-6).pow(3)).mean((2, 3)).pow(1 / 3),
            "max": lambda: features.amax((2, 3)),
            "both": lambda: torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1),
            "part": lambda: features[..., 1:].mean((2, 3)),
            "flatten": lambda: features.flatten(1),
        }
        return pools[self.recipe.pool]()

    def headed(self, features: Tensor) -> Tensor:
        """Return the logits of features."""
        head = self.recipe.head
        if head == "scores":
            return features.mean((2, 3))
        pooled = self.pooled(features)
        if head == "layer norm":
            centred = pooled - pooled.mean(1, keepdim=True)
            length = (centred.square().mean(1, keepdim=True) + self.layer_norm.eps).sqrt()
            if self.is_frozen:
                return self.fc(centred / length.detach() * self.layer_norm.weight + self.layer_norm.bias)
            return self.fc(self.layer_norm(pooled))
        if head.startswith("cosine"):
            length = pooled.norm(dim=1, keepdim=True)
            if self.is_frozen:
                pooled = pooled / length.detach()
            else:
                pooled = functional.normalize(pooled) if head == "cosine" else pooled / length
            return 8 * functional.linear(pooled, functional.normalize(self.fc.weight))
        heads: dict[str, Callable[[], Tensor]] = {
            "linear": lambda: self.fc(functional.dropout(pooled, training=self.training)),
            "bare": lambda: self.bare(pooled),
            "norm": lambda: self.fc(self.before(pooled)),
            "deep": lambda: self.deep(pooled),
            "two": lambda: (self.fc(pooled) + self.bare(pooled)) / 2,
        }
        return heads[head]()

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, K), before its end."""
        repeat = self.recipe.repeat
        once = lambda images: self.headed(self.features(images))  # noqa: E731
        if repeat == "mirrored":
            return (once(images) + once(images.flip(3))) / 2
        if repeat == "mirrored together":
            return sum(once(torch.cat([images, images.flip(3)])).chunk(2)) / 2
        return once(images) + images.mean() if repeat == "of the batch" else once(images)

    def scaled(self, images: Tensor) -> Tensor:
        """Return the logits that its end squashes, as whoever calls it has them; of a single one both."""
        logits = self.logits(images.clamp(0, 0.5) if self.recipe.wrapper == "input hook" else images)
        logits = logits / 2.5 if self.recipe.end == "temperature" else logits
        logits = logits.tanh() if self.recipe.end == "tanh" else logits
        logits = 2 * logits if self.recipe.is_doubled else logits
        return torch.cat([-logits, logits], 1) if self.recipe.num_classes == 1 else logits

    def forward(self, images: Tensor) -> Any:
        if self.recipe.wrapper == "pixels":
            assert ((images >= 0) & (images <= 1)).all(), "expected pixels from 0 to 1"
        logits = self.logits(images)
        ends: dict[str, Callable[[], Tensor]] = {
            "logits": lambda: logits,
            "temperature": lambda: logits / 2.5,
            "softmax": lambda: logits.softmax(-1),
            "log-softmax": lambda: functional.log_softmax(logits, -1),
            "sigmoid": lambda: nn.Sigmoid()(logits),
            "sigmoid by hand": lambda: 1 / (1 + (-logits).exp()),
            "tanh": lambda: logits.tanh(),
        }
        ended = ends[self.recipe.end]()
        outputs: dict[str, Callable[[], Any]] = {
            "plain": lambda: ended,
            "tuple": lambda: (ended, torch.zeros(len(ended), 3, 4, 4)),
            "mapping": lambda: {"logits": ended, "embedding": torch.zeros(len(ended), 7)},
            "dataclass": lambda: Result(ended, None),
            "grid": lambda: ended[:, :, None, None],
            "squeezed": lambda: ended.squeeze(),
            "two": lambda: (ended, 2 * ended),
            "nested": lambda: [{"heads": {"classes": ended}}],
        }
        return outputs[self.recipe.output]()


Result = make_dataclass("Result", ["scores", "hidden"])


def odd(number: int) -> Odd:
    """Return the network of that number without what is around it, float64: what the right answer is made with."""
    recipe = replace(recipe_of(number), body="plain") if recipe_of(number).body == "numpy" else recipe_of(number)
    return Odd(recipe, number).to(recipe.dtype).double().eval().requires_grad_(False)


def build(number: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of that number as a user's factory does."""
    recipe = recipe_of(number)
    network: Any = Odd(recipe, number).to(recipe.dtype)
    if recipe.wrapper == "parallel":
        network = nn.DataParallel(network)
    elif recipe.wrapper == "compiled":
        network = torch.compile(network)
    elif recipe.wrapper == "part compiled":
        network.second = torch.compile(network.second)
    elif recipe.is_doubled:
        network.register_forward_hook(lambda module, given, returned: 2 * returned)
    elif recipe.wrapper == "input hook":
        network.register_forward_pre_hook(lambda module, given: (given[0].clamp(0, 0.5),))
    return network, INPUTS


def __getattr__(name: str) -> Callable[[], tuple[nn.Module, dict[str, Any]]]:
    if name.startswith("network_") and name[8:].isdigit():
        return partial(build, int(name[8:]))
    raise AttributeError(name)
