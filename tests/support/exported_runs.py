"""Small runs to export, made by `label`: pictures with names that break files, and pictures in a folder per class.

`hostile_run` has several boxes and classes an image, `calibrated_run` a probability for each of these, `labelled_run`
labels and folders named train and val. Features are the colours of a picture: boxes are those of its patches.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cam_ops.boxes.calibration import Calibration, ProbabilityModel
from cluster.runs.calibration import CALIBRATION_VERSION, CalibrationFile, Sample, maps_of_request, write_calibration
from cluster.runs.directory import RunDir
from cluster.runs.reading import first_boxes
from cluster.runs.record import Run, existing_run
from cluster.runs.request import Request
from tests.support.command import Command, table_rows

NAMES = ("crane", 'a <b>"c" & d</b>, e', "=SUM(1,2); 'x'", "crane", "räd 🦊 fox")
"""Of the classes: two are equal, others break XML, JSON, YAML or CSV where they are not escaped."""
FOLDERS = tuple(name.replace("/", "_") for name in NAMES)
SIDE = 32  # of the network's input, and of its maps
RED, GREEN, BLUE = (250, 20, 10), (10, 240, 20), (20, 10, 250)
MAGENTA, YELLOW = (240, 10, 230), (240, 230, 10)
Patches = tuple[tuple[tuple[int, int, int], tuple[int, int, int, int]], ...]  # each a colour and x0, y0, x1, y1
THREE: Patches = ((RED, (3, 5, 20, 18)), (RED, (30, 20, 40, 31)), (GREEN, (25, 2, 45, 12)))
TWO: Patches = ((BLUE, (4, 4, 21, 24)), (YELLOW, (26, 9, 47, 33)))
CORNERS: Patches = ((MAGENTA, (0, 0, 13, 9)), (RED, (37, 28, 99, 99)))  # up to the picture's edges
QUARTER_TURN = 6  # EXIF: the picture is seen turned clockwise

HOSTILE: dict[str, Patches] = {
    "a.jpg": THREE,
    "a.png": TWO,  # NAME.txt and NAME.xml are those of a.jpg, too
    "turned.jpg": THREE,  # stored on its side
    "images/inner.png": THREE,
    "labels/JPEGImages/deep/inner.jpg": TWO,
    "line\nbreak\t.jpg": THREE,
    "<&>\"'`$ {}.png": TWO,
    "=cmd|' 'x,1;y.jpg": THREE,
    "@-+ 100% #1?.jpg": CORNERS,
    "r\u00e4d 🦊\u202egpj.png": THREE,  # turns the direction of text
    "a,b;c\td.jpg": TWO,
    "two.dots.jpg": CORNERS,
    "black.png": (),  # nothing but its background
}
BROKEN = {"broken.jpg": b"\xff\xd8\xff\xe0 this was a picture once", "none.jpg": b""}
FOREIGN = ("../escape.jpg", "a/../../b/./c.png", "/tmp/absolute.jpg", "C:\\windows\\d.png", " blank .jpg", "A.JPG")
"""Ids that only a manifest can give."""


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run that exports are made of."""

    root: Path
    pictures: Path  # by image_id, but for ids of `FOREIGN`
    record: Run

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """The rows of its images table, by image_id."""
        return {row["image_id"]: row for row in table_rows(self.root, "images")}

    @property
    def boxes(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of its boxes table, of the first threshold, in the table's order, by image_id."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for path in sorted((self.root / "boxes").glob("*.parquet")):
            for row in first_boxes(self.record.request, pq.read_table(path)).to_pylist():
                found[row["image_id"]].append(row)
        return dict(found)

    def export(self, form: str, out: Path, *more: object) -> Command:
        """Export, in this process."""
        return Command("export", self.root, "--to", form, "--out", out, "--executor", "inline", *more)

    def audited(self, truth: Path, *more: object) -> dict[str, Any]:
        """Audit the run with a truth whose every image that it knows is as it should be; return the figures."""
        words = ["--truth", truth, "--executor", "inline", "--bootstrap", 0, "--overwrite"]
        done = Command("audit", self.root, *words, *more)
        assert done.code == 0, done.err
        report = json.loads((self.root / "audit" / "metrics.json").read_text())
        assert {*report["truth"]["problems"]} <= {"unmatched_truth", "images_without_truth"}, report["truth"]
        return report["metrics"]


def hostile_run(folder: Path) -> ExportedRun:
    """Label pictures whose names are hostile, two classes each and a box for each patch of these; two are broken."""
    pictures = folder / "pictures"
    ids = {image_id: image_id for image_id in (*HOSTILE, *BROKEN)}
    for at, (image_id, patches) in enumerate(HOSTILE.items()):
        write_picture(pictures / image_id, patches, (50 + at, 38 + 2 * at))
    for image_id, content in BROKEN.items():
        (pictures / image_id).write_bytes(content)
    for at, image_id in enumerate(FOREIGN):
        ids[image_id] = f"foreign/{at}.png"
        write_picture(pictures / ids[image_id], THREE, (60 + at, 40))
    paths = [str(pictures / name) for name in ids.values()]
    pq.write_table(pa.table({"uri": paths, "image_id": list(ids)}), folder / "manifest.parquet")
    words = ["--classes", "topk:2", "--components", "all", "--min-area", 0.005, "--shard-size", 4]
    return _labelled(folder, folder / "manifest.parquet", *words)


def calibration_file(request: Request, **said: Any) -> CalibrationFile:
    """Return a calibration that gives boxes of such a run a probability, and says this of its sample."""
    model = ProbabilityModel(intercept=0.1, coefficients=(1.0, 1.0, 0, 0, 0), knots=((-4.0, 0.05), (4.0, 0.95)))
    sample = Sample(
        **{"fingerprint": request.fingerprint(), "truth_format": "table", "excluded": {}} | said,
        **dict.fromkeys(("fitted", "held_out", "seed", "max_images"), 0),
        **dict.fromkeys(("holdout", "shrinkage"), 0.0),
        per_class=False,
    )
    return CalibrationFile(
        schema_version=CALIBRATION_VERSION,
        maps_of=maps_of_request(request),
        maps=request.maps,
        boxes=request.boxes,
        calibration=Calibration(class_thresholds=(), probability=model),
        sample=sample,
        held_out=None,
    )


def calibrated_run(hostile: ExportedRun, folder: Path) -> ExportedRun:
    """Give the boxes of `hostile_run` a probability."""
    folder.mkdir(parents=True, exist_ok=True)
    write_calibration(str(folder / "calibration.json"), calibration_file(hostile.record.request))
    out = folder / "run"
    words = ["--calibration", folder / "calibration.json", "--executor", "inline"]
    done = Command("rebox", hostile.root, "--out", out, *words)
    assert done.code == 0, done.err
    return ExportedRun(out, hostile.pictures, existing_run(RunDir(str(out))))


def labelled_run(folder: Path, scale: int = 1) -> ExportedRun:
    """Label twelve pictures in folders per class, each with folders train and val; one box an image, of its label.

    At scale 10 boxes end between pixels.
    """
    classes = (1, GREEN), (2, BLUE), (4, YELLOW)
    for at in range(12):
        class_id, colour = classes[at % len(classes)]
        place = folder / "pictures" / FOLDERS[class_id] / ("val" if at % 4 == 3 else "train")
        patch = scale * (5 + at), scale * 7, scale * (30 + at), scale * (31 - at)
        write_picture(place / f"{at:02d}.{'jpg' if at % 2 else 'png'}", ((colour, patch),), (scale * 64, scale * 48))
    return _labelled(folder, folder / "pictures", "--labels", "folder", "--shard-size", 5)


def _labelled(folder: Path, images: Path, *more: object) -> ExportedRun:
    """Run `label` on what lies in a folder."""
    with (folder / "classes.csv").open("w", newline="") as file:
        rows = zip(range(len(NAMES)), FOLDERS, NAMES, strict=True)
        csv.writer(file).writerows([("class_id", "folder", "name"), *rows])
    words = [
        "--model",
        "tests.support.networks:colours",
        "--mean",
        0,
        0,
        0,
        "--std",
        1,
        1,
        1,
        "--image-size",
        SIDE,
    ]
    words += ["--class-names", folder / "classes.csv", "--executor", "inline", "--precision", "fp32"]
    words += ["--max-error-rate", 1, "--batch-size", 4]
    out = folder / "run"
    done = Command("label", "--images", images, "--out", out, *words, *more)
    assert done.code == 0, (done.err, done.result)
    return ExportedRun(out, folder / "pictures", existing_run(RunDir(str(out))))


def write_picture(path: Path, patches: Patches, size: tuple[int, int]) -> None:
    """Write a dark picture with patches, by its suffix; one named turned.jpg lies on its side, and EXIF says so."""
    width, height = size
    image_HWC = np.full((height, width, 3), 12, np.uint8)
    for colour, (x0, y0, x1, y1) in patches:
        image_HWC[y0:y1, x0:x1] = colour
    image, exif = Image.fromarray(image_HWC), Image.Exif()
    if path.name == "turned.jpg":
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = QUARTER_TURN
    content = BytesIO()
    if path.suffix.lower() == ".jpg":
        image.save(content, "JPEG", quality=95, subsampling=0, exif=exif)
    else:
        image.save(content, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())


def corners(boxes: Iterable[dict[str, Any]]) -> list[list[float]]:
    """Return the corners of rows of a boxes table: x0, y0, x1, y1."""
    return [[box[name] for name in ("x0", "y0", "x1", "y1")] for box in boxes]
