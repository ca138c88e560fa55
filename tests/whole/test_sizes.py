"""Small files that say they are large, and files that do not end: refused in time and little memory."""

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision

from tests.support.command import ROOT, Command, result_of
from tests.support.exported_runs import ExportedRun

MOST_S, MOST_MIB = 60, 1536  # of processor time, as machines may be loaded
MOST_ADDRESSES = 24 * 2**30  # so that a test that fails does not take the machine with it
TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
UNRAISED = ("expected a state_dict", "by repeating", "nested", "recursion limit", "it has aliases")
MEASURE = """
import sys
from jobs.__main__ import main
try:
    main()
finally:
    from cluster.process.memory import peak_mib
    print(peak_mib(), file=sys.stderr)
"""


def assert_refused(says: str, *words: object, code: int = 2) -> None:
    """Run a command that has to end with an exit code and a sentence within the limits."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_S, MOST_S))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))

    finished = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert finished.returncode == code, finished.stderr[-2000:]
    *said, peak_mib = finished.stderr.splitlines()
    text = "\n".join(said)
    error = result_of(finished.stdout, text)["error"]
    assert says in error
    assert float(peak_mib) < MOST_MIB
    assert code != 2 or any(words in error for words in UNRAISED) or "or raise the limits by --file-limits" in error


def label(pictures: Path, *words: object) -> list[object]:
    return ["label", "--images", pictures, "--out", pictures.parent / "run", "--executor", "inline", *words]


# Weights.


def raw_archive(path: Path, pickled: bytes) -> None:
    """Write what torch takes for a file of its own, with a pickle of ours."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)


