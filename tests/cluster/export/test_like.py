"""`--like`: whose ids a box gets, and which files of ids are refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.export.conftest import TWO
from tests.support.command import Command

CATEGORIES = [{"id": 5, "name": "discs"}, {"id": 2**60 + 1, "name": "rings"}]


def likened(run: Path, tmp_path: Path, images: dict[str, object], categories: object = CATEGORIES) -> Command:
    document = {"images": [{"id": number, "file_name": name} for name, number in images.items()], "annotations": []}
    (tmp_path / "like.json").write_text(json.dumps({**document, "categories": categories}))
    words = ["--to", "coco-results", "--like", tmp_path / "like.json", "--out", tmp_path / "out", "--overwrite"]
    return Command("export", run, *words)


def results(tmp_path: Path) -> list[dict[str, int]]:
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_ids_above_those_of_floats_are_kept_to_the_last_digit(run: Path, tmp_path: Path) -> None:
    done = likened(run, tmp_path, {"discs/01.png": 2**53 + 1, "rings/00.png": 2**53})
    assert done.code == 0, done.err
    assert {box["image_id"] for box in results(tmp_path)} == {2**53 + 1, 2**53}
    assert {box["category_id"] for box in results(tmp_path)} <= {5, 2**60 + 1}


def test_a_picture_of_another_folder_is_another_picture(run: Path, tmp_path: Path) -> None:
    done = likened(run, tmp_path, {"val/rings/00.png": 7, "02.png": 8, "squares/04.png": 9})
    assert done.code == 0, done.err
    assert {box["image_id"] for box in results(tmp_path)} == {7, 8}
    assert done.result["images_left_out"]["not in --like"] == 10


@pytest.mark.parametrize(
    ("images", "categories", "words"),
    [
        ({"discs/01.png": 1, "rings/00.png": 1}, CATEGORIES, "the image id 1 is that of 'discs/01.png' and of"),
        ({"discs/01.png": "1"}, CATEGORIES, "ids that are whole numbers, found the image 'discs/01.png', '1'"),
        ({"discs/01.png": 1}, [{"id": 1, "name": "discs"}, {"id": 1, "name": "rings"}], "the category id 1 is that"),
    ],
)
def test_ids_that_are_not_of_one_are_refused(
    run: Path, tmp_path: Path, images: dict[str, object], categories: object, words: str
) -> None:
    done = likened(run, tmp_path, images, categories)
    assert (done.code, words in done.err) == (2, True), done.err


def test_a_picture_that_has_another_size_there_is_refused_as_its_boxes_would_lie_elsewhere(
    run: Path, tmp_path: Path
) -> None:
    """The run's pictures are 64 wide and 48 high; 48x64 is how a file stores one that EXIF turns."""
    path = tmp_path / "like.json"
    words = ["--to", "coco-results", "--like", path, "--out", tmp_path / "out", "--executor", "inline"]
    image = {"id": 7, "file_name": "rings/00.png", "width": 48, "height": 64}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": CATEGORIES}))
    refused = Command("export", run, *words)
    assert (refused.code, [*(tmp_path / "out").iterdir()]) == (2, [])
    assert "--like says that 'rings/00.png' has 48x64 pixels, as it is seen it has 64x48" in refused.err
    image |= {"width": 64, "height": 48}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": CATEGORIES}))
    assert Command("export", run, *words).code == 0
    assert {box["image_id"] for box in results(tmp_path)} == {7}


def test_an_edited_file_of_ids_is_another_export_and_the_same_one_is_there_already(run: Path, tmp_path: Path) -> None:
    words = ["--to", "coco-results", "--like", tmp_path / "like.json", "--out", tmp_path / "out"]
    assert likened(run, tmp_path, {"rings/00.png": 7}).code == 0
    same = Command("export", run, *words)
    assert (same.code, "holds this export already" in same.err) == (0, True)
    edited = (tmp_path / "like.json").read_text().replace('"id": 7', '"id": 8')
    (tmp_path / "like.json").write_text(edited)
    other = Command("export", run, *words)
    assert (other.code, "--overwrite to replace it" in other.err) == (4, True), other.err
    assert Command("export", run, *words, "--overwrite").code == 0
    assert {box["image_id"] for box in results(tmp_path)} == {8}


def test_an_image_that_has_its_very_name_leaves_none_in_doubt(run: Path, tmp_path: Path) -> None:
    pictures = sorted((run.parent / "pictures" / "rings").glob("*.png"))
    ids = ["1.png", "a/1.png", "b/1.png"]
    pq.write_table(pa.table({"uri": [*map(str, pictures[:3])], "image_id": ids}), tmp_path / "manifest.parquet")
    words = ["--images", tmp_path / "manifest.parquet", "--out", tmp_path / "run", *TWO, "--precision", "fp32"]
    names = ["--class-names", run.parent / "names.txt", "--executor", "inline"]
    assert Command("label", *words, *names).code == 0
    done = likened(tmp_path / "run", tmp_path, {"1.png": 1})
    assert (done.code, done.result["images_left_out"]["not in --like"]) == (0, 2), done.err
