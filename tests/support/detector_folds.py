"""Do labels pay? Cross-validate docs/examples/train_detector.py: `python -m tests.support.detector_folds KANGAROO OUT`.

KANGAROO has `images/` and `annots/` (Pascal VOC). A seed draws three folds and the detector's first weights. What each
condition learns from stands in `labels_for`. Each training leaves a file, so that the same command goes on; the table
is of what is there.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import defusedxml.ElementTree as ElementTree
import numpy as np
import torch

from tests.support.command import ROOT
from tests.support.detector_table import table_of

WALLABY = 104
NUM_FOLDS = 3
NUM_DRAWN = 28  # pictures of the training folds whose true boxes somebody has drawn
DROPPED = 1 / 3  # of the boxes, those of lowest probability
SURE, SEEN = (
    0.5,
    0.3,
)  # scores of the second round: from the first a box counts, from the second where a map's box agrees
CONDITIONS = ("true", "maps", "probable", "second", "drawn", "largest", "drawn-and-maps")
UNTRAINED = ("boxes", "boxes by probability")  # the maps' own boxes as detections

Coco = dict[str, Any]


def load_example() -> ModuleType:
    """Import docs/examples/train_detector.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("train_detector", ROOT / "docs/examples/train_detector.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


detector = load_example()


def truth_of(annotations: Path) -> Coco:
    """Read Pascal VOC, whose boxes are integers from 1 and inclusive, as COCO."""
    images, boxes = [], []
    for image_id, path in enumerate(sorted(annotations.glob("*.xml")), 1):
        root = ElementTree.parse(path).getroot()
        width, height = (int(root.findtext(f"size/{side}")) for side in ("width", "height"))
        images.append({"id": image_id, "file_name": f"{path.stem}.jpg", "width": width, "height": height})
        for box in root.iter("bndbox"):
            x0, y0, x1, y1 = (int(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((image_id, [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1], {}))
    return coco_of(images, boxes, {"id": 1, "name": "kangaroo"})


def coco_of(images: list[Coco], boxes: Sequence[tuple[int, list[float], Coco]], category: Coco) -> Coco:
    """Make a COCO document of one class from image ids, x y w h, and what else is known of a box."""
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": category["id"],
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "iscrowd": 0,
            **more,
        }
        for number, (image_id, bbox, more) in enumerate(boxes, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": [category]}


def subset(coco: Coco, image_ids: set[int]) -> Coco:
    """Return a document of these images alone."""
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in image_ids],
        "annotations": [box for box in coco["annotations"] if box["image_id"] in image_ids],
    }


def camray(*words: object) -> None:
    """Run a command of camray."""
    inline = ("--executor", "inline") if words[0] in ("label", "rebox") else ()
    command = [sys.executable, "-m", "jobs", *map(str, words), *inline]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def boxes_of(run: Path, truth: Coco) -> Coco:
    """Return a run's boxes as COCO, with the truth's image ids."""
    export = run.parent / f"{run.name}-coco"
    if not export.exists():
        camray("export", run, "--to", "coco", "--out", export)
    coco = json.loads((export / "annotations.json").read_text())
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    (category,) = (known for known in coco["categories"] if known["id"] == WALLABY + 1)
    boxes = [
        (ids[names[box["image_id"]]], box["bbox"], {key: box[key] for key in ("score", "probability") if key in box})
        for box in coco["annotations"]
    ]
    return coco_of(truth["images"], boxes, category)


class Folds:
    """The kangaroos, the runs of `label` over them, and the folds of a seed."""

    def __init__(self, kangaroo: Path, out: Path) -> None:
        self.images, self.out = kangaroo / "images", out
        (out / "results").mkdir(parents=True, exist_ok=True)
        self.truth = truth_of(kangaroo / "annots")
        self.ids = {image["id"] for image in self.truth["images"]}
        labels = out / "labels.csv"
        rows = [f"{image['file_name']},{WALLABY}\n" for image in self.truth["images"]]
        labels.write_text("image_id,label\n" + "".join(rows))
        for components in ("peaks", "largest"):
            if not (out / components).exists():
                model = ("--model", "efficientnet_lite0", "--labels", labels, "--components", components)
                camray("label", "--images", self.images, *model, "--out", out / components, "--precision", "fp32")
        self.maps, self.largest = (boxes_of(out / name, self.truth) for name in ("peaks", "largest"))

    def held_out(self, seed: int, fold: int) -> set[int]:
        """Return the ids of a fold's pictures."""
        order = np.random.default_rng(seed).permutation(sorted(self.ids))
        return set(np.array_split(order, NUM_FOLDS)[fold].tolist())

    def drawn(self, seed: int, fold: int) -> set[int]:
        """Return the ids of the training pictures that somebody has drawn boxes for."""
        trained = sorted(self.ids - self.held_out(seed, fold))
        return set(np.random.default_rng((seed, fold)).permutation(trained)[:NUM_DRAWN].tolist())

    def probable(self, seed: int, fold: int) -> Coco:
        """Return the maps' boxes with the probability that a calibration on the drawn boxes gives them."""
        name = f"{seed}-{fold}"
        run, calibration = self.out / f"calibrated-{name}", self.out / f"calibration-{name}.json"
        if not run.exists():
            known = self.out / f"drawn-{name}.json"
            known.write_text(json.dumps(subset(self.truth, self.drawn(seed, fold))))
            of_truth = ("--truth", known, "--class-map", f"kangaroo={WALLABY}", "--holdout", 0)
            camray("calibrate", self.out / "peaks", *of_truth, "--out", calibration)
            camray("rebox", self.out / "peaks", "--out", run, "--calibration", calibration)
        return boxes_of(run, self.truth)

    def labels_for(self, condition: str, seed: int, fold: int) -> Coco:
        """Return what a condition learns from: boxes of the training folds."""
        trained, drawn = self.ids - self.held_out(seed, fold), self.drawn(seed, fold)
        match condition:
            case "true":
                return subset(self.truth, trained)
            case "maps":
                return subset(self.maps, trained)
            case "largest":
                return subset(self.largest, trained)
            case "probable":
                coco = subset(self.probable(seed, fold), trained)
                least = np.quantile([box["probability"] for box in coco["annotations"]], DROPPED)
                return {**coco, "annotations": [box for box in coco["annotations"] if box["probability"] >= least]}
            case "second":
                found = json.loads(self.result("maps", seed, fold).read_text())["train"]
                return agreed(subset(self.maps, trained), found)
            case "drawn":
                return subset(self.truth, drawn)
            case "drawn-and-maps":
                mixed = subset(self.maps, trained - drawn)
                own = [{**box, "category_id": WALLABY + 1} for box in subset(self.truth, drawn)["annotations"]]
                images = subset(self.maps, trained)["images"]
                return {**mixed, "images": images, "annotations": [*mixed["annotations"], *own]}
        raise ValueError(condition)

    def result(self, condition: str, seed: int, fold: int) -> Path:
        """Return the file that a training leaves."""
        return self.out / "results" / f"{condition}-{seed}-{fold}.json"

    def train(self, condition: str, seed: int, fold: int) -> None:
        """Train on a condition's labels; keep what the detector finds in the training folds and in the one held out."""
        labels, val = self.out / "train.json", self.out / "val.json"
        labels.write_text(json.dumps(self.labels_for(condition, seed, fold)))
        val.write_text(json.dumps(subset(self.truth, self.held_out(seed, fold))))
        bf16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        config = detector.Config(train=labels, images=self.images, val=val, out=self.out, seed=seed, bf16=bf16)
        started = time.perf_counter()
        pictures, names, train_ids = detector.read_coco(labels)
        network = detector.build_detector(len(names), config)
        losses = list(detector.fit(network, pictures, config))
        seconds = time.perf_counter() - started
        others, _, val_ids = detector.read_coco(val, names)
        document = {
            "train": detector.detect(network, pictures, train_ids, self.images),
            "val": detector.detect(network, others, val_ids, self.images),
            "boxes": sum(len(picture.boxes_N4) for picture in pictures),
            "pictures": sum(len(picture.boxes_N4) > 0 for picture in pictures),
            "seconds": seconds,
            "loss": float(np.mean(losses[-7:])),
        }
        partial = self.result(condition, seed, fold).with_suffix(".partial")
        partial.write_text(json.dumps(document))
        partial.rename(self.result(condition, seed, fold))
        ap, ap_50 = detector.average_precision(val, document["val"], val_ids)
        said = {key: document[key] for key in ("boxes", "pictures", "seconds", "loss")}
        print(
            json.dumps({"condition": condition, "seed": seed, "fold": fold, "ap": ap, "ap_50": ap_50, **said}),
            flush=True,
        )

    def is_whole(self, condition: str, seed: int) -> bool:
        """Say whether a seed's folds are all there."""
        return condition in UNTRAINED or all(self.result(condition, seed, fold).exists() for fold in range(NUM_FOLDS))

    def detections(self, condition: str, seed: int) -> list[Coco]:
        """Return what was found in each fold by the detector that had not seen it, as results of the truth's class."""
        results = []
        for fold in range(NUM_FOLDS):
            if condition == "boxes":
                found = subset(self.maps, self.held_out(seed, fold))["annotations"]
            elif condition in UNTRAINED:
                found = subset(self.probable(seed, fold), self.held_out(seed, fold))["annotations"]
                found = [{**box, "score": box["probability"]} for box in found]
            else:
                found = json.loads(self.result(condition, seed, fold).read_text())["val"]
            results += [{**{key: box[key] for key in ("image_id", "bbox", "score")}, "category_id": 1} for box in found]
        return results

    def note(self, condition: str, seeds: list[int]) -> str:
        """Say how much a training learned from: medians."""
        if condition in UNTRAINED:
            return ""
        left = [
            json.loads(self.result(condition, seed, fold).read_text()) for seed in seeds for fold in range(NUM_FOLDS)
        ]
        boxes, pictures = (np.median([one[key] for one in left]) for key in ("boxes", "pictures"))
        return f"{boxes:.0f} boxes, {pictures:.0f} pictures"


def agreed(maps: Coco, found: list[Coco]) -> Coco:
    """Merge the maps' boxes with what a detector finds in the same pictures: the second round's labels.

    A map's box is replaced by the box of the detector that overlaps it most, if that has a score of SEEN and an IoU of
    .5, and is left out else. Boxes of the detector that overlap no map's box so far are added from a score of SURE.
    """
    boxes = []
    for image in maps["images"]:
        seen = [box for box in found if box["image_id"] == image["id"] and box["score"] >= SEEN]
        own_M4 = xyxy([box["bbox"] for box in maps["annotations"] if box["image_id"] == image["id"]])
        found_N4 = xyxy([box["bbox"] for box in seen])
        iou_NM = np.array([iou_N(box_4, own_M4) for box_4 in found_N4]).reshape(len(seen), len(own_M4))
        taken = {int(iou_NM[:, m].argmax()) for m in range(len(own_M4)) if iou_NM[:, m].max(initial=0) >= 0.5}
        for n, box in enumerate(seen):
            if n in taken or (box["score"] >= SURE and iou_NM[n].max(initial=0) < 0.5):
                boxes.append((image["id"], box["bbox"], {"score": box["score"]}))
    return coco_of(maps["images"], boxes, maps["categories"][0])


def xyxy(bboxes: list[list[float]]) -> np.ndarray:
    """Turn x y w h into corners, shape (N, 4)."""
    boxes_N4 = np.array(bboxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]], 1)


