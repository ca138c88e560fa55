"""Hostile text by every way in: nothing of it moves a terminal, and the files that programs read hold it as it is."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cam_ops.foreign import visible
from cam_ops.pictures.text import text_size
from tests.support.command import Command, table_rows
from tests.support.exported_runs import GREEN, RED, THREE, TWO, write_picture
from tests.support.hostile_text import MOVES, TOLD, assert_seen, unseen

PLAIN = ["--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--precision", "fp32"]
COLOURS = ["--model", "tests.support.networks:colours", *PLAIN]
INLINE = ["--executor", "inline"]
NAMES = [f"{colour} {MOVES}" for colour in ("red", "green", "blue", "magenta", "yellow")]
FILE = MOVES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose names are all hostile: folders, pictures, columns, classes, labels."""
    folder = tmp_path_factory.mktemp("text") / f"in {FILE}"
    for at, patches in enumerate((THREE, TWO, ((GREEN, (3, 3, 20, 20)),), ((RED, (9, 9, 30, 30)),))):
        write_picture(folder / "pictures" / f"{at} {FILE}.png", patches, (50, 40))
    (folder / "pictures" / f"broken {FILE}.png").write_bytes(b"no picture")
    (folder / "classes.json").write_text(json.dumps(NAMES))
    paths = sorted((folder / "pictures").iterdir())
    ids = [f"{at}/{FILE}.png" for at in range(len(paths))]
    table = {"uri": list(map(str, paths)), "image_id": ids, f"note {MOVES}": [TOLD] * len(paths)}
    table["label"] = [NAMES[at % 5] for at in range(len(paths))]
    pq.write_table(pa.table(table), folder / "manifest.parquet")
    words = ["--images", folder / "manifest.parquet", "--class-names", folder / "classes.json", *COLOURS, *INLINE]
    words += ["--keep-columns", f"note {MOVES}", "--max-error-rate", 1, "--components", "all"]
    assert assert_seen(Command("label", *words, "--out", folder / "run")).code == 0
    with (folder / "truth.csv").open("w", newline="") as file:
        rows = [[name, 3, 3, 20, 20, NAMES[at % 5], TOLD] for at, name in enumerate(ids)]
        csv.writer(file).writerows([["image_id", "x0", "y0", "x1", "y1", "label", MOVES], *rows])
    truth = ["--truth", folder / "truth.csv", "--bootstrap", 2, *INLINE]
    assert assert_seen(Command("audit", folder / "run", *truth)).code == 0
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["status", "RUN"],
        ["status", "RUN", "--json"],
        ["verify", "RUN"],
        ["verify", "RUN", "--json"],
        ["label", "--images", "PLACE/manifest.parquet", "--out", "RUN", "--overwrite", "--repair"],
        ["plan", "--images", "PLACE/manifest.parquet", "--class-names", "PLACE/classes.json", *COLOURS, *INLINE],
        ["rebox", "RUN", "--out", "PLACE/reboxed", "--threshold", 0.3, *INLINE],
        ["audit", "RUN", "--json", *INLINE, "--name", "again"],
        ["audit", "RUN", "--truth", "PLACE/truth.csv", "--name", "evil " + MOVES, *INLINE],
        ["calibrate", "RUN", "--truth", "PLACE/truth.csv", "--out", "PLACE/calibration.json"],
        ["compare", "RUN", "RUN"],
        ["compare", "RUN", "RUN", "--json", "--fail-if", MOVES],
        ["report", "RUN"],
        ["show", "RUN", "--random"],
        ["show", "RUN", "--worst", "--to", f"PLACE/{FILE}.png"],
        ["show", "RUN", "--class", NAMES[0]],
        ["show", "RUN", MOVES],
        ["show", "RUN", f"1/{FILE}.png"],
        ["doctor", "--images", "PLACE/pictures", "--out", "PLACE/new", *INLINE],
        *[
            ["export", "RUN", "--to", form, "--out", f"PLACE/{form}", *INLINE]
            for form in ("coco", "voc", "yolo", "csv", "label-studio", "huggingface")
        ],
    ],
    ids=lambda words: ascii(" ".join(map(str, words[:1] + words[2:4])))[:50],
)
def test_a_command_on_a_run_of_hostile_names(words: list[object], place: Path) -> None:
    full = [
        str(word).replace("PLACE", str(place)).replace("RUN", str(place / "run")) if isinstance(word, str) else word
        for word in words
    ]
    assert_seen(Command(*full))


def test_the_files_of_a_run_hold_names_as_they_are(place: Path) -> None:
    assert json.loads((place / "run" / "run.json").read_text())["class_names"] == NAMES
    rows = table_rows(place / "run", "images")
    assert [row["image_id"] for row in rows] == [f"{at}/{FILE}.png" for at in range(5)]
    assert {row[f"note {MOVES}"] for row in rows} == {TOLD}
    assert {row["class_name"] for row in table_rows(place / "run", "boxes")} <= set(NAMES)
    metrics = json.loads((place / "run" / "audit" / "metrics.json").read_text())
    assert metrics["truth"]["path"] == str(place / "truth.csv")
    svg = (place / "run" / "audit" / "curves.svg").read_text()
    assert unseen(svg) == set()
    ET.fromstring(svg)


