"""CVAT for images 1.1 as an export: its structure is that of CVAT's documentation, its boxes are the run's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml.ElementTree import parse

from tests.support.exported_runs import ExportedRun, corners

NEAR = {"rtol": 0, "atol": 5.1e-4}  # a corner is rounded to a thousandth of a pixel
NAMES = ["crane (0)", 'a <b>"c" & d</b>, e', "=SUM(1,2); 'x'", "crane (3)", "räd 🦊 fox"]
OF_BOX = {"label", "source", "occluded", "xtl", "ytl", "xbr", "ybr", "z_order"}


def documents(out: Path) -> dict[str, Any]:
    """Return the roots of all XML files of an export, by name."""
    return {str(path.relative_to(out)): parse(path).getroot() for path in sorted(out.rglob("*.xml"))}


def place_of(run: ExportedRun, image_id: str) -> int:
    """Return the place of an image in the plan of its run, from 0: that of its frame in a task of all pictures."""
    row = run.images[image_id]
    return row["shard"] * run.record.plan.shard_size + row["row"]


def test_each_box_of_the_run_is_in_its_image_with_its_score(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("cvat", tmp_path / "out")
    assert done.code == 0, done.err
    root = documents(tmp_path / "out")["annotations.xml"]
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    images = root.findall("image")
    assert [int(image.get("id")) for image in images] == sorted(place_of(hostile, name) for name in hostile.boxes)
    assert len({image.get("name") for image in images}) == len(images)
    assert {"<&>\"'`$ {}.png", "=cmd|' 'x,1;y.jpg", "images/inner.png"} <= {image.get("name") for image in images}
    for image, image_id in zip(images, sorted(hostile.boxes), strict=True):
        rows, planned = hostile.boxes[image_id], hostile.images[image_id]
        assert (image.get("width"), image.get("height")) == (str(planned["width"]), str(planned["height"]))
        boxes = image.findall("box")
        assert all(set(box.keys()) == OF_BOX for box in boxes)
        assert {(box.get("source"), box.get("occluded"), box.get("z_order")) for box in boxes} == {("auto", "0", "0")}
        drawn = [[float(box.get(edge)) for edge in ("xtl", "ytl", "xbr", "ybr")] for box in boxes]
        np.testing.assert_allclose(drawn, corners(rows), **NEAR)
        assert [box.get("label") for box in boxes] == [NAMES[row["class_id"]] for row in rows]
        attributes = [{each.get("name"): float(each.text) for each in box.findall("attribute")} for box in boxes]
        assert [{*each} for each in attributes] == [{"score"}] * len(rows)
        scores = [each["score"] for each in attributes]
        np.testing.assert_allclose(scores, [row["score"] for row in rows], rtol=0, atol=1e-6)


def test_the_task_lists_its_labels_with_their_attributes_as_its_form_takes_them(
    calibrated: ExportedRun, tmp_path: Path
) -> None:
    assert calibrated.export("cvat", tmp_path / "out", "--keep-empty").code == 0
    root = documents(tmp_path / "out")["annotations.xml"]
    task = root.find("meta/task")
    assert (task.findtext("mode"), task.findtext("size")) == ("annotation", str(len(root.findall("image"))))
    form = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [label["name"] for label in form] == NAMES
    for element, label in zip(task.findall("labels/label"), form, strict=True):
        assert (element.findtext("name"), element.findtext("type")) == (label["name"], label["type"])
        attributes = [{part.tag: part.text for part in each} for each in element.findall("attributes/attribute")]
        assert [each["name"] for each in attributes] == ["score", "probability"]
        for found, given in zip(attributes, label["attributes"], strict=True):
            assert (found["input_type"], given["input_type"]) == ("number", "number")
            assert found["values"].split("\n") == given["values"] == ["0", "1", "0.000001"]
            assert (found["mutable"], given["mutable"]) == ("False", False)
    found = root.find("image[@name='turned.jpg']").findall("box/attribute[@name='probability']")
    expected = [row["probability"] for row in calibrated.boxes["turned.jpg"]]
    np.testing.assert_allclose([float(each.text) for each in found], expected, rtol=0, atol=1e-6)


def test_each_split_is_a_document_whose_images_have_their_place_in_the_run(
    labelled: ExportedRun, tmp_path: Path
) -> None:
    words = ["--split", "folder", "--pictures", "copy", "--category-ids", "used"]
    assert labelled.export("cvat", tmp_path / "out", *words).code == 0
    found = documents(tmp_path / "out")
    assert {*found} == {"annotations/train.xml", "annotations/val.xml"}
    for split in ("train", "val"):
        root = found[f"annotations/{split}.xml"]
        ids = sorted(image_id for image_id in labelled.boxes if f"/{split}/" in image_id)
        images = {image.get("name"): int(image.get("id")) for image in root.findall("image")}
        assert images == {image_id: place_of(labelled, image_id) for image_id in ids}
        task = root.find("meta/task")
        assert (task.findtext("subset"), task.findtext("size")) == (split, str(len(ids)))
        assert [name.text for name in task.findall("labels/label/name")] == [NAMES[1], NAMES[2], NAMES[4]]
        assert all((tmp_path / "out" / "images" / split / image_id).is_file() for image_id in ids)
