"""Soft masks: values worked out by hand, and a run's against OpenCV and torch; the index read by `csv`."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.exported_runs import NAMES, SIDE, ExportedRun
from tests.support.map_values import map_rows, values_at
from tests.support.written import picture_of, settings_of, written


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_the_highest_value_is_255_and_between_cells_values_are_linear(tmp_path: Path) -> None:
    picture = picture_of((4, 4), {3: [[2.0, 0], [1, 1]]})
    out = written("masks", settings_of(4), [picture], tmp_path / "out")
    assert mask(out / "masks" / "3" / "a.png").tolist() == [
        [255, 191, 64, 0],
        [223, 175, 80, 32],
        [159, 143, 112, 96],
        [128, 128, 128, 128],
    ]


def test_beyond_what_the_network_saw_it_is_0(tmp_path: Path) -> None:
    picture = picture_of((4, 4), {0: [[2.0, 1], [2, 1]]}, rectangle=(1, 1, 3, 3))
    out = written("masks", settings_of(1), [picture], tmp_path / "out")
    assert mask(out / "masks" / "0" / "a.png").tolist() == [[0] * 4, [0, 255, 128, 0], [0, 255, 128, 0], [0] * 4]


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\r\nb,'\"c.jpg", "=1+1.jpg"])
def test_the_index_is_csv_whatever_a_name_holds(tmp_path: Path, name: str) -> None:
    out = written("masks", settings_of(1), [picture_of((4, 4), {0: [[1.0, 0], [0, 0]]}, name=name)], tmp_path / "out")
    with (out / "masks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["image_id"]) for row in rows] == [(f"masks/0/{name[:-4]}.png", name)]


@pytest.mark.parametrize("more", [(), ("--split", "one=0.5,0=0.5", "--keep-empty"), ("--only-classes", "0", "2")])
def test_a_runs_masks_are_those_of_other_libraries_and_the_index_lists_each(
    hostile: ExportedRun, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Names that break files, two classes of one name, a picture on its side."""
    out = tmp_path / "out"
    done = hostile.export("masks", out, *more)
    assert done.code == 0, done.err
    with (out / "masks.csv").open(newline="", encoding="utf-8") as file:
        index = {(row["image_id"], int(row["class_id"])): row for row in csv.DictReader(file)}
    wanted = {0, 2} if "--only-classes" in more else {*range(len(NAMES))}
    boxed = {(image_id, box["class_id"]) for image_id, boxes in hostile.boxes.items() for box in boxes}
    assert {*index} == {pair for pair in boxed if pair[1] in wanted}
    files = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert files == {row["file"] for row in index.values()}
    assert len(files) == len(index)  # no two in one file
    names = {int(row["class_id"]): row["class"] for row in index.values()}
    assert len({*names.values()}) == len(names)
    for row in map_rows(hostile.root):
        if listed := index.get((row["image_id"], row["class_id"])):
            image = hostile.images[row["image_id"]]
            rectangle = [row[name] for name in ("x0", "y0", "x1", "y1")]
            value_HW, is_covered_HW = values_at(row["raw"], rectangle, SIDE, image["width"], image["height"])
            level_HW = 255 * value_HW * is_covered_HW
            assert abs(mask(out / listed["file"]) - level_HW).max() <= 0.5 + 1e-6
            assert float(listed["score"]) == pytest.approx(row["score"], abs=1e-6)
            assert f"/{row['class_id']}/" in listed["file"]


def test_a_class_has_a_folder_and_pictures_have_the_same_names_there(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("masks", tmp_path / "out").code == 0
    found = {str(path.relative_to(tmp_path / "out" / "masks")) for path in (tmp_path / "out").rglob("*.png")}
    assert found == {f"{row['label']}/{name[:-4]}.png" for name, row in labelled.images.items()}
