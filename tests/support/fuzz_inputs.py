"""Valid files of `label`: class lists, labels, manifests, tar files, weights, and flags in a file."""

import csv
import gzip
import io
import json
import re
import struct
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch

from cam_ops.network.zoo import find_architecture
from tests.support.first_run import KEPT, PICTURES
from tests.support.fuzz_case import (
    INPUT,
    LABEL,
    LABEL_WITH_WEIGHTS,
    NAMES,
    Case,
    Files,
    arrow_of,
    case,
    named,
    parquet_of,
    sample,
    table_text,
    tar_of,
)
from tests.support.networks import TwoChannels
from tests.support.tables import hub_table


def inputs() -> dict[str, Case]:
    """Return cases by their names."""
    rows = list(csv.DictReader((KEPT / "truth.csv").read_text().splitlines()))
    return {**_class_lists(), **_labels(rows), **_manifests(rows), **_weights()}


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
        name: case({name: text.encode()}, *named(name, *alone, (*LABEL, *flags), with_labels))
        for name, text in texts.items()
    }
    maps = {"map.csv": "truth,class\nsquare,549\nround,417\n", "map.txt": "".join(f"{i}\n" for i in range(1000))}
    truth = ("truth", "RUN", f"{KEPT}/truth.csv", "auto", "WORK/NAME")
    alone = [("class-map", "WORK/NAME")] * 9
    asked = {name: case({name: text.encode()}, *named(name, *alone, truth)) for name, text in maps.items()}
    config = b"threshold: 0.3\nnormalise: minmax\ncomponents: all\nmin-area: 0.01\nclasses: topk:2\nexclude: ['a*']\n"
    return (
        lists
        | asked
        | {"flags.yaml": case({"flags.yaml": config}, ("label", "--config", "WORK/flags.yaml", *LABEL[1:]))}
    )


def _label_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"image_id": row["image_id"], "label": row["image_id"].partition("/")[0]} for row in rows]


def _labels(rows: list[dict[str, str]]) -> dict[str, Case]:
    classed = _label_rows(rows)
    several = [{"file": row["image_id"][:-4], "x": "1", "label": f"{row['label']}|round"} for row in classed]
    files = {
        "labels.csv": table_text(classed),
        "labels.tsv": table_text(several, "\t"),
        "labels.csv.gz": gzip.compress(table_text(classed, ";"), mtime=0),
    }
    names = {"names.txt": b"square\nround\n"}
    words = (*LABEL, "--class-names", "WORK/names.txt", "--labels", "WORK/NAME")
    skipping = (*words, "--unknown-labels", "skip")
    alone = [("listing", "PICTURES", "WORK/NAME", "WORK/names.txt")] * 8
    return {
        name: case({name: content, **names}, *named(name, *alone, words, skipping), targets=[name])
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
        "list.csv": table_text(listed),
        "list.tsv": table_text(listed, "\t"),
        "list.csv.gz": gzip.compress(table_text(listed), mtime=0),
        "list.txt": "".join(f"{path}\n" for path in paths).encode(),
        "list.jsonl": "\n".join(lines).encode(),
        "list.parquet": parquet_of(table),
        "flat.parquet": parquet_of(flat),
        "hub.parquet": parquet_of(pictures, row_group_size=2),
        "hub.arrow": arrow_of(pictures),
    }
    words = ("label", "--images", "WORK/NAME", *INPUT)
    keeping = (*words, "--keep-columns", "note")
    alone = [("listing", "WORK/NAME", "")] * 8
    has_note = ("list.csv", "list.tsv", "list.csv.gz", "list.parquet")
    found = {
        name: case({name: content}, *named(name, *alone, words, *[keeping] * (name in has_note)))
        for name, content in files.items()
    }
    state = {"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}], "_split": None}
    saved: Files = {
        "saved/state.json": json.dumps(state).encode(),
        "saved/dataset_info.json": b'{"features": {}}',
        "saved/data-0.arrow": arrow_of(pictures.slice(0, 3)),
        "saved/data-1.arrow": arrow_of(pictures.slice(3)),
    }
    members = [(f"{i}.{kind}", held) for i, path in enumerate(paths[:4]) for kind, held in sample(i, path)]
    record = b"".join(bytes([i]) + bytes(range(256)) * 12 for i in range(4))
    cifar = {"data_batch_1.bin": record, "batches.meta.txt": b"\n".join(b"class%d" % i for i in range(10))}
    stl10 = {
        "train_X.bin": bytes(3 * 96 * 96 * 2),
        "train_y.bin": b"\x01\x0a",
        "class_names.txt": cifar["batches.meta.txt"],
    }
    return found | {
        "saved": case(saved, *named("saved", *alone, words)),
        "tar": case({"a.tar": tar_of(members)}, *named("a.tar", *alone, words, (*words, "--labels", "tar"))),
        "cifar": case(cifar, *named("", *alone, words)),
        "stl10": case(stl10, *named("", *alone, words)),
    }


def _weights() -> dict[str, Case]:
    weights = {name: tensor.clone() for name, tensor in TwoChannels().state_dict().items()}
    trained = {
        "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
        "epoch": 3,
        "args": {"lr": 0.1},
    }
    flat = torch.cat([weights["fc.weight"].flatten(), weights["fc.bias"]])
    one_storage = {"fc.weight": flat[:4].view(2, 2), "fc.bias": flat[4:], "lr": 0.1}  # two would lie in either order
    files = {
        "plain.pt": _saved(weights),
        "trained.pt": _saved(trained),
        "legacy.pth": _with_fixed_keys(_saved({"model": one_storage}, _use_new_zipfile_serialization=False)),
        "plain.safetensors": safetensors.torch.save(weights),
    }
    network = LABEL_WITH_WEIGHTS[LABEL_WITH_WEIGHTS.index("--model") + 1]
    whole = {"net.pt": _saved({"model": find_architecture(network).build().state_dict()})}
    return {
        **{name: case({name: content}, ("weights", f"WORK/{name}")) for name, content in files.items()},
        "net.pt": case(whole, LABEL_WITH_WEIGHTS, is_slow=True),
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
