"""Annotation formats: one object is one box in each of them, and what cannot be read is refused by name."""

import io
import tarfile
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from cam_ops.errors import UsageError
from cluster.formats.detect import open_truth
from cluster.truth.prepare import TruthConfig
from tests.support.truths import (
    FROM_1,
    HALF_OPEN,
    LAST_INSIDE,
    Planned,
    Planner,
    ours,
    refusal,
    write_coco,
    write_loc,
    write_parquet,
    write_table,
    write_table_inclusive,
    write_tar,
    write_voc,
    write_wsol,
    write_yolo,
    write_yolo_polygon,
    wsol,
    xml,
)


@pytest.mark.parametrize(
    ("write", "integers", "config"),
    [
        (write_coco, LAST_INSIDE, {}),
        (write_voc, FROM_1, {}),
        (write_yolo, LAST_INSIDE, {}),
        (write_yolo_polygon, LAST_INSIDE, {}),
        (write_loc, LAST_INSIDE, {}),
        (write_wsol, LAST_INSIDE, {}),
        (write_table, LAST_INSIDE, {}),
        (write_table_inclusive, LAST_INSIDE, {"truth_format": "table-inclusive"}),
        (write_parquet, LAST_INSIDE, {}),
        (write_tar, LAST_INSIDE, {}),
    ],
)
def test_the_same_object_is_the_same_box_in_every_format(
    planner: Planner, tmp_path: Path, write: Any, integers: tuple[int, ...], config: dict[str, Any]
) -> None:
    folder = tmp_path / "truth"
    folder.mkdir()
    report, rows = planner.truth({"a/1.jpg": (40, 20, None)}, write(folder), **config)
    assert (report.num_images, report.num_boxes, report.has_boxes, report.has_masks) == (1, 1, True, False)
    assert (report.problems, report.shares_classes) == ({}, True)
    (row,) = rows
    assert (ours(row), wsol(row)) == ([HALF_OPEN], [integers])
    assert (row["true_class"], row["boxes"][0]["class_id"]) == (0, 0)
    assert (row["truth_width"], row["truth_height"]) == (40, 20)
    assert row["boxes"][0]["crowd"] is (write is write_coco)
    assert report.matched_exact == (write in (write_coco, write_wsol, write_table))
    assert report.matched_exact + report.matched_stem == 1


def test_ends_are_kept_whole_or_rounded_outwards(planner: Planner, tmp_path: Path) -> None:
    """Half-open .5 begins in pixel 0 and ends in pixel 3; VOC's and inclusive fractions are cut as int() does."""
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\na,0.5,1.9,3.2,7\na,10.1,0,31.000000000000004,20\na,-0.5,0,1,1\n")
    _, (row,) = planner.truth({"a": (40, 20, None)}, table)
    assert ours(row) == [(0.5, 1.9, 3.2, 7), (10.1, 0, 31, 20), (-0.5, 0, 1, 1)]
    assert wsol(row) == [(0, 1, 3, 6), (10, 0, 30, 19), (0, 0, 0, 0)]
    _, (row,) = planner.truth({"a": (40, 20, None)}, table, truth_format="table-inclusive")
    assert ours(row)[0] == (0.5, 1.9, 4.2, 8)
    assert wsol(row)[0] == (0, 1, 3, 7)
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(xml(("kangaroo", (45.7, 1, 50.2, 2)), size=(100, 20)))
    _, (row,) = planner.truth({"a": (100, 20, None)}, tmp_path / "voc")
    assert (ours(row), wsol(row)) == ([(44.7, 0, 50.2, 2)], [(45, 1, 50, 2)])


def test_yolos_six_decimals_give_whole_pixels_back(planner: Planner, tmp_path: Path) -> None:
    width, height, generator = 3456, 2304, np.random.default_rng(0)
    begin_N2 = generator.integers(0, 2000, (200, 2))
    end_N2 = begin_N2 + generator.integers(1, 300, (200, 2))
    centre_N2, size_N2 = (begin_N2 + end_N2) / 2 / (width, height), (end_N2 - begin_N2) / (width, height)
    lines = [" ".join(["0", *(f"{v:.6f}" for v in numbers)]) for numbers in np.hstack([centre_N2, size_N2])]
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("\n".join(lines))
    _, (row,) = planner.truth({"a.jpg": (width, height, None)}, tmp_path / "yolo")
    np.testing.assert_array_equal(ours(row), np.hstack([begin_N2, end_N2]))
    np.testing.assert_array_equal(wsol(row), np.hstack([begin_N2, end_N2 - 1]))


