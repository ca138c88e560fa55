"""Files from outside that are none: a pipe to which nobody writes, a device without end; secrets in addresses."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.process.console import public
from tests.support.command import Command
from tests.support.exported_runs import ExportedRun

MOST_S = 120
TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Fail what waits at a pipe."""

    def stop(*_: object) -> None:
        raise AssertionError(f"it takes more than {MOST_S} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_S)
    yield
    signal.alarm(0)


def assert_refused(done: Command, path: Path, what: str = "a pipe", code: int = 2) -> None:
    assert (done.code, path.name in done.result["error"], f"is {what}" in done.result["error"]) == (code, True, True), (
        done.result
    )


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["names.txt", "names.csv", "names.json"])
def test_a_class_list(name: str, pictures: Path, tmp_path: Path) -> None:
    flags = ["label", "--images", pictures, "--out", tmp_path / "run", *TWO, "--executor", "inline"]
    path = pipe(tmp_path / name)
    assert_refused(Command(*flags, "--class-names", path), path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert_refused(Command(*flags, "--class-names", path), path, "a device")


@pytest.mark.parametrize("flag", ["--labels", "--images", "--config"])
@pytest.mark.parametrize("suffix", [".csv", ".txt", ".parquet", ".yaml"])
def test_a_table_of_label(flag: str, suffix: str, pictures: Path, tmp_path: Path) -> None:
    path = pipe(tmp_path / f"table{suffix}")
    flags = {"--images": pictures, "--out": tmp_path / "run", flag: path}
    done = Command("label", "--executor", "inline", *TWO, *[word for pair in flags.items() for word in pair])
    assert done.code in (2, 5)
    assert path.name in done.result["error"]


TRUTHS = {
    "coco": "boxes.json",
    "table": "boxes.csv",
    "table in a folder": "folder/boxes.csv",
    "parquet": "boxes.parquet",
    "parquet in a folder": "folder/boxes.parquet",
    "tar": "boxes.tar",
    "tar in a folder": "folder/boxes.tar",
    "voc": "folder/a.xml",
    "yolo": "folder/labels/a.txt",
    "yolo's names": "folder/data.yaml",
    "wsol": "folder/localization.txt",
    "masks": "folder/a.png",
}


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("named", [False, True])
def test_a_truth(kind: str, named: bool, labelled: ExportedRun, tmp_path: Path) -> None:
    path = pipe(tmp_path / TRUTHS[kind])
    if kind == "yolo's names":
        (path.parent / "labels").mkdir()
        (path.parent / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    truth = path.parent if "/" in TRUTHS[kind] else path
    formats = ["--truth-format", {"yolo's names": "yolo", "coco": "coco"}.get(kind, kind.partition(" ")[0])]
    formats = [word.replace("parquet", "table") for word in formats]
    done = Command("audit", labelled.root, "--name", tmp_path.name[:40], "--truth", truth, *(formats if named else []))
    assert (done.code, str(truth) in done.result["error"]) == (2, True), done.result


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
WITH_SECRET = [
    f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/key",
    f"s3://{SECRET.replace('/', '')}@bucket/key",
    f"https://me:{SECRET}@host/a?token={SECRET}",
]
PLACES = [
    ["label", "--images", "ADDRESS", "--out", "OUT", *TWO],
    ["label", "--images", "PICTURES", "--out", "ADDRESS", *TWO],
    ["label", "--images", "PICTURES", "--out", "OUT", "--model", "resnet18", "--weights", "ADDRESS"],
    ["label", "--images", "PICTURES", "--out", "OUT", *TWO, "--class-names", "ADDRESS"],
    ["label", "--images", "PICTURES", "--out", "OUT", *TWO, "--labels", "ADDRESS"],
    ["label", "--images", "PICTURES", "--out", "OUT", *TWO, "--calibration", "ADDRESS"],
    ["label", "--images", "PICTURES", "--out", "OUT", *TWO, "--config", "ADDRESS"],
    ["label", "--imges", "ADDRESS"],
    *[[command, "ADDRESS"] for command in ("status", "verify", "report", "audit", "calibrate", "show", "ADDRESS")],
    ["export", "ADDRESS", "--to", "coco", "--out", "OUT"],
    ["audit", "RUN", "--name", "secret", "--truth", "ADDRESS"],
    ["compare", "RUN", "ADDRESS"],
    ["rebox", "RUN", "--out", "ADDRESS"],
    ["plan", "--images", "ADDRESS", *TWO],
    ["doctor", "--images", "ADDRESS"],
]


@pytest.mark.parametrize("words", PLACES, ids=lambda words: " ".join(map(str, words[:1] + words[-2:])))
@pytest.mark.parametrize("address", WITH_SECRET)
def test_a_secret_in_an_address(
    address: str, words: list[object], pictures: Path, labelled: ExportedRun, tmp_path: Path
) -> None:
    named = {"ADDRESS": address, "OUT": tmp_path / "run", "PICTURES": pictures, "RUN": labelled.root}
    more = ["--executor", "inline"] if words[0] in ("label", "plan") and "--imges" not in words else []
    done = Command(*[named.get(str(word), word) for word in words], *more)
    assert done.code in (2, 5, 6)
    for part in (SECRET, SECRET.replace("/", ""), SECRET.partition("/")[2]):
        assert part not in done.out + done.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no s3://bucket/key?secret_key=abc/d here", "no s3://bucket/key?*** here"),
        ("cannot read /a/s3:/me:a/b@bucket/x, mend it", "cannot read /a/s3:/***@bucket/x, mend it"),
        ("s3://bucket/me@host/a.jpg and file:///a?b.jpg", "s3://bucket/me@host/a.jpg and file:///a?b.jpg"),
        ("https://token@host/a; what now?", "https://***@host/a; what now?"),
    ],
)
def test_what_is_shown_of_an_address(text: str, expected: str) -> None:
    assert public(text) == expected
