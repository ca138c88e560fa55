"""Seeds: label maps worked out by hand, and a run's against OpenCV and torch; read by Pillow and torchvision."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from cam_ops.errors import UsageError
from cluster.export.kinds import EXPORTS
from cluster.formats.exported import Picture
from tests.support.command import Command, table_rows
from tests.support.exported_runs import SIDE, THREE, ExportedRun, write_picture
from tests.support.map_values import map_rows, values_at
from tests.support.written import picture_of, settings_of, written

LEFT, RIGHT = [[1.0, 0], [0, 0]], [[0, 2.0], [0, 0]]
"""Maps whose values on 4 x 4 pixels are the products of 1, .75, .25, 0 from the corner on."""


def seeds(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def made(tmp_path: Path, picture: Picture, num_classes: int = 2, **settings: object) -> list[list[int]]:
    out = written("seeds", settings_of(num_classes, **settings), [picture], tmp_path / "out")
    return seeds(out / "seeds" / "a.png").tolist()


def test_a_class_from_high_on_background_below_low_nothing_between(tmp_path: Path) -> None:
    assert made(tmp_path, picture_of((4, 4), {6: LEFT}), num_classes=7) == [
        [7, 7, 255, 0],
        [7, 7, 0, 0],
        [255, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_a_value_that_is_high_is_of_the_class_and_one_that_is_low_is_no_background(tmp_path: Path) -> None:
    assert made(tmp_path, picture_of((4, 4), {0: LEFT}), high=0.75, low=0.25)[0] == [1, 1, 255, 0]


def test_of_several_classes_the_one_with_the_highest_value(tmp_path: Path) -> None:
    assert made(tmp_path, picture_of((4, 4), {0: LEFT, 1: RIGHT})) == [
        [1, 1, 2, 2],
        [1, 1, 2, 2],
        [255, 0, 0, 255],
        [0, 0, 0, 0],
    ]


def test_of_equal_values_the_class_that_scores_higher(tmp_path: Path) -> None:
    equal = picture_of((4, 4), {0: LEFT, 1: LEFT}, scores={1: 0.6})
    assert made(tmp_path, equal)[0] == [2, 2, 255, 0]


def test_a_class_whose_boxes_were_filtered_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    assert made(tmp_path, picture_of((4, 4), {0: LEFT, 1: RIGHT}, boxed={1}))[0] == [0, 255, 2, 2]


def test_a_picture_that_is_kept_without_a_box_is_background_where_the_network_saw_it(tmp_path: Path) -> None:
    picture = picture_of((4, 4), {0: LEFT}, rectangle=(0, 0, 2, 4), boxed=set())
    assert made(tmp_path, picture) == [[0, 0, 255, 255]] * 4


def test_beyond_what_the_network_saw_nothing_is_said(tmp_path: Path) -> None:
    assert made(tmp_path, picture_of((4, 4), {0: LEFT}, rectangle=(1, 1, 3, 3))) == [
        [255, 255, 255, 255],
        [255, 1, 0, 255],
        [255, 0, 0, 255],
        [255, 255, 255, 255],
    ]


def test_of_a_padded_picture_there_is_what_lies_in_it(tmp_path: Path) -> None:
    padded = picture_of((4, 2), {0: LEFT}, rectangle=(0, -1, 4, 3))
    assert made(tmp_path, padded) == [[1, 1, 0, 0], [255, 0, 0, 0]]


def test_on_the_grid_cells_beyond_the_picture_are_left_out(tmp_path: Path) -> None:
    raw = [[0.0, 0, 0, 0], [0, 4, 2, 1], [0, 0.5, 0, 0], [4, 4, 4, 4]]
    padded = picture_of((8, 4), {0: raw}, rectangle=(0, -2, 8, 6))
    assert made(tmp_path, padded, input_size=4, at_grid=True) == [[255] * 4, [0, 1, 1, 255], [0, 0, 0, 0], [255] * 4]


def test_colours_are_pascal_vocs(tmp_path: Path) -> None:
    out = written("seeds", settings_of(1), [picture_of((4, 4), {0: LEFT})], tmp_path / "out")
    with Image.open(out / "seeds" / "a.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(palette[number].tolist()) for number in known} == known


def test_254_classes_have_room_and_more_are_refused() -> None:
    EXPORTS["seeds"].check(settings_of(254))
    with pytest.raises(UsageError, match="at most 254 classes, the export has 255; give --category-ids used"):
        EXPORTS["seeds"].check(settings_of(255))


def test_many_classes_are_refused_before_anything_is_written_and_numbered_anew_where_asked(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for at in range(3):
        write_picture(tmp_path / "pictures" / f"{at}.png", THREE, (50, 40))
    words = ["--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", SIDE, "--executor", "inline", "--precision", "fp32"]
    run, out = tmp_path / "run", tmp_path / "out"
    many = ["--model", "tests.support.networks:many_classes", "--classes", "topk:2"]
    assert Command("label", "--images", tmp_path / "pictures", "--out", run, *many, *words).code == 0
    flags = ["export", run, "--to", "seeds", "--out", out, "--executor", "inline"]
    refused = Command(*flags)
    assert (refused.code, "the export has 300" in refused.result["error"], out.exists()) == (2, True, False)
    assert Command(*flags, "--category-ids", "used").code == 0
    used = sorted({row["class_id"] for row in table_rows(run, "boxes")})
    assert used[-1] >= 254
    with (out / "classes.csv").open(newline="") as file:
        assert [(int(row["number"]), int(row["class_id"])) for row in csv.DictReader(file)] == [*enumerate(used, 1)]
    assert {*np.unique([seeds(path) for path in out.glob("seeds/*.png")])} <= {0, *range(1, len(used) + 1), 255}


def expected(run: Path, image_id: str, side: int, *, high: float = 0.5, low: float = 0.2) -> tuple[np.ndarray, ...]:
    """Return a picture's seeds by OpenCV and torch, and whether they are beyond the doubt of rounding."""
    image = next(row for row in table_rows(run, "images") if row["image_id"] == image_id)
    boxed = {row["class_id"] for row in table_rows(run, "boxes") if row["image_id"] == image_id}
    values, classes = [], []
    for row in map_rows(run):
        if row["image_id"] == image_id and row["class_id"] in boxed:
            rectangle = [row[name] for name in ("x0", "y0", "x1", "y1")]
            value_HW, is_covered_HW = values_at(row["raw"], rectangle, side, image["width"], image["height"])
            values.append(value_HW)
            classes.append(row["class_id"])
    best_HW = np.max(values, axis=0)
    seeds_HW = np.where(best_HW >= high, np.array(classes)[np.argmax(values, axis=0)] + 1, 255)
    seeds_HW = np.where(is_covered_HW, np.where(best_HW < low, 0, seeds_HW), 255)
    second_HW = np.sort(values, axis=0)[-2] if len(values) > 1 else np.full_like(best_HW, -1)
    margins = abs(best_HW - high), abs(best_HW - low), np.where(best_HW < high, 1, best_HW - second_HW)
    return seeds_HW, np.min(margins, axis=0) > 1e-6


