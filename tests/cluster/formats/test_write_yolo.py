"""YOLO as an export: supervision and our own audit read the run's boxes; each picture finds its own labels."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import supervision
import yaml
from PIL import Image

from cluster.export.pictures import read_ready
from cluster.storage.options import NO_OPTIONS
from tests.support.command import Command
from tests.support.exported_runs import ExportedRun, corners

NEAR = {"rtol": 0, "atol": 1e-4}  # pixels: nine digits of a fraction, read as float32
ONE = ["--split", "train=1"]


def label_path(picture: str) -> str:
    """Return where Ultralytics looks for a picture's labels: the last folder `images` becomes `labels`."""
    place = "/labels/".join(picture.rsplit("/images/", 1))
    return place.rsplit(".", 1)[0] + ".txt"


def test_supervision_reads_each_box_of_the_run(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("yolo", tmp_path / "out", *ONE)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    dataset = supervision.DetectionDataset.from_yolo(
        str(out / "images" / "train"), str(out / "labels" / "train"), str(out / "data.yaml")
    )
    flat = {image_id for image_id in hostile.boxes if "/" not in image_id and "\\" not in image_id}
    assert len(dataset) == len(flat) + 1  # it does not look into folders; the other is a Windows path
    names = {path.name for path in (out / "images" / "train").iterdir()} & flat
    assert len(names) >= 5
    for path, _, detections in dataset:
        if Path(path).name not in names:
            continue
        rows = hostile.boxes[Path(path).name]
        np.testing.assert_allclose(detections.xyxy, corners(rows), **NEAR)
        assert detections.class_id.tolist() == [row["class_id"] for row in rows]
    assert dataset.classes == ["crane (0)", 'a <b>"c" & d</b>, e', "=SUM(1,2); 'x'", "crane (3)", "räd 🦊 fox"]


def test_each_picture_finds_its_own_labels_and_no_two_the_same(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("yolo", tmp_path / "out", *ONE)
    assert done.code == 0, done.err
    pictures = [str(path) for path in (tmp_path / "out" / "images").rglob("*") if path.is_file()]
    labels = [str(path) for path in (tmp_path / "out" / "labels").rglob("*.txt")]
    assert len(pictures) == len(hostile.boxes)
    assert sorted(map(label_path, pictures)) == sorted(labels)
    hostile.export("coco", tmp_path / "coco", "--pictures", "copy")
    document = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    boxes = {
        image["file_name"]: hostile.boxes[image.get("image_id", image["file_name"])] for image in document["images"]
    }
    below = f"{tmp_path}/out/images/train/"
    for picture in pictures:
        with Image.open(picture) as opened:
            size = np.array([*opened.size, *opened.size])
        lines = np.array([line.split() for line in Path(label_path(picture)).read_text().splitlines()], np.float64)
        name = picture.removeprefix(below).replace("images_/inner", "images/inner")
        rows = boxes.get(name) or boxes[next(known for known in boxes if known[:7] == name[:7])]
        x, y, width, height = (lines[:, 1:] * size).T
        ours = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        np.testing.assert_allclose(ours, corners(rows), **NEAR)
        assert lines[:, 0].tolist() == [row["class_id"] for row in rows]


def test_data_yaml_names_folders_that_are_there_and_all_classes(labelled: ExportedRun, tmp_path: Path) -> None:
    done = labelled.export("yolo", tmp_path / "out", "--split", "folder", "--category-ids", "used")
    document = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert document["path"] == str(tmp_path / "out")
    assert [document[split] for split in ("train", "val")] == ["images/train", "images/val"]
    assert all((tmp_path / "out" / document[split]).is_dir() for split in ("train", "val"))
    assert document["names"] == {0: 'a <b>"c" & d</b>, e', 1: "=SUM(1,2); 'x'", 2: "räd 🦊 fox"}
    assert done.result["exported"] == 12
    numbers = {path.stem: int(path.read_text().split()[0]) for path in (tmp_path / "out" / "labels").rglob("*.txt")}
    assert numbers == {f"{at:02d}": at % 3 for at in range(12)}
    val = sorted(path.stem for path in (tmp_path / "out" / "images" / "val").rglob("*.*"))
    assert val == ["03", "07", "11"]


def test_confidence_is_a_sixth_column(labelled: ExportedRun, tmp_path: Path) -> None:
    labelled.export("yolo", tmp_path / "out", *ONE, "--confidence")
    found = {path.stem: path.read_text().split() for path in (tmp_path / "out" / "labels").rglob("*.txt")}
    scores = {Path(image).stem: rows[0]["score"] for image, rows in labelled.boxes.items()}
    assert {len(cells) for cells in found.values()} == {6}
    assert {name: float(cells[5]) for name, cells in found.items()} == pytest.approx(scores, abs=1e-6)


def test_links_are_hard_and_a_link_s_target_is_followed(labelled: ExportedRun, tmp_path: Path) -> None:
    labelled.export("yolo", tmp_path / "out", *ONE)
    picture = next(iter(labelled.boxes))
    assert os.path.samefile(tmp_path / "out" / "images" / "train" / picture, labelled.pictures / picture)
    assert not (tmp_path / "out" / "images" / "train" / picture).is_symlink()


def test_a_picture_that_ultralytics_would_mend_in_place_is_copied(labelled: ExportedRun, tmp_path: Path) -> None:
    picture = next(path for path in sorted(labelled.pictures.rglob("*.jpg")))
    for tail, path in ((b"", tmp_path / "a.jpg"), (b"\0", tmp_path / "b.jpg")):
        path.write_bytes(picture.read_bytes() + tail)
        row = {"uri": str(path), "offset": 0, "size": len(path.read_bytes()), "width": 64, "height": 48}
        ready = read_ready(row, NO_OPTIONS, may_link=True, as_jpeg=False)
        assert (ready.path, ready.content) == ((None, path.read_bytes()) if tail else (str(path), b""))


def test_our_own_audit_takes_an_export_for_truth(labelled: ExportedRun, tmp_path: Path) -> None:
    labelled.export("yolo", tmp_path / "out", "--split", "train=0.5,val=0.5")
    root = shutil.copytree(labelled.root, tmp_path / "run")
    done = Command("audit", root, "--truth", tmp_path / "out", "--executor", "inline", "--bootstrap", 0, "--overwrite")
    assert done.code == 0, done.err
    metrics = json.loads((root / "audit" / "metrics.json").read_text())["metrics"]
    assert (metrics["ap"]["value"], metrics["ap"]["images"]) == (pytest.approx(100), 12)