def deflated(path: Path) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in resnet().items()}
    torch.save({**zeros, "more": torch.zeros(2**27)}, path.with_name("plain.pth"))
    with (
        zipfile.ZipFile(path.with_name("plain.pth")) as saved,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in saved.infolist():
            packed.writestr(info.filename, saved.read(info))


def resnet() -> dict[str, torch.Tensor]:
    return torchvision.models.resnet18(weights=None).state_dict()


def expanded(path: Path) -> None:
    repeated = torch.zeros(1).expand(2**34, 512)
    torch.save({**resnet(), "fc.weight": repeated, "fc.bias": repeated[:, 0]}, path)


def array_of_bytes(path: Path) -> None:
    """Write a call that torch allows, which makes four gigabytes of a number."""
    number = b"\x8a\x05" + (2**32).to_bytes(5, "little")
    raw_archive(path, b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\n" + number + b"\x85Rs.")


def itself(path: Path) -> None:
    loop: dict[str, object] = {}
    loop["state_dict"] = loop
    torch.save(loop, path)


def itself_often(path: Path) -> None:
    """Write a dictionary of 400,000 numbers, each of which is the dictionary."""
    numbered = b"".join(b"J" + number.to_bytes(4, "little") + b"h\x00" for number in range(400_000))
    raw_archive(path, b"\x80\x02}q\x00(" + numbered + b"u.")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (deflated, "which is not how torch saves weights"),
        (expanded, "fc.weight is (17179869184, 512) by repeating what the file holds once"),
        (array_of_bytes, "bytes of memory, which is not how weights are saved"),
        (itself, "expected a state_dict (names to tensors)"),
        (itself_often, "expected a state_dict (names to tensors)"),
    ],
)
def test_weights(write: Callable[[Path], None], says: str, pictures: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.pth")
    assert_refused(says, *label(pictures, "--model", "resnet18", "--weights", tmp_path / "a.pth"))


# Tables.

HEADER = "image_id,x0,y0,x1,y1"


def packed(content: bytes, times: int) -> bytes:
    """Return a header and what comes after it so many times, in gzip."""
    piece = content * max(1, 2**20 // len(content))
    return gzip.compress(HEADER.encode() + b"\n" + piece * times, 9)


def rows(path: Path, number: int, image: str, name: str = "image_id", num_corners: int = 1) -> None:
    """Write a small Parquet file that stands for any number of rows of one image."""
    ids = pa.DictionaryArray.from_arrays(np.zeros(number, np.int8), [image])
    corner = pa.array(np.arange(number) % num_corners + 1.0)
    columns = {name: ids, "x0": corner, "y0": corner, "x1": corner, "y1": corner}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=number)


def many_rows(path: Path) -> None:
    rows(path, 30_000_000, "a.png")


def long_names(path: Path) -> None:
    rows(path, 2**15, "x" * 100_000, num_corners=1000)


def wide(path: Path) -> None:
    path.write_text(",".join([HEADER, *map(str, range(10_000))]) + "\n")


def wider(path: Path) -> None:
    path.write_text(",".join([HEADER, *map(str, range(500_000))]) + "\n")


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.parquet", many_rows, "it says that it has 30000000 rows"),
        ("a.parquet", long_names, "texts of its column image_id have more than"),
        ("a.csv.gz", lambda path: path.write_bytes(packed(b"a.png,1,1,5,5\n", 400)), "bytes unpack to more than"),
        ("a.csv.gz", lambda path: path.write_bytes(packed(b"\n", 400)), "bytes unpack to more than"),
        ("a.csv", wide, "columns, at most 10000 are read"),
        ("a.csv", wider, "a line has more than"),
    ],
)
def test_a_truth(name: str, write: Callable[[Path], None], says: str, labelled: ExportedRun, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert_refused(says, "audit", labelled.root, "--name", "sizes", "--truth", tmp_path / name)


@pytest.mark.parametrize(
    ("flag", "name", "write", "says"),
    [
        ("--images", "a.csv", wider, "columns, at most 10000 are read"),
        ("--images", "a.txt", wider, "columns, at most 10000 are read"),
        ("--images", "a.txt.gz", lambda path: path.write_bytes(packed(b"\n", 400)), "bytes unpack to more than"),
        ("--images", "a.parquet", lambda path: rows(path, 30_000_000, "a", "uri"), "it says that it has 30000000 rows"),
        ("--labels", "a.csv", wide, "columns, at most 10000 are read"),
        ("--labels", "a.csv.gz", lambda path: path.write_bytes(packed(b"x" * 2**17, 400)), "bytes unpack to more than"),
        (
            "--labels",
            "a.csv.gz",
            lambda path: path.write_bytes(packed(b"\n", 17)),
            "unpack to more than 16777216, which",
        ),
        ("--class-names", "a.csv", lambda path: path.write_text("a,b\n" * 2**20), "it has more than 1048576 lines"),
        ("--class-names", "a.json", lambda path: path.write_text("[" * 100_000), "it is nested too deep"),
        ("--calibration", "a.json", lambda path: path.write_text("[" * 100_000), "recursion limit exceeded"),
    ],
)
def test_a_table_of_label(
    flag: str, name: str, write: Callable[[Path], None], says: str, pictures: Path, tmp_path: Path
) -> None:
    write(tmp_path / name)
    assert_refused(says, *label(pictures, *TWO, flag, tmp_path / name))


LONG = 2**30  # characters, in a page of some kilobytes


def write_with_a_long_text(path: Path, table: pa.Table, name: str) -> None:
    """Write a table with one row whose text in a column is a page of a gigabyte."""
    at = table.schema.get_field_index(name)
    texts = pa.array(["x" * LONG, *table[name].to_pylist()[1:]])
    pq.write_table(
        table.set_column(at, table.schema.field(at), texts),
        path,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )
    assert path.stat().st_size < 2**20


TOO_LARGE = "takes more than 805306368 bytes of memory"


def test_a_page_of_a_gigabyte_in_a_truth(labelled: ExportedRun, tmp_path: Path) -> None:
    columns = {"image_id": ["a.png"], "x0": [1.0], "y0": [1.0], "x1": [5.0], "y1": [5.0]}
    write_with_a_long_text(tmp_path / "a.parquet", pa.table(columns), "image_id")
    assert_refused(TOO_LARGE, "audit", labelled.root, "--name", "sizes", "--truth", tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "columns", [{"uri": ["a.png"]}, {"image": [b"x"], "image_id": ["a"]}], ids=["list", "pictures"]
)
def test_a_page_of_a_gigabyte_in_a_table_of_pictures(
    columns: dict[str, list[str]], pictures: Path, tmp_path: Path
) -> None:
    write_with_a_long_text(tmp_path / "a.parquet", pa.table(columns), [*columns][-1])
    assert_refused(TOO_LARGE, *label(pictures, *TWO, "--images", tmp_path / "a.parquet"))


def test_a_buffer_of_a_gigabyte_in_an_arrow_file(pictures: Path, tmp_path: Path) -> None:
    table = pa.table({"uri": ["x" * LONG]})
    with pa.ipc.new_file(
        tmp_path / "a.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(table)
    assert_refused(TOO_LARGE, *label(pictures, *TWO, "--images", tmp_path / "a.arrow"))


def test_a_page_of_a_gigabyte_in_a_run(labelled: ExportedRun, tmp_path: Path) -> None:
    shutil.copytree(labelled.root, tmp_path / "run")
    path = next((tmp_path / "run" / "images").iterdir())
    write_with_a_long_text(path, pq.read_table(path), "image_id")
    assert_refused("1 of 3 committed shards is damaged", "status", tmp_path / "run", code=5)
    assert_refused("a part of it takes", "verify", tmp_path / "run", code=3)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("images", "has 4194304 rows, at most 5"),
        ("heatmaps", "has 4194304 rows, at most"),
        ("boxes", "its rows take more than"),
    ],
)
def test_a_table_of_a_run_with_more_rows_than_a_shard_has(
    table: str, says: str, labelled: ExportedRun, tmp_path: Path
) -> None:
    shutil.copytree(labelled.root, tmp_path / "run", ignore=shutil.ignore_patterns("audit*", ".scratch"))
    path = next(path for path in (tmp_path / "run" / table).iterdir() if len(pq.read_table(path)))
    rows = pq.read_table(path)
    some = rows.take(np.zeros(2**16, np.int64))
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(64):
            writer.write_table(some)
    if table == "images":
        assert_refused("1 of 3 committed shards is damaged", "status", tmp_path / "run", code=5)
    assert_refused(says, "verify", tmp_path / "run", code=3)
    truth = tmp_path / "truth.csv"
    truth.write_text("image_id,x0,y0,x1,y1\n" + f"{rows['image_id'][0].as_py()},1,1,5,5\n")
    assert_refused(says, "audit", tmp_path / "run", "--truth", truth, "--executor", "inline", code=5)


