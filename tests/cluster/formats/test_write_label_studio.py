"""Label Studio's tasks as an export: regions in percent are the run's boxes, addresses lead to the pictures."""

import json
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import pytest
from defusedxml.ElementTree import parse

from cluster.formats.label_studio import LABEL_STUDIO_EXPORT
from tests.support.command import Command
from tests.support.exported_lines import KeptPart, picture_of, settings_of
from tests.support.exported_runs import HOSTILE, ExportedRun, corners

NEAR = {"rtol": 0, "atol": 1e-4}  # pixels; percent have seven digits behind the point
NAMES = ["crane (0)", 'a <b>"c" & d</b>, e', "=SUM(1,2); 'x'", "crane (3)", "räd 🦊 fox"]
REGION = {
    "id",
    "type",
    "from_name",
    "to_name",
    "original_width",
    "original_height",
    "image_rotation",
    "value",
    "score",
}


def tasks(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())


def corners_of(region: dict[str, Any]) -> list[float]:
    """Return the corners of a region in pixels, as the documentation of percent has it."""
    value, width, height = region["value"], region["original_width"], region["original_height"]
    x, y = value["x"] / 100 * width, value["y"] / 100 * height
    return [x, y, x + value["width"] / 100 * width, y + value["height"] / 100 * height]


