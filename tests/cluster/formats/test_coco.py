"""COCO: one field that lacks costs its entry alone; polygons and masks have their boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.support.truths import FROM_1, HALF_OPEN, LAST_INSIDE, Planned, Planner, coco, ours, refusal, wsol, xml

IMAGE = {"id": 3, "file_name": "1.jpg", "width": 40, "height": 20}
BOX = {"id": 17, "image_id": 3, "category_id": 7, "bbox": [10, 5, 20, 10]}
ONE: Planned = {"1.jpg": (40, 20, None)}


def write(path: Path, images: list[Any], annotations: list[Any], **more: Any) -> Path:
    path.write_text(coco(images, annotations, **more))
    return path


def compressed(inside_HW: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(inside_HW))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


INSIDE_HW = np.zeros((20, 40), np.uint8)
INSIDE_HW[5:15, 10:30] = 1
RUNS = [205, *[10, 10] * 19, 10, 205]  # ten columns of 20 and five rows, then twenty columns of ten inside


@pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0], [1, 2], "none", [10, 5, -20, 10]])
@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 5, 30, 5, 30, 15, 10, 15]],
        [10, 5, 30, 5, 30, 15, 10, 15],
        [[10, 5, 20, 5, 20, 15], [20, 5, 30, 5, 30, 14]],
        {"size": [20, 40], "counts": RUNS},
        compressed(INSIDE_HW),
    ],
    ids=["polygon", "flat polygon", "two polygons", "runs", "compressed runs"],
)
def test_an_object_without_a_box_has_that_of_its_shape(
    planner: Planner, tmp_path: Path, segmentation: object, bbox: object
) -> None:
    path = write(tmp_path / "1.json", [IMAGE], [{**BOX, "bbox": bbox, "segmentation": segmentation}])
    report, (row,) = planner.truth(ONE, path)
    assert (ours(row), wsol(row), row["num_missing"], report.problems) == ([HALF_OPEN], [LAST_INSIDE], 0, {})


def test_a_box_is_taken_before_a_shape(planner: Planner, tmp_path: Path) -> None:
    others = [
        {**BOX, "segmentation": [[0, 0, 1, 0, 1, 1]]},
        {**BOX, "bbox": None, "segmentation": [[2, 3, 9, 3, 9, 8]]},
    ]
    _, (row,) = planner.truth(ONE, write(tmp_path / "1.json", [IMAGE], others))
    assert ours(row) == [HALF_OPEN, (2, 3, 9, 8)]


@pytest.mark.parametrize(
    ("annotation", "example"),
    [
        ({**BOX, "bbox": []}, "annotation 17: it has no box and no segmentation"),
        ({**BOX, "bbox": None, "id": None}, "annotations[1]: it has no box and no segmentation"),
        ({**BOX, "bbox": [1, 2, None, 4]}, "annotation 17: its bbox is [1, 2, None, 4], and it has no segmentation"),
        (
            {**BOX, "bbox": [1, 2, 0, 4], "segmentation": []},
            "annotation 17: its bbox is [1, 2, 0, 4], whose width and height are not both above 0, and it has no",
        ),
        ({**BOX, "bbox": None, "segmentation": [[1, 2]]}, "annotation 17: its polygon has not 3 points"),
        (
            {**BOX, "bbox": None, "segmentation": {"size": [40, 20], "counts": [0, 800]}},
            "annotation 17: its mask is of 20 x 40 pixels, its image of 40 x 20",
        ),
        ({**BOX, "iscrowd": "perhaps"}, "annotation 17: its iscrowd is perhaps"),
    ],
)
def test_an_object_that_cannot_be_used_is_counted_and_leaves_its_image_incomplete(
    planner: Planner, tmp_path: Path, annotation: dict[str, Any], example: str
) -> None:
    images = [IMAGE, {**IMAGE, "id": 4, "file_name": "2.jpg"}]
    path = write(tmp_path / "1.json", images, [{**BOX, "image_id": 4}, annotation])
    report, rows = planner.truth({**ONE, "2.jpg": (40, 20, None)}, path)
    assert report.problems["unusable_objects"].count == 1
    assert report.problems["unusable_objects"].examples[0].startswith(f"1.jpg: {example}")
    assert [row["num_missing"] for row in rows] == [1, 0]
    assert [ours(row) for row in rows] == [[], [HALF_OPEN]]


@pytest.mark.parametrize(
    "change",
    [
        {"width": None},
        {"height": None, "width": None},
        {"width": "40", "height": 20.0},
        {"width": "wide"},
        {"width": 0, "height": 0},
        {"date_captured": None, "license": {"a": []}},
        {"id": "3"},
        {"file_name": " 1.jpg "},
    ],
)
def test_one_field_of_an_image_costs_nothing_else(planner: Planner, tmp_path: Path, change: dict[str, Any]) -> None:
    report, (row,) = planner.truth(ONE, write(tmp_path / "1.json", [{**IMAGE, **change}], [BOX]))
    assert (ours(row), wsol(row), report.problems) == ([HALF_OPEN], [LAST_INSIDE], {})
    assert (row["truth_width"], row["truth_height"]) == (40, 20)


@pytest.mark.parametrize("change", [{"iscrowd": None}, {"iscrowd": 0.0}, {"score": None}, {"image_id": "3"}])
def test_one_field_of_an_annotation_costs_nothing_else(
    planner: Planner, tmp_path: Path, change: dict[str, Any]
) -> None:
    report, (row,) = planner.truth(ONE, write(tmp_path / "1.json", [IMAGE], [{**BOX, **change}]))
    assert (ours(row), row["boxes"][0]["crowd"], report.problems) == ([HALF_OPEN], False, {})


def test_a_box_without_a_class_is_a_box_of_none(planner: Planner, tmp_path: Path) -> None:
    boxes = [BOX, {**BOX, "category_id": None}, {**BOX, "category_id": 99, "bbox": [0, 0, 4, 4]}]
    report, (row,) = planner.truth(ONE, write(tmp_path / "1.json", [IMAGE], boxes))
    assert (ours(row), [box["class_id"] for box in row["boxes"]]) == (
        [HALF_OPEN, HALF_OPEN, (0, 0, 4, 4)],
        [0, None, None],
    )
    assert (row["num_missing"], row["num_unclear"], row["true_class"]) == (0, 2, None)
    assert report.problems["boxes_without_class"].count == 2
    path = tmp_path / "1.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [BOX], "categories": None}))
    report, (row,) = planner.truth(ONE, path)  # no box has one: nothing to tell
    assert (ours(row), report.problems) == ([HALF_OPEN], {})


def test_entries_of_no_image_are_counted(planner: Planner, tmp_path: Path) -> None:
    images = [IMAGE, {**IMAGE, "id": 4, "file_name": None}, {**IMAGE, "id": 5, "file_name": ""}, None]
    path = write(tmp_path / "1.json", images, [BOX, {**BOX, "image_id": 4}, {**BOX, "image_id": None}, None])
    report, (row,) = planner.truth(ONE, path)
    assert (ours(row), row["num_missing"]) == ([HALF_OPEN], 0)
    found = report.problems["entries_without_image"]
    assert (found.count, found.examples[-1]) == (6, "annotations[3]: it has no box and no segmentation")
    assert list(report.problems) == ["entries_without_image"]


def test_what_has_two_meanings_is_refused(planner: Planner, tmp_path: Path) -> None:
    path = write(tmp_path / "1.json", [IMAGE, {**IMAGE, "file_name": "2.jpg"}], [BOX])
    assert "the image id 3 is that of '1.jpg' and of '2.jpg'" in refusal(planner, ONE, path)
    document = {"images": [IMAGE], "annotations": [BOX], "categories": [{"id": 7, "name": n} for n in ("a", "b")]}
    path.write_text(json.dumps(document))
    assert "the category id 7 is that of 'a' and of 'b'" in refusal(planner, ONE, path)
    fractions = [{**BOX, "bbox": [0.25, 0.25, 0.5, 0.5]}]
    assert "1 of 1 boxes" in refusal(planner, ONE, write(path, [IMAGE], fractions))


def test_ids_above_those_of_floats_are_kept_to_the_last_digit(planner: Planner, tmp_path: Path) -> None:
    images = [{**IMAGE, "id": 2**60}, {**IMAGE, "id": 2**60 + 1, "file_name": "2.jpg"}]
    stranger = {**BOX, "image_id": 2**60 + 2}
    path = write(tmp_path / "1.json", images, [{**BOX, "image_id": 2**60 + 1}, stranger])
    report, (first, second) = planner.truth({**ONE, "2.jpg": (40, 20, None)}, path)
    assert (ours(first), ours(second)) == ([], [HALF_OPEN])
    assert report.problems["entries_without_image"].count == 1


def test_windows_files_are_read(planner: Planner, tmp_path: Path) -> None:
    """Backslashes, a byte order mark, NaN as Python writes it."""
    path = tmp_path / "1.json"
    image = {**IMAGE, "file_name": "data\\cats\\1.jpg", "width": float("nan")}
    path.write_bytes(b"\xef\xbb\xbf" + coco([image], [BOX]).encode())
    planned: Planned = {"cats/1.jpg": (40, 20, None), "dogs/1.jpg": (40, 20, None)}
    report, rows = planner.truth(planned, path)
    assert [ours(row) for row in rows] == [[HALF_OPEN], []]
    assert (report.matched_exact, report.matched_stem) == (1, 0)


def test_the_same_object_as_xml_is_the_same(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "1.xml").write_text(xml(("kangaroo", FROM_1)))
    assert [ours(row) for row in planner.truth(ONE, tmp_path / "voc")[1]] == [[HALF_OPEN]]
