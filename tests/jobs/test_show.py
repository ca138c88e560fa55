"""`show`: its flags, the files that it writes, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.display.sheet import CELL_HEIGHT, CELL_WIDTH
from tests.support.command import Command
from tests.support.exported_runs import ExportedRun

IDS = ["round/01.jpg", "square/02.jpg", "round/07.jpg"]


def shown(*words: object) -> tuple[str, str, int]:
    """Return the file that was written, what was said of it, and the number of images."""
    done = Command("show", *words)
    assert done.code == 0, done.err
    return done.out.splitlines()[0], done.err, done.result["images"]


def cells(path: object) -> tuple[int, int]:
    """Return how many columns and rows a sheet has."""
    height, width = cv2.imread(str(path)).shape[:2]
    return width // CELL_WIDTH, height // CELL_HEIGHT


@pytest.mark.parametrize(
    ("words", "name", "said", "images", "grid"),
    [
        (["--random"], "random-0.png", "20 of its 20 images, drawn with seed 0", 20, (5, 4)),
        (["--random", "--grid", "3x2", "--seed", 4], "random-4.png", "6 of its 20 images, drawn", 6, (3, 2)),
        (["--class", "crate", "--grid", "2x2"], "class-crate-0.png", "4 of the images with a map of", 4, (2, 2)),
        (["--random", "--class", "crate"], "class-crate-0.png", "all that have a map of 'crate': 10", 10, (5, 2)),
        (["--worst", "--grid", "4x1"], "worst.png", "the 4 of lowest IoU of the 19 audited images: ", 4, (4, 1)),
        (["--worst", "--class", "ball"], "worst-ball.png", "audited images of 'ball': ", 9, (5, 2)),
        (IDS, "round%2F01.jpg-and-2-more-", "3 images", 3, (3, 1)),
        ([*IDS, "--grid", "1x3"], "round%2F01.jpg-and-2-more-", "3 images", 3, (1, 3)),
        ([IDS[0], "--grid", "5x4"], "round%2F01.jpg-sheet.png", "1 image", 1, (1, 1)),
    ],
)
def test_a_sheet_is_written_and_called_by_what_it_shows(
    audited_copy: Path, words: list[object], name: str, said: str, images: int, grid: tuple[int, int]
) -> None:
    document = json.loads((audited_copy / "run.json").read_text())
    document["class_names"][417], document["class_names"][549] = "ball", "crate"
    (audited_copy / "run.json").write_text(json.dumps(document))
    path, err, number = shown(audited_copy, *words)
    assert (number, said in err) == (images, True), err
    assert path.startswith(f"{audited_copy}/show/{name}")
    assert cells(path) == grid
    again, _, _ = shown(audited_copy, *words, "--to", audited_copy.parent / "again.png")
    assert Path(again).read_bytes() == Path(path).read_bytes()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "show expects image ids, or --random, --class CLASS or --worst"),
        (["--grid", "2x2"], "show expects image ids, or --random"),
        ([*IDS, "--random"], "expects image ids or --random, which chooses images itself"),
        ([IDS[0], "--worst"], "expects image ids or --worst"),
        ([IDS[0], "--class", "549"], "expects image ids or --class"),
        (["--random", "--worst"], "--random and --worst choose other images"),
        (["--random", "--grid", "100x100"], "20x20 at most, as in 5x4, got '100x100'"),
        (["--random", "--grid", "21x1"], "20x20 at most"),
        (["--random", "--grid", "5"], "--grid expects columns and rows"),
        (["--random", "--grid", "0x4"], "--grid expects columns and rows"),
        ([*IDS, "--grid", "2x1"], "--grid 2x1 has room for 2 images, got 3"),
        (["a.jpg"] * 401, "a sheet has room for 400 images, got 401"),
        ([*IDS, "a.jpg"], "'a.jpg' is no image of"),
        ([IDS[0], "--seed", 3], "--seed draws other images"),
        (["--worst", "--seed", 3], "--seed draws other images"),
        (["--random", "--seed", -1], "--seed expects a number from 0"),
        (["--class", "zebra crossing"], "--class 'zebra crossing' is no class of the run"),
        (["--class", "7"], "no image of"),
        (["--random", "--to", ""], "--to expects a file to write, got an empty text"),
    ],
)
def test_what_contradicts_itself_or_is_not_there_is_refused_in_a_sentence(
    audited: Path, words: list[object], reason: str
) -> None:
    refused = Command("show", audited, *words)
    assert refused.code == 2, refused.out
    assert reason in refused.result["error"]
    assert "Traceback" not in refused.err


def test_the_worst_need_an_audit_and_the_command_for_it_is_named(audited_copy: Path) -> None:
    (audited_copy / "audit" / "metrics.json").unlink()
    refused = Command("show", audited_copy, "--worst")
    assert refused.code == 2
    assert f"python -m jobs audit {audited_copy} --truth" in refused.result["error"]


def test_a_sheet_of_hostile_names_and_broken_pictures_is_drawn(hostile: ExportedRun, tmp_path: Path) -> None:
    to = tmp_path / "sheet.png"
    ids = [image_id for image_id in hostile.images if not image_id.startswith("-")]
    for words in (ids, ["--random", "--grid", "6x5"], ["--class", "räd 🦊 fox"], ["--class", "crane (0)"]):
        _, _, number = shown(hostile.root, *words, "--to", to)
        assert number > 0
        assert cells(to)[0] * cells(to)[1] >= number


def test_pictures_that_are_gone_cost_a_sheet_nothing_and_a_single_one_its_picture(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    assert Command("label", "--images", pictures, "--out", out, "--executor", "inline", *flags).code == 0
    (pictures / "discs" / "01.png").unlink()
    assert shown(out, "discs/01.png", "discs/03.png", "--to", tmp_path / "a.png")[2] == 2
    assert shown(out, "--random", "--to", tmp_path / "b.png")[2] == 12
    alone = Command("show", out, "discs/01.png")
    assert (alone.code, "cannot draw 'discs/01.png', it is missing" in alone.result["error"]) == (5, True)
    before_HWC = cv2.imread(str(pictures / "discs" / "03.png"))
    cv2.imwrite(str(pictures / "discs" / "03.png"), before_HWC[:-10])
    other = Command("show", out, "discs/03.png")
    assert (other.code, "'discs/03.png', it is another picture by now" in other.result["error"]) == (5, True)


def test_more_panels_than_memory_should_hold_are_refused_and_one_map_is_drawn_small(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "1.png"), np.full((1000, 1000, 3), 200, np.uint8))
    flags = ["--model", "tests.support.networks:many_classes", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    words = ["--images", tmp_path / "pictures", "--out", tmp_path / "run", "--classes", "topk:300"]
    assert Command("label", *words, *flags, "--executor", "inline").code == 0
    refused = Command("show", tmp_path / "run", "1.png")
    said = "'1.png' has 300 maps, of 1000x1000 pixels each side by side, at most 268435456 are drawn; --grid 1x1"
    assert (refused.code, said in refused.err) == (2, True)
    assert shown(tmp_path / "run", "1.png", "--grid", "1x1")[2] == 1


@pytest.mark.parametrize(
    ("table", "column", "problem"),
    [
        ("boxes", "class_id", "it names classes that the run has not"),
        ("boxes", "row", "its boxes name rows that the shard has not"),
        ("heatmaps", "class_id", "a map is of a class that the run has not"),
        ("heatmaps", "row", "its maps name rows that the shard has not"),
        ("images", "row", "column row of its images is not the plan's"),
    ],
)
def test_of_a_damaged_shard_nothing_is_drawn(audited_copy: Path, table: str, column: str, problem: str) -> None:
    for path in (audited_copy / table).iterdir():
        rows = pq.read_table(path)
        at = rows.schema.names.index(column)
        values = pa.array([9999, *rows[column].to_pylist()[1:]], rows.schema.types[at])
        pq.write_table(rows.set_column(at, rows.schema.field(at), values), path)
    for words in ([IDS[0]], IDS, ["--random"]):
        refused = Command("show", audited_copy, *words)
        assert (refused.code, f"is damaged: {problem}" in refused.result["error"]) == (5, True), refused.err
    assert not (audited_copy / "show").exists()
