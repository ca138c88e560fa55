"""`export`: what goes out and what is counted; whole or not at all, after kills, beside what is there, on stores."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.cluster.export.conftest import TWO
from tests.support.command import ROOT, Command
from tests.support.stores import Store

KILLED = -9


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def export(run: object, out: object, form: str, *more: object, **how: Any) -> Command:
    return Command("export", run, "--to", form, "--out", out, *more, **how)


def boxes_of(run: Path) -> list[dict[str, Any]]:
    """Return the boxes of a run at its first threshold, in the order of its files."""
    table = ds.dataset(sorted(map(str, (run / "boxes").glob("*.parquet")))).to_table()
    return [box for box in table.to_pylist() if box["threshold"] == np.float32(0.4)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def exported(out: Path) -> list[tuple[str, str, list[float]]]:
    """Return image, class and box of each annotation of an export to coco."""
    document = json.loads((out / "annotations.json").read_text())
    images = {image["id"]: image["file_name"] for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    return [(images[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in document["annotations"]]


def test_what_goes_out_is_the_first_threshold_s_boxes_of_images_that_are_ok(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "coco")
    expected = boxes_of(run)
    assert (done.code, done.result["boxes"], len(expected)) == (0, len(expected), len(exported(tmp_path / "out")))
    for (image, name, box), row in zip(exported(tmp_path / "out"), expected, strict=True):
        assert (image, name) == (row["image_id"], row["class_name"])
        corners = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
        np.testing.assert_allclose(box, corners, rtol=0, atol=1e-3)
    assert done.result["images_left_out"] == {"truncated": 1}
    assert "1 images, truncated, such as 'discs/broken.png'" in done.out


FILTERS: list[tuple[list[object], str, Any]] = [
    (["--min-score", 0.5], "--min-score", lambda box: box["score"] >= 0.5),
    (["--min-energy", 0.2], "--min-energy", lambda box: box["energy"] >= 0.2),
    (["--min-area", 0.03], "--min-area", lambda box: box["area_fraction"] >= 0.03),
    (["--max-area", 0.03], "--max-area", lambda box: box["area_fraction"] <= 0.03),
    (["--only-classes", "Rings"], "--only-classes", lambda box: box["class_id"] == 1),
    (["--only-classes", 0], "--only-classes", lambda box: box["class_id"] == 0),
    (["--labels-only"], "--labels-only", lambda box: box["image_id"].startswith(box["class_name"])),
]


@pytest.mark.parametrize(
    ("flags", "name", "is_kept"), FILTERS, ids=[" ".join(map(str, flags)) for flags, *_ in FILTERS]
)
def test_a_filter_leaves_what_it_says_and_counts_the_rest(
    run: Path, tmp_path: Path, flags: list[object], name: str, is_kept: Any
) -> None:
    done = export(run, tmp_path / "out", "coco", *flags)
    everything = boxes_of(run)
    kept = [box for box in everything if is_kept(box)]
    assert 0 < len(kept) < len(everything)
    assert [image for image, _, _ in exported(tmp_path / "out")] == [box["image_id"] for box in kept]
    assert done.result["boxes_left_out"] == {name: len(everything) - len(kept)}
    images = {box["image_id"] for box in kept}
    assert done.result["exported"] == len(images)
    without = done.result["images_left_out"].get("no box that the filters leave", 0)
    assert len(images) + without == 12


def test_the_top_boxes_of_an_image_are_those_of_the_best_score_and_then_rank(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", "coco", "--top", 2)
    everything = boxes_of(run)
    assert max(Counter(box["image_id"] for box in everything).values()) > 2
    expected = []
    for image in dict.fromkeys(box["image_id"] for box in everything):
        own = [box for box in everything if box["image_id"] == image]
        best = sorted(own, key=lambda box: (-box["score"], box["rank"]))[:2]
        expected += [(image, box["x0"]) for box in own if box in best]
    assert [(image, round(box[0], 2)) for image, _, box in exported(tmp_path / "out")] == [
        (image, round(x0, 2)) for image, x0 in expected
    ]


def test_limit_takes_the_first_images_of_the_run_whatever_their_shard(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "coco", "--limit", 7)
    first = sorted({*(box["image_id"] for box in boxes_of(run)), "discs/broken.png"})[:7]
    assert (done.result["images"], done.result["exported"]) == (7, 6)
    assert {image for image, _, _ in exported(tmp_path / "out")} == {*first} - {"discs/broken.png"}


def test_an_export_without_a_box_is_no_error_and_says_what_took_them(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "coco", "--min-energy", 1, "--labels-only")
    assert (done.code, done.result["boxes"], done.result["exported"]) == (0, 0, 0)
    assert "warning: the export has no box; most were taken by --min-energy" in done.err
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"] == []
    mended = export(run, tmp_path / "out", "coco", "--min-energy", 0.1)  # it need not say --overwrite
    assert (mended.code, mended.result["boxes"] > 0) == (0, True)


def test_empty_images_are_kept_where_asked_for_and_those_that_are_not_ok_never_are(run: Path, tmp_path: Path) -> None:
    flags = ["--only-classes", "rings", "--labels-only", "--split", "train=1"]
    assert export(run, tmp_path / "a", "yolo", *flags).result["exported"] == 6
    assert export(run, tmp_path / "b", "yolo", *flags, "--keep-empty").result["exported"] == 12
    texts = sorted((tmp_path / "b" / "labels").rglob("*.txt"))
    assert [path.stem for path in texts if not path.read_text()] == [f"{number:02d}" for number in range(1, 12, 2)]
    assert len(list((tmp_path / "b" / "images").rglob("*.png"))) == len(texts) == 12


def test_a_split_follows_from_the_id_and_the_seed_alone(run: Path, tmp_path: Path) -> None:
    split = ["--split", "train=0.5,val=0.25,test=0.25"]
    export(run, tmp_path / "all", "coco", *split)
    export(run, tmp_path / "some", "coco", *split, "--limit", 6)
    export(run, tmp_path / "seed", "coco", *split, "--seed", 1)

    def splits(out: Path) -> dict[str, str]:
        documents = {path.stem: json.loads(path.read_text()) for path in (out / "annotations").iterdir()}
        return {image["file_name"]: name for name, document in documents.items() for image in document["images"]}

    whole, some, other = (splits(tmp_path / name) for name in ("all", "some", "seed"))
    assert len(whole) == len(other) == 12
    assert {image: whole[image] for image in some} == some
    assert whole != other
    assert {*whole.values()} == {"train", "val", "test"}


def test_a_run_of_rebox_is_exported_as_that_of_label(run: Path, tmp_path: Path) -> None:
    rebox = tmp_path / "again"
    assert Command("rebox", run, "--out", rebox, "--executor", "inline").code == 0
    for form in ("coco", "yolo"):
        assert export(run, tmp_path / "a" / form, form, "--pictures", "copy").code == 0
        assert export(rebox, tmp_path / "b" / form, form, "--pictures", "copy").code == 0
    ours, theirs = files(tmp_path / "a"), files(tmp_path / "b")
    names = ours.keys() - {"coco/export.json", "yolo/export.json", "yolo/data.yaml"}
    assert (len(names), ours.keys()) == (1 + 12 + 12 + 12, theirs.keys())
    said = {name: text.replace(str(rebox).encode(), str(run).encode()) for name, text in theirs.items()}
    assert all(ours[name] == said[name] for name in names)


@pytest.mark.ray
def test_replicas_on_ray_write_what_one_process_writes(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "a" / "out", "yolo", "--pictures", "copy").code == 0
    more = ["--pictures", "copy", "--executor", "ray", "--replicas", 2]
    assert export(run, tmp_path / "b" / "out", "yolo", *more, process=True).code == 0
    ours, theirs = files(tmp_path / "a"), files(tmp_path / "b")
    differ = {name for name in ours if ours[name] != theirs.get(name)}
    assert ours.keys() == theirs.keys()
    assert differ == {"out/data.yaml"}  # which names the folder


KILLS = ("part-0", "parts", "record")


@pytest.mark.parametrize("point", KILLS)
def test_a_killed_export_looks_like_none_and_the_same_command_makes_it_whole(
    run: Path, tmp_path: Path, point: str
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "jobs", "export", str(run), "--to", "yolo", "--out", str(out)]
    env = {**os.environ, "CAMRAY_FAILPOINTS": f"{point}:KILL:{tmp_path / 'killed'}"}
    assert subprocess.run(words, cwd=ROOT, env=env, capture_output=True).returncode == KILLED
    assert [path.name[:15] for path in out.iterdir()] == [".camray-export-"]
    other = export(run, out, "coco")
    assert (other.code, other.result["status"]) == (4, "refused")
    assert "another export did not end" in other.err
    again = export(run, out, "yolo")
    assert again.code == 0, again.err
    assert "did not end, it is made anew" in again.err
    export(run, tmp_path / "new", "yolo")
    whole, new = files(out), files(tmp_path / "new")
    assert whole.keys() == new.keys()
    assert all(whole[name] == new[name] for name in whole if name not in ("data.yaml", "export.json"))


def test_what_is_there_already_is_refused_and_only_exports_are_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export(run, out, "yolo")
    before = files(out)
    again = export(run, out, "yolo")
    assert "holds this export already" in again.err
    assert {**again.result, "seconds": 0} == {**first.result, "seconds": 0}
    assert (first.code, again.out.splitlines()[:-1], files(out)) == (0, first.out.splitlines()[:-1], before)
    refused = export(run, out, "coco")
    assert (refused.code, "holds an export" in refused.err, files(out)) == (4, True, before)
    assert export(run, out, "coco", "--overwrite").code == 0
    assert {path.name for path in out.iterdir()} == {"annotations.json", "export.json"}
    own = tmp_path / "own"
    (own / "images").mkdir(parents=True)
    (own / "images" / "mine.jpg").write_bytes(b"mine")
    (own / "notes.txt").write_text("mine")
    refused = export(run, own, "yolo")
    assert (refused.code, "is not empty, it holds 'images'" in refused.err) == (4, True)
    refused = export(run, own, "yolo", "--overwrite")
    assert (refused.code, "holds images, which no export made" in refused.err) == (4, True)
    assert export(run, own, "coco", "--overwrite").code == 0
    assert (own / "images" / "mine.jpg").read_bytes() == b"mine"
    assert (own / "notes.txt").read_text() == "mine"


def test_an_export_that_fails_leaves_what_was_there(run: Path, tmp_path: Path) -> None:
    out, damaged = tmp_path / "out", Path(shutil.copytree(run, tmp_path / "damaged"))
    assert export(run, out, "coco").code == 0
    before = files(out)
    (damaged / "boxes" / "shard-0000003.parquet").write_bytes(b"PAR1")
    failed = export(damaged, out, "coco", "--overwrite")
    assert (failed.code, failed.result["status"], files(out)) == (5, "storage", before)
    assert "shard-0000003" in failed.err


def test_a_size_that_no_picture_can_have_is_damage_and_not_millions_of_pixels_to_write(
    run: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(run, tmp_path / "damaged")) / "images" / "shard-0000001.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("width")
    widths = pa.array([2**26] * len(table), pa.int32())
    pq.write_table(table.set_column(at, table.schema.field(at), widths), path)
    refused = export(tmp_path / "damaged", tmp_path / "out", "coco")
    assert (refused.code, "shard 1 of" in refused.err, "images that are not ok" in refused.err) == (5, True, True)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--to", "coco", "--min-score", 2], 2, "--min-score expects a number from 0 to 1, got 2"),
        (["--to", "coco", "--min-probability", 0.5], 2, "--min-probability needs boxes with a probability"),
        (
            ["--to", "coco", "--only-classes", "ring"],
            2,
            "'ring' is no class of the run, by name or number; is it 'rings'",
        ),
        (
            ["--to", "coco", "--split", "train=0.9,val=0.2"],
            2,
            "shares add up to 1, got train=0.9,val=0.2, which are 1.1",
        ),
        (["--to", "coco", "--split", "../x=1"], 2, "--split expects NAME=SHARE"),
        (["--to", "coco", "--out", "boxes.json"], 2, "--out expects a folder to make, got boxes.json"),
        (["--to", "coco", "--top", 0], 2, "--top expects a number of at least 1"),
        (["--to", "coco", "--confidence"], 2, "--confidence is of --to yolo, not of coco"),
        (["--to", "coco-results", "--like", "/nowhere.json"], 2, "cannot read --like /nowhere.json: No such file"),
        (["--to", "coco-results", "--keep-empty"], 2, "--keep-empty is of formats that list images"),
        (["--to", "voc", "--category-ids", "used"], 2, "--category-ids used is of formats that list classes"),
        (["--to", "coco", "--seed", 1], 2, "--seed draws another --split NAME=SHARE,..., and there is none"),
        (["--to", "yolo", "--split", "folder", "--seed", 1], 2, "--seed draws another --split"),
        (["--to", "yolo", "--split", "train=0.5,Train=0.5"], 2, "names that differ, not in capitals alone"),
        (["--to", "yolo", "--split", "names=0.5,val=0.5"], 2, "--split names a split names"),
    ],
)
def test_flags_that_mean_nothing_are_refused_in_a_sentence(
    run: Path, tmp_path: Path, flags: list[object], code: int, words: str
) -> None:
    done = Command("export", run, "--out", tmp_path / "out", *flags)
    assert (done.code, words in done.err) == (code, True), done.err
    assert not (tmp_path / "out").exists()


def test_a_run_is_only_read_and_need_not_be_complete(run: Path, tmp_path: Path) -> None:
    inside = export(run, run / "export", "coco")
    assert (inside.code, "lies in the run" in inside.err) == (2, True)
    partial = Path(shutil.copytree(run, tmp_path / "partial"))
    (partial / "images" / "shard-0000001.parquet").unlink()
    done = export(partial, tmp_path / "out", "coco")
    assert (done.code, "1 shard that belongs to it is not committed" in done.result["part"]) == (0, True)


def test_a_place_where_nothing_can_be_written_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = export(run, tmp_path / "file", "coco")
    assert (done.code, "expects a folder" in done.err) == (2, True)
    done = export(run, "/proc/camray/out", "coco")
    assert (done.code, "cannot write in /proc/camray/out" in done.err) == (5, True)


def test_a_run_on_a_store_is_exported_to_a_store_with_its_pictures(store: Store, run: Path, tmp_path: Path) -> None:
    options = ["--storage-options", *store.words]
    there = store.put(run, "export/run")
    out = store.address("export/out")
    assert export(there, tmp_path / "here", "coco", *options).code == 0
    assert export(run, tmp_path / "local", "coco").code == 0
    assert exported(tmp_path / "here") == exported(tmp_path / "local")
    done = export(there, out, "yolo", *options)
    assert done.code == 0, done.err
    export(run, tmp_path / "yolo", "yolo")
    found, local = files(store.folder / "export" / "out"), files(tmp_path / "yolo")
    assert found.keys() == local.keys()
    assert all(found[name] == local[name] for name in found if name not in ("data.yaml", "export.json"))
    refused = export(there, out, "coco", *options)
    assert (refused.code, "holds an export" in refused.err) == (4, True)
    assert export(there, out, "coco", *options, "--overwrite").code == 0
    assert files(store.folder / "export" / "out").keys() == {"annotations.json", "export.json"}


def test_a_split_without_an_image_and_one_that_yolo_lacks_are_said(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "a", "yolo", "--limit", 4, "--split", "train=0.999999,val=0.000001")
    assert (done.code, "warning: no image is in the split val" in done.err) == (0, True)
    done = export(run, tmp_path / "b", "yolo", "--split", "train=1")
    assert (done.code, "data.yaml names no val, which Ultralytics needs" in done.err) == (0, True)


def test_a_split_by_folder_that_no_image_has_is_refused_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    for form in ("coco", "yolo"):
        done = export(run, tmp_path / "out", form, "--split", "folder", "--category-ids", "used")
        assert (done.code, "no image has one folder that names a split, such as train/" in done.err) == (2, True)
        assert list((tmp_path / "out").iterdir()) == []


def test_coco_without_pictures_names_images_by_their_ids(run: Path, tmp_path: Path) -> None:
    picture, image_id = next((run.parent / "pictures" / "rings").glob("*.png")), f"a.png/{'long' * 50}.png"
    pq.write_table(pa.table({"uri": [str(picture)], "image_id": [image_id]}), tmp_path / "manifest.parquet")
    words = ["--images", tmp_path / "manifest.parquet", "--out", tmp_path / "run", *TWO, "--precision", "fp32"]
    assert Command("label", *words, "--executor", "inline").code == 0
    assert export(tmp_path / "run", tmp_path / "out", "coco").code == 0
    assert {image for image, _, _ in exported(tmp_path / "out")} == {image_id}