def iou_N(box_4: np.ndarray, boxes_N4: np.ndarray) -> np.ndarray:
    """Return a box's IoU with each of N."""
    sides_N2 = np.minimum(box_4[2:], boxes_N4[:, 2:]) - np.maximum(box_4[:2], boxes_N4[:, :2])
    shared_N = np.prod(np.clip(sides_N2, 0, None), 1)
    return shared_N / (np.prod(box_4[2:] - box_4[:2]) + np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], 1) - shared_N)


def main() -> None:
    """Train what is missing, a seed's conditions before the next seed's; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kangaroo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS))
    parser.add_argument("--table-only", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folds = Folds(asked.kangaroo, asked.out)
    for seed in range(asked.seeds):
        for condition in asked.conditions:
            for fold in range(NUM_FOLDS):
                if not asked.table_only and not folds.result(condition, seed, fold).exists():
                    folds.train(condition, seed, fold)
    found, notes = {}, {}
    for condition in (*UNTRAINED, *asked.conditions):
        seeds = [seed for seed in range(asked.seeds) if folds.is_whole(condition, seed)]
        if seeds:
            found[condition] = [folds.detections(condition, seed) for seed in seeds]
            notes[condition] = folds.note(condition, seeds)
    print(table_of(folds.truth, found, notes))


if __name__ == "__main__":
    main()
