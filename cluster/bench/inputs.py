"""What sections measure with: pictures used again and again, networks, runs in place."""

from pathlib import Path

from cam_ops.network.names import LITE0
from cam_ops.settings import ModelConfig
from cluster.bench.config import BenchConfig
from cluster.bench.manifests import write_manifest
from cluster.bench.runs import run_label, seconds_to_work

HALF = (0.5, 0.5, 0.5)
MANY = 512  # pictures: what a few cost to decode is not what all do


def label_flags(config: BenchConfig, scratch: Path, model: str) -> list[str]:
    """Return the flags of a run of --num-images with this network."""
    manifest = scratch / "images.parquet"
    if not manifest.exists():
        write_manifest(config.images, config.num_images, manifest)
    numbers = ("--precision", config.precision, "--refine", config.refine)
    return [*("--images", str(manifest)), *_model_flags(model), *numbers, "--compile", "always"]


def few_flags(config: BenchConfig, scratch: Path, num_images: int) -> list[str]:
    """Return the flags of a run that is only to be copied: so few pictures take less time than a compilation."""
    return [*label_flags(config, scratch, LITE0), "--limit", str(num_images), "--compile", "never"]


def model_of(name: str) -> ModelConfig:
    """Return a network by its name in --models: with random weights, or as its factory makes it."""
    if name == LITE0:
        return ModelConfig(model=LITE0)
    if ":" in name:
        return ModelConfig(model=name, mean=HALF, std=HALF)
    return ModelConfig(model=name, weights="random")


def _model_flags(name: str) -> list[str]:
    model = model_of(name)
    flags = ["--model", model.model]
    if model.mean and model.std:
        return [*flags, "--mean", *map(str, model.mean), "--std", *map(str, model.std)]
    return [*flags, "--weights", model.weights] if model.weights else flags


def small_run(config: BenchConfig, scratch: Path, model: str) -> tuple[str, ModelConfig]:
    """Return where there is a small run of one shard, begun with the settings of the large ones, and its network."""
    out = scratch / f"replica-{model}"
    if not out.exists():
        one_shard = ["--limit", str(MANY), "--shard-size", str(MANY), "--batch-size", "16", "--replicas", "1"]
        seconds_to_work([*label_flags(config, scratch, model), *one_shard], out)
    return str(out), model_of(model)


def to_copy(config: BenchConfig, scratch: Path, name: str) -> tuple[str, str, int]:
    """Return what `cluster.bench.copies.Copies` makes copies of, a run over 512 pictures, where, and for how many."""
    source = scratch / name
    run_label([*few_flags(config, scratch, MANY), "--shard-size", str(MANY)], source, 1)
    return str(source), f"{source}-copies", config.num_images