def test_a_runs_seeds_are_those_of_other_libraries(hostile: ExportedRun, tmp_path: Path) -> None:
    """Names that break files, a picture on its side, several classes; every class number stands for its class."""
    done = hostile.export("seeds", tmp_path / "out")
    assert done.code == 0, done.err
    files = sorted((tmp_path / "out" / "seeds").rglob("*.png"))
    assert len(files) == done.result["exported"] == len(hostile.boxes)
    by_size = {found.shape: found for found in map(seeds, files)}
    assert len(by_size) == len(files)  # no two pictures are of one size
    num_sure = num_pixels = 0
    for image_id in hostile.boxes:
        seeds_HW, is_sure_HW = expected(hostile.root, image_id, SIDE)
        image = hostile.images[image_id]
        found_HW = by_size[image["height"], image["width"]]
        np.testing.assert_array_equal(found_HW[is_sure_HW], seeds_HW[is_sure_HW], image_id)
        num_sure += is_sure_HW.sum()
        num_pixels += is_sure_HW.size
    assert num_sure > 0.99 * num_pixels


def test_a_picture_on_its_side_has_seeds_as_it_is_seen(hostile: ExportedRun, tmp_path: Path) -> None:
    """Its patches: red at (3, 5, 20, 18) and (30, 20, 40, 31), green at (25, 2, 45, 12), of 52 x 42 pixels."""
    assert hostile.export("seeds", tmp_path / "out").code == 0
    turned = seeds(tmp_path / "out" / "seeds" / "turned.png")
    assert turned.shape == (42, 52)
    with Image.open(hostile.pictures / "turned.jpg") as stored:
        assert stored.size == (42, 52)
    assert (turned[11, 11], turned[25, 35], turned[7, 35], turned[38, 3]) == (1, 1, 2, 0)