def test_an_image_with_more_objects_than_are_read(labelled: ExportedRun, tmp_path: Path) -> None:
    image_id = next(iter(labelled.images))
    (tmp_path / "a.csv").write_text(HEADER + "\n" + f'"{image_id}",1,1,5,5\n' * 10_001)
    says = f'has 10001 objects of the image "{image_id}", at most 10000 are read'
    assert_refused(says, "audit", labelled.root, "--name", "sizes", "--truth", tmp_path / "a.csv")


# YAML and JSON.

YAML = {
    "[" * 100_000: "nested more than 100 deep",
    "- " * 50_000: "nested more than 100 deep",
    "names: [" + "a," * 200_000 + "]": "more than 131072 words and signs",
    "a: &a [x]\nb: *a\n": "it has aliases",
}


@pytest.mark.parametrize("text", YAML, ids=lambda text: text[:10])
def test_yaml(text: str, labelled: ExportedRun, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text(text)
    assert_refused(YAML[text], "audit", labelled.root, "--name", "sizes", "--truth", tmp_path)
    assert_refused(YAML[text], *label(pictures, *TWO, "--config", tmp_path / "data.yaml"))


MANY = {
    "objects": ('{"images": [' + ",".join(["{}"] * 7_000_000) + '], "annotations": []}', "it has 7000001 objects"),
    "numbers": ('{"images": [], "annotations": [{"bbox": [' + "0," * 2**24 + "0]}]}", "values, at most 8388608"),
    "lists": ('{"images": [], "annotations": [[' + "[]," * 2**23 + "[]]]}", "values, at most 8388608"),
}


@pytest.mark.parametrize("kind", MANY)
def test_a_coco_of_many_values(kind: str, labelled: ExportedRun, tmp_path: Path) -> None:
    text, says = MANY[kind]
    (tmp_path / "a.json").write_text(text)
    assert_refused(says, "audit", labelled.root, "--name", "sizes", "--truth", tmp_path / "a.json")


def test_a_run_of_many_values(labelled: ExportedRun, tmp_path: Path) -> None:
    shutil.copytree(labelled.root, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    text = json.dumps({**document, "config": "CONFIG"}).replace('"CONFIG"', '{"a": [' + "[]," * 2**24 + "[]]}")
    (tmp_path / "run" / "run.json").write_text(text)
    assert_refused("values, at most", "status", tmp_path / "run", code=5)


@pytest.mark.parametrize("opening", ["[", '{"images":'])
def test_a_deep_coco(opening: str, labelled: ExportedRun, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(opening * 50_000)
    assert_refused(
        "recursion limit exceeded", "audit", labelled.root, "--name", "sizes", "--truth", tmp_path / "a.json"
    )


# Raised.


def test_files_within_limits_that_a_flag_raises_are_read(labelled: ExportedRun, tmp_path: Path) -> None:
    image_id = next(iter(labelled.images))
    (tmp_path / "a.csv").write_text(HEADER + "\n" + f'"{image_id}",1,1,5,5\n' * 10_001)
    (tmp_path / "flags.yaml").write_text("file_limits: 1.5\n")
    words = ["audit", labelled.root, "--name", "raised", "--truth", tmp_path / "a.csv"]
    for more in (["--file-limits", 1.5], ["--file-limits=1000"], ["--config", tmp_path / "flags.yaml"]):
        assert Command(*words, *more, process=True).code == 0
    assert Command(*words, env={"CAMRAY_FILE_LIMITS": "2"}).code == 0
    assert_refused("at most 10000 are read", *words)


@pytest.mark.parametrize("times", ["0", "0.5", "nan", "inf", "1001", "x", ""])
def test_a_number_that_raises_nothing_is_refused(times: str, pictures: Path) -> None:
    refused = Command(*label(pictures, *TWO, f"--file-limits={times}"), process=True)
    assert (refused.code, "expects a number from 1 to 1000" in refused.result["error"]) == (2, True)


def test_a_run_resumes_with_other_limits(pictures: Path) -> None:
    assert Command(*label(pictures, *TWO, "--limit", 1, "--file-limits", 3), process=True).code == 0
    assert Command(*label(pictures, *TWO, "--limit", 1), process=True).code == 0
