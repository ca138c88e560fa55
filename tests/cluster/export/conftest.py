"""A run that tests of `export` share: the twelve pictures and a broken one, in two folders."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command import Command

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of thirteen pictures, three a shard, with up to three boxes a class; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    generator = np.random.default_rng(0)
    for number in range(12):
        image_HWC = generator.integers(0, 60, (48, 64, 3), np.uint8)
        for _ in range(3):
            y, x = generator.integers(6, 42), generator.integers(6, 58)
            rows, columns = np.ogrid[:48, :64]
            image_HWC[(rows - y) ** 2 + (columns - x) ** 2 < 25] = (200, 220, 240)
        name = folder / "pictures" / ("discs" if number % 2 else "rings") / f"{number:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(name)
    (folder / "pictures" / "discs" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "names.txt").write_text("discs\nrings\n")
    labels = ["--labels", "folder", "--class-names", folder / "names.txt", "--classes", "label+top1"]
    words = ["--images", folder / "pictures", "--out", folder / "run", *labels, *TWO, "--components", "all"]
    more = ["--threshold", 0.4, 0.6, "--shard-size", 3, "--batch-size", 3, "--max-error-rate", 0.5, "--min-area", 0]
    done = Command("label", *words, *more, "--executor", "inline", "--precision", "fp32")
    assert done.code == 0, done.err
    yield folder / "run"
    shutil.rmtree(folder)
