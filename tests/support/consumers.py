"""Exports read by programs that are large, or pin other libraries: Ultralytics and Label Studio's converter.

`make consumers` gives them an environment of their own, in which ours is found behind theirs, and runs this on small
pictures with names that break files. Ultralytics trains for an epoch, too.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.exported_runs import ExportedRun, corners, hostile_run, labelled_run

NEAR_PX = 1e-3


def check_ultralytics(run: ExportedRun, folder: Path) -> str:
    """Have Ultralytics check and load a dataset, and train on it; return what was compared."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_CONFIG_DIR=str(folder / "config"))
    from ultralytics import YOLO
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    done = run.export("yolo", folder / "yolo", "--pictures", "copy", "--split", "train=0.7,val=0.3")
    assert done.code == 0, done.err
    data = check_det_dataset(str(folder / "yolo" / "data.yaml"), autodownload=False)
    num_boxes = num_images = 0
    for split in ("train", "val"):
        for label in YOLODataset(img_path=data[split], data=data, task="detect", augment=False).labels:
            height, width = label["shape"]
            x, y, w, h = (label["bboxes"] * [width, height, width, height]).T
            ours = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
            rows = min(run.boxes.values(), key=lambda rows: _distance(ours, rows))
            assert _distance(ours, rows) < NEAR_PX, (label["im_file"], ours)
            assert label["cls"][:, 0].tolist() == [row["class_id"] for row in rows]
            num_boxes, num_images = num_boxes + len(rows), num_images + 1
    assert num_boxes == sum(map(len, run.boxes.values()))
    settings = {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": "cpu", "verbose": False}
    YOLO("yolov8n.yaml").train(data=str(folder / "yolo" / "data.yaml"), project=str(folder / "trained"), **settings)
    return f"{num_images} images, {num_boxes} boxes, one epoch of training"


def _distance(ours: np.ndarray, rows: list[dict[str, float]]) -> float:
    theirs = np.array(corners(rows))
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


CHECKS: dict[str, Callable[[ExportedRun, Path], str]] = {"ultralytics": check_ultralytics}


def main() -> None:
    """Run all checks on all runs; the first that fails raises."""
    with tempfile.TemporaryDirectory(prefix="camray-consumers-") as scratch:
        runs = {"hostile": hostile_run(Path(scratch, "hostile")), "labelled": labelled_run(Path(scratch, "labelled"))}
        for name, run in runs.items():
            for consumer, check in CHECKS.items():
                found = check(run, Path(scratch, f"{name}-{consumer}"))
                print(f"{consumer}: {name}: {found}", flush=True)


if __name__ == "__main__":
    main()
