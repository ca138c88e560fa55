"""Valid truths of all formats, and runs of which a part is another: what commands on runs read."""

import csv
import gzip
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from cam_ops.boxes.calibration import Calibration, ProbabilityModel
from cluster.runs.calibration import CALIBRATION_VERSION, CalibrationFile, Sample, maps_of_request
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command
from tests.support.first_run import KEPT, PICTURES
from tests.support.fuzz_case import AUDIT, LABEL, LOG, Case, Files, Words, case, parquet_of, sample, table_text, tar_of
from tests.support.truths import FROM_1, coco, xml


def outputs(run: Path) -> dict[str, Case]:
    """Return cases by their names; `run` is a copy of the kept run, which is audited."""
    rows = list(csv.DictReader((KEPT / "truth.csv").read_text().splitlines()))
    return {**_truths(rows[:4]), **_calibrations(run), **_runs(run)}


def _truths(rows: list[dict[str, str]]) -> dict[str, Case]:
    images, boxes, documents = [], [], {}
    for i, row in enumerate(rows):
        with Image.open(PICTURES / row["image_id"]) as picture:
            width, height = picture.size
        images.append({"id": i, "file_name": row["image_id"], "width": width, "height": height})
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0", "y0", "x1", "y1"))
        boxes.append({"id": i, "image_id": i, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0})
        documents[f"voc/{row['image_id'][:-4]}.xml"] = xml(("549", FROM_1), size=(width, height)).encode()
    boxes[1] |= {"bbox": [], "segmentation": [[1, 1, 20, 1, 20, 9]]}
    boxes[2] |= {"bbox": None, "segmentation": {"size": [images[2]["height"], images[2]["width"]], "counts": "05"}}
    ids = [row["image_id"] for row in rows]
    yolo: Files = {f"yolo/labels/{image_id[:-4]}.txt": b"1 0.5 0.5 0.4 0.4\n" for image_id in ids}
    yolo["yolo/data.yaml"] = b"path: .\ntrain: images\nnc: 2\nnames: {0: '417', 1: '549'}\nkpt_shape: [0, 3]\n"
    polygons: Files = {f"polygons/{image_id[:-4]}.txt": b"0 .25 .5 .5 .25 .75 .333333 .6 .75\n" for image_id in ids}
    polygons["polygons/classes.txt"] = b"549\n"
    wsol: Files = {
        "wsol/image_ids.txt": "\n".join(ids).encode(),
        "wsol/class_labels.txt": "\n".join(f"{image_id},549" for image_id in ids).encode(),
        "wsol/image_sizes.txt": "\n".join(
            f"{each['file_name']},{each['width']},{each['height']}" for each in images
        ).encode(),
        "wsol/localization.txt": (
            "\n".join(f"{image_id},10,5,29,14" for image_id in ids[:3]) + f"\n{ids[3]},m.png,"
        ).encode(),
        "wsol/m.png": _mask(images[3]),
    }
    masks = {f"masks/{each['file_name'][:-4]}.png": _mask(each) for each in images}
    loc = "ImageId,PredictionString\n" + "".join(f"{image_id[:-4]},549 10 5 29 14 \n" for image_id in ids)
    inclusive = [
        {"image": row["image_id"], "xmin": row["x0"], "ymin": row["y0"], "xmax": row["x1"], "ymax": row["y1"]}
        for row in rows
    ]
    table = pa.Table.from_pylist(
        [{**row, **{name: float(row[name]) for name in ("x0", "y0", "x1", "y1")}} for row in rows]
    )
    members = [
        (f"{image_id[:-4]}.{kind}", held)
        for i, image_id in enumerate(ids)
        for kind, held in sample(i, str(PICTURES / image_id))
    ]
    files: dict[str, Files] = {
        "coco.json": {"coco.json": coco(images, boxes, ("549",)).encode()},
        "voc": documents,
        "yolo": yolo,
        "polygons": polygons,
        "LOC_val_solution.csv": {"LOC_val_solution.csv": loc.encode()},
        "wsol": wsol,
        "masks": masks,
        "truth.csv": {"truth.csv": table_text(rows)},
        "truth.csv.gz": {"truth.csv.gz": gzip.compress(table_text(inclusive), mtime=0)},
        "truth.tsv": {"truth.tsv": table_text(rows, "\t")},
        "truth.parquet": {"truth.parquet": parquet_of(table)},
        "truth.tar": {"truth.tar": tar_of(members)},
    }
    return {f"truth {name}": case(each, *_audits(f"WORK/{name}", name)) for name, each in files.items()}


def _audits(truth: str, name: str) -> list[Words]:
    """Return the commands for a truth: an audit of which nothing is drawn nine times, and a whole one."""
    named = {
        "polygons": ("yolo-polygons",),
        "truth.csv": ("table-inclusive", "table-fractions"),
        "voc": ("voc-inclusive",),
    }
    formats = ["auto"] * 7 + [*named.get(name, ("auto",))]
    read: list[Words] = [("entries", truth, form) for form in formats] + [("truth", "RUN", truth, "auto")] * 2
    return [*read, (*AUDIT, "--truth", truth)]


def _mask(image: dict[str, Any]) -> bytes:
    mask, stream = Image.new("L", (image["width"], image["height"])), io.BytesIO()
    mask.paste(255, (2, 3, 20, 15))
    mask.save(stream, "PNG")
    return stream.getvalue()


