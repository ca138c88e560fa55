"""The same pictures, in whatever form they come, give the same maps and boxes, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command import Command, table_rows
from tests.support.tables import FORMS, by_picture

CLASSES = ("Blue Tit", "robin", "wren", "crow")
NETWORK = ["--model", "tests.support.networks:chain", "--mean", 0.5, 0.5, 0.5, "--std", 0.25, 0.25, 0.25]
EXACT = ["--executor", "inline", "--precision", "fp32", "--image-size", 64, "--classes", "label+top1"]


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 pictures, JPEG, PNG and WebP, of several sizes, some turned by EXIF; and its run."""
    folder = tmp_path_factory.mktemp("same")
    generator = np.random.default_rng(0)
    for i in range(24):
        height, width = generator.integers(40, 120, 2)
        coarse_HWC = generator.integers(0, 256, (5, 7, 3), np.uint8)
        picture = Image.fromarray(coarse_HWC).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        path = folder / "pictures" / CLASSES[i % 4] / f"{i:02d}.{('jpg', 'png', 'webp')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, exif=exif)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in ("wren", "crow", "owl", "blue_tit", "Robin")))
    assert run(folder, folder / "pictures", "folder", "--labels", "folder").code == 0
    return folder


def run(folder: Path, images: object, out: str, *more: object) -> Command:
    flags = ["--class-names", folder / "classes.txt", "--batch-size", 4, "--shard-size", 8]
    return Command("label", "--images", images, "--out", folder / "runs" / out, *NETWORK, *EXACT, *flags, *more)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pictures_give_the_same_maps_and_boxes(same: Path, form: str) -> None:
    paths = sorted((same / "pictures").glob("*/*"), key=lambda path: path.name[::-1])  # in no order of ids
    images = FORMS[form](paths, same)
    labels = [] if form != "text list" else ["--labels", "folder"]
    if form == "text list":  # whose ids are paths: the labels come from elsewhere
        rows = "".join(f"{path},{path.parent.name}\n" for path in paths)
        (same / "labels.csv").write_text(f"image_id,label\n{rows}")
        labels = ["--labels", same / "labels.csv"]
    done = run(same, images, form, *labels)
    assert (done.code, done.result["ok"]) == (0, 24), done.err
    for table in ("heatmaps", "boxes", "images"):
        assert by_picture(same / "runs" / form, table) == by_picture(same / "runs" / "folder", table)


def test_they_are_really_labelled_and_boxed(same: Path) -> None:
    images = table_rows(same / "runs" / "folder", "images")
    assert {row["image_id"].split("/")[0]: row["label"] for row in images} == {
        "wren": 0,
        "crow": 1,
        "Blue Tit": 3,
        "robin": 4,
    }
    assert len(table_rows(same / "runs" / "folder", "boxes")) >= 24
