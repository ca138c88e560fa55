"""A Parquet or CSV file that names the images, by the command line; the sort and its order against Python's own."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.pictures.header import MAX_BYTES
from cluster.sources.manifest import is_manifest, open_manifest
from cluster.sources.reading import read_image
from cluster.sources.source import Asked
from tests.support.command import ROOT, Command, result_of, table_rows

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
HOSTILE = [
    *(
        'it\'s "quoted", yes.png',
        "line\nbreak\r\nand return\r.png",
        "ünï-日本-😀.png",
        "100%25 [a-z]*?.png",
        " spaces .png",
    ),
    *("'; DROP TABLE manifest; --.png", "back\\slash.png", "NULL", "#no comment.png", "\ufeffmark.png"),
]


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write a manifest of the kind that its name says."""
    if path.suffix.lower() == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


def label(manifest: Path, out: Path, *more: object) -> Command:
    exact = ["--executor", "inline", "--precision", "fp32"]
    return Command("label", "--images", manifest, "--out", out, *exact, *TWO, *more)


def request_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())["request"]


def listed(manifest: Path, limit: int | None = None, memory_limit: str = "512MiB") -> list[dict[str, Any]]:
    with open_manifest(str(manifest), Asked(limit=limit), memory_limit) as listing:
        rows = [row for batch in listing.batches() for row in batch.to_pylist()]
        assert rows == [row for batch in listing.batches() for row in batch.to_pylist()]  # it can be read again
        assert len(rows) == listing.num_images
    return rows


@pytest.fixture
def names(pictures: Path) -> list[str]:
    """Paths of the twelve pictures below their folder, in no order."""
    found = sorted(str(path.relative_to(pictures)) for path in pictures.glob("*/*.png"))
    return [found[i] for i in np.random.default_rng(1).permutation(len(found))]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".CSV"])
