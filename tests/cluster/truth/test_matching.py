"""Which image a name in a truth means: what has one meaning is taken, what has two is counted."""

import unicodedata
from pathlib import Path

import pytest

from tests.support.truths import Planned, Planner, ours, refusal


def matched(planner: Planner, tmp_path: Path, planned: list[str], truth: list[str]) -> dict[str, str]:
    """Return which planned image each name is taken for; each has a box of its own."""
    path = tmp_path / "boxes.csv"
    path.write_text("image;x0;y0;x1;y1\n" + "".join(f'"{name}";{i};0;{i + 1};1\n' for i, name in enumerate(truth)))
    sizes: Planned = dict.fromkeys(planned, (40, 20, None))
    _, rows = planner.truth(sizes, path)
    return {truth[int(box[0])]: row["image_id"] for row in rows for box in ours(row)}


CATS_AND_DOGS = ["cats/1.jpg", "dogs/1.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        *("cats/1.jpg", "./cats/1.jpg", "/cats/1.jpg", "cats//1.jpg", "cats/./1.jpg", " cats/1.jpg "),
        *("cats\\1.jpg", ".\\cats\\1.jpg", "cats/1.JPG", "cats/1.png", "cats/1", "Cats/1.Jpg", "CATS\\1.JPG"),
        *("/data/set/cats/1.jpg", "C:\\data\\cats\\1.jpg", "https://host/set/cats/1.jpg", "train/Cats/1.xml"),
        *("cats/1.heic", "cats/1.jpe"),
    ],
)
def test_a_name_with_one_meaning_is_taken(planner: Planner, tmp_path: Path, name: str) -> None:
    assert matched(planner, tmp_path, CATS_AND_DOGS, [name]) == {name: "cats/1.jpg"}


@pytest.mark.parametrize("name", ["1.jpg", "birds/1.jpg", "cats/2.jpg", "cats1.jpg", "cats/1/1.jpg"])
def test_a_name_with_two_meanings_or_none_is_not(planner: Planner, tmp_path: Path, name: str) -> None:
    assert matched(planner, tmp_path, CATS_AND_DOGS, ["dogs/1.jpg", name]) == {"dogs/1.jpg": "dogs/1.jpg"}


def test_letters_in_either_unicode_form(planner: Planner, tmp_path: Path) -> None:
    """macOS writes the names of files decomposed."""
    composed, decomposed = (unicodedata.normalize(form, "käng/ü.jpg") for form in ("NFC", "NFD"))
    assert composed != decomposed
    others = [unicodedata.normalize(form, "x/ü.jpg") for form in ("NFC", "NFD")]
    assert matched(planner, tmp_path, [composed, others[0]], [decomposed]) == {decomposed: composed}
    assert matched(planner, tmp_path, [decomposed, others[1]], [composed]) == {composed: decomposed}


def test_leading_folders_of_either_side(planner: Planner, tmp_path: Path) -> None:
    planned = ["images/train/a/1.jpg", "images/train/b/1.jpg", "images/val/a/1.jpg", "images/val/b/1.jpg"]
    truth = ["train/a/1.jpg", "val/b/1.jpg", "other/images/val/a/1.png", "b/1.jpg"]
    assert matched(planner, tmp_path, planned, truth) == {
        "train/a/1.jpg": "images/train/a/1.jpg",
        "val/b/1.jpg": "images/val/b/1.jpg",
        "other/images/val/a/1.png": "images/val/a/1.jpg",
    }


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("train/1.jpg", "test/1.jpg"),
        ("train2017/1.jpg", "val2017/1.jpg"),
        ("data/train/images/1.jpg", "valid/images/1.jpg"),
        ("Training/a/1", "testing/a/1.jpg"),
        ("dev/1", "test/1.jpg"),
        ("train_images/1.jpg", "test_images/1.jpg"),
        ("training_set/1.jpg", "test_set/1.jpg"),
        ("seg_train/cats/1.jpg", "seg_test/cats/1.jpg"),
        ("images_train/1.jpg", "images_val/1.jpg"),
        ("images/train/1.jpg", "images_val/1.jpg"),
        ("trainval/1.jpg", "test/1.jpg"),
        ("trainA/1.jpg", "Test B/1.jpg"),
        ("2-train-04/1.jpg", "eval/1.jpg"),
    ],
)
def test_a_picture_of_another_split_is_another(planner: Planner, tmp_path: Path, name: str, image: str) -> None:
    assert matched(planner, tmp_path, [image, "2.jpg"], [name, "2.jpg"]) == {"2.jpg": "2.jpg"}


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("train/1.jpg", "1.jpg"),
        ("val/1", "dev/1.jpg"),
        ("validation/1", "val/1.jpg"),
        ("trainval/1", "train2012/1.jpg"),
        ("seg_train/1.jpg", "images/training/1.jpg"),
        ("latest/1.jpg", "training/1.jpg"),
        ("train/1.jpg", "test/train/1.jpg"),  # pictures of trains
        ("test/train/1.jpg", "train/1.jpg"),
        ("trains/1.jpg", "test/1.jpg"),
        ("annotations/1.xml", "images/1.jpg"),
    ],
)
def test_what_says_no_other_split_is_taken(planner: Planner, tmp_path: Path, name: str, image: str) -> None:
    assert matched(planner, tmp_path, [image, "2.jpg"], [name, "2.jpg"]) == {name: image, "2.jpg": "2.jpg"}


