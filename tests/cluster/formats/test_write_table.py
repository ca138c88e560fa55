"""CSV as an export: what pandas and our own audit read of it is the run's."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from cluster.export.names import file_name
from cluster.formats.entries import VOC_CORNERS
from tests.support.exported_runs import ExportedRun, corners

NEAR = {"rtol": 0, "atol": 5.1e-4}  # a corner is rounded to a thousandth of a pixel


def read(path: Path) -> pandas.DataFrame:
    """Read an export as docs/export.md says: `NA` is a name like any other."""
    return pandas.read_csv(path, dtype={"filename": str, "class": str}, keep_default_na=False)


def test_pandas_reads_each_box_of_the_run(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("csv", tmp_path / "out")
    assert done.code == 0, done.err
    rows = read(tmp_path / "out" / "boxes.csv")
    assert list(rows.columns) == ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score"]
    expected = [row for image_id in sorted(hostile.boxes) for row in hostile.boxes[image_id]]
    np.testing.assert_allclose(rows[list(VOC_CORNERS)], corners(expected), **NEAR)
    np.testing.assert_allclose(rows["score"], [row["score"] for row in expected], rtol=0, atol=1e-6)
    sizes = [(hostile.images[row["image_id"]]["width"], hostile.images[row["image_id"]]["height"]) for row in expected]
    assert list(zip(rows["width"], rows["height"], strict=True)) == sizes
    numbered = {0: "crane (0)", 3: "crane (3)"}  # of one name
    assert list(rows["class"]) == [numbered.get(row["class_id"], row["class_name"]) for row in expected]


def test_names_stand_letter_for_letter_also_those_that_a_spreadsheet_would_reckon_with(
    hostile: ExportedRun, tmp_path: Path
) -> None:
    assert hostile.export("csv", tmp_path / "out").code == 0
    rows = read(tmp_path / "out" / "boxes.csv")
    same = {name for name in rows["filename"] if name in hostile.boxes}
    assert {"=cmd|' 'x,1;y.jpg", "@-+ 100% #1?.jpg", "<&>\"'`$ {}.png", "images/inner.png"} <= same
    assert "=SUM(1,2); 'x'" in set(rows["class"])


def test_a_calibrated_run_has_a_column_more(calibrated: ExportedRun, tmp_path: Path) -> None:
    assert calibrated.export("csv", tmp_path / "out").code == 0
    rows = read(tmp_path / "out" / "boxes.csv")
    expected = [row["probability"] for image_id in sorted(calibrated.boxes) for row in calibrated.boxes[image_id]]
    np.testing.assert_allclose(rows["probability"], expected, rtol=0, atol=1e-6)


def test_our_own_audit_finds_each_box_where_the_run_has_it(
    hostile: ExportedRun, labelled: ExportedRun, tmp_path: Path
) -> None:
    assert labelled.export("csv", tmp_path / "labelled").code == 0
    figures = labelled.audited(tmp_path / "labelled" / "boxes.csv")
    assert {figures[name]["value"] for name in ("ap", "gt_known_loc")} == {100}
    assert figures["mean_best_iou"]["value"] == pytest.approx(100)
    assert figures["ap"]["images"] == 12
    assert hostile.export("csv", tmp_path / "hostile").code == 0
    figures = hostile.audited(tmp_path / "hostile" / "boxes.csv")
    named = [image_id for image_id in hostile.boxes if file_name(image_id, is_file=False) == image_id]
    assert (figures["ap"]["value"], figures["ap"]["images"], len(named)) == (100, 12, 12)


def test_a_kept_picture_without_a_box_is_a_row_without_corners(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("csv", tmp_path / "out", "--keep-empty").code == 0
    lines = (tmp_path / "out" / "boxes.csv").read_text().splitlines()
    assert "black.png,62,62,,,,,," in lines


def test_each_split_is_a_file(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("csv", tmp_path / "out", "--split", "folder").code == 0
    names = {path.name: sorted(read(path)["filename"]) for path in (tmp_path / "out" / "boxes").iterdir()}
    assert names == {f"{s}.csv": sorted(i for i in labelled.boxes if f"/{s}/" in i) for s in ("train", "val")}