def test_masks_are_named_by_path(planner: Planner, tmp_path: Path) -> None:
    folder, masks = tmp_path / "metadata", tmp_path / "masks"
    folder.mkdir()
    (masks / "deep").mkdir(parents=True)
    (folder / "localization.txt").write_text("a/1.jpg,deep/1.png,deep/ignore.png\na/1.jpg,2.png,\na/2.jpg,3.png")
    planned: Planned = {f"a/{i}.jpg": (40, 20, None) for i in (1, 2, 3)}
    report, rows = planner.truth(planned, folder, masks=str(masks))
    assert (report.has_boxes, report.has_masks, report.num_images) == (False, True, 2)
    assert [row["masks"] for row in rows] == [[f"{masks}/deep/1.png", f"{masks}/2.png"], [f"{masks}/3.png"], []]
    assert [row["ignore"] for row in rows] == [f"{masks}/deep/ignore.png", None, None]
    assert planner.truth(planned, folder)[1][1]["masks"] == [f"{folder}/3.png"]
    for name in ("../3.png", "/etc/3.png", "a/../../3.png"):
        (folder / "localization.txt").write_text(f"a/1.jpg,{name}")
        assert "absolute, or has empty, . or .. parts" in refusal(planner, planned, folder)
    for name in ("1", "3"):
        (masks / "deep" / f"{name}.png").write_bytes(b"")
    report, rows = planner.truth(planned, masks)
    assert (report.format, report.matched_stem) == ("masks", 2)
    assert [row["masks"] for row in rows] == [[f"{masks}/deep/1.png"], [], [f"{masks}/deep/3.png"]]


def test_one_line_of_wsolevaluations_costs_its_image_alone(planner: Planner, tmp_path: Path) -> None:
    lines = {
        "class_labels": "a/1.jpg,0\na/2.jpg,\n",
        "image_sizes": "a/1.jpg,40,20\na/2.jpg,,\na/3.jpg,x,20\n",
        "localization": "a\\1.jpg,10,5,29,14\na/1.jpg,1,2,,3\na/2.jpg,10,5,29,14\na/3.jpg,10,5,nan,14\n",
    }
    for name, text in lines.items():
        (tmp_path / f"{name}.txt").write_text(text)
    planned: Planned = {f"a/{i}.jpg": (40, 20, None) for i in (1, 2, 3)}
    report, rows = planner.truth(planned, tmp_path)
    assert [ours(row) for row in rows] == [[HALF_OPEN], [HALF_OPEN], []]
    assert [row["num_missing"] for row in rows] == [1, 0, 1]
    assert [row["true_class"] for row in rows] == [0, None, None]
    assert report.problems["unusable_objects"].examples == (
        "a/1.jpg: localization.txt line 2: expected four numbers, found 'a/1.jpg,1,2,,3'",
        "a/3.jpg: localization.txt line 4: expected four numbers, found 'a/3.jpg,10,5,nan,14'",
    )
    assert report.problems["boxes_without_class"].count == 1


def test_one_sample_of_a_tar_file_costs_its_image_alone(planner: Planner, tmp_path: Path) -> None:
    notes = {
        "1": '{"boxes": [[10, 5, 30, 15]], "class_id": null}',
        "2": '{"boxes": [[10, 5, 30, 15], null, [1, 2, "x", 4]]}',
        "3": '{"boxes": null}',
        "4": '{"boxes": [], "class_id": 1.0}',
        "5": None,
        "6": '{"boxes": 7}',
        "7": "{",
    }
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for key, text in notes.items():
            members = {"jpg": "picture", "cls": "0", **({} if text is None else {"json": text})}
            for kind, content in members.items():
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content.encode()))
    planned: Planned = {f"0.tar/{key}.jpg": (40, 20, None) for key in notes}
    report, rows = planner.truth(planned, tmp_path / "0.tar")
    assert [ours(row) for row in rows] == [[HALF_OPEN], [HALF_OPEN], [], [], [], [], []]
    assert [row["num_missing"] for row in rows] == [0, 2, 1, 0, 1, 1, 1]
    assert [row["true_class"] for row in rows] == [0, 0, 0, 1, 0, 0, 0]
    assert report.problems["unusable_objects"].count == 6
    assert report.problems["unusable_objects"].examples[:2] == (
        "0.tar/2.jpg: boxes[1]: expected four numbers, found None",
        "0.tar/2.jpg: boxes[2]: expected four numbers, found [1, 2, 'x', 4]",
    )


