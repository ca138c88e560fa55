"""YOLO trees as the common tools export them."""

from pathlib import Path

import pytest

from tests.support.truths import HALF_OPEN, Planned, Planner, ours, refusal

ONE: Planned = {"1.jpg": (40, 20, None)}
BOX = "0.5 0.5 0.5 0.5"


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def classes(rows: list[dict]) -> list[list[int | None]]:
    return [[box["class_id"] for box in row["boxes"]] for row in rows]


def test_a_roboflow_export(planner: Planner, tmp_path: Path) -> None:
    """Splits with images and labels each, two READMEs, names in the root; the same names in two splits."""
    files = {
        "README.dataset.txt": "kangaroos > 2024-01-01 3:04pm\nhttps://example.org\n",
        "README.roboflow.txt": "\nkangaroos - v1\n==============\n",
        "data.yaml": "train: ../train/images\nnc: 2\nnames: ['Crane', 'kangaroo']\nroboflow:\n  version: 1\n",
        "train/labels/1.txt": f"1 {BOX}\n",
        "valid/labels/1.txt": f"0 {BOX}\n0 .1 .1 .1 .1",
        "test/labels/2.txt": "",
    }
    planned = dict.fromkeys(["train/images/1.jpg", "valid/images/1.jpg", "test/images/2.jpg"], (40, 20, None))
    report, rows = planner.truth(planned, tree(tmp_path / "yolo", files))
    found = dict(zip([row["image_id"] for row in rows], classes(rows), strict=True))
    assert found == {"train/images/1.jpg": [0], "valid/images/1.jpg": [1, 1], "test/images/2.jpg": []}
    assert [row["truth_id"] for row in rows] == ["test/images/2", "train/images/1", "valid/images/1"]
    assert (report.matched_exact, report.num_images, report.problems) == (3, 3, {})


def test_an_ultralytics_tree(planner: Planner, tmp_path: Path) -> None:
    """labels/SPLIT beside images/SPLIT, list files, a cache, a .yaml by any name."""
    files = {
        "labels/train/1.txt": f"0 {BOX}\n",
        "labels/val/1.txt": f"1 {BOX}\n",
        "labels/train.cache": "binary",
        "train.txt": "./images/train/1.jpg\n",
        "kangaroos.yaml": "path: ../datasets\nnames:\n  0: kangaroo\n  1: Crane\n",
        "other.yaml": "services: [a]\n",
        "broken.yaml": "{{ template }}: [\n",
    }
    folder = tree(tmp_path / "yolo", files)
    for ids in (["images/train/1.jpg", "images/val/1.jpg"], ["train/1.jpg", "val/1.jpg"]):
        report, rows = planner.truth(dict.fromkeys(ids, (40, 20, None)), folder)
        assert (classes(rows), report.matched_exact, report.problems) == ([[0], [1]], 2, {})
    for part, ids in (("labels", ["train/1.jpg", "val/1.jpg"]), ("labels/val", ["1.jpg"])):
        _, rows = planner.truth(dict.fromkeys(ids, (40, 20, None)), folder / part)
        assert classes(rows) == ([[0], [1]] if part == "labels" else [[1]])


def test_lists_and_readmes_beside_labels(planner: Planner, tmp_path: Path) -> None:
    files = {
        "1.txt": f"0 {BOX}\n",
        "2.txt": "\n\n",
        "classes.txt": "kangaroo\nCrane\n",
        "train.txt": "data/1.jpg\ndata/2.jpg\n",
        "README.txt": "Pictures of kangaroos.",
    }
    folder = tree(tmp_path / "yolo", files)
    (folder / "notes.txt").write_bytes(b"caf\xe9 0 1 2")
    report, rows = planner.truth({**ONE, "2.jpg": (40, 20, None)}, folder)
    assert [ours(row) for row in rows] == [[HALF_OPEN], []]
    assert [row["truth_id"] for row in rows] == ["1", "2"]
    problem = report.problems["entries_without_image"]
    assert (problem.count, list(report.problems)) == (3, ["entries_without_image"])
    assert any("train.txt line 1: expected the number of a class, found 'data/1.jpg'" in e for e in problem.examples)


