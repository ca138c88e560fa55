"""COCO as an export: what pycocotools, torchvision, supervision and our own audit read of it is the run's."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import supervision
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import CocoDetection

from tests.support.command import Command
from tests.support.exported_runs import FOREIGN, ExportedRun, corners

NEAR = {"rtol": 0, "atol": 1.1e-3}  # of two corners, each rounded to a thousandth


def extents(boxes: list[dict[str, float]]) -> list[list[float]]:
    return [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in corners(boxes)]


def loaded(path: Path, capsys: pytest.CaptureFixture[str]) -> COCO:
    coco = COCO(str(path))
    capsys.readouterr()
    return coco


def test_pycocotools_reads_each_box_of_the_run(
    hostile: ExportedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = hostile.export("coco", tmp_path / "out")
    assert done.code == 0, done.err
    coco = loaded(tmp_path / "out" / "annotations.json", capsys)
    images, names = hostile.images, {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    assert names == {1: "crane (0)", 2: 'a <b>"c" & d</b>, e', 3: "=SUM(1,2); 'x'", 4: "crane (3)", 5: "räd 🦊 fox"}
    found = {image.get("image_id", image["file_name"]): image for image in coco.loadImgs(coco.getImgIds())}
    assert found.keys() == hostile.boxes.keys()
    assert sorted(coco.getAnnIds()) == list(range(1, sum(map(len, hostile.boxes.values())) + 1))
    for image_id, rows in hostile.boxes.items():
        image = found[image_id]
        assert (image["width"], image["height"]) == (images[image_id]["width"], images[image_id]["height"])
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [a["category_id"] for a in annotations] == [row["class_id"] + 1 for row in rows]
        np.testing.assert_allclose([a["bbox"] for a in annotations], extents(rows), **NEAR)
        np.testing.assert_allclose([a["score"] for a in annotations], [row["score"] for row in rows], atol=1e-6)
        np.testing.assert_allclose([a["energy"] for a in annotations], [row["energy"] for row in rows], atol=1e-6)
        areas = [width * height for _, _, width, height in extents(rows)]
        np.testing.assert_allclose([a["area"] for a in annotations], areas, rtol=0, atol=0.1)


def test_a_calibrated_run_has_probabilities(calibrated: ExportedRun, tmp_path: Path) -> None:
    run = calibrated
    run.export("coco", tmp_path / "out", "--min-probability", 0.5)
    annotations = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    expected = [row["probability"] for rows in run.boxes.values() for row in rows if row["probability"] >= 0.5]
    assert 0 < len(expected) < sum(map(len, run.boxes.values()))
    np.testing.assert_allclose(sorted(a["probability"] for a in annotations), sorted(expected), atol=1e-6)


def test_torchvision_s_pictures_are_upright_and_lie_under_their_boxes(
    hostile: ExportedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = hostile.export("coco", tmp_path / "out", "--pictures", "link")
    assert done.code == 0, done.err
    dataset = CocoDetection(str(tmp_path / "out" / "images"), str(tmp_path / "out" / "annotations.json"))
    capsys.readouterr()
    assert len(dataset) == len(hostile.boxes)
    number = {image["file_name"]: at for at, image in enumerate(dataset.coco.loadImgs(dataset.ids))}
    picture, targets = dataset[number["turned.jpg"]]
    row = hostile.images["turned.jpg"]
    assert picture.size == (row["width"], row["height"])
    assert "exif" not in picture.info
    best = next(t for t in targets if t["category_id"] == 1)  # red: what its network sees is the colour itself
    x, y, width, height = best["bbox"]
    red, green, _ = np.asarray(picture)[int(y + height / 2), int(x + width / 2)]
    assert (red > 200, green < 80) == (True, True)


def test_names_that_lead_elsewhere_stay_below_the_folder_and_tell_images_apart(
    hostile: ExportedRun, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if path.is_file()}
    hostile.export("coco", tmp_path / "out", "--pictures", "copy")
    outside = {path for path in tmp_path.parent.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "out") for path in outside)
    document = json.loads((tmp_path / "out" / "annotations.json").read_text())
    names = [image["file_name"] for image in document["images"]]
    assert len({*names}) == len(names)
    assert {image["image_id"] for image in document["images"] if "image_id" in image} >= {*FOREIGN} - {"A.JPG"}
    for image in document["images"]:
        with Image.open(tmp_path / "out" / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


def test_supervision_reads_the_same_boxes(labelled: ExportedRun, tmp_path: Path) -> None:
    labelled.export("coco", tmp_path / "out", "--pictures", "link")
    out = tmp_path / "out"
    dataset = supervision.DetectionDataset.from_coco(str(out / "images"), str(out / "annotations.json"))
    assert len(dataset) == 12
    for path, _, detections in dataset:
        rows = labelled.boxes[str(Path(path).relative_to(out / "images"))]
        np.testing.assert_allclose(detections.xyxy, corners(rows), rtol=0, atol=2e-3)
        assert [dataset.classes[i] for i in detections.class_id] == [row["class_name"] for row in rows]


def test_cocoeval_of_the_results_is_our_own_audit(
    labelled: ExportedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(labelled.root, tmp_path / "run")
    run = replace(labelled, root=root)
    run.export("coco", tmp_path / "truth")
    truth = tmp_path / "truth" / "annotations.json"
    document = json.loads(truth.read_text())
    for number, image in enumerate(document["images"]):  # ids of its own, in another order
        image["old"], image["id"] = image["id"], 1000 - number
    new = {image.pop("old"): image["id"] for image in document["images"]}
    ids = {category["id"]: 50 - category["id"] for category in document["categories"]}
    for category in document["categories"]:
        category["id"] = ids[category["id"]]
    for number, annotation in enumerate(document["annotations"]):
        annotation["image_id"], annotation["category_id"] = (
            new[annotation["image_id"]],
            ids[annotation["category_id"]],
        )
        annotation["bbox"][2] *= 0.55 + 0.04 * number  # of other widths, some of them wrong at IoU .5
    truth.write_text(json.dumps(document))
    done = run.export("coco-results", tmp_path / "results", "--like", truth)
    assert done.code == 0, done.err
    coco = loaded(truth, capsys)
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results" / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    assert (
        Command("audit", run.root, "--truth", truth, "--executor", "inline", "--bootstrap", 0, "--overwrite").code == 0
    )
    metrics = json.loads((run.root / "audit" / "metrics.json").read_text())["metrics"]
    assert 0.2 < evaluation.stats[0] < 0.95
    np.testing.assert_allclose(
        [metrics["ap"]["value"], metrics["ap_50"]["value"]], 100 * evaluation.stats[:2], atol=1e-6
    )


def test_a_like_that_fits_in_part_leaves_out_the_rest_and_counts_it(labelled: ExportedRun, tmp_path: Path) -> None:
    run = labelled
    names = sorted(run.images)
    images = [{"id": 7 + at, "file_name": name.rpartition("/")[2]} for at, name in enumerate(names[:5])]
    like = tmp_path / "like.json"
    categories = [{"id": 3, "name": run.boxes[names[0]][0]["class_name"]}, {"id": 4, "name": "unicorn"}]
    like.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    done = run.export("coco-results", tmp_path / "out", "--like", like)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own = [name for name in names[:5] if run.boxes[name][0]["class_id"] == run.boxes[names[0]][0]["class_id"]]
    assert [(each["image_id"], each["category_id"]) for each in results] == [(7 + names.index(n), 3) for n in own]
    assert "1 of its categories are no classes of the run, such as 'unicorn'" in done.err
    assert done.result["images_left_out"]["not in --like"] == 7
    images[0]["file_name"] = "x.png"
    like.write_text(json.dumps({"images": images[:1], "annotations": [], "categories": categories}))
    refused = run.export("coco-results", tmp_path / "new", "--like", like)
    assert (refused.code, "none of its images, such as 'x.png', is one of the run" in refused.err) == (2, True)


def test_our_own_audit_takes_an_export_for_truth(hostile: ExportedRun, tmp_path: Path) -> None:
    hostile.export("coco", tmp_path / "out")
    root = shutil.copytree(hostile.root, tmp_path / "run")
    truth = tmp_path / "out" / "annotations.json"
    done = Command("audit", root, "--truth", truth, "--executor", "inline", "--bootstrap", 0, "--overwrite")
    assert done.code == 0, done.err
    metrics = json.loads((root / "audit" / "metrics.json").read_text())["metrics"]
    assert metrics["ap"]["value"] == pytest.approx(100)