@pytest.mark.parametrize(
    ("name", "image", "more"),
    [
        ("cats/9.jpg", "dogs/9.jpg", ["cats/1.jpg", "dogs/2.jpg"]),  # the run has cats, and it is not among them
        ("Cats/9.jpg", "dogs/9.jpg", ["cats/1.jpg", "dogs/2.jpg"]),
        ("cats/9.xml", "dogs/images/9.jpg", ["cats/images/1.jpg", "dogs/images/2.jpg"]),
        ("cats/images/9", "dogs/images/9.jpg", ["cats/images/1.jpg", "dogs/images/2.jpg"]),
        ("cats/9.jpg", "9.jpg", ["cats/1.jpg"]),
    ],
)
def test_a_picture_of_another_class_is_another(
    planner: Planner, tmp_path: Path, name: str, image: str, more: list[str]
) -> None:
    found = matched(planner, tmp_path, [image, *more], [name, *more])
    assert found == {each: each for each in more}
    found = matched(planner, tmp_path, [name, *more], [image, *more])  # the other way round
    no_folder = {image: name} if "/" not in image else {}
    assert found == {each: each for each in more} | no_folder


def test_it_is_counted_which_are_in_another_folder(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("image,x0,y0,x1,y1\ncats/9.jpg,0,0,1,1\ncats/1.jpg,0,0,1,1\ntrain/2.jpg,0,0,1,1\n")
    planned: Planned = dict.fromkeys(["cats/1.jpg", "dogs/9.jpg", "test/2.jpg"], (40, 20, None))
    report, _ = planner.truth(planned, path)
    problems = {name: (problem.count, problem.examples) for name, problem in report.problems.items()}
    assert problems == {
        "other_folder": (2, ("cats/9.jpg", "train/2.jpg")),
        "images_without_truth": (2, ("dogs/9.jpg", "test/2.jpg")),
    }
    said = refusal(planner, {"test/2.jpg": (40, 20, None)}, path)
    assert "1 have the stem of an image in another folder or split, such as train/2.jpg" in said
    assert "several" not in said


def test_capitals_decide_where_they_tell(planner: Planner, tmp_path: Path) -> None:
    planned = ["a/x.jpg", "a/X.jpg", "b/y.jpg"]
    truth = ["a/x.jpg", "X.jpg", "B/Y.JPG"]
    assert matched(planner, tmp_path, planned, truth) == {
        "a/x.jpg": "a/x.jpg",
        "X.jpg": "a/X.jpg",
        "B/Y.JPG": "b/y.jpg",
    }
    assert matched(planner, tmp_path, ["a/x.jpg", "a/X.jpg", "b.jpg"], ["A/x.jpg", "b.jpg"]) == {
        "A/x.jpg": "a/x.jpg",
        "b.jpg": "b.jpg",
    }


def test_a_picture_that_is_named_in_several_ways_has_all_its_boxes(planner: Planner, tmp_path: Path) -> None:
    truth = ["./1.jpg", "1.jpg", ".\\1.jpg", " 1.jpg"]
    assert matched(planner, tmp_path, ["1.jpg"], truth) == dict.fromkeys(truth, "1.jpg")


def test_a_backslash_that_is_part_of_a_name_stays_one(planner: Planner, tmp_path: Path) -> None:
    """Ids double it."""
    planned = ["a\\\\1.jpg", "b/2.jpg"]
    assert matched(planner, tmp_path, planned, ["a\\\\1.jpg", "b\\2.jpg"]) == {
        "a\\\\1.jpg": "a\\\\1.jpg",
        "b\\2.jpg": "b/2.jpg",
    }


def test_an_image_of_two_classes_has_none(planner: Planner, tmp_path: Path) -> None:
    for name, text in {
        "class_labels": "1.jpg,0\n1.jpg,1\n2.jpg,1\n2.jpg,1",
        "localization": "1.jpg,1,1,2,2\n2.jpg,1,1,2,2",
    }.items():
        (tmp_path / f"{name}.txt").write_text(text)
    planned: Planned = {"1.jpg": (40, 20, 0), "2.jpg": (40, 20, 1)}
    report, rows = planner.truth(planned, tmp_path)
    assert [(row["true_class"], row["num_unclear"]) for row in rows] == [(0, 1), (1, 0)]
    assert report.problems["several_classes"].examples == ("1.jpg",)
