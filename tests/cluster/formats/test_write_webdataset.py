"""WebDataset's tar files as an export: the webdataset library and our own audit read the run's pictures and boxes."""

import hashlib
import json
import subprocess
import tarfile
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webdataset import WebDataset

import cluster.formats.exported
from tests.cluster.export.conftest import TWO
from tests.support.command import Command, listed
from tests.support.exported_runs import FOREIGN, ExportedRun, calibrated_run, corners
from tests.support.stores import Store
from tests.support.truths import Planned, Planner, ours, refusal

NEAR = {"rtol": 0, "atol": 0.51e-3}


def shards(out: Path) -> list[str]:
    return [str(path) for path in sorted((out / "shards").glob("*.tar"))]


def samples(out: Path, split: str = "", *, decode: bool = True) -> list[dict[str, Any]]:
    """Return what the webdataset library reads of an export."""
    paths = [path for path in shards(out) if Path(path).name.startswith(split)]
    dataset = WebDataset(paths, shardshuffle=False, empty_check=False)
    with warnings.catch_warnings(category=ResourceWarning, action="ignore"):  # it does not close its files
        return list(dataset.decode("pil") if decode else dataset)


def exported(run: ExportedRun, out: Path, *more: object) -> list[dict[str, Any]]:
    done = run.export("webdataset", out, *more)
    assert done.code == 0, done.err
    return samples(out)


def test_webdataset_reads_each_box_of_the_run(hostile: ExportedRun, tmp_path: Path) -> None:
    found = exported(hostile, tmp_path / "out")
    images = hostile.images
    assert [one["json"]["image_id"] for one in found] == [i for i in images if i in hostile.boxes]
    for one in found:
        notes, rows = one["json"], hostile.boxes[one["json"]["image_id"]]
        np.testing.assert_allclose(notes["boxes"], corners(rows), **NEAR)
        assert notes["box_class_ids"] == [row["class_id"] for row in rows]
        np.testing.assert_allclose(notes["scores"], [row["score"] for row in rows], atol=1e-6)
        np.testing.assert_allclose(notes["energies"], [row["energy"] for row in rows], atol=1e-6)
        picture = one.get("jpg") or one["png"]
        assert picture.size == (notes["width"], notes["height"])
        assert picture.size == tuple(images[notes["image_id"]][side] for side in ("width", "height"))
        assert "cls" not in one  # the run has no labels
    names = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert names == {
        "0": "crane (0)",
        "1": 'a <b>"c" & d</b>, e',
        "2": "=SUM(1,2); 'x'",
        "3": "crane (3)",
        "4": "räd 🦊 fox",
    }


def test_pictures_are_the_files_themselves_and_upright(hostile: ExportedRun, tmp_path: Path) -> None:
    turned = next(one for one in exported(hostile, tmp_path / "out") if one["__key__"] == "turned")
    assert turned["jpg"].getpixel((5, 8))[0] > 200  # the first patch of THREE is red there
    for one in samples(tmp_path / "out", decode=False):
        image_id = json.loads(one["json"])["image_id"]
        if image_id not in (*FOREIGN, "turned.jpg"):
            assert (one.get("jpg") or one["png"]) == (hostile.pictures / image_id).read_bytes()


def test_keys_have_no_dot_lead_nowhere_and_are_one_for_each_picture(hostile: ExportedRun, tmp_path: Path) -> None:
    found = exported(hostile, tmp_path / "out")
    keys = {one["json"]["image_id"]: one["__key__"] for one in found}
    assert (keys["two.dots.jpg"], keys["images/inner.png"]) == ("two_dots", "images/inner")
    assert keys["a.jpg"] != keys["a.png"]
    assert len({key.casefold() for key in keys.values()}) == len(found)
    assert not any("." in key.rpartition("/")[2] or ".." in key or key.startswith("/") for key in keys.values())
    with tarfile.open(shards(tmp_path / "out")[0]) as tar:
        assert tar.getnames() == [
            f"{one['__key__']}.{kind}" for one in found for kind in one if kind in ("jpg", "png", "json")
        ]
        tar.extractall(tmp_path / "unpacked", filter="data")  # raises where a name leads out


def test_folders_that_webdataset_takes_for_its_own_are_read(pictures: Path, tmp_path: Path) -> None:
    (pictures / "discs").rename(pictures / "__discs__")
    done = Command("label", "--images", pictures, "--out", tmp_path / "run", *TWO, "--executor", "inline")
    assert done.code == 0, done.err
    done = Command("export", tmp_path / "run", "--to", "webdataset", "--out", tmp_path / "out", "--executor", "inline")
    assert done.result["exported"] == 12
    ids = {one["json"]["image_id"] for one in samples(tmp_path / "out")}
    assert ids == {str(path.relative_to(pictures)) for path in pictures.glob("*/*.png")}
    names = {row["image_id"] for row in listed(shards(tmp_path / "out")[0]).to_pylist()}
    assert names == {f"shard-000000.tar/{image_id}" for image_id in ids}  # as our own reader has them