def test_a_page_and_datasets_of_hostile_names(place: Path) -> None:
    assert Command("report", place / "run").code == 0
    page = (place / "run" / "report.html").read_text()
    assert unseen(page) == set()
    assert "<script>alert" not in page
    for form in ("coco", "voc", "csv"):
        assert Command("export", place / "run", "--to", form, "--out", place / f"all-{form}", *INLINE).code == 0
    document = json.loads((place / "all-coco" / "annotations.json").read_text())
    assert len({each["name"] for each in document["categories"]}) == 5
    for path in (place / "all-voc").rglob("*.xml"):
        ET.parse(path)
    (table,) = (place / "all-csv").rglob("*.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["filename"][:2] for row in rows} <= {f"{at}/" for at in range(5)}
    assert all(unseen(row["filename"] + row["class"]) == set() for row in rows)  # names that files and tools can have


def test_text_in_a_picture_is_what_is_seen() -> None:
    assert text_size(MOVES, 12) == text_size(visible(MOVES), 12)
    assert visible(MOVES) != MOVES


EVIL = f"/nowhere/{FILE}"
LABEL = ["label", "--images", "PLACE/pictures", "--out", "PLACE/none", *INLINE]


@pytest.mark.parametrize("evil", [EVIL, EVIL + "\udc9b", TOLD + MOVES], ids=["path", "bytes", "secret"])
@pytest.mark.parametrize(
    "words",
    [
        ["EVIL"],
        ["label", "--EVIL"],
        ["label", "--images", "EVIL", "--out", "PLACE/none", *COLOURS],
        [*LABEL, "--model", "EVIL"],
        [*LABEL, *COLOURS, "--weights", "EVIL"],
        [*LABEL, *COLOURS, "--classes", "EVIL"],
        [*LABEL, *COLOURS, "--precision", "EVIL"],
        [*LABEL, *COLOURS, "--labels", "EVIL"],
        [*LABEL, *COLOURS, "--class-names", "EVIL"],
        [*LABEL, *COLOURS, "--calibration", "EVIL"],
        [*LABEL, *COLOURS, "--config", "EVIL"],
        [*LABEL, *COLOURS, "--columns", "EVIL"],
        [*LABEL, *COLOURS, "--limit", "EVIL"],
        [*LABEL, *COLOURS, "--include", "EVIL"],
        [*LABEL, *COLOURS, "--storage-options", "EVIL"],
        *[[command, "EVIL"] for command in ("status", "verify", "report", "audit", "calibrate", "show", "rebox")],
        ["plan", "--images", "EVIL", *COLOURS],
        ["compare", "RUN", "EVIL"],
        ["compare", "RUN", "RUN", "--audit", "EVIL"],
        ["export", "EVIL", "--to", "coco", "--out", "PLACE/none"],
        ["export", "RUN", "--to", "EVIL", "--out", "PLACE/none"],
        ["export", "RUN", "--to", "coco", "--out", "PLACE/none", "--like", "EVIL"],
        ["export", "RUN", "--to", "coco", "--out", "PLACE/none", "--only-classes", "EVIL", *INLINE],
        ["audit", "RUN", "--truth", "EVIL"],
        ["audit", "RUN", "--truth", "PLACE/truth.csv", "--class-map", "EVIL=0", *INLINE],
        ["rebox", "RUN", "--out", "PLACE/none", "--calibration", "EVIL"],
        ["report", "RUN", "--against", "EVIL"],
        ["show", "RUN", "--grid", "EVIL", "--random"],
        ["bench", "--images", "EVIL"],
        ["bench", "EVIL"],
        ["demo", "--out", "PLACE/truth.csv/EVIL"],
        ["verify", "RUN", "--shards", "EVIL"],
    ],
    ids=lambda words: " ".join(map(str, words[:1] + words[-2:])),
)
def test_a_hostile_word(words: list[object], evil: str, place: Path) -> None:
    names = {"PLACE": str(place), "EVIL": evil, "RUN": str(place / "run")}
    full = []
    for word in map(str, words):
        for name, text in names.items():
            word = word.replace(name, text)
        full.append(word)
    for more in ([], ["--json"] if words[0] not in ("demo", "show", "EVIL") else []):
        done = assert_seen(Command(*full, *more))
        assert done.code in (2, 3, 4, 5, 6), done.result
        assert not (place / "none").exists()


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


NAMELESS = f"cat {MOVES} {TOLD}"
VOC = (
    "<annotation><filename>{0}</filename><object><name>{1}</name><bndbox><xmin>1</xmin><ymin>x</ymin></bndbox></object>"
)


def truths(folder: Path) -> list[Path]:
    """Write truths whose every text is hostile, and return them."""
    text = json.dumps(NAMELESS)
    inner = NAMELESS.replace("\x1b", "").replace("\x07", "").replace("&", "&amp;").replace("<", "&lt;")
    yolo = put(folder / "yolo" / "data.yaml", f"names: [{text}]\nval: {text}\n").parent
    put(yolo / "labels" / f"{FILE}.txt", f"0 .5 .5 {MOVES[:5]} .1\n")
    coco = {
        "images": [{"id": NAMELESS, "file_name": NAMELESS}],
        "categories": [{"id": NAMELESS, "name": NAMELESS}, {"id": NAMELESS, "name": MOVES}],
        "annotations": [{"id": NAMELESS, "image_id": NAMELESS, "category_id": NAMELESS, "bbox": [NAMELESS]}],
    }
    header = folder / "header.csv"
    with header.open("w", newline="") as file:
        csv.writer(file).writerows([[NAMELESS, MOVES, TOLD], [NAMELESS] * 3])
    twice = folder / "twice.csv"
    with twice.open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "x0", "y0", "x1", "y1", "label"], [NAMELESS, MOVES, *[NAMELESS] * 4]])
    return [
        yolo,
        header,
        twice,
        put(folder / "coco.json", json.dumps(coco)),
        put(folder / "keys.json", json.dumps({NAMELESS: NAMELESS, "images": {NAMELESS: 1}, "annotations": []})),
        put(folder / "voc" / f"{FILE}.xml", VOC.format(inner, inner) + "</annotation>").parent,
    ]


