"""Exports read by programs that are large, or pin other libraries: Ultralytics and Label Studio's converter.

`make consumers` writes exports of small pictures with names that break files, in camray's own environment, and reads
them in another one, which has the programs. Ultralytics trains for an epoch, too.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

NEAR_PX = 1e-3
CORNERS = ("x0", "y0", "x1", "y1")
EXPECTED = "expected.json"
FORMATS: dict[str, list[str]] = {"yolo": ["--pictures", "copy", "--split", "train=0.7,val=0.3"], "label-studio": []}

Rows = list[dict[str, Any]]


def write(folder: Path) -> None:
    """Make runs and export them; leave their boxes beside that."""
    from tests.support.exported_runs import hostile_run, labelled_run

    for name, make in (("hostile", hostile_run), ("labelled", labelled_run)):
        run = make(folder / name / "source")
        (folder / name / EXPECTED).write_text(json.dumps(run.boxes))
        for form, flags in FORMATS.items():
            done = run.export(form, folder / name / form, *flags)
            assert done.code == 0, done.err


def read(folder: Path) -> None:
    """Read the exports; raises where something is not the run's."""
    for run in ("hostile", "labelled"):
        rows_of = json.loads((folder / run / EXPECTED).read_text())
        print(f"Ultralytics: {run}: {read_yolo(folder / run / 'yolo', rows_of)}", flush=True)
        print(f"Label Studio: {run}: {read_label_studio(folder / run / 'label-studio', rows_of)}", flush=True)


def read_yolo(out: Path, rows_of: dict[str, Rows]) -> str:
    """Have Ultralytics check and load a dataset, and train on it; return what was compared."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_CONFIG_DIR=str(out.parent / "config"))
    from ultralytics import YOLO
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(out / "data.yaml"), autodownload=False)
    num_boxes = num_images = 0
    for split in ("train", "val"):
        for label in YOLODataset(img_path=data[split], data=data, task="detect", augment=False).labels:
            height, width = label["shape"]
            x, y, w, h = (label["bboxes"] * [width, height, width, height]).T
            ours = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
            rows = min(rows_of.values(), key=lambda rows: _distance(ours, rows))
            assert _distance(ours, rows) < NEAR_PX, (label["im_file"], ours)
            assert label["cls"][:, 0].tolist() == [row["class_id"] for row in rows]
            num_boxes, num_images = num_boxes + len(rows), num_images + 1
    assert num_boxes == sum(map(len, rows_of.values()))
    settings = {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": "cpu", "verbose": False}
    YOLO("yolov8n.yaml").train(data=str(out / "data.yaml"), project=str(out.parent / "trained"), **settings)
    return f"{num_images} images, {num_boxes} boxes, one epoch of training"


def read_label_studio(out: Path, rows_of: dict[str, Rows]) -> str:
    """Have Label Studio's SDK check interface, tasks and predictions, and convert these; return what was compared."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    config, tasks = (out / "config.xml").read_text(), json.loads((out / "tasks.json").read_text())
    interface = LabelInterface(config)
    interface.validate()
    for task in tasks:
        assert interface.validate_task({"data": task["data"]}), task
        assert not interface.validate_prediction(task["predictions"][0], return_errors=True), task
    accepted = [  # as if a user had accepted each prediction: the converter reads annotations alone
        {"id": number, "data": task["data"], "annotations": [{"result": task["predictions"][0]["result"]}]}
        for number, task in enumerate(tasks)
    ]
    (out / "accepted.json").write_text(json.dumps(accepted))
    converter = Converter(config, project_dir=None, download_resources=False)
    converter.convert_to_coco(str(out / "accepted.json"), str(out / "coco"), str(out / "none"), is_dir=False)
    coco = json.loads((out / "coco" / "result.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    rows = [row for task in tasks for row in rows_of[task["data"]["image_id"]]]
    assert sum(map(len, rows_of.values())) == len(rows) == len(coco["annotations"])
    for row, found in zip(rows, coco["annotations"], strict=True):
        x, y, width, height = found["bbox"]
        assert _distance(np.array([[x, y, x + width, y + height]]), [row]) < NEAR_PX, (row, found)
        assert names[found["category_id"]].startswith(row["class_name"])
    return f"{len(tasks)} tasks, {len(rows)} boxes"


def _distance(ours: np.ndarray, rows: Rows) -> float:
    theirs = np.array([[row[name] for name in CORNERS] for row in rows])
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
