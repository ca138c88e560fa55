"""Hugging Face's datasets as an export: load_dataset reads what the run has, and any reader of Parquet the rest."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import ClassLabel, DatasetDict, Features, Image, load_dataset
from datasets.features.features import Value
from PIL import Image as Pillow
from torchvision.io import ImageReadMode, decode_image

import cluster.formats.exported
from cluster.formats import huggingface
from tests.support.command import ROOT
from tests.support.exported_runs import FOREIGN, ExportedRun, calibrated_run, corners

NEAR = {"rtol": 0, "atol": 1.1e-3}  # of two corners, each rounded to a thousandth
NAMES = ["crane (0)", 'a <b>"c" & d</b>, e', "=SUM(1,2); 'x'", "crane (3)", "räd 🦊 fox"]


def exported(run: ExportedRun, out: Path, *more: object) -> DatasetDict:
    done = run.export("huggingface", out, *more)
    assert done.code == 0, done.err
    return load_dataset(str(out), cache_dir=str(out.parent / f"{out.name}-cache"))


def extents(rows: list[dict[str, Any]]) -> list[list[float]]:
    return [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in corners(rows)]


def test_load_dataset_gives_each_box_of_the_run(hostile: ExportedRun, tmp_path: Path) -> None:
    (train,) = exported(hostile, tmp_path / "out").values()
    label = train.features["objects"]["category"].feature
    assert (label, label.int2str(4)) == (ClassLabel(names=NAMES), NAMES[4])
    images, found = hostile.images, {row["image_id"]: row for row in train}
    assert list(found) == [image_id for image_id in images if image_id in hostile.boxes]
    for image_id, rows in hostile.boxes.items():
        row, objects = found[image_id], found[image_id]["objects"]
        assert (row["width"], row["height"]) == (images[image_id]["width"], images[image_id]["height"])
        assert row["image"].size == (row["width"], row["height"])
        np.testing.assert_allclose(objects["bbox"], extents(rows), **NEAR)
        assert objects["category"] == [box["class_id"] for box in rows]
        assert objects["score"] == [box["score"] for box in rows]  # float32, as the run's
        assert objects["energy"] == [box["energy"] for box in rows]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_pictures_are_the_files_themselves_and_upright(hostile: ExportedRun, tmp_path: Path) -> None:
    (train,) = exported(hostile, tmp_path / "out").values()
    rows = {row["image_id"]: row for row in train.cast_column("image", Image(decode=False))}
    for image_id, row in rows.items():
        content = row["image"]["bytes"]
        decoded_CHW = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
        assert decoded_CHW.shape == (3, row["height"], row["width"])  # which knows nothing of EXIF
        if image_id not in (*FOREIGN, "turned.jpg"):
            assert content == (hostile.pictures / image_id).read_bytes()
    with (
        Pillow.open(BytesIO(rows["turned.jpg"]["image"]["bytes"])) as upright,
        Pillow.open(hostile.pictures / "turned.jpg") as stored,
    ):
        assert upright.size == stored.size[::-1]
        assert upright.getpixel((5, 8))[0] > 200  # the first patch of THREE is red there
    names = [row["image"]["path"] for row in rows.values()]
    assert len({*names}) == len(names)
    assert not any(name.startswith("/") or ".." in name or "\n" in name for name in names)


def test_a_calibrated_run_has_probabilities(hostile: ExportedRun, tmp_path: Path) -> None:
    run = calibrated_run(hostile, tmp_path / "calibrated")
    (train,) = exported(run, tmp_path / "out").values()
    assert train.features["objects"]["probability"].feature == Value("float32")
    for row in train:
        assert row["objects"]["probability"] == [box["probability"] for box in run.boxes[row["image_id"]]]


def test_splits_are_those_asked_for_but_for_empty_ones(labelled: ExportedRun, tmp_path: Path) -> None:
    """load_dataset takes no split without a row."""
    found = exported(labelled, tmp_path / "out", "--split", "folder")
    assert {name: split.num_rows for name, split in found.items()} == {"train": 9, "val": 3}
    assert all("/val/" in image_id for image_id in found["val"]["image_id"])
    found = exported(labelled, tmp_path / "other", "--split", "most=0.999999,few_2=0.000001")
    assert {name: split.num_rows for name, split in found.items()} == {"most": 12}


def test_classes_are_counted_from_0_among_those_that_are_used(labelled: ExportedRun, tmp_path: Path) -> None:
    (train,) = exported(labelled, tmp_path / "out", "--category-ids", "used").values()
    assert train.features["objects"]["category"].feature.names == [NAMES[1], NAMES[2], NAMES[4]]
    name_of = dict(zip((1, 2, 4), range(3), strict=True))
    for row in train:
        assert row["objects"]["category"] == [name_of[box["class_id"]] for box in labelled.boxes[row["image_id"]]]


def test_without_pictures_it_names_them(hostile: ExportedRun, tmp_path: Path) -> None:
    (train,) = exported(hostile, tmp_path / "out", "--pictures", "none").values()
    rows = {row["image_id"]: row for row in train.cast_column("image", Image(decode=False))}
    for image_id, row in rows.items():
        assert row["image"]["bytes"] is None
        path = Path(row["image"]["path"])
        assert path.samefile(hostile.pictures / image_id) if image_id not in FOREIGN else path.is_file()
    number = train["image_id"][:].index("turned.jpg")
    assert train[number]["image"].size == (train[number]["width"], train[number]["height"])  # datasets turns it itself


def test_an_image_without_a_box_has_empty_lists(hostile: ExportedRun, tmp_path: Path) -> None:
    (train,) = exported(hostile, tmp_path / "out", "--keep-empty", "--only-classes", 3).values()
    empty = [row["objects"] for row in train if not row["objects"]["bbox"]]
    assert empty
    assert all(objects == {"bbox": [], "category": [], "score": [], "energy": []} for objects in empty)


def test_the_card_says_what_the_files_say(hostile: ExportedRun, tmp_path: Path) -> None:
    exported(hostile, tmp_path / "out", "--split", "train=0.5,val=0.5")
    _, header, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    listed = Features._from_yaml_list(card["dataset_info"]["features"])
    rows = {}
    for split in ("train", "val"):
        files = sorted((tmp_path / "out" / "data").glob(f"{split}-*.parquet"))
        assert all(Features.from_arrow_schema(pq.read_schema(path)) == listed for path in files)
        rows[split] = sum(pq.read_metadata(path).num_rows for path in files)
    assert {split["name"]: split["num_examples"] for split in card["dataset_info"]["splits"]} == rows
    assert sum(rows.values()) == len(hostile.boxes)
    assert "x, y, width, height in pixels" in text


def test_any_reader_of_parquet_reads_it(hostile: ExportedRun, tmp_path: Path) -> None:
    exported(hostile, tmp_path / "out")
    query = "SELECT image_id, unnest(objects.bbox) AS bbox, octet_length(image.bytes) AS size FROM read_parquet(?)"
    found = duckdb.execute(query, [str(tmp_path / "out" / "data" / "*.parquet")]).fetchall()
    assert len(found) == sum(map(len, hostile.boxes.values()))
    np.testing.assert_allclose(
        sorted(bbox for _, bbox, _ in found),
        sorted(extent for rows in hostile.boxes.values() for extent in extents(rows)),
        **NEAR,
    )
    assert all(size > 100 for _, _, size in found)


def test_row_groups_and_files_are_bounded(
    hostile: ExportedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "GROUP_ROWS", 2)
    monkeypatch.setattr(cluster.formats.exported, "MAX_PACKED_BYTES", 4000)
    (train,) = exported(hostile, tmp_path / "out").values()
    assert train["image_id"][:] == [image_id for image_id in hostile.images if image_id in hostile.boxes]
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert files[0].name == "train-00000.parquet"
    assert files[1].name == "train-00000_001.parquet"
    for path in files:
        footer = pq.read_metadata(path)
        assert max(footer.row_group(i).num_rows for i in range(footer.num_row_groups)) <= 2
        assert footer.row_group(0).column(2).has_offset_index
        cells = pq.read_table(path)["image"].to_pylist()
        assert sum(len(cell["bytes"]) for cell in cells) <= 4000 or len(cells) == 1


def test_it_is_loaded_without_network_by_a_process_of_its_own(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("huggingface", tmp_path / "out").code == 0
    script = "import sys, datasets; print(datasets.load_dataset(sys.argv[1], split='train', streaming=True).take(1))"
    script += "; print(next(iter(datasets.load_dataset(sys.argv[1], split='train', streaming=True)))['objects'])"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first = next(iter(labelled.boxes.values()))
    assert f"'category': [{first[0]['class_id']}]" in done.stdout


@pytest.mark.parametrize("name", ["a-b", "all"])
def test_a_split_that_load_dataset_refuses_is_refused_before(hostile: ExportedRun, tmp_path: Path, name: str) -> None:
    done = hostile.export("huggingface", tmp_path / "out", "--split", f"{name}=0.5,b=0.5")
    assert (done.code, (tmp_path / "out").exists()) == (2, False)
    assert f"--split {name}: huggingface expects letters, digits and _" in done.err


def test_the_features_metadata_is_read_by_versions_that_know_no_list(hostile: ExportedRun, tmp_path: Path) -> None:
    """Those before 4; tried with 2.14.7."""
    exported(hostile, tmp_path / "out")
    (path,) = (tmp_path / "out" / "data").iterdir()
    kinds = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]["objects"]
    assert {kind["_type"] for kind in kinds.values()} == {"Sequence"}