def laughs() -> str:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return f'<!DOCTYPE a [<!ENTITY l0 "ha">{entities}]>'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1.xml", xml(("&l9;", FROM_1), head=laughs()), "DTD or entities"),
        (
            "1.xml",
            xml(("&x;", FROM_1), head='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            "DTD or entities",
        ),
        ("1.xml", xml(("&x;", FROM_1), head='<!DOCTYPE a SYSTEM "http://localhost/a.dtd">'), "DTD or entities"),
        ("1.xml", xml(("kangaroo", FROM_1))[:-20], "no whole XML"),
        ("1.xml", "<a/>", "expected the element annotation"),
        ("1.xml", "<a>" * 10**5, "no whole XML"),
        ("1.xml", " " * (4 * 2**20 + 1), "at most 4194304 are read"),
        ("1.xml", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>", "no number bndbox/ymin"),
        ("1.xml", xml(("kangaroo", FROM_1)).replace("15", "x"), "object 1: no number bndbox/ymax"),
        ("1.json", '{"images": [{"id": 1,', "EOF"),
        ("1.json", "[" * 10**6, "recursion"),
        (
            "1.json",
            '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}',
            "annotations[0]: its bbox is [1, 2]",
        ),
        ("1.json", "[]", "as a whole"),
        ("labels/1.txt", "0 1 2 3\n", "line 1: expected a class and 4 numbers"),
        ("labels/1.txt", "dog .1 .1 .1 .1\n", "expected the number of a class"),
        ("labels/1.txt", "0 .1 .1 .1 " + "1" * 2**16, "a line has more than"),
        ("data.yaml", "names: {0: !!python/object/apply:os.system [true]}", "expected `names`"),
        ("data.yaml", "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nnames: [x]", "aliases"),
        ("data.yaml", "names: 7", "expected `names`"),
        ("localization.txt", "1.jpg,1,2,3,x", "line 1: expected four numbers"),
        ("localization.txt", "1.jpg", "line 1: expected 3 cells"),
        ("image_sizes.txt", "1.jpg,1", "line 1: expected 3 cells"),
        (
            "1.csv",
            "image,x0,y0,x1\n",
            "expected a column image_id or image, filename, ... and the columns x0, y0, x1, y1",
        ),
        ("1.csv", "image,x0,y0,x1,y1\n1,2,3,4,x\n", "conversion error"),
        ("1.csv", "image,x0,x0,y0,x1,y1\n1,2,3,4,5,6\n", "several columns x0"),
        ("1.csv", "ImageId,PredictionString\n1,n1 1 2 3\n", "line 2: expected five words a box"),
        ("1.parquet", "PAR1", "Parquet"),
        ("1.csv.gz", "no gzip", ""),
        ("1.tar", "no tar", "is cut"),
        ("1.doc", "", "cannot tell the format"),
        ("1.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}', "no file_name"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    planner: Planner, tmp_path: Path, name: str, content: str, reason: str
) -> None:
    path = tmp_path / "truth" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    is_file = name.endswith((".json", ".csv", ".gz", ".parquet", ".tar", ".doc"))
    said = refusal(planner, {"1.jpg": (40, 20, None)}, path if is_file else tmp_path / "truth")
    assert reason in said
    assert name in said
    assert len(said) < 700


@pytest.mark.parametrize(("truth", "masks", "flag"), [("", None, "--truth"), (".", "", "--masks")])
def test_an_empty_text_is_not_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: str, masks: str | None, flag: str
) -> None:
    """As of a variable that is not set: `--truth "$TRUTH"`."""
    (tmp_path / "image_ids.txt").write_text("1.jpg\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{flag} expects a local file or folder, got an empty text$"):
        open_truth(truth, "auto", masks)


def test_a_folder_of_json_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(UsageError, match=r"of coco, give the file itself: .*instances\.json"):
        open_truth(str(tmp_path), "auto", None)


LABELS, ANNOTATION = "0 .5 .5 .5 .5\n", xml(("kangaroo", FROM_1))
ROBOFLOW = {"README.dataset.txt": "# cats\n", "README.roboflow.txt": "\nCats - v1\n====\n", "train/1.png": ""}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**ROBOFLOW, "train/_annotations.coco.json": "{}"}, "give the file itself: ROOT/train/_annotations.coco.json"),
        ({**ROBOFLOW, "valid/_annotations.csv": "a\n"}, "give --truth ROOT/valid/_annotations.csv, or its folder"),
        ({"a/1.json": '{"shapes": []}'}, "it holds a/1.json: the JSON of labelme is not read, write it as COCO"),
        ({"ds/ann/1.jpg.json": '{"objects": []}'}, "the JSON of Supervisely is not read"),
        ({"1.xml": ANNOTATION, "labels/1.txt": LABELS}, "it holds 1.xml, of voc, and labels/1.txt, of yolo"),
        ({"notes.txt": "of cats"}, "cannot tell the format"),
    ],
)
def test_a_folder_with_something_else_is_told_what_to_give(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        open_truth(str(tmp_path), "auto", None)
    assert said.replace("ROOT", str(tmp_path)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data.yaml", "give the folder, --truth ROOT"),
        ("1.xml", "give the folder, --truth ROOT"),
        ("1.txt", "give the folder, --truth ROOT"),
        ("truth.zip", "unpack it"),
    ],
)
def test_a_file_that_is_none_is_told_what_to_give(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError) as caught:
        open_truth(str(tmp_path / name), "auto", None)
    assert said.replace("ROOT", str(tmp_path)) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"1.xml": ANNOTATION, "classes.txt": "kangaroo\n"}, "voc"),
        ({"labels/1.xml": ANNOTATION}, "voc"),
        ({"labels/1.txt": LABELS, ".idea/misc.xml": "<project/>", "a.xml": "<project/>"}, "yolo"),
        ({"train/1.xml": ANNOTATION, **ROBOFLOW}, "voc"),
    ],
)
def test_voc_is_told_by_its_files(tmp_path: Path, files: dict[str, str], name: str) -> None:
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert open_truth(str(tmp_path), "auto", None).format == name


