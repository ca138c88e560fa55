"""Valid files of all kinds that come from outside, but for pictures, and the commands that read each.

In the words of a command WORK is the folder of a case's files, OUT one that is not there, RUN a run of twenty pictures,
OTHER a second one, and PICTURES the folder of its pictures. All files are the same on each call. Most are
no commands, but one of `fuzz_readers`, as a whole command takes too long.
"""

import csv
import gzip
import io
import json
import re
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image

from cam_ops.boxes.calibration import Calibration, ProbabilityModel
from cam_ops.network.zoo import find_architecture
from cluster.runs.calibration import CALIBRATION_VERSION, CalibrationFile, Sample, maps_of_request
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command
from tests.support.first_run import KEPT, PICTURES
from tests.support.networks import TwoChannels
from tests.support.tables import hub_table
from tests.support.truths import FROM_1, coco, xml

Files = dict[str, bytes]
Words = tuple[str, ...]
NETWORK = ("--model", "tests.support.networks:two_channels", "--mean", "0", "0", "0", "--std", "1", "1", "1")
INPUT = (*NETWORK, "--image-size", "32", "--limit", "2", "--executor", "inline", "--compile", "never", "--out", "OUT")
LABEL = ("label", "--images", "PICTURES", *INPUT)
LABEL_WITH_WEIGHTS = (
    *("label", "--images", "PICTURES", "--limit", "1", "--executor", "inline", "--compile", "never", "--out", "OUT"),
    *("--model", "shufflenet_v2_x0_5", "--image-size", "32", "--refine", "none", "--weights", "WORK/net.pt"),
)
AUDIT = ("audit", "RUN", "--executor", "inline", "--bootstrap", "0", "--overwrite")
NAMES = ("square", "round")
LOG = "log/20261130T033459Z-39060a29.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files, those of them that are mutated, and the commands of which one reads them."""

    files: Files
    targets: tuple[str, ...]
    words: tuple[Words, ...]


def case(files: Files, *words: Words, targets: Sequence[str] | None = None) -> Case:
    return Case(files=files, targets=tuple(targets or files), words=words)


def cases(run: Path) -> dict[str, Case]:
    """Return all cases by their names; `run` is a copy of the kept run, which is audited."""
    rows = list(csv.DictReader((KEPT / "truth.csv").open()))
    return {
        **_class_lists(),
        **_labels(rows),
        **_manifests(rows),
        **_weights(),
        **_truths(rows[:4]),
        **_calibrations(run),
        **_runs(run),
    }


def _class_lists() -> dict[str, Case]:
    texts = {
        "classes.txt": "square\nround\n",
        "classes.csv": 'class_id,folder,name\n0,square,"a square"\n1,round,a disc\n',
        "classes.tsv": "index\tname\n1\tround\n0\tsquare\n",
        "classes.json": '{"0": "square", "1": ["round", "a disc"]}',
        "config.json": '{"id2label": {"0": "square", "1": "round"}, "other": [1]}',
    }
    flags = ("--class-names", "WORK/NAME")
    with_labels = (*LABEL, *flags, "--labels", "folder", "--unknown-labels", "skip")
    alone = [("classes", "WORK/NAME")] * 8
    lists = {
        name: case({name: text.encode()}, *_named(name, *alone, (*LABEL, *flags), with_labels))
        for name, text in texts.items()
    }
    maps = {"map.csv": "truth,class\nsquare,549\nround,417\n", "map.txt": "".join(f"{i}\n" for i in range(1000))}
    truth = ("truth", "RUN", f"{KEPT}/truth.csv", "auto", "WORK/NAME")
    alone = [("class-map", "WORK/NAME")] * 9
    asked = {name: case({name: text.encode()}, *_named(name, *alone, truth)) for name, text in maps.items()}
    config = b"threshold: 0.3\nnormalise: minmax\ncomponents: all\nmin-area: 0.01\nclasses: topk:2\nexclude: ['a*']\n"
    return (
        lists
        | asked
        | {"flags.yaml": case({"flags.yaml": config}, ("label", "--config", "WORK/flags.yaml", *LABEL[1:]))}
    )


def _named(name: str, *words: Words) -> tuple[Words, ...]:
    return tuple(tuple(word.replace("NAME", name) for word in each) for each in words)


def _table_text(rows: list[dict[str, str]], sign: str = ",") -> bytes:
    return "\n".join(sign.join(row) for row in [[*rows[0]], *(row.values() for row in rows)]).encode() + b"\n"


def _label_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"image_id": row["image_id"], "label": row["image_id"].partition("/")[0]} for row in rows]


def _labels(rows: list[dict[str, str]]) -> dict[str, Case]:
    named = _label_rows(rows)
    several = [{"file": row["image_id"][:-4], "x": "1", "label": f"{row['label']}|round"} for row in named]
    files = {
        "labels.csv": _table_text(named),
        "labels.tsv": _table_text(several, "\t"),
        "labels.csv.gz": gzip.compress(_table_text(named, ";"), mtime=0),
    }
    names = {"names.txt": b"square\nround\n"}
    words = (*LABEL, "--class-names", "WORK/names.txt", "--labels", "WORK/NAME")
    skipping = (*words, "--unknown-labels", "skip")
    alone = [("listing", "PICTURES", "WORK/NAME", "WORK/names.txt")] * 8
    return {
        name: case({name: content, **names}, *_named(name, *alone, words, skipping), targets=[name])
        for name, content in files.items()
    }