def _calibrations(run: Path) -> dict[str, Case]:
    request = existing_run(RunDir(str(run))).request
    model = ProbabilityModel(intercept=0.1, coefficients=(1.0, 1.0, 0, 0, 0), knots=((-4.0, 0.05), (4.0, 0.95)))
    counts = {"fitted": 12, "held_out": 7, "seed": 0, "max_images": 20}
    file = CalibrationFile(
        schema_version=CALIBRATION_VERSION,
        maps_of=maps_of_request(request),
        maps=request.maps,
        boxes=type(request.boxes)(threshold=(0.3,)),
        calibration=Calibration(class_thresholds=((417, 0.4), (549, 0.2)), probability=model),
        sample=Sample(
            fingerprint=request.fingerprint(),
            truth_format="table",
            excluded={"bad": 1},
            per_class=True,
            holdout=0.4,
            shrinkage=2.0,
            **counts,
        ),
        held_out=None,
    )
    files = {"calibration.json": json.dumps(asdict(file)).encode()}
    rebox = ("rebox", "RUN", "--executor", "inline", "--out", "OUT", "--calibration", "WORK/calibration.json")
    return {"calibration.json": case(files, rebox)}


RUN_COMMANDS: tuple[Words, ...] = (
    ("status", "WORK"),
    ("status", "WORK", "--json"),
    ("verify", "WORK"),
    ("verify", "WORK"),
    ("show", "WORK", "square/00.jpg", "--to", "WORK/one.png"),
    ("show", "WORK", "--random", "--grid", "2x1", "--to", "WORK/some.png"),
    ("audit", "WORK", "--executor", "inline", "--bootstrap", "0"),
    ("audit", "WORK", "--truth", f"{KEPT}/truth.csv", "--executor", "inline", "--bootstrap", "0"),
    ("rebox", "WORK", "--out", "OUT", "--executor", "inline", "--threshold", "0.3"),
    ("export", "WORK", "--to", "coco", "--out", "OUT", "--executor", "inline"),
    ("export", "WORK", "--to", "yolo", "--out", "OUT", "--executor", "inline"),
    ("compare", "WORK", "OTHER"),
    ("compare", "OTHER", "WORK"),
    ("report", "WORK", "--out", "WORK/report.html", "--executor", "inline"),
    (*LABEL[:-1], "WORK"),
)
AUDITED_COMMANDS: tuple[Words, ...] = (
    ("compare", "WORK", "OTHER"),
    ("compare", "OTHER", "WORK"),
    ("report", "WORK", "--out", "WORK/report.html", "--executor", "inline"),
    ("show", "WORK", "--worst", "--grid", "2x1", "--to", "WORK/worst.png"),
)


def _runs(run: Path) -> dict[str, Case]:
    files = {str(path.relative_to(KEPT / "run")): path.read_bytes() for path in sorted((KEPT / "run").rglob("*.*"))}
    files[LOG] = _log()
    of_audit = {f"audit/{path.name}": path.read_bytes() for path in sorted((run / "audit").iterdir()) if path.is_file()}
    of_audit = {name: content for name, content in of_audit.items() if name.endswith((".json", ".parquet"))}
    of_audit = {name: content.replace(str(run).encode(), b"/run") for name, content in of_audit.items()}
    tables = {
        kind: [name for name in files if name.startswith(kind)] for kind in ("images", "boxes", "heatmaps", "plan")
    }
    found = {
        "run.json": case(files, *RUN_COMMANDS, targets=["run.json"]),
        "summary and log": case(files, ("status", "WORK"), ("verify", "WORK"), targets=["summary.json", LOG, LOG]),
        "audit": case(files | of_audit, *AUDITED_COMMANDS, targets=[*of_audit], is_slow=True),
    }
    return found | {f"table {kind}": case(files, *RUN_COMMANDS, targets=names) for kind, names in tables.items()}


def _log() -> bytes:
    at = "2026-11-30T03:35:00.257Z"
    lines: list[dict[str, Any]] = [
        {
            "time": at,
            "event": "start",
            "command": "label",
            "command_line": ["label", "--out", "a"],
            "fingerprint": "3c",
            "images": 20,
        }
        | {
            "shards": 5,
            "device": "cpu",
            "images_pending": 20,
            "shards_pending": 5,
            "replicas": 1,
            "executor": "inline",
            "host": "vm",
        }
        | {"process": 1, "versions": {"python": "3.11.7"}},
        {"time": at, "event": "replica_up", "place": "vm", "seconds": 0.244},
        {
            "time": at,
            "event": "shard_done",
            "shard": 0,
            "shards": 1,
            "images": 4,
            "bad": {"truncated": 1},
            "place": "vm",
        }
        | {"stages": {"read": 0.02, "boxes": 0.45}},
        {"time": at, "event": "end", "status": "done", "reason": None, "images": 20, "seconds": 0.869},
    ]
    return "\n".join(map(json.dumps, lines)).encode() + b"\n"


def label_once(folder: Path) -> None:
    """Label the kept run's pictures: what is loaded, and asked of the machine, only once is then done."""
    words = [str({"PICTURES": PICTURES, "OUT": folder / "labelled"}.get(word, word)) for word in LABEL]
    assert Command(*words).code == 0


def audited_run(run: Path) -> None:
    """Audit the copy of the kept run."""
    done = Command("audit", run, "--truth", KEPT / "truth.csv", "--executor", "inline", "--bootstrap", 2)
    assert done.code == 0, done.err
