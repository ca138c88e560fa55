"""What a run comes to: reasons with counts and examples, labels and network, by the commands that say so."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.command import Command, table_rows
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Twelve pictures in folders `black` and `red`; black/03.png is red, and so mislabelled."""
    for i in range(12):
        name = "red" if i % 2 == 0 else "black"
        folder = tmp_path / "coloured" / name
        folder.mkdir(parents=True, exist_ok=True)
        red = 255 if name == "red" or i == 3 else 0
        Image.fromarray(np.full((32, 32, 3), (red, 0, 0), np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path / "coloured"


def label(pictures: object, out: object, *more: object, names: str = "black\nred\n", folder: Path) -> Command:
    (folder / "names.txt").write_text(names)
    flags = ["--labels", "folder", "--class-names", folder / "names.txt", "--shard-size", 4]
    return Command("label", "--images", pictures, "--out", out, *INLINE, *TWO, *flags, *more)


def test_a_mislabelled_picture_is_named(coloured: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = label(coloured, out, folder=tmp_path)
    assert done.code == 0
    said = "labels: 12 images have one; it is the network's best class in 91.7%"
    for command in (done, Command("status", out)):
        assert said in command.out.splitlines()
        assert "warning" not in command.out
        assert "suspects.parquet" in command.out
    (suspect,) = pq.read_table(out / "suspects.parquet").to_pylist()
    assert (suspect["image_id"], suspect["label_name"], suspect["predicted_name"]) == ("black/03.png", "black", "red")
    (row,) = [row for row in table_rows(out, "images") if row["image_id"] == "black/03.png"]
    assert [suspect["predicted_score"], suspect["label_score"]] == row["top_scores"]
    low, high = np.exp([1.5, 2]) / np.exp([1.5, 2]).sum()
    assert suspect["margin"] == pytest.approx(high - low, abs=1e-6)
    assert (suspect["shard"], suspect["row"]) == (row["shard"], row["row"])
    document = json.loads(pq.read_schema(out / "suspects.parquet").metadata[b"camray"])
    assert document["agreement"] == {"labelled": 12, "judged": 12, "top1": 11, "top5": None}
    assert document["fingerprint"] == json.loads((out / "run.json").read_text())["fingerprint"]


def test_classes_in_another_order_are_a_warning_that_names_them(coloured: Path, tmp_path: Path) -> None:
    done = label(coloured, tmp_path / "run", names="red\nblack\n", folder=tmp_path)
    assert done.code == 0
    assert "it is the network's best class in 8.3%" in done.out.splitlines()[1]
    (warning,) = [line for line in done.out.splitlines() if line.startswith("warning: ")]
    assert "would find 50.0% of them" in warning
    for cause in ("--mean and --std", "--class-names in another order", "folders", "BGR"):
        assert cause in warning
    assert "labels: 6 of 6 labelled 'red' are 'black' to the network" in done.out
    assert "labels: 5 of 6 labelled 'black' are 'red' to the network" in done.out
    assert warning in Command("status", tmp_path / "run").out


def test_a_resume_an_unfinished_run_and_a_rebox_say_the_same(coloured: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = label(coloured, out, folder=tmp_path)
    content = (out / "suspects.parquet").read_bytes()
    said = [line for line in first.out.splitlines() if line.startswith("labels: ")]
    (out / "suspects.parquet").unlink()
    (out / "images" / "shard-0000002.parquet").unlink()
    part = Command("status", out)
    assert "labels: 8 of 8" not in part.out
    assert "labels: 8 images have one; it is the network's best class in 87.5%" in part.out
    assert "suspects.parquet" not in part.out
    again = label(coloured, out, folder=tmp_path)
    assert [line for line in again.out.splitlines() if line.startswith("labels: ")] == said
    assert (out / "suspects.parquet").read_bytes() == content
    assert Command("verify", out).code == 0
    reboxed = Command("rebox", out, "--out", tmp_path / "new", "--executor", "inline")
    assert reboxed.code == 0
    assert (tmp_path / "new" / "suspects.parquet").read_bytes() == content
    unlabelled = Command("label", "--images", coloured, "--out", out, *INLINE, *TWO, "--overwrite")
    assert (unlabelled.code, "labels: " in unlabelled.out) == (0, False)
    assert not (out / "suspects.parquet").exists()
    assert "labels: " not in Command("status", out).out


def test_images_of_which_some_have_a_label_and_some_cannot_be_read(coloured: Path, tmp_path: Path) -> None:
    (coloured / "red" / "04.png").write_bytes(b"")
    labels = tmp_path / "labels.csv"
    labels.write_text("image_id,label\nred/00.png,1\nred/04.png,1\nblack/01.png,0\n")
    flags = ["--labels", labels, "--max-error-rate", 0.5]
    done = Command("label", "--images", coloured, "--out", tmp_path / "run", *INLINE, *TWO, *flags)
    assert "labels: 3 of 12 images have one, the network saw 2; it is the network's best class in 100.0%" in done.out
    assert pq.read_table(tmp_path / "run" / "suspects.parquet").num_rows == 0
    assert "suspects.parquet" not in done.out


def test_why_images_are_bad_is_said_with_counts_and_examples(coloured: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(coloured.glob("*/*.png"))):
        if i < 3:
            path.write_bytes(b"")
        elif i < 10:
            path.write_bytes(b"a picture of red" + bytes(i))
        else:
            path.write_bytes(path.read_bytes()[:60])
    failed = label(coloured, tmp_path / "run", folder=tmp_path)
    assert failed.code == 3
    said = {row["image_id"]: row["error"] for row in table_rows(tmp_path / "run", "images")}
    reasons = [
        f"{count} {status}, such as '{first}' ({said[first]})"
        for count, status, first in (
            (7, "undecodable", "black/07.png"),
            (3, "empty", "black/01.png"),
            (2, "truncated", "red/08.png"),
        )
    ]
    assert failed.result["error"] == (f"100.0% of the images are bad, --max-error-rate is 2.0%: {'; '.join(reasons)}")
    for command in (failed, Command("status", tmp_path / "run")):
        assert [line for line in command.out.splitlines() if line.startswith("bad: ")] == [
            f"bad: {reason}" for reason in reasons
        ]
    assert "labels: 12 images have one, none of which the network saw" in failed.out


def test_reasons_that_differ_in_numbers_are_one_and_rare_ones_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("1", (30000, 4000 + i)).save(folder / f"{i}.png")
    (folder / "9.png").write_bytes(b"")
    failed = Command("label", "--images", folder, "--out", tmp_path / "run", *INLINE, *TWO)
    assert failed.code == 3
    large = "bad: 3 too_large, such as '0.png' (30000x4000 pixels, the limit is 89478485, of a side 1048576)"
    assert failed.out.splitlines()[1:3] == [large, "bad: 1 empty, such as '9.png' (the file has no bytes)"]


def test_it_is_the_same_on_a_store(s3: Store, coloured: Path, tmp_path: Path) -> None:
    options = ["--storage-options", *s3.words]
    local = label(coloured, tmp_path / "run", folder=tmp_path)
    address = s3.put(coloured, "judged-pictures")
    remote = label(address, s3.address("judged"), *options, folder=tmp_path)
    assert remote.code == 0
    said = [[line for line in done.out.splitlines() if line.startswith("labels: ")] for done in (local, remote)]
    assert [line.replace(str(tmp_path / "run"), s3.address("judged")) for line in said[0]] == said[1]
    assert "labels: 12 images have one" in Command("status", s3.address("judged"), *options).out
    (path,) = s3.folder.glob("**/judged/suspects.parquet")
    ours, theirs = pq.read_table(tmp_path / "run" / "suspects.parquet"), pq.read_table(path)
    assert ours.equals(theirs)


@pytest.mark.ray
def test_ray_says_what_inline_says(coloured: Path, tmp_path: Path) -> None:
    inline = label(coloured, tmp_path / "a", folder=tmp_path)
    ray = label(coloured, tmp_path / "b", "--executor", "ray", "--replicas", 2, folder=tmp_path)
    assert ray.code == 0
    assert (tmp_path / "a" / "suspects.parquet").read_bytes() == (tmp_path / "b" / "suspects.parquet").read_bytes()
    said = [[line for line in done.out.splitlines() if line.startswith("labels: ")] for done in (inline, ray)]
    assert [line.replace(str(tmp_path / "a"), str(tmp_path / "b")) for line in said[0]] == said[1]


def test_the_line_of_the_page_counts_pairs(coloured: Path, tmp_path: Path) -> None:
    label(coloured, tmp_path / "run", names="red\nblack\n", folder=tmp_path)
    columns = "SELECT label_name, predicted_name, count(*) FROM"
    query = f"{columns} '{tmp_path}/run/suspects.parquet' GROUP BY ALL ORDER BY 3 DESC"
    assert duckdb.sql(query).fetchall() == [("red", "black", 6), ("black", "red", 5)]
