"""ImageNet's LOC CSV as an export: whole pixels, and a word without blanks for each class."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cam_ops.errors import UsageError
from cluster.formats.loc_csv import LOC_EXPORT
from cluster.truth.classes import class_finder
from tests.support.exported_lines import KeptPart, picture_of, settings_of
from tests.support.exported_runs import ExportedRun, corners, labelled_run

HALF = 0.5 + 1e-6  # by which a side may be off


def solutions(path: Path) -> dict[str, list[list[int]]]:
    """Return class and corners of each box by image, as the challenge's own scripts take a line apart."""
    with path.open(newline="") as file:
        rows = {row["ImageId"]: list(map(int, row["PredictionString"].split())) for row in csv.DictReader(file)}
    return {image: [numbers[at : at + 5] for at in range(0, len(numbers), 5)] for image, numbers in rows.items()}


def test_each_box_is_its_class_s_number_and_the_first_and_last_pixels(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("loc", tmp_path / "out")
    assert done.code == 0, done.err
    found = solutions(tmp_path / "out" / "loc.csv")
    assert len(found) == len(hostile.boxes)
    for stem, image_id in (("turned", "turned.jpg"), ("two.dots", "two.dots.jpg"), ("<&>\"'`$ {}", "<&>\"'`$ {}.png")):
        rows, image = hostile.boxes[image_id], hostile.images[image_id]
        boxes_N5 = np.array(found[stem])
        assert boxes_N5[:, 0].tolist() == [row["class_id"] for row in rows]
        np.testing.assert_allclose(boxes_N5[:, 1:] + [0, 0, 1, 1], corners(rows), rtol=0, atol=HALF)
        assert (boxes_N5[:, 3:] < [image["width"], image["height"]]).all()


def test_our_own_audit_finds_each_box_where_the_run_has_it(
    hostile: ExportedRun, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    run = labelled_run(tmp_path_factory.mktemp("labelled"), scale=10)
    assert run.export("loc", tmp_path / "whole").code == 0
    figures = run.audited(tmp_path / "whole" / "loc.csv")
    assert {figures[name]["value"] for name in ("ap", "ap_50", "gt_known_loc", "mean_best_iou")} == {100}
    assert hostile.export("loc", tmp_path / "rounded").code == 0
    figures = hostile.audited(tmp_path / "rounded" / "loc.csv", "--truth-frame", "oriented")
    assert (figures["ap_50"]["value"], figures["ap_50"]["images"]) == (100, 7)  # the others bear another name there


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("red fox", "crane (1)", "a, b"), ["0", "1", "2"]),
        (("0", "1", "2"), ["0", "1", "2"]),
        (("1", "2", "0"), ["1", "2", "0"]),  # the number 0 is the third one's name
        (("7", "red  fox", "a, b"), ["7", "red_fox", "a,_b"]),
    ],
)
def test_the_word_of_a_class_is_that_of_no_other(names: tuple[str, ...], words: list[str]) -> None:
    part = KeptPart(settings_of(names))
    LOC_EXPORT.write(iter([picture_of("a.jpg", 0, 1, 2)]), part)
    ((line,),) = part.lines.values()
    ((image, text),) = csv.reader([line.decode()])
    found = text.split()
    assert (image, found[::5], found[1:5]) == ("a", words, ["10", "5", "29", "14"])
    assert [class_finder(names, ())(word) for word in found[::5]] == [(0,), (1,), (2,)]


def test_names_that_leave_no_word_are_refused() -> None:
    part = KeptPart(settings_of(("7", "red fox", "Red-Fox")))
    with pytest.raises(UsageError, match=r"red_fox and Red-Fox may be the same one; .* export --to csv"):
        LOC_EXPORT.write(iter([picture_of()]), part)


def test_each_split_is_a_file(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("loc", tmp_path / "out", "--split", "folder").code == 0
    found = {path.name: sorted(solutions(path)) for path in (tmp_path / "out" / "loc").iterdir()}
    stems = {image_id: image_id.rpartition(".")[0] for image_id in labelled.boxes}
    assert found == {
        f"{split}.csv": sorted(stem for image_id, stem in stems.items() if f"/{split}/" in image_id)
        for split in ("train", "val")
    }