def test_cls_is_the_label_of_pictures_that_have_one(labelled: ExportedRun, tmp_path: Path) -> None:
    found = exported(labelled, tmp_path / "out")
    images = labelled.images
    assert [one["cls"] for one in found] == [images[one["json"]["image_id"]]["label"] for one in found]
    assert {1, 2, 4} == {one["cls"] for one in found}


def test_a_picture_of_several_labels_has_no_cls(pictures: Path, tmp_path: Path) -> None:
    paths = sorted(map(str, pictures.glob("*/*.png")))[:3]
    labels = pa.array([["0"], ["0", "1"], []], pa.list_(pa.string()))
    pq.write_table(
        pa.table({"uri": paths, "image_id": ["a.png", "b.png", "c.png"], "label": labels}), tmp_path / "1.parquet"
    )
    words = ["--images", tmp_path / "1.parquet", "--labels", "manifest", "--classes", "top1"]
    done = Command("label", *words, "--out", tmp_path / "run", *TWO, "--executor", "inline")
    assert done.code == 0, done.err
    words = ["--to", "webdataset", "--out", tmp_path / "out", "--executor", "inline", "--keep-empty"]
    assert Command("export", tmp_path / "run", *words).code == 0
    assert [one.get("cls") for one in samples(tmp_path / "out")] == [0, None, None]


def test_a_calibrated_run_has_probabilities(hostile: ExportedRun, tmp_path: Path) -> None:
    run = calibrated_run(hostile, tmp_path / "calibrated")
    for one in exported(run, tmp_path / "out", "--pictures", "none"):
        rows = run.boxes[one["json"]["image_id"]]
        np.testing.assert_allclose(one["json"]["probabilities"], [row["probability"] for row in rows], atol=1e-6)
        assert not {"jpg", "png"} & one.keys()


def test_splits_have_files_of_their_own(labelled: ExportedRun, tmp_path: Path) -> None:
    exported(labelled, tmp_path / "out", "--split", "folder")
    for split, number in (("train", 9), ("val", 3)):
        found = samples(tmp_path / "out", split)
        assert len(found) == number
        assert all(f"/{split}/" in one["__key__"] for one in found)


def test_files_are_bounded_and_sort_as_they_follow(
    hostile: ExportedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.formats.exported, "MAX_PACKED_BYTES", 4000)
    found = exported(hostile, tmp_path / "out")
    assert [one["json"]["image_id"] for one in found] == [i for i in hostile.images if i in hostile.boxes]
    names = [Path(path).name for path in shards(tmp_path / "out")]
    assert names[:3] == ["shard-000000.tar", "shard-000000_001.tar", "shard-000000_002.tar"]
    for path in shards(tmp_path / "out"):
        with tarfile.open(path) as tar:
            sizes = [member.size for member in tar if not member.name.endswith("json")]
        assert sum(sizes) <= 4000 or len(sizes) == 1