def test_hostile_truths(place: Path, tmp_path: Path) -> None:
    for truth in truths(tmp_path):
        done = assert_seen(Command("audit", place / "run", "--truth", truth, "--name", "b", *INLINE))
        assert done.code in (2, 3)
    done = assert_seen(Command("calibrate", place / "run", "--truth", truth, "--out", tmp_path / "calibration.json"))
    assert done.code == 2


def test_hostile_lists_labels_and_configurations(place: Path, tmp_path: Path) -> None:
    label = [word if word != "PLACE/pictures" else place / "pictures" for word in LABEL]
    label = [word if word != "PLACE/none" else tmp_path / "none" for word in label] + COLOURS
    text = json.dumps(NAMELESS)
    for flag, name, content in (
        ("--class-names", "a.json", json.dumps([NAMELESS] * 4)),
        ("--class-names", "b.json", json.dumps({NAMELESS: NAMELESS})),
        ("--class-names", "c.csv", f"class_id,{MOVES}\n1,{NAMELESS}\n1,2\n"),
        ("--class-names", "d.txt", f"{NAMELESS}\n"),
        ("--labels", "e.csv", f"{NAMELESS},{MOVES}\na,b\n"),
        ("--labels", "f.csv", f"image_id,label\n{visible(NAMELESS)},{NAMELESS}\n"),
        ("--labels", "g.csv", f'image_id,label\n"0 {FILE}.png","{NAMELESS}"\n'),
        ("--config", "h.yaml", f"{text}: 1\n"),
        ("--config", "i.yaml", f"limit: {text}\n"),
        ("--config", "j.yaml", f"{NAMELESS}\n"),
        ("--calibration", "k.json", json.dumps({NAMELESS: NAMELESS, "maps_of": NAMELESS})),
        ("--images", "l.csv", f"{NAMELESS},uri\na,b\n"),
        ("--images", "m.csv", f'uri,image_id\n"{NAMELESS}",a\n"{NAMELESS}",a\n'),
        ("--images", "n.csv", f'uri,image_id\n"{NAMELESS}",a\n'),
    ):
        done = assert_seen(Command(*label, flag, put(tmp_path / f"{name[0]} {FILE}{name[1:]}", content)))
        assert done.code in (2, 3, 5), (name, done.result)


@pytest.mark.parametrize("names", [[NAMELESS], ["fc.weight", "fc.bias", NAMELESS], [f"module.{MOVES}.weight"]])
def test_hostile_tensors(names: list[str], place: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save({name: torch.zeros(5, 3) for name in names}, weights)
    words = ["--images", place / "pictures", "--out", tmp_path / "none", "--model", "resnet18", "--weights", weights]
    done = assert_seen(Command("label", *words, *INLINE))
    assert done.code == 2
    assert not (tmp_path / "none").exists()


def test_hostile_documents_of_runs(place: Path, tmp_path: Path) -> None:
    document = json.loads((place / "run" / "run.json").read_text())
    for name in document:
        for value in (NAMELESS, {NAMELESS: NAMELESS}, [NAMELESS], [{NAMELESS: 1}]):
            put(tmp_path / "run" / "run.json", json.dumps({**document, name: value}))
            done = assert_seen(Command("verify", tmp_path / "run"))
            assert done.code in (3, 5)
    for name in document["request"]:
        changed = {**document["request"], name: [NAMELESS]}
        put(tmp_path / "run" / "run.json", json.dumps({**document, "request": changed}))
        done = assert_seen(Command("status", tmp_path / "run"))
        assert (name, done.code) == (name, 5)