@pytest.mark.parametrize("word", ["1", "1.0", "01", "1e0", "1.000000000000000000e+00"])
def test_numbers_of_classes_as_tools_write_them(planner: Planner, tmp_path: Path, word: str) -> None:
    files = {"labels/1.txt": f"{word} {BOX}\n", "classes.txt": "Crane\nkangaroo\n"}
    _, rows = planner.truth(ONE, tree(tmp_path / "yolo", files))
    assert classes(rows) == [[0]]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ("names: [0, 1]", "1"),
        ("names: {0: a, 1: kangaroo}", "kangaroo"),
        ("names: {'0': a, '1': kangaroo}", "kangaroo"),
        ("names:\n- a\n- kangaroo", "kangaroo"),
        ("names: [yes, no]", "no"),
        ("names: [on, 007]", "007"),
        ("names: [a, 1.0]", "1.0"),
    ],
)
def test_names_are_the_texts_that_stand_there(planner: Planner, tmp_path: Path, names: str, word: str) -> None:
    """YAML itself would make a truth of `no`, a 7 of 007."""
    folder = tree(tmp_path / "yolo", {"labels/1.txt": f"1 {BOX}\n", "data.yaml": names})
    list_of = ["none", "nothing", word] if word not in ("1", "1.0") else ["none", "one", "two"]
    _, rows = planner.truth(ONE, folder, names=tuple(list_of))
    assert classes(rows) == [[1 if word in ("1", "1.0") else 2]]


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1e", "\x85", "\u2028"])
def test_a_name_that_holds_what_unicode_takes_for_the_end_of_a_line_is_one(
    planner: Planner, tmp_path: Path, sign: str
) -> None:
    files = {"labels/1.txt": f"1 {BOX}\n", "classes.txt": f"Crane{sign}bird\nkangaroo\nhorse\n"}
    assert classes(planner.truth(ONE, tree(tmp_path / "yolo", files))[1]) == [[0]]


@pytest.mark.parametrize("place", ["", "data", "data/set", "data/set/train"])
def test_names_lie_some_folders_above(planner: Planner, tmp_path: Path, place: str) -> None:
    folder = tree(tmp_path / "up", {"data/set/train/labels/1.txt": f"1 {BOX}\n"})
    (folder / place / "data.yaml").write_text("names: [Crane, kangaroo]")
    _, rows = planner.truth(ONE, folder / "data/set/train/labels")
    assert classes(rows) == [[0]]


def test_names_beside_the_labels_are_names(planner: Planner, tmp_path: Path) -> None:
    """As labelImg leaves them; where they disagree with others, it is asked."""
    folder = tree(tmp_path / "yolo", {"labels/1.txt": f"1 {BOX}\n", "labels/classes.txt": "Crane\nkangaroo\nhorse\n"})
    assert classes(planner.truth(ONE, folder)[1]) == [[0]]
    (folder / "data.yaml").write_text("names: [crane, Kangaroo]")
    assert classes(planner.truth(ONE, folder)[1]) == [[0]]
    (folder / "data.yaml").write_text("names: [kangaroo, crane]")
    said = refusal(planner, ONE, folder)
    assert "it calls class 0 'Crane'" in said
    assert "data.yaml calls it 'kangaroo'" in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"2 {BOX}", "class 2 has no name in "),
        ("1 20 10 20 10", "expected fractions of the picture, from 0 to 1, found 20 10 20 10"),
        (f"1 {BOX} 0.9", "expected a class and 4 numbers, or a polygon, found 6 cells"),
        ("1 .5 .5 .5 x", "expected a class and 4 numbers"),
        ("1 .5 .5", "expected a class and 4 numbers"),
        (f"-1 {BOX}", "expected the number of a class, found '-1'"),
        (f"1.5 {BOX}", "expected the number of a class, found '1.5'"),
        (f"1e20 {BOX}", "expected the number of a class"),
        ("1 .1 .1 .2 .2 .3 2 .4 .4", "expected fractions"),  # keypoints
    ],
)
def test_a_line_that_is_none_is_counted(planner: Planner, tmp_path: Path, line: str, reason: str) -> None:
    files = {"labels/1.txt": f"1 {BOX}\n{line}\n", "labels/2.txt": f"0 {BOX}\n", "classes.txt": "Crane\nkangaroo\n"}
    report, rows = planner.truth({**ONE, "2.jpg": (40, 20, None)}, tree(tmp_path / "yolo", files))
    assert [row["num_missing"] for row in rows] == [1, 0]
    (example,) = report.problems["unusable_objects"].examples
    assert example.startswith(f"1.jpg: labels/1.txt line 2: {reason}")


def test_keypoints_are_no_corners(planner: Planner, tmp_path: Path) -> None:
    files = {
        "labels/1.txt": f"0 {BOX} .1 .1 .9 .9 .2 .8\n",
        "data.yaml": "kpt_shape: [3, 2]\nnames: [kangaroo]\n",
    }
    _, (row,) = planner.truth(ONE, tree(tmp_path / "yolo", files))
    assert ours(row) == [HALF_OPEN]


