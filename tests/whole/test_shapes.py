"""Shapes with known boxes: repeatable, boxed right, and read as a truth."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import shapes
from tests.support.shapes import CLASSES, draw, fill, outlines_of
from tests.support.truths import Planned, Planner, ours

NUM_PICTURES = 40
HALF_CHORD = math.sqrt(1 - 0.61**2)  # where the circles of the crescent meet, at x = 0.61
# What both discs cover, a segment of each: of radius 1 beyond the chord, of radius 0.8 around (0.5, 0) before it.
LENS = (math.acos(0.61) - 0.61 * HALF_CHORD) + (0.64 * (math.pi - math.acos(0.11 / 0.8)) + 0.11 * HALF_CHORD)


def written(out: Path, seed: int, num_images: int = 20) -> dict[str, bytes]:
    shapes.main([str(out), "--split", "val", "--num-images", str(num_images), "--seed", str(seed)])
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_seed_always_makes_the_same_bytes_and_a_longer_set_begins_with_the_shorter(tmp_path: Path) -> None:
    once, again = written(tmp_path / "a", 0), written(tmp_path / "b", 0)
    assert once == again
    assert len(once) == 22
    longer = written(tmp_path / "longer", 0, 30)
    assert {name for name in once if once[name] != longer[name]} == {"val_boxes.csv"}
    assert longer["val_boxes.csv"].startswith(once["val_boxes.csv"].rsplit(b"\n", 2)[0])
    other = written(tmp_path / "other", 1)
    assert all(once[name] != other[name] for name in once if name.endswith(".png"))
    assert (draw("train", 0, 3).image_HWC != draw("val", 0, 3).image_HWC).any()


def test_boxes_are_those_of_the_pixels_in_which_a_picture_differs_from_its_ground() -> None:
    for number in range(NUM_PICTURES):
        picture = draw("val", 0, number)
        differs_HW = (picture.image_HWC != picture.ground_HWC).any(2).astype(np.uint8)
        boxes: set[tuple[int, ...]] = set()
        for contour in cv2.findContours(differs_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            x, y, width, height = cv2.boundingRect(contour)
            boxes.add((x, y, x + width, y + height))
        assert boxes == {tuple(box) for box in picture.boxes_N4.tolist()}


def test_shapes_lie_apart_and_within_their_picture() -> None:
    counts = []
    for number in range(NUM_PICTURES):
        picture = draw("train", 0, number)
        assert picture.masks_NHW.sum(0).max() == 1
        assert picture.boxes_N4.min() >= 0
        assert picture.boxes_N4.max() <= shapes.SIZE_PX
        counts.append(len(picture.boxes_N4))
    assert set(counts) == {1, 2, 3}


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", math.pi * 0.9**2),
        ("ring", math.pi * (0.95**2 - 0.5**2)),
        ("square", 1.5**2),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("cross", 4 * 0.6 * 0.95 - 0.6**2),
        ("star", 10 * 0.5 * 0.42 * math.sin(math.pi / 5)),
        ("hourglass", 2 * 0.8 * (0.65 + 0.12)),
        ("arrow", 1.1 * 0.4 + 0.9 * 0.6),
        ("crescent", math.pi - LENS),
        ("heart", 180 * math.pi / 17**2),
    ],
)
def test_a_shape_has_the_area_of_geometry(name: str, area: float) -> None:
    turn_22 = np.array([[0.8, -0.6], [0.6, 0.8]])  # along rows and columns many pixels would be covered by just a half
    mask_HW = fill([points_P2 @ turn_22 * 48 + 64 for points_P2 in outlines_of(name)])
    assert mask_HW.sum() / 48**2 == pytest.approx(area, rel=0.02)


def test_the_truth_is_read_as_it_was_drawn(planner: Planner, tmp_path: Path) -> None:
    shapes.main([str(tmp_path), "--split", "val", "--num-images", "20"])
    pictures = [draw("val", 0, number) for number in range(20)]
    ids = [f"{CLASSES[picture.label]}/{number:06d}.png" for number, picture in enumerate(pictures)]
    assert sorted(ids) == sorted(str(path.relative_to(tmp_path / "val")) for path in tmp_path.rglob("*.png"))
    planned: Planned = {image_id: (128, 128, picture.label) for image_id, picture in zip(ids, pictures, strict=True)}
    names = tuple((tmp_path / "classes.txt").read_text().split())
    report, rows = planner.truth(planned, tmp_path / "val_boxes.csv", names=names)
    assert report.problems == {}
    drawn = dict(zip(ids, pictures, strict=True))
    for row in rows:
        assert ours(row) == [tuple(box) for box in drawn[row["image_id"]].boxes_N4.tolist()]
        assert {box["class_id"] for box in row["boxes"]} == {drawn[row["image_id"]].label}
        shown_HWC = np.asarray(cv2.imread(str(tmp_path / "val" / row["image_id"])))
        np.testing.assert_array_equal(shown_HWC[..., ::-1], drawn[row["image_id"]].image_HWC)