def test_bytes_follow_from_the_run_alone(hostile: ExportedRun, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "other"):
        exported(hostile, tmp_path / name)
        digests.append([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in shards(tmp_path / name)])
    assert digests[0] == digests[1]
    with tarfile.open(shards(tmp_path / "one")[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}
    done = subprocess.run(["tar", "tf", shards(tmp_path / "one")[0]], capture_output=True, check=True)  # GNU's
    assert len(done.stdout.splitlines()) == 2 * len(hostile.boxes)


@pytest.mark.parametrize("more", [[], ["--pictures", "none"], ["--split", "folder"]], ids=str)
def test_our_own_audit_takes_an_export_for_truth(labelled: ExportedRun, tmp_path: Path, more: list[str]) -> None:
    exported(labelled, tmp_path / "out", *more)
    words = ["--truth", tmp_path / "out" / "shards", "--executor", "inline", "--bootstrap", 0]
    done = Command("audit", labelled.root, "--overwrite", *words)
    assert done.code == 0, done.err
    assert "12 images, 12 boxes" in done.err
    metrics = json.loads((labelled.root / "audit" / "metrics.json").read_text())["metrics"]
    assert (metrics["ap"]["value"], metrics["ap"]["images"]) == (pytest.approx(100), 12)


def test_our_own_audit_tells_classes_of_one_picture_apart(hostile: ExportedRun, tmp_path: Path) -> None:
    """A sample is called by its key, so pictures with another name are not found in the run itself."""
    found = exported(hostile, tmp_path / "out")
    same = [one["json"] for one in found if one["json"]["image_id"].rpartition(".")[0] == one["__key__"]]
    words = ["--truth", tmp_path / "out" / "shards", "--truth-frame", "oriented", "--executor", "inline"]
    done = Command("audit", hostile.root, "--overwrite", *words, "--bootstrap", 0)
    assert done.code == 0, done.err
    metrics = json.loads((hostile.root / "audit" / "metrics.json").read_text())["metrics"]
    assert (metrics["ap"]["value"], metrics["ap"]["images"]) == (pytest.approx(100), len(same))
    assert max(len({*notes["box_class_ids"]}) for notes in same) == 2


def test_label_takes_an_export_as_its_pictures_and_audit_as_its_truth(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("discs\nrings\n")
    words = ["--class-names", tmp_path / "names.txt", *TWO, "--executor", "inline"]
    done = Command("label", "--images", pictures, "--labels", "folder", "--out", tmp_path / "run", *words)
    assert done.code == 0, done.err
    again = ["--to", "webdataset", "--out", tmp_path / "out", "--executor", "inline"]
    assert Command("export", tmp_path / "run", *again).code == 0
    tars = tmp_path / "out" / "shards" / "*.tar"
    done = Command("label", "--images", tars, "--labels", "tar", "--out", tmp_path / "again", *words)
    assert (done.code, done.result["ok"]) == (0, 12), done.err
    done = Command("audit", tmp_path / "again", "--truth", tars.parent, "--executor", "inline", "--bootstrap", 0)
    assert "12 matched by path, 0 by stem" in done.err
    metrics = json.loads((tmp_path / "again" / "audit" / "metrics.json").read_text())["metrics"]
    assert (metrics["ap"]["value"], metrics["ap"]["images"]) == (pytest.approx(100), 12)


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_a_run_on_a_store_of_pictures_there_goes_to_a_store(
    s3: Store, pictures: Path, tmp_path: Path, form: str
) -> None:
    images, run, out = s3.put(pictures, f"{form}/pictures"), s3.address(f"{form}/run"), s3.address(f"{form}/out")
    store = ["--executor", "inline", "--storage-options", *s3.words]
    done = Command("label", "--images", images, "--out", run, *TWO, *store)
    assert done.code == 0, done.err
    done = Command("export", run, "--to", form, "--out", out, *store)
    assert (done.code, done.result["exported"]) == (0, 12), done.err
    folder = s3.folder / form / "out"
    if form == "webdataset":
        found = {json.loads(one["json"])["image_id"]: one["png"] for one in samples(folder, decode=False)}
    else:
        table = pq.read_table(folder / "data" / "train-00000.parquet")
        found = {row["image_id"]: row["image"]["bytes"] for row in table.to_pylist()}
    assert found == {str(path.relative_to(pictures)): path.read_bytes() for path in pictures.glob("*/*.png")}


BOXES = [[10, 5, 30, 15], [0, 0, 5, 5]]
ONE: Planned = {"1.jpg": (40, 20, None)}


def write(path: Path, notes: dict[str, Any]) -> Path:
    """Write a sample whose class is 1."""
    with tarfile.open(path, "w") as tar:
        for kind, content in (("jpg", b"\xff\xd8\xff"), ("cls", b"1"), ("json", json.dumps(notes).encode())):
            member = tarfile.TarInfo(f"1.{kind}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("notes", "class_ids"),
    [
        ({}, [1, 1]),  # as files that others wrote: of the picture's class, whatever else they say
        ({"class_id": 0}, [0, 0]),
        ({"class_ids": [2, 0, 3]}, [1, 1]),
        ({"box_class_ids": [2, 0]}, [2, 0]),
        ({"box_class_ids": ["kangaroo", 1], "class_id": 0}, [0, 1]),
    ],
)
def test_boxes_are_of_the_picture_s_class_unless_the_file_says_more(
    planner: Planner, tmp_path: Path, notes: dict[str, Any], class_ids: list[int]
) -> None:
    report, (row,) = planner.truth(ONE, write(tmp_path / "1.tar", {"boxes": BOXES, **notes}))
    assert ours(row) == [tuple(box) for box in BOXES]
    assert [box["class_id"] for box in row["boxes"]] == class_ids
    assert report.problems == {}


def test_classes_that_are_not_one_for_each_box_are_said(planner: Planner, tmp_path: Path) -> None:
    path = write(tmp_path / "1.tar", {"boxes": BOXES, "box_class_ids": [2]})
    assert "such as it has 2 `boxes` and 1 `box_class_ids`" in refusal(planner, ONE, path)