def test_numbers_alone_are_the_networks_and_that_is_said(
    planner: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = planner.truth(ONE, tree(tmp_path / "yolo", {"labels/1.txt": f"1 {BOX}\n"}))
    assert classes(rows) == [[1]]
    assert "the numbers of classes are taken as the network's" in capsys.readouterr().err


# A box around the middle of a picture of 40 x 20, and points of which all lie in it: or a polygon of four corners.
EITHER = "0 .5 .5 .5 .5 .4 .4 .6 .6\n"


def test_what_may_be_an_outline_or_keypoints_is_asked_for(planner: Planner, tmp_path: Path) -> None:
    folder = tree(tmp_path / "yolo", {"labels/1.txt": f"0 {BOX}\n{EITHER}", "data.yaml": "names: [kangaroo]"})
    said = refusal(planner, ONE, folder)
    assert "labels/1.txt line 2 has a class and 8 numbers" in said
    assert "--truth-format yolo-polygons" in said
    _, (row,) = planner.truth(ONE, folder, truth_format="yolo-polygons")
    assert ours(row) == [HALF_OPEN, (16, 8, 24, 12)]
    for yaml in ("names: [kangaroo]\nkpt_shape: [2, 2]", "kpt_shape: [2, 2]"):
        (folder / "data.yaml").write_text(yaml)
        report, (row,) = planner.truth(ONE, folder)
        assert ours(row) == [HALF_OPEN]  # twice the same
        assert report.problems["duplicate_boxes"].count == 1


@pytest.mark.parametrize("more", ["0 .5 .5 .5 .5 .4 .4 1 0 0 0\n", "0 .5 .5 .5 .5 .77 .5 .5 .77 .4 .4\n"])
def test_keypoints_that_are_hidden_or_a_little_outside_are_some(planner: Planner, tmp_path: Path, more: str) -> None:
    assert "and 10 numbers" in refusal(planner, ONE, tree(tmp_path / "yolo", {"labels/1.txt": more}))


@pytest.mark.parametrize(
    ("lines", "box"),
    [
        ("0 .25 .25 .75 .25 .75 .75 .25 .75\n", HALF_OPEN),  # as a box it would leave the picture
        (EITHER + "0 .25 .25 .75 .25 .75 .75\n", (16, 8, 24, 12)),  # keypoints are as many in each line
        (EITHER + "0 .5 .25 .75 .5 .5 .75 .25 .5\n" * 2, (16, 8, 24, 12)),  # few are like keypoints
    ],
)
def test_outlines_that_cannot_be_keypoints_are_taken(
    planner: Planner, tmp_path: Path, lines: str, box: tuple[float, ...]
) -> None:
    _, (row,) = planner.truth(ONE, tree(tmp_path / "yolo", {"labels/1.txt": lines}))
    assert tuple(round(corner, 9) for corner in ours(row)[0]) == box


def test_each_dataset_below_has_its_own_names(planner: Planner, tmp_path: Path) -> None:
    files = {
        "cats/labels/1.txt": f"0 {BOX}\n",
        "cats/data.yaml": "names: [Crane, kangaroo]",
        "dogs/set/obj_train_data/labels/2.txt": f"0 {BOX}\n",
        "dogs/set/obj.names": "kangaroo\nCrane\n",
    }
    folder = tree(tmp_path / "zip", files)
    planned: Planned = ONE | {"2.jpg": (40, 20, None)}
    assert classes(planner.truth(planned, folder)[1]) == [[1], [0]]
    (folder / "cats" / "data.yaml").unlink()
    said = refusal(planner, planned, folder)
    assert "obj.names, which lies with others" in said
    (folder / "obj.names").write_text("Crane\n")
    assert classes(planner.truth(planned, folder)[1]) == [[1], [0]]


def test_names_in_a_folder_beside_the_labels(planner: Planner, tmp_path: Path) -> None:
    """The only ones that there are."""
    folder = tree(tmp_path / "zip", {"labels/1.txt": f"0 {BOX}\n", "meta/classes.txt": "Crane\n"})
    assert classes(planner.truth(ONE, folder)[1]) == [[1]]
    tree(folder, {"other/classes.txt": "kangaroo\n"})
    assert "meta/classes.txt or " in (said := refusal(planner, ONE, folder)) or "other/classes.txt or " in said


def test_how_many_keypoints_there_are_holds_for_all_below(planner: Planner, tmp_path: Path) -> None:
    files = {"labels/a/1.txt": EITHER, "labels/a/classes.txt": "Crane\n", "data.yaml": "kpt_shape: [2, 2]"}
    _, rows = planner.truth(ONE, tree(tmp_path / "yolo", files))
    assert (ours(rows[0]), classes(rows)) == ([HALF_OPEN], [[1]])