def test_each_box_of_the_run_is_a_region_of_its_task_s_one_prediction(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("label-studio", tmp_path / "out")
    assert done.code == 0, done.err
    found = tasks(tmp_path / "out" / "tasks.json")
    assert [task["data"]["image_id"] for task in found] == sorted(hostile.boxes)
    for task in found:
        rows, image = hostile.boxes[task["data"]["image_id"]], hostile.images[task["data"]["image_id"]]
        assert {*task} == {"data", "predictions"}
        (prediction,) = task["predictions"]
        regions = prediction["result"]
        assert all({*region} == REGION for region in regions)
        assert len({region["id"] for region in regions}) == len(rows)
        for region in regions:
            assert (region["type"], region["image_rotation"], region["value"]["rotation"]) == ("rectanglelabels", 0, 0)
            assert (region["original_width"], region["original_height"]) == (image["width"], image["height"])
            x, y, width, height = (region["value"][name] for name in ("x", "y", "width", "height"))
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= 100 + 1e-6
        np.testing.assert_allclose([corners_of(region) for region in regions], corners(rows), **NEAR)
        assert [region["value"]["rectanglelabels"] for region in regions] == [[NAMES[row["class_id"]]] for row in rows]
        scores = [row["score"] for row in rows]
        np.testing.assert_allclose([region["score"] for region in regions], scores, rtol=0, atol=1e-6)
        assert prediction["score"] == min(region["score"] for region in regions)


def test_the_interface_has_the_tags_that_regions_name_and_a_label_for_each_class(
    hostile: ExportedRun, tmp_path: Path
) -> None:
    assert hostile.export("label-studio", tmp_path / "out", "--category-ids", "used").code == 0
    view = parse(tmp_path / "out" / "config.xml").getroot()
    regions = [r for task in tasks(tmp_path / "out" / "tasks.json") for r in task["predictions"][0]["result"]]
    assert {(r["from_name"], r["to_name"]) for r in regions} == {("label", "image")}
    assert (view.tag, view.find("Image").get("name"), view.find("Image").get("value")) == ("View", "image", "$image")
    labels = view.find("RectangleLabels")
    assert (labels.get("name"), labels.get("toName")) == ("label", "image")
    assert [label.get("value") for label in labels] == NAMES
    assert {name for r in regions for name in r["value"]["rectanglelabels"]} == {*NAMES}


def test_a_picture_s_address_leads_to_the_file_of_its_id(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("label-studio", tmp_path / "out").code == 0
    for task in tasks(tmp_path / "out" / "tasks.json"):
        address = urlparse(task["data"]["image"])
        assert (address.path, address.fragment) == ("/data/local-files/", "")
        query = parse_qs(address.query, keep_blank_values=True)  # as its server does
        assert query == {"d": [task["data"]["image_id"]]}
        assert task["data"]["image"].isascii()


@pytest.mark.parametrize("prefix", ["https://images.example/a/", "/static/"])
def test_a_prefix_stands_before_the_percent_encoded_id(hostile: ExportedRun, tmp_path: Path, prefix: str) -> None:
    assert hostile.export("label-studio", tmp_path / "out", "--url-prefix", prefix).code == 0
    for task in tasks(tmp_path / "out" / "tasks.json"):
        address = urlparse(task["data"]["image"])
        assert (address.query, address.fragment, address.params) == ("", "", "")
        assert unquote(task["data"]["image"].removeprefix(prefix)) == task["data"]["image_id"]


def address(settings: dict[str, object], **picture: object) -> str:
    part = KeptPart(settings_of(("fox",), **settings))
    LABEL_STUDIO_EXPORT.write(iter([picture_of("a b+é?.jpg", 0, **picture)]), part)
    ((line,),) = part.lines.values()
    return json.loads(line)["data"]["image"]


def test_an_address_on_a_store_is_the_object_s_name_letter_for_letter() -> None:
    own = "gs://bucket/photos/a b+é?.jpg"
    assert address({}, uri=own) == own
    assert address({"url_prefix": "s3://other/"}, uri=own) == "s3://other/a b+é?.jpg"
    assert address({"url_prefix": "http://x/"}, uri=own) == "http://x/a%20b%2B%C3%A9%3F.jpg"
    exported = {"has_pictures": True, "root": "s3://bucket/out"}
    assert address(exported, uri=own, name="a b~1.jpg", split="val") == "s3://bucket/out/images/val/a b~1.jpg"
    local = {"has_pictures": True, "root": "/data/out"}
    assert address(local, uri=own, name="a b~1.jpg") == "/data/local-files/?d=images/a%20b~1.jpg"


def test_of_pictures_in_tar_files_only_exported_ones_have_an_address(hostile: ExportedRun, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("turned.jpg", "a.png"):
            assert name in HOSTILE
            tar.add(hostile.pictures / name, name)
    model = ["--model", "tests.support.networks:colours", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    words = ["--images", tmp_path / "0.tar", "--out", tmp_path / "run", "--executor", "inline", *model]
    assert Command("label", *words).code == 0
    export = ["export", tmp_path / "run", "--to", "label-studio", "--out", tmp_path / "out"]
    refused, reason = Command(*export), "has no address; give --pictures copy, or --url-prefix"
    assert (refused.code, reason in refused.result["error"]) == (2, True)
    assert not list((tmp_path / "out").iterdir())
    assert Command(*export, "--pictures", "copy").code == 0
    for task in tasks(tmp_path / "out" / "tasks.json"):
        (place,) = parse_qs(urlparse(task["data"]["image"]).query)["d"]
        assert (tmp_path / "out" / place).is_file()


def test_a_kept_picture_without_a_box_has_an_empty_prediction_and_each_split_is_a_file(
    hostile: ExportedRun, labelled: ExportedRun, tmp_path: Path
) -> None:
    assert hostile.export("label-studio", tmp_path / "empty", "--keep-empty").code == 0
    (task,) = [t for t in tasks(tmp_path / "empty" / "tasks.json") if t["data"]["image_id"] == "black.png"]
    assert task["predictions"] == [{"model_version": "camray", "result": []}]
    assert labelled.export("label-studio", tmp_path / "out", "--split", "folder").code == 0
    for split in ("train", "val"):
        ids = [task["data"]["image_id"] for task in tasks(tmp_path / "out" / "tasks" / f"{split}.json")]
        assert ids == sorted(image_id for image_id in labelled.boxes if f"/{split}/" in image_id)