def _manifests(rows: list[dict[str, str]]) -> dict[str, Case]:
    paths = [str(PICTURES / row["image_id"]) for row in rows]
    listed = [{"uri": path, "label": str(i % 2), "image_id": f"a/{i}.jpg", "note": "b"} for i, path in enumerate(paths)]
    lines = [json.dumps({"file_name": row["uri"], "label": int(row["label"]), "tags": ["c"]}) for row in listed]
    table = pa.Table.from_pylist([{**row, "label": int(row["label"])} for row in listed])
    pictures = hub_table([PICTURES / row["image_id"] for row in rows[:6]], NAMES)
    flat = pa.table(
        {"jpg": pictures["image"].combine_chunks().field("bytes"), "label": pictures["label"], "size": [1] * 6}
    )
    files: Files = {
        "list.csv": _table_text(listed),
        "list.tsv": _table_text(listed, "\t"),
        "list.csv.gz": gzip.compress(_table_text(listed), mtime=0),
        "list.txt": "".join(f"{path}\n" for path in paths).encode(),
        "list.jsonl": "\n".join(lines).encode(),
        "list.parquet": _parquet(table),
        "flat.parquet": _parquet(flat),
        "hub.parquet": _parquet(pictures, row_group_size=2),
        "hub.arrow": _arrow(pictures),
    }
    words = ("label", "--images", "WORK/NAME", *INPUT)
    keeping = (*words, "--keep-columns", "note")
    alone = [("listing", "WORK/NAME", "")] * 8
    has_note = ("list.csv", "list.tsv", "list.csv.gz", "list.parquet")
    found = {
        name: case({name: content}, *_named(name, *alone, words, *[keeping] * (name in has_note)))
        for name, content in files.items()
    }
    state = {"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}], "_split": None}
    saved: Files = {
        "saved/state.json": json.dumps(state).encode(),
        "saved/dataset_info.json": b'{"features": {}}',
        "saved/data-0.arrow": _arrow(pictures.slice(0, 3)),
        "saved/data-1.arrow": _arrow(pictures.slice(3)),
    }
    members = [(f"{i}.{kind}", held) for i, path in enumerate(paths[:4]) for kind, held in _sample(i, path)]
    record = b"".join(bytes([i]) + bytes(range(256)) * 12 for i in range(4))
    cifar = {"data_batch_1.bin": record, "batches.meta.txt": b"\n".join(b"class%d" % i for i in range(10))}
    stl10 = {
        "train_X.bin": bytes(3 * 96 * 96 * 2),
        "train_y.bin": b"\x01\x0a",
        "class_names.txt": cifar["batches.meta.txt"],
    }
    return found | {
        "saved": case(saved, *_named("saved", *alone, words)),
        "tar": case({"a.tar": tar_of(members)}, *_named("a.tar", *alone, words, (*words, "--labels", "tar"))),
        "cifar": case(cifar, *_named("", *alone, words)),
        "stl10": case(stl10, *_named("", *alone, words)),
    }


def _sample(number: int, path: str) -> list[tuple[str, bytes]]:
    notes = {"boxes": [[1, 2, 30, 20]], "class_id": number % 2, "box_class_ids": [549]}
    return [("jpg", Path(path).read_bytes()), ("cls", b"%d" % (number % 2)), ("json", json.dumps(notes).encode())]


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _parquet(table: pa.Table, **flags: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **flags)
    return stream.getvalue()


def _arrow(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, 2)
    return stream.getvalue()


def _weights() -> dict[str, Case]:
    weights = {name: tensor.clone() for name, tensor in TwoChannels().state_dict().items()}
    trained = {
        "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
        "epoch": 3,
        "args": {"lr": 0.1},
    }
    files = {
        "plain.pt": _saved(weights),
        "trained.pt": _saved(trained),
        "legacy.pth": _with_fixed_keys(_saved(trained, _use_new_zipfile_serialization=False)),
        "plain.safetensors": safetensors.torch.save(weights),
    }
    network = LABEL_WITH_WEIGHTS[LABEL_WITH_WEIGHTS.index("--model") + 1]
    whole = {"net.pt": _saved({"model": find_architecture(network).build().state_dict()})}
    return {
        **{name: case({name: content}, ("weights", f"WORK/{name}")) for name, content in files.items()},
        "net.pt": case(whole, LABEL_WITH_WEIGHTS),
    }


def _saved(document: object, **flags: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(document, stream, **flags)
    return stream.getvalue()


def _with_fixed_keys(content: bytes) -> bytes:
    """Return torch's older format with other names of its storages, which are addresses in memory."""
    keys = sorted({found[1] for found in re.finditer(rb"X.\0\0\0(\d{8,})", content, re.DOTALL)})
    for number, key in enumerate(keys):
        new = b"%d" % (10**9 + number)
        content = content.replace(b"X" + struct.pack("<I", len(key)) + key, b"X" + struct.pack("<I", len(new)) + new)
    return content


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
        for kind, held in _sample(i, str(PICTURES / image_id))
    ]
    files: dict[str, Files] = {
        "coco.json": {"coco.json": coco(images, boxes, ("549",)).encode()},
        "voc": documents,
        "yolo": yolo,
        "polygons": polygons,
        "LOC_val_solution.csv": {"LOC_val_solution.csv": loc.encode()},
        "wsol": wsol,
        "masks": masks,
        "truth.csv": {"truth.csv": _table_text(rows)},
        "truth.csv.gz": {"truth.csv.gz": gzip.compress(_table_text(inclusive), mtime=0)},
        "truth.tsv": {"truth.tsv": _table_text(rows, "\t")},
        "truth.parquet": {"truth.parquet": _parquet(table)},
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
    return [*([] if name == "masks" else read), (*AUDIT, "--truth", truth)]


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
        "audit": case(files | of_audit, *AUDITED_COMMANDS, targets=[*of_audit]),
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