@pytest.mark.parametrize("resize", ["letterbox", "center-crop"])
def test_maps_of_more_or_less_than_the_picture_lie_at_their_place(
    hostile: ExportedRun, tmp_path: Path, resize: str
) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "turned.jpg"):
        (tmp_path / "pictures" / name).write_bytes((hostile.pictures / name).read_bytes())
    words = ["--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", SIDE, "--executor", "inline", "--precision", "fp32"]
    words += ["--model", "tests.support.networks:colours", "--classes", "topk:2", "--resize", resize]
    run, out = tmp_path / "run", tmp_path / "out"
    assert Command("label", "--images", tmp_path / "pictures", "--out", run, *words).code == 0
    assert Command("export", run, "--to", "seeds", "--out", out, "--executor", "inline").code == 0
    for name in ("a.png", "turned.jpg"):
        seeds_HW, is_sure_HW = expected(run, name, SIDE)
        found_HW = seeds(out / "seeds" / Path(name).with_suffix(".png"))
        np.testing.assert_array_equal(found_HW[is_sure_HW], seeds_HW[is_sure_HW])
        assert is_sure_HW.mean() > 0.5
        assert (found_HW[:, 0] == 255).all() == (resize == "center-crop")


def test_torchvision_reads_them_as_pascal_vocs_segmentation(labelled: ExportedRun, tmp_path: Path) -> None:
    """Each picture is a patch of a colour, whose class the label is: the tree is VOC's, but for its names."""
    out, tree = tmp_path / "out", tmp_path / "VOCdevkit" / "VOC2012"
    assert labelled.export("seeds", out, "--pictures", "copy").code == 0
    (tree / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tree / "JPEGImages").symlink_to(out / "images")
    (tree / "SegmentationClass").symlink_to(out / "seeds")
    stems = sorted(str(path.relative_to(out / "images").with_suffix("")) for path in out.rglob("*.jpg"))
    (tree / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(stems))
    dataset = torchvision.datasets.VOCSegmentation(str(tmp_path), image_set="train")
    assert len(dataset) == len(stems) == 6
    for (picture, target), stem in zip(dataset, stems, strict=True):
        image = labelled.images[f"{stem}.jpg"]
        assert target.size == picture.size == (image["width"], image["height"])
        assert {*np.unique(np.array(target)).tolist()} <= {0, image["label"] + 1, 255}
        at = int(stem[-2:])  # the patch lies at x 5 + at .. 30 + at, y 7 .. 31 - at
        assert np.array(target)[10, 15 + at] == image["label"] + 1
        assert np.array(target)[40, 60] == 0
        assert torch.equal(pil_to_tensor(target)[0], torch.from_numpy(np.array(target)))


def test_splits_are_folders(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("seeds", tmp_path / "out", "--split", "folder", "--pictures", "copy").code == 0
    places = {
        kind: sorted(path.relative_to(tmp_path / "out" / kind).with_suffix("") for path in found)
        for kind in ("seeds", "images")
        if (found := [path for path in (tmp_path / "out" / kind).rglob("*") if path.is_file()])
    }
    assert places["seeds"] == places["images"]
    assert {path.parts[0] for path in places["seeds"]} == {"train", "val"}
    assert all(path.parts[0] == path.parts[-2] for path in places["seeds"])
