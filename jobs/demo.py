"""`demo`: label eight real photographs on Ray actors, verify, compare with boxes drawn by eye, draw one sheet."""

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cam_ops.arrays import U8
from cam_ops.errors import StorageError
from cam_ops.metrics.localization import overlaps
from cam_ops.pictures.overlays import WHITE, contact_sheet, draw_box
from cam_ops.settings import ModelConfig
from cam_ops.tables import CORNERS
from cluster.display.image import draw, read_labelled
from cluster.label.config import LabelConfig
from cluster.label.driver import label
from cluster.process.apart import Apart
from cluster.process.console import say
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.record import existing_run
from cluster.runs.verify import verify
from cluster.storage.options import NO_OPTIONS
from jobs.command import Outcome, outcome_of
from jobs.demo_photos import PHOTOS, Photo, copy_photos
from jobs.flags import parse

COLUMNS, CELL_WIDTH, CELL_HEIGHT = 4, 320, 250
PYTHON = os.path.relpath(sys.executable)  # so that the printed lines work as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Run the whole chain on real photos that pip brings: label, verify, compare, draw."""

    out: str = "camray-demo"
    """Folder for the photos, the run directory and the contact sheet."""


def run(arguments: list[str]) -> Outcome:
    """Exit code 3 if the run is not whole."""
    config = parse(DemoConfig, arguments, "demo")
    folder = Path(config.out).absolute()
    totals = label(_label_config(folder)).totals
    run_dir = open_run_dir(str(folder / "run"))
    verdict = verify(run_dir)
    panels = [_compare(run_dir, photo) for photo in PHOTOS]
    sheet_HWC = contact_sheet(panels, COLUMNS, CELL_WIDTH, CELL_HEIGHT)
    sheet = folder / "contact-sheet.png"
    cv2.imwrite(str(sheet), sheet_HWC[..., ::-1])
    print(f"\nverify         {'; '.join(verdict.problems) or 'whole: every image exactly once'}")
    print(f"contact sheet  {sheet}  (yellow: ours, white: by eye)")
    print(f"tables         {run_dir.root}/images, boxes, heatmaps  (Parquet)")
    print(f"one picture    {PYTHON} -m jobs show {run_dir.root} coffee.png")
    print(f"ask DuckDB     {duckdb_line(run_dir.root)}")
    return outcome_of(
        totals,
        str(folder),
        status="not_whole" if verdict.problems else "done",
        exit_code=3 if verdict.problems else 0,
    )


def duckdb_line(root: str) -> str:
    """Return a shell command that queries the boxes with DuckDB's Python package."""
    columns = "image_id, class_name, score, x0, y0, x1, y1"
    query = f"SELECT {columns} FROM '{root}/boxes/*.parquet' ORDER BY score DESC"  # noqa: S608  to be read and typed
    return f'{PYTHON} -c "import duckdb; duckdb.sql(\\"{query}\\").show()"'


def _label_config(folder: Path) -> LabelConfig:
    """Put photos, labels and class names in place, and say how to label them."""
    try:
        copy_photos(folder / "photos")
        with closing(Apart("jobs.demo_model:ImageNet")) as imagenet:
            names: list[str] = imagenet.call("names")
        (folder / "classes.txt").write_text("\n".join(names) + "\n")
        lines = [f"{photo.file},{photo.class_name}" for photo in PHOTOS]
        (folder / "labels.csv").write_text("image_id,label\n" + "\n".join(lines) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    model = ModelConfig(model="efficientnet_lite0", class_names=str(folder / "classes.txt"))
    say(f"labelling {len(PHOTOS)} photographs that scikit-image and scikit-learn ship, with EfficientNet-Lite0")
    return LabelConfig(
        images=(str(folder / "photos"),),
        out=str(folder / "run"),
        labels=str(folder / "labels.csv"),
        model=model,
        overwrite=True,
    )


def _compare(run_dir: RunDir, photo: Photo) -> U8:
    """Print how the best box of a photo agrees with the box by eye; return its picture with both."""
    run = existing_run(run_dir)
    labelled = read_labelled(run_dir, run, photo.file)
    by_eye_4 = np.array(photo.box, np.float64)
    overlap = 0.0
    if labelled.boxes:
        ours_4 = np.array([labelled.boxes[0][name] for name in CORNERS], np.float32)
        overlap = float(overlaps(ours_4[None], by_eye_4[None])[0, 0])
    print(f"{photo.file:20} {photo.class_name:14} IoU with the box by eye {overlap:.2f}")
    return draw_box(draw(run, labelled, NO_OPTIONS), by_eye_4.astype(np.float32), "", WHITE)
