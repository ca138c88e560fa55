"""What commands read files with, called alone, as a whole command takes too long; it ends as a command does."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cam_ops.class_lists import read_class_names
from cam_ops.classes import numbered_classes
from cam_ops.errors import BadImage, CamrayError
from cam_ops.network.weighted import with_weights
from cam_ops.network.zoo import Architecture
from cam_ops.pictures.orientation import AS_STORED
from cam_ops.settings import ModelConfig
from cluster.formats.detect import open_truth
from cluster.label.config import LabelConfig
from cluster.process.console import say
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from cluster.sources.labels.find import find_labels, label_images
from cluster.sources.several import open_sources
from cluster.truth.classes import class_finder
from cluster.truth.prepare import TruthConfig, prepare_truth
from jobs.command import Outcome, error_text, result_line
from tests.support.networks import TwoChannels
from tests.support.pictures import load_picture


def _truth(run: str, truth: str, truth_format: str, *class_map: str) -> None:
    """Match a truth to a run, whose pictures EXIF does not turn."""
    run_dir = RunDir(run)
    config = TruthConfig(truth=truth, truth_format=truth_format, class_map=class_map)
    prepare_truth(run_dir, existing_run(run_dir), config, RunDir(f"{run}/audit"), lambda rows: [AS_STORED] * len(rows))


def _entries(truth: str, truth_format: str) -> None:
    """Read a truth, and match it to nothing."""
    for batch in open_truth(truth, truth_format, None).batches:
        batch.validate(full=True)


def _class_map(path: str) -> None:
    """Read what a truth's words mean of the kept run's thousand classes."""
    class_finder(tuple(map(str, range(1000))), (path,))


def _classes(path: str) -> None:
    """Read the class list of a network of two classes."""
    read_class_names(Path(path), 2)


def _listing(images: str, labels: str, class_names: str = "") -> None:
    """List pictures with their labels, and decode the first."""
    model = ModelConfig(model="two_channels", class_names=class_names or None)
    config = LabelConfig(images=(images,), out="out", labels=labels or None, model=model, limit=2)
    classes = read_class_names(Path(class_names), 2) if class_names else numbered_classes(2)
    with open_sources(config.addresses, config.asked(skip="")) as listing:
        found = find_labels(listing, config.label_choice, classes, listing)
        rows = [row for batch in label_images(listing, found) for row in batch.to_pylist()]
    for row in rows[:1]:
        with suppress(BadImage):
            load_picture(row)


def _weights(path: str) -> None:
    """Put weights into a network of two channels, whose head may have any number of classes."""
    known = Architecture(
        name="two_channels",
        path="tests.support.networks:two_channels",
        build=_two_channels,
        pretrained=_two_channels,  # type: ignore[arg-type]  # not called
        num_classes=2,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        size=32,
        is_sized=False,
        interpolation="bilinear",
        crop_fraction=1,
    )
    network = with_weights(known, ModelConfig(model="two_channels", weights=path)).network
    network(torch.zeros(1, 3, 4, 4))


def _two_channels(num_classes: int = 2) -> nn.Module:
    network = TwoChannels()
    network.fc = nn.Linear(2, num_classes)
    return network


def _ended(read: Callable[..., None], *words: Any) -> int:
    """Call a reader; return the exit code that `jobs.commands.run` would, with the lines that it prints."""
    start_s, outcome = time.monotonic(), Outcome()
    try:
        read(*words)
    except CamrayError as error:
        say(f"error: {error_text(error)}")
        outcome = Outcome(status=error.status, exit_code=error.exit_code, error=error_text(error))
    print(result_line(read.__name__, outcome, time.monotonic() - start_s))
    return outcome.exit_code


READERS: dict[str, Callable[..., int]] = {
    name: partial(_ended, read)
    for name, read in {
        "truth": _truth,
        "entries": _entries,
        "class-map": _class_map,
        "classes": _classes,
        "listing": _listing,
        "weights": _weights,
    }.items()
}