def test_a_manifest_gives_the_maps_and_boxes_of_the_folder(
    pictures: Path, names: list[str], tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    flags = ["--class-names", tmp_path / "classes.txt"]
    assert label(pictures, tmp_path / "folder", "--labels", "folder", *flags).code == 0
    words = [name.split("/")[0] for name in names]
    manifest = write(pictures / f"list{suffix}", {"note": [1.5] * 12, "label": words, "uri": names})
    done = label(manifest, tmp_path / "run", *flags)
    assert (done.code, done.result["ok"]) == (0, 12)
    assert "labels: 12 of 12 images, from the manifest" in done.err
    for table in ("heatmaps", "boxes"):
        assert table_rows(tmp_path / "run", table) == table_rows(tmp_path / "folder", table)
    images = table_rows(tmp_path / "run", "images")
    assert [image["uri"] for image in images] == [f"{pictures}/{name}" for name in sorted(names)]
    assert {(image["offset"], image["size"]) for image in images} == {(0, -1)}
    assert (request_of(tmp_path / "run")["labels"], request_of(tmp_path / "run")["classes"]) == ("manifest", "label")
    assert Command("verify", tmp_path / "run").code == 0
    assert Command("show", tmp_path / "run", "discs/01.png").code == 0


def test_labels_are_numbers_or_words_and_may_be_missing(pictures: Path, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("id,wnid,name\n0,n01,disc\n1,n02,ring\n")
    ids = [f"id {i:02d}" for i in range(12)]
    expected = [0, 1, 1, None, None, None, *[0] * 6]
    words = ["0", "n02", " ring", "", None, "  ", *["disc"] * 6]
    flags = ["--class-names", tmp_path / "classes.csv", "--max-error-rate", 0]
    for name, labels in (
        ("words.parquet", pa.array(words)),
        ("words.csv", words),
        ("coded.parquet", pa.array(words).dictionary_encode()),
        ("numbers.parquet", pa.array(expected, pa.int16())),
    ):
        manifest = write(pictures / name, {"uri": names, "image_id": ids, "label": labels})
        out = tmp_path / "runs" / name
        assert label(manifest, out, *flags).code == 0
        images = table_rows(out, "images")
        assert [(image["image_id"], image["label"]) for image in images] == list(zip(ids, expected, strict=True))
        assert [image["num_maps"] for image in images] == [int(class_id is not None) for class_id in expected]


def test_other_labels_win_over_the_manifest_s(pictures: Path, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    (tmp_path / "labels.csv").write_text("image_id,label\nrings/00.png,0\n")
    manifest = write(pictures / "list.parquet", {"uri": names, "label": ["unknown"] * 12})
    flags = ["--class-names", tmp_path / "classes.txt"]
    for spec, expected in (("none", {None}), ("folder", {0, 1}), (tmp_path / "labels.csv", {0, None})):
        out = tmp_path / f"run-{Path(spec).stem}"
        assert label(manifest, out, "--labels", spec, *flags).code == 0
        assert {image["label"] for image in table_rows(out, "images")} == expected
        assert request_of(out)["classes"] == ("top1" if spec == "none" else "label")


def test_a_manifest_without_labels_has_the_best_class_mapped(pictures: Path, names: list[str], tmp_path: Path) -> None:
    manifest = write(pictures / "list.csv", {"uri": names})
    refused = label(manifest, tmp_path / "run", "--classes", "label")
    assert (refused.code, "has no column label" in refused.result["error"]) == (2, True)
    assert label(manifest, tmp_path / "run").code == 0
    assert (request_of(tmp_path / "run")["labels"], request_of(tmp_path / "run")["classes"]) == ("manifest", "top1")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["classes"] is None  # the flags as typed
    assert {box["class_source"] for box in table_rows(tmp_path / "run", "boxes")} == {"predicted"}
    assert label(manifest, tmp_path / "none", "--labels", "none", "--classes", "label").code == 2
    wrong = label(pictures, tmp_path / "none", "--labels", "manifest")
    assert (wrong.code, "needs --images FILE.parquet" in wrong.result["error"]) == (2, True)


def test_a_resume_needs_the_manifest_no_more(pictures: Path, names: list[str], tmp_path: Path) -> None:
    manifest = write(tmp_path / "list.parquet", {"uri": [f"pictures/{name}" for name in names]})
    out = tmp_path / "run"
    assert label(manifest, out, "--shard-size", 2).code == 0
    content = (out / "images" / "shard-0000003.parquet").read_bytes()
    (out / "images" / "shard-0000003.parquet").unlink()
    manifest.unlink()
    assert label(manifest, out, "--shard-size", 2).code == 0
    assert (out / "images" / "shard-0000003.parquet").read_bytes() == content
    assert label(manifest, out, "--shard-size", 2, "--labels", "folder").code == 4


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_plan_does_not_depend_on_the_order_of_the_manifest(tmp_path: Path, suffix: str) -> None:
    uris = [f"/nowhere/{i}.png" for i in range(300)]
    plans = []
    for seed in (None, 0, 1):
        if seed is not None:
            np.random.default_rng(seed).shuffle(uris)
        out = tmp_path / f"run-{seed}"
        manifest = write(tmp_path / f"list{suffix}", {"uri": uris, "label": [str(len(uri) % 2) for uri in uris]})
        assert label(manifest, out, "--max-error-rate", 1, "--shard-size", 7).code == 0
        plans.append([path.read_bytes() for path in sorted(out.glob("plan/*"))])
    assert plans[0] == plans[1] == plans[2]
    assert {image["status"] for image in table_rows(out, "images")} == {"missing"}
    assert Command("verify", out).code == 0


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_hostile_names_are_read_and_come_in_the_order_of_their_bytes(
    pictures: Path, tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "a 'folder' [x]*; --"
    folder.mkdir()
    for name in HOSTILE:
        shutil.copy(pictures / "discs" / "01.png", folder / name)
    long = "x" * 10_000
    manifest = write(folder / f"a ' list%41*[b]{suffix}", {"uri": [*HOSTILE, long, "a\0b", "/" + long, "train_X.bin"]})
    shutil.copy(manifest, folder / "train_X.bin")  # by its name one of STL10's
    out = tmp_path / "run"
    assert label(manifest, out, "--max-error-rate", 1).code == 0
    plan = pq.read_table(out / "plan")["image_id"].to_pylist()
    assert plan == sorted([*HOSTILE, long, "a\0b", "/" + long, "train_X.bin"], key=str.encode)
    status_of = {image["image_id"]: image["status"] for image in table_rows(out, "images")}
    assert {name: status_of.pop(name) for name in HOSTILE} == dict.fromkeys(HOSTILE, "ok")
    assert status_of == {
        **{long: "unreadable", "/" + long: "unreadable"},
        **{"a\0b": "missing", "train_X.bin": "undecodable"},
    }
    assert Command("verify", out).code == 0


def test_uris_are_paths_or_file_uris_and_a_percent_sign_means_itself_in_paths(tmp_path: Path) -> None:
    for name in ("a%20b", "a b", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    uris = ["a%20b", f"{tmp_path}/a b", f"file://{tmp_path}/a%20b", f"file://{tmp_path}/a%2520b", "./sub/../sub/c"]
    rows = listed(write(tmp_path / "list.csv", {"uri": uris, "image_id": [str(i) for i in range(5)]}))
    assert [read_image(row["uri"], row["offset"], row["size"]).decode() for row in rows] == [
        *("a%20b", "a b", "a b", "a%20b", "sub/c")
    ]


def test_no_more_is_read_than_a_picture_may_have(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2 * MAX_BYTES)  # a hole that takes no space
    assert len(read_image(str(tmp_path / "huge"), 0, -1)) == MAX_BYTES + 1
    assert len(read_image(str(tmp_path / "huge"), 0, 2 * MAX_BYTES)) == MAX_BYTES + 1
    assert len(read_image(str(tmp_path / "huge"), 2 * MAX_BYTES - 5, -1)) == 5
    with pytest.raises(BadImage, match="not a regular file"):
        read_image(str(tmp_path), 0, -1)


def test_paths_are_relative_to_the_folder_above_the_wildcards(tmp_path: Path) -> None:
    (tmp_path / "lists" / "a").mkdir(parents=True)
    pq.write_table(pa.table({"uri": ["../1.png"]}), tmp_path / "lists" / "a" / "x.parquet")
    for address in ("*.parquet", "*/*.parquet", "**/*.parquet"):
        folder = "lists/a" if address == "*.parquet" else "lists"
        with open_manifest(str(tmp_path / folder / address)) as listing:
            (batch,) = listing.batches()
        assert batch["uri"].to_pylist() == [f"{tmp_path}/{folder}/../1.png"]


@pytest.mark.slow
def test_limit_keeps_the_first_of_the_sorted_order(tmp_path: Path) -> None:
    uris = [f"/{i}.png" for i in np.random.default_rng(0).permutation(100_000)]
    for name in ("list.parquet", "list.csv"):
        manifest = write(tmp_path / name, {"uri": uris})
        for limit in (1, 70_000, 100_000, 200_000):
            assert [row["image_id"] for row in listed(manifest, limit)] == sorted(uris)[:limit]


@pytest.mark.slow
def test_a_manifest_larger_than_the_memory_is_sorted_on_disk(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(400_000)
    uris = [f"/{i:07d}{'x' * 300}.png" for i in order]  # 125 MB of them
    manifest = write(tmp_path / "list.parquet", {"uri": uris, "label": [str(i % 7) for i in order]})
    rows = listed(manifest, memory_limit="100MiB")
    assert [row["uri"] for row in rows] == sorted(uris)
    assert [row["label"] for row in rows] == [str(i % 7) for i in range(400_000)]
    with pytest.raises(StorageError, match="cannot sort the manifest"):
        listed(manifest, memory_limit="2MiB")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_sigterm_during_the_sort_exits_130_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    uris = [f"/{i:07d}{'x' * 60}.png" for i in np.random.default_rng(0).permutation(1_500_000)]
    manifest = write(tmp_path / f"list{suffix}", {"uri": uris})
    words = ["label", "--images", manifest, "--out", tmp_path / "run", "--executor", "inline", *TWO]
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 60
    while not list(scratch.glob("camray-*/*")) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    driver.send_signal(signal.SIGTERM)
    stdout, _ = driver.communicate(timeout=240)
    assert (driver.returncode, result_of(stdout)["status"]) == (130, "interrupted")
    assert list(scratch.glob("camray-*")) == []
    assert not (tmp_path / "run").exists()


def test_an_interrupt_amid_the_start_of_the_sort_s_thread_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    manifest = write(tmp_path / "list.parquet", {"uri": [f"/{i}" for i in range(500_000)]})

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is Event.wait.__code__ and frame.f_back and frame.f_back.f_code is Thread.start.__code__:
            deadline_s = time.monotonic() + 1
            while not list(scratch.glob("camray-*/*")) and time.monotonic() < deadline_s:  # the sort has begun
                time.sleep(0.001)
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            listed(manifest)
    finally:
        sys.settrace(before)
    assert list(scratch.glob("camray-*")) == []


TWICE = {"uri": ["a.png", "b.png", "a.png"]}
BAD: list[tuple[str, dict[str, list[Any]], int, str]] = [
    ("a", {"url": ["a.png"]}, 2, "expected one column uri in"),
    ("a", {"path": ["a.png"]}, 2, "found 'path'; say which one it is: --columns uri=path"),
    ("a", {"uri": []}, 5, "lists no image"),
    ("a", {"uri": ["a.png", ""]}, 2, "expected a text in column uri for each row"),
    (
        "a",
        {"uri": ["a.png", "b.png"], "image_id": ["a", ""]},
        2,
        "that of 'b.png' has none",
    ),
    ("a", TWICE, 2, "expected each uri once in"),
    ("a", TWICE, 2, "'a.png' is there twice; take one of them out, or add a column image_id"),
    ("a", {"uri": ["1.png", "2.png"], "image_id": ["one", "one"]}, 2, "'one' is there twice; take one of them out"),
    ("a", {"uri": ["ftp://host/a.png"]}, 2, "'ftp://host/a.png': addresses other than paths, file:///..."),
    ("a", {"uri": ["a.png", "s3:///a.png"]}, 2, "not supported"),
    ("a", {"uri": ["a.png", "s3://KEY:SECRET@bucket/a.png"]}, 2, "'s3://***@bucket/a.png'"),
    ("a", {"uri": ["file://host/a.png"]}, 2, "not supported"),
    ("a", {"uri": ["a.png", "b.png"], "label": ["1", "cat"]}, 2, "b.png' the label 'cat', which is no class"),
    ("a", {"uri": ["a.png", "b.png"], "label": ["0", "2"]}, 2, "b.png' the label '2', which is no class"),
    ("a", {"uri": ["a.png", "b.png"], "label": ["0", "same"]}, 2, "the label 'same' means classes [0, 1]"),
    ("a", {"uri": ["a.png", "b.png"], "label": ["0", "same"]}, 2, "b.png' the label 'same')"),
    ("a", {"uri": ["a.png", "b.png"], "label": ["", " "]}, 2, "column label is empty"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(("name", "columns", "code", "says"), BAD)
def test_a_bad_manifest_is_refused_in_one_sentence(
    tmp_path: Path, suffix: str, name: str, columns: dict[str, list[Any]], code: int, says: str
) -> None:
    (tmp_path / "classes.csv").write_text("id,group,name\n0,same,dog\n1,same,bird\n")
    manifest = write(tmp_path / f"{name}{suffix}", columns)
    failed = label(manifest, tmp_path / "run", "--class-names", tmp_path / "classes.csv")
    assert (failed.code, says in failed.result["error"]) == (code, True), failed.result["error"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.parquet", b"", StorageError, "is empty"),
        ("a.csv", b"", StorageError, "is empty"),
        ("a.parquet", b"uri\na.png\n", UsageError, "cannot read .*a.parquet"),
        ("a.parquet", b"PAR1" * 100, UsageError, "cannot read .*a.parquet"),
        ("a.csv", b"uri,label\na.png\n", UsageError, "Expected 2 columns, got 1"),
        ("a.csv", "\ufeffuri\na.png\n".encode("utf-16-le"), UsageError, "is in UTF-16; save it as UTF-8"),
        ("a.csv", b"uri\n\xff\xfe.png\n", UsageError, "a cell of it is not; save it as UTF-8"),
        ("a.csv", b"uri,image_id,uri\na,b,c\n", UsageError, "several columns uri"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        listed(tmp_path / name)
    with pytest.raises(StorageError, match=r"nowhere\.csv on .*: No such file"):
        listed(tmp_path / "nowhere.csv")


def test_columns_that_hold_no_texts_are_refused(tmp_path: Path) -> None:
    for column in (pa.array([b"a.png"]), pa.array([1.5]), pa.array([["a.png"]])):
        with pytest.raises(UsageError, match="expected texts or whole numbers in column uri"):
            listed(write(tmp_path / "a.parquet", {"uri": column}))
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff.png"]).buffers())
    with pytest.raises(UsageError, match="cannot read"):
        listed(write(tmp_path / "a.parquet", {"uri": broken}))


def test_what_a_manifest_is_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert is_manifest("/nowhere/LIST.Parquet")
    assert not is_manifest("/nowhere/list")
    assert not is_manifest(str(tmp_path / "folder.csv"))
