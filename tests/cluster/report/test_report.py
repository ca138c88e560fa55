"""`report` by command: what it writes, what it refuses, what it does with runs that are unfinished or damaged."""

import csv
import json
import math
import os
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.foreign import visible
from cluster.runs.directory import RunDir
from cluster.runs.record import clear_run, existing_run
from tests.support.command import Command
from tests.support.exported_runs import BROKEN, NAMES, ExportedRun


class Page(HTMLParser):
    """What stands in a page: its data, its text, its tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.data: dict[str, Any] = {}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = "json" if tag == "script" and dict(attrs).get("type") == "application/json" else tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "json":
            self.data = json.loads(data)
        elif self.inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def gallery(self, key: str) -> list[str]:
        """Return the ids of a gallery's images."""
        (found,) = (each for each in self.data["galleries"] if each["key"] == key)
        return [self.data["cards"][number]["id"] for number in found["cards"]]


def report(root: Path, out: Path, *more: object) -> Command:
    return Command("report", root, "--out", out, "--executor", "inline", *more)


def copied(run: ExportedRun, folder: Path) -> Path:
    """Return a copy of a run without audits: tests of other modules audit it."""
    return Path(shutil.copytree(run.root, folder / "run", ignore=shutil.ignore_patterns("audit*")))


def test_a_page_shows_the_run_and_nothing_of_it_changes(hostile: ExportedRun, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in hostile.root.rglob("*") if path.is_file()}
    done = report(hostile.root, tmp_path / "page.html")
    assert (done.code, done.err) == (0, "")
    assert {path: path.read_bytes() for path in hostile.root.rglob("*") if path.is_file()} == before
    assert done.result["out"] == str(tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    shown = {card["id"] for card in page.data["cards"]}
    with_maps = {image_id for image_id, row in hostile.images.items() if row["num_maps"]}
    assert len(shown) == len(with_maps) == len(hostile.images) - len(BROKEN)
    for status in ("truncated", "empty"):
        if status in {row["status"] for row in hostile.images.values()}:
            assert status in page.text
    assert page.gallery("empty") == ["black.png"]


def test_by_default_the_page_lies_in_the_run_and_overwrite_removes_it(hostile: ExportedRun, tmp_path: Path) -> None:
    root = copied(hostile, tmp_path)
    done = Command("report", root)
    assert (done.code, done.out.splitlines()[-2]) == (0, str(root / "report.html"))
    assert Command("verify", root).code == 0
    assert Command("report", root).code == 0  # anew
    clear_run(RunDir(str(root)))  # as --overwrite does
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_an_unfinished_run_is_shown_as_far_as_it_is(hostile: ExportedRun, tmp_path: Path) -> None:
    root = copied(hostile, tmp_path)
    (root / "images" / "shard-0000001.parquet").unlink()
    assert report(root, tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    shown = {card["id"] for card in page.data["cards"]}
    missing = {image_id for image_id, row in hostile.images.items() if row["shard"] == 1}
    assert not shown & missing
    assert f"python -m jobs {' '.join(hostile.record.command_line or ())[:5]}" in page.text
    for path in (root / "images").iterdir():
        path.unlink()
    done = report(root, tmp_path / "none.html")
    assert done.code == 5
    assert "no shard of" in done.err
    assert not (tmp_path / "none.html").exists()


def test_what_is_no_report_is_not_replaced_and_a_folder_is_no_file(hostile: ExportedRun, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html><p>my own page</p>")
    done = report(hostile.root, tmp_path / "mine.html")
    assert done.code == 4
    assert "is no report of camray" in done.err
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>my own page</p>"
    done = report(hostile.root, tmp_path)
    assert done.code == 2
    assert f"give a file, such as {tmp_path}/report.html" in done.err


def test_pictures_that_are_gone_or_others_are_said(labelled: ExportedRun, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(labelled.pictures, folder / "pictures")
    ids = sorted(labelled.images)
    words = [
        word.replace(str(labelled.pictures), str(folder / "pictures")) for word in labelled.record.command_line or ()
    ]
    words[words.index("--out") + 1] = str(folder / "run")
    assert Command(*words).code == 0
    (folder / "pictures" / ids[0]).unlink()
    Image.new("RGB", (9, 9)).save(folder / "pictures" / ids[1])
    assert report(folder / "run", tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert "missing: " in page.text
    assert "another picture by now: it had " in page.text
    assert (
        len([tag for tag, has in page.tags if tag == "img" and (has.get("src") or "").startswith("data:image/webp")])
        == 10
    )


def test_more_images_than_asked_for_are_not_shown(hostile: ExportedRun, tmp_path: Path) -> None:
    assert report(hostile.root, tmp_path / "page.html", "--max-images", 3).code == 0
    assert len(Page(tmp_path / "page.html").data["cards"]) == 3
    done = report(hostile.root, tmp_path / "other.html", "--max-images", 0)
    assert (done.code, "--max-images expects 1 to 2000" in done.err) == (2, True)


def test_the_page_does_not_depend_on_the_number_of_parts_or_on_its_time(labelled: ExportedRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert report(labelled.root, tmp_path / f"{name}.html").code == 0
    a, b = (re.sub(r"report of [^<]*", "", (tmp_path / f"{name}.html").read_text()) for name in "ab")
    assert a == b


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_takes_nothing_is_said(hostile: ExportedRun, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = report(hostile.root, tmp_path / "closed" / "page.html")
    assert done.code == 5


def test_damaged_tables_are_refused(hostile: ExportedRun, tmp_path: Path) -> None:
    root = copied(hostile, tmp_path)
    (root / "boxes" / "shard-0000000.parquet").write_bytes(b"PAR1 this is none")
    done = report(root, tmp_path / "page.html")
    assert done.code == 5
    assert "shard-0000000" in done.err


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("boxes", "x0", math.nan),
        ("boxes", "x1", math.inf),
        ("boxes", "y1", 1e30),
        ("boxes", "class_id", 4),
        ("boxes", "class_id", -7),
        ("boxes", "row", 9999),
        ("boxes", "area_fraction", 1e38),
        ("heatmaps", "score", 1e38),
        ("heatmaps", "score", math.nan),
        ("images", "top_classes", [0, None]),
        ("images", "top_classes", [0]),
    ],
)
def test_rows_that_no_run_has_are_damage(
    hostile: ExportedRun, tmp_path: Path, table: str, column: str, value: object
) -> None:
    root = copied(hostile, tmp_path)
    change(root / table / "shard-0000000.parquet", column, value)
    inline = "--executor", "inline"
    for done in (report(root, tmp_path / "page.html"), Command("audit", root, *inline)):
        assert (done.code, "shard 0 of" in done.err) == (5, True), done.err
    exported = Command("export", root, "--to", "coco", "--out", tmp_path / "coco", "--pictures", "none", *inline)
    is_not_read = table == "heatmaps" or (column, value) == (
        "class_id",
        4,
    )  # a class whose lack of a map it looks not at
    assert exported.code == (0 if is_not_read else 5)


def change(file: Path, column: str, value: object) -> None:
    """Put a value into the first row of a table."""
    rows = pq.read_table(file)
    values = rows[column].to_pylist()
    values[0] = value
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    pq.write_table(rows.set_column(at, field, pa.array(values, field.type)).cast(rows.schema), file)


@pytest.fixture(scope="module")
def audited(labelled: ExportedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose boxes are the true ones, but that of its first image, which is too large."""
    folder = tmp_path_factory.mktemp("audited")
    root = copied(labelled, folder)
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("image_id", "x0", "y0", "x1", "y1"))
        for at, image_id in enumerate(sorted(labelled.images)):
            x0, y0, x1, y1 = (labelled.boxes[image_id][0][name] for name in ("x0", "y0", "x1", "y1"))
            csv.writer(file).writerow((image_id, x0, y0, x1 if at else x0 + 2, y1 if at else y0 + 2))
    done = Command("audit", root, "--truth", folder / "truth.csv", "--executor", "inline", "--bootstrap", 20)
    assert done.code == 0, done.err
    return root


def test_the_audit_names_the_worst_images(audited: Path, labelled: ExportedRun, tmp_path: Path) -> None:
    assert report(audited, tmp_path / "page.html").code == 0
    page, first = Page(tmp_path / "page.html"), min(labelled.images)
    assert page.gallery("worst")[0] == first
    assert page.gallery("too_large") == [first]
    (card,) = (card for card in page.data["cards"] if card["id"] == first)
    assert card["truth"]["failure"] == "too_large"
    assert card["truth"]["iou"] < 0.5
    assert "python -m jobs audit" not in page.text  # another one would take its place


def test_an_audit_shows_nothing_of_shards_that_are_gone(audited: Path, labelled: ExportedRun, tmp_path: Path) -> None:
    root = Path(shutil.copytree(audited, tmp_path / "run"))
    shard = labelled.images[min(labelled.images)]["shard"]
    (root / "images" / f"shard-{shard:07d}.parquet").unlink()
    done = report(root, tmp_path / "page.html")
    assert done.code == 0, done.err
    gone = {image_id for image_id, row in labelled.images.items() if row["shard"] == shard}
    assert not gone & {card["id"] for card in Page(tmp_path / "page.html").data["cards"]}


def test_an_audit_of_other_images_is_refused(audited: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(audited, tmp_path / "run"))
    change(root / "audit" / "per_image.parquet", "image_id", "another.png")
    done = report(root, tmp_path / "page.html")
    assert done.code == 5
    assert "is of other images than the run; run `audit` again" in done.err


def test_the_page_warns_of_what_the_audit_warns_of(audited: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(audited, tmp_path / "run"))
    path = root / "audit" / "metrics.json"
    metrics = json.loads(path.read_text())
    assert metrics["unlabelled"] is None
    assert metrics["suspected_shortcuts"] == []
    metrics["unlabelled"] = {"in_truth": 82, "images": 82, "known": 82, "audited": 47, "left_out": 35}
    shortcut = {"class_id": 0, "class_name": "crane", "place": "border", "share": 0.7, "others": 0.2, "num_images": 20}
    metrics["suspected_shortcuts"] = [shortcut]
    path.write_text(json.dumps(metrics))
    assert report(root, tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert "These figures flatter: 82 images of the truth have no label in the run, and 35 of them" in page.text
    assert "Suspected shortcuts" in page.text


def test_an_audit_that_lacks_a_path_is_shown_and_one_with_a_curve_twice_is_said_to_be_damaged(
    audited: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(audited, tmp_path / "run"))
    path = root / "audit" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truth": {"has_boxes": True}}))
    done = report(root, tmp_path / "page.html")
    assert done.code == 0, done.err
    assert Page(tmp_path / "page.html").gallery("worst")
    curves = pq.read_table(root / "audit" / "curves.parquet")
    twice = pa.table([curves[0], *curves.columns], [curves.column_names[0], *curves.column_names])
    pq.write_table(twice, root / "audit" / "curves.parquet")
    done = report(root, tmp_path / "other.html")
    assert done.code == 0, done.err
    assert "without the audit: " in done.err
    assert "curves.parquet has two columns of one name" in done.err


def test_a_log_that_cannot_be_read_costs_its_plots_alone(hostile: ExportedRun, tmp_path: Path) -> None:
    root = copied(hostile, tmp_path)
    with (root / "log" / "20261129T203614Z-3f9c01ab.jsonl").open("w") as file:
        file.truncate(2**25)
    done = report(root, tmp_path / "page.html")
    assert done.code == 0
    assert "without the log: expected" in done.err
    assert "The run has no log" in Page(tmp_path / "page.html").text


def test_beside_an_iou_stands_the_map_that_it_is_of(hostile: ExportedRun, tmp_path: Path) -> None:
    root = copied(hostile, tmp_path)
    second: dict[str, dict[str, Any]] = {}  # the best box of each image's second class
    for image_id, boxes in hostile.boxes.items():
        of_class = {box["class_id"]: box for box in reversed(boxes)}
        classes = [class_id for class_id in hostile.images[image_id]["top_classes"][:2] if class_id in of_class]
        if len(classes) == 2 and NAMES.count(NAMES[classes[1]]) == 1:
            second[image_id] = of_class[classes[1]]
    assert len(second) > 3
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("image_id", "x0", "y0", "x1", "y1", "class"))
        for image_id, box in second.items():
            csv.writer(file).writerow((image_id, box["x0"], box["y0"], box["x1"], box["y1"], box["class_name"]))
    words = ["--truth", tmp_path / "truth.csv", "--truth-frame", "oriented", "--executor", "inline", "--bootstrap", 0]
    done = Command("audit", root, *words)
    assert done.code == 0, done.err
    assert report(root, tmp_path / "page.html").code == 0
    cards = {card["id"]: card for card in Page(tmp_path / "page.html").data["cards"]}
    judged = {image_id: cards[visible(image_id)] for image_id in second}
    assert {image_id: card["truth"]["iou"] for image_id, card in judged.items()} == dict.fromkeys(second, 1.0)
    for image_id, card in judged.items():
        assert card["maps"][0]["className"] == second[image_id]["class_name"]
        assert len(card["maps"]) == 2


@pytest.mark.parametrize("words", [(), ("--components", "peaks", "--min-area", 0.1), ("--recipe", "blog")], ids=str)
def test_the_line_for_rebox_makes_the_boxes_that_the_page_shows(
    words: tuple[object, ...], hostile: ExportedRun, tmp_path: Path
) -> None:
    root = hostile.root
    if words:
        root = tmp_path / "other"
        assert Command("rebox", hostile.root, "--out", root, "--executor", "inline", *words).code == 0
    assert report(root, tmp_path / "page.html").code == 0
    (line,) = re.findall('id="rebox">python -m jobs (.*?)<', (tmp_path / "page.html").read_text())
    again = [word if word != f"{root}-rebox" else str(tmp_path / "again") for word in shlex.split(line)]
    assert Command(*again, "--executor", "inline").code == 0
    made, wanted = (existing_run(RunDir(str(of))).request for of in (tmp_path / "again", root))
    assert (made.maps, made.boxes) == (wanted.maps, wanted.boxes)


def test_against_another_run_the_images_that_changed_stand_side_by_side(labelled: ExportedRun, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert Command("rebox", labelled.root, "--out", other, "--threshold", 0.8, "--executor", "inline").code == 0
    assert report(labelled.root, tmp_path / "page.html", "--against", other).code == 0
    page = Page(tmp_path / "page.html")
    assert "boxes.threshold" in page.text
    (changed,) = (each for each in page.data["galleries"] if each["key"] == "changed")
    assert len(changed["cards"]) == len(changed["others"]) > 0
    done = report(labelled.root, tmp_path / "page.html", "--against", tmp_path / "none")
    assert done.code == 5


def test_a_picture_of_the_same_size_with_other_bytes_is_another(labelled: ExportedRun, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(labelled.pictures, folder / "pictures")
    words = [
        word.replace(str(labelled.pictures), str(folder / "pictures")) for word in labelled.record.command_line or ()
    ]
    words[words.index("--out") + 1] = str(folder / "run")
    assert Command(*words).code == 0
    image_id, row = sorted(labelled.images.items())[0]
    Image.new("RGB", (row["width"], row["height"]), (200, 0, 0)).save(folder / "pictures" / image_id)
    assert report(folder / "run", tmp_path / "page.html").code == 0
    assert f"it had {row['size']} bytes when it was labelled" in Page(tmp_path / "page.html").text


def test_a_broken_audit_is_said_on_the_page(audited: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(audited, tmp_path / "run"))
    (root / "audit" / "metrics.json").write_text("{}")
    assert report(root, tmp_path / "page.html").code == 0
    assert "without the audit: " in Page(tmp_path / "page.html").text


def test_a_calibrated_run_s_line_for_rebox_keeps_its_calibration(calibrated: ExportedRun, tmp_path: Path) -> None:
    assert report(calibrated.root, tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert f"python -m jobs rebox {calibrated.root} --out {calibrated.root}-rebox " in f"{page.text} "
    assert "-rebox --threshold" not in page.text
    assert page.data["reboxOwn"] == f"python -m jobs rebox {calibrated.root} --out {calibrated.root}-rebox"


def test_the_one_threshold_of_a_calibration_is_not_said_to_be_each_class_s_own(
    calibrated: ExportedRun, tmp_path: Path
) -> None:
    assert not calibrated.record.request.calibration.class_thresholds
    assert report(calibrated.root, tmp_path / "page.html").code == 0
    page = Page(tmp_path / "page.html")
    assert f"threshold {calibrated.record.request.boxes.threshold[0]}, calibrated, " in page.text
    assert (page.data["setting"]["isCalibrated"], page.data["setting"]["isPerClass"]) == (True, False)


def test_a_page_is_neither_put_among_tables_nor_over_what_is_no_file(hostile: ExportedRun, tmp_path: Path) -> None:
    for out in (hostile.root / "images" / "page.html", "", "/dev/null"):
        done = report(hostile.root, out)
        assert done.code == 2, out
    (tmp_path / "empty.html").touch()
    assert report(hostile.root, tmp_path / "empty.html").code == 4


def test_damaged_tables_name_the_cure(hostile: ExportedRun, tmp_path: Path) -> None:
    for name in ("images", "heatmaps"):
        root = tmp_path / name / "run"
        shutil.copytree(hostile.root, root)
        path = root / name / "shard-0000001.parquet"
        path.write_bytes(path.read_bytes()[:-9])
        done = report(root, tmp_path / "page.html")
        assert done.code == 5
        assert "shard" in done.err