def test_what_several_formats_recognise_is_of_the_first(tmp_path: Path) -> None:
    """In a folder with files of all formats, each in turn is removed."""

    def format_of_folder() -> str:
        return open_truth(str(tmp_path / "all"), "auto", None).format

    all_files = {
        "wsol": "image_ids.txt",
        "yolo": "classes.txt",
        "tar": "x.tar",
        "table": "boxes.csv",
        "voc": "deep/1.xml",
        "yolo by its files": "deep/1.txt",
        "masks": "deep/1.png",
    }
    for name in all_files.values():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    (tmp_path / "all" / "boxes.json").touch()  # a format of single files
    for kind, name in all_files.items():
        if kind == "masks":  # which may be pictures, where there is something else
            with pytest.raises(UsageError, match=r"it holds boxes\.json"):
                format_of_folder()
            (tmp_path / "all" / "boxes.json").unlink()
        assert format_of_folder() == kind.partition(" ")[0]
        (tmp_path / "all" / name).unlink()
    with pytest.raises(UsageError, match="cannot tell the format"):
        format_of_folder()


def test_the_flag_takes_the_name_of_each_format() -> None:
    words = {
        "auto",
        "coco",
        "voc",
        "voc-inclusive",
        "voc-half-open",
        "yolo",
        "yolo-polygons",
        "loc",
        "wsol",
        "table",
        "table-inclusive",
        "table-fractions",
        "tar",
        "masks",
    }
    assert set(get_args(get_type_hints(TruthConfig)["truth_format"])) == words
