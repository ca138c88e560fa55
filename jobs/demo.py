"""`demo`: label eight real photographs on Ray actors, verify, audit against boxes drawn by eye, show all on a page."""

import csv
import os
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cam_ops.errors import StorageError
from cam_ops.metrics.localization import overlaps
from cam_ops.settings import ModelConfig
from cam_ops.tables import CORNERS
from cluster.audit.config import AuditConfig
from cluster.audit.driver import audit
from cluster.display.image import read_labelled
from cluster.label.config import LabelConfig
from cluster.label.driver import label
from cluster.process.apart import Apart
from cluster.process.console import say
from cluster.report.config import ReportConfig
from cluster.report.driver import report
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.record import existing_run
from cluster.runs.verify import verify
from cluster.truth.prepare import TruthConfig
from jobs.command import Outcome, outcome_of, print_lines
from jobs.demo_photos import PHOTOS, Photo, copy_photos
from jobs.flags import parse

PYTHON = os.path.relpath(sys.executable)  # so that the printed lines work as they are
BY_EYE = "by-eye.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Run the whole chain on real photos that pip brings: label, verify, audit, show."""

    out: str = "camray-demo"
    """Folder for the photos and the run directory, with the page that shows it."""


def run(arguments: list[str]) -> Outcome:
    """Exit code 3 if the run is not whole."""
    config = parse(DemoConfig, arguments, "demo")
    folder = Path(config.out).absolute()
    totals = label(_label_config(folder)).totals
    run_dir = open_run_dir(str(folder / "run"))
    verdict = verify(run_dir)
    for photo in PHOTOS:
        _compare(run_dir, photo)
    audit(AuditConfig(run=run_dir.root, truth=TruthConfig(truth=str(folder / BY_EYE)), executor="inline"))
    page = report(ReportConfig(run=run_dir.root))
    print_lines(
        [
            "",
            f"verify         {'; '.join(verdict.problems) or 'whole: every image exactly once'}",
            f"tables         {run_dir.root}/images, boxes, heatmaps  (Parquet)",
            f"report         {Path(page.where).as_uri()}  (open it in a browser; dashed: boxes by eye)",
            f"one picture    {PYTHON} -m jobs show {run_dir.root} coffee.png",
            f"ask DuckDB     {duckdb_line(run_dir.root)}",
        ]
    )
    return outcome_of(
        totals,
        str(folder),
        status="not_whole" if verdict.problems else "done",
        exit_code=3 if verdict.problems else 0,
        error=verdict.problems[0] if verdict.problems else None,
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
        with (folder / BY_EYE).open("w", newline="") as file:
            rows = ((photo.file, *photo.box, photo.class_name) for photo in PHOTOS)
            csv.writer(file).writerows([("image_id", *CORNERS, "label"), *rows])
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


def _compare(run_dir: RunDir, photo: Photo) -> None:
    """Print how the best box of a photo agrees with the box by eye."""
    labelled = read_labelled(run_dir, existing_run(run_dir), photo.file)
    overlap = 0.0
    if labelled.boxes:
        ours_4 = np.array([labelled.boxes[0][name] for name in CORNERS], np.float32)
        overlap = float(overlaps(ours_4[None], np.array([photo.box], np.float64))[0, 0])
    print_lines([f"{photo.file:20} {photo.class_name:14} IoU with the box by eye {overlap:.2f}"])
