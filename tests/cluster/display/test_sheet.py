"""A sheet's cells, pixel by pixel and word by word, against the run's tables, its audit and its pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image

from cam_ops.arrays import U8
from cam_ops.pictures.overlays import COLOURS, WHITE
from cam_ops.pictures.text import text_size
from cluster.display.audited import Audited, read_audited
from cluster.display.choosing import named
from cluster.display.image import read_places
from cluster.display.sheet import (
    CELL_HEIGHT,
    CELL_WIDTH,
    LETTERS,
    LINE_HEIGHT,
    MARGIN,
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    Cell,
    captions_of,
    cell_of,
    columns_for,
    draw_sheet,
)
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from cluster.storage.options import NO_OPTIONS
from tests.support.command import Command, table_rows
from tests.support.first_run import PICTURES

TRUE_BOX = (16, 16, 53, 41)  # of round/01.jpg, by KEPT's truth.csv
TOP = 2 * MARGIN + LINE_HEIGHT


def cells_of(root: Path, *ids: str, class_id: int | None = None) -> list[Cell]:
    run_dir = RunDir(str(root))
    run = existing_run(run_dir)
    places = named(run_dir, run, ids)
    audited = read_audited(run_dir, run, places)
    return [cell_of(labelled, audited, class_id) for labelled in read_places(run_dir, run, places)]


def sheet_of(root: Path, cells: list[Cell], columns: int) -> U8:
    return draw_sheet(existing_run(RunDir(str(root))), cells, columns, "heading", NO_OPTIONS)


def field_of(sheet_HWC: U8, column: int, row: int) -> U8:
    y, x = TOP + row * CELL_HEIGHT, MARGIN + column * CELL_WIDTH
    return sheet_HWC[y : y + PICTURE_HEIGHT, x : x + PICTURE_WIDTH]


def best_box(root: Path, image_id: str, class_id: int) -> dict[str, float]:
    """Return the box of rank 0 at the run's first threshold, 0.2."""
    return next(
        box
        for box in table_rows(root, "boxes")
        if (box["image_id"], box["class_id"], box["rank"]) == (image_id, class_id, 0)
        and box["threshold"] == np.float32(0.2)
    )


def test_the_true_box_is_white_and_ours_coloured_where_they_lie_in_the_picture(audited: Path) -> None:
    (cell,) = cells_of(audited, "round/01.jpg")
    field_HWC = field_of(sheet_of(audited, [cell], 5), 0, 0)
    with Image.open(PICTURES / "round" / "01.jpg") as picture:
        width, height = picture.size
    assert (width, height) == (64, 70)
    scale = PICTURE_HEIGHT / height
    left = (PICTURE_WIDTH - round(width * scale)) // 2
    ours = best_box(audited, "round/01.jpg", 417)
    for box, colour in ((TRUE_BOX, WHITE), ([ours[name] for name in ("x0", "y0", "x1", "y1")], COLOURS[0])):
        x0, y0, x1, y1 = (round(corner * scale) for corner in box)
        inside_HWC = field_HWC[:, left:]
        edges = [inside_HWC[y0, x0:x1], inside_HWC[y1 - 1, x0:x1], inside_HWC[y0:y1, x0], inside_HWC[y0:y1, x1 - 1]]
        shares = [(edge == colour).all(1).mean() for edge in edges]
        assert min(shares) > 0.6, (box, shares)  # where no other box crosses it


def test_a_cell_has_the_map_of_the_true_class_and_says_what_the_audit_says_of_it(audited: Path) -> None:
    names = json.loads((audited / "run.json").read_text())["class_names"]
    scores = {
        (row["image_id"], row["class_id"]): row["score"]
        for row in ds.dataset(audited / "heatmaps").to_table(columns=["image_id", "class_id", "score"]).to_pylist()
    }
    rows = {row["image_id"]: row for row in pq.read_table(audited / "audit" / "per_image.parquet").to_pylist()}
    run = existing_run(RunDir(str(audited)))
    failures = set()
    ids = [image_id for image_id, row in rows.items() if row["iou"] is not None]
    for image_id, cell in zip(ids, cells_of(audited, *ids), strict=True):
        row, class_id = rows[image_id], 417 if image_id.startswith("round") else 549
        (first, _), (second, _) = captions_of(run, cell)
        failure = f" · {row['failure'].replace('_', ' ')}" if row["failure"] else ""
        score = scores[image_id, class_id]
        assert (first, second) == (image_id, f"{names[class_id]} {score:.2f} · IoU {row['iou']:.2f}{failure}")
        failures.add(row["failure"])
    assert failures == {"too_large", "wrong_class"}


def test_of_another_class_the_audit_says_nothing_and_without_one_the_label_s_map_is_shown(audited: Path) -> None:
    run_dir = RunDir(str(audited))
    run = existing_run(run_dir)
    (other,) = cells_of(audited, "round/01.jpg", class_id=989)
    assert (other.heatmap["class_id"], other.iou, other.failure) == (989, None, None)
    assert "IoU" not in captions_of(run, other)[1][0]
    (labelled,) = read_places(run_dir, run, [(0, 0)])
    assert labelled.heatmaps[0]["class_id"] == 989  # the predicted one
    plain = cell_of(labelled, Audited(), None)
    assert (plain.heatmap["class_id"], plain.iou, plain.truth) == (417, None, [])


def test_a_picture_that_is_gone_is_said_in_its_cell_and_others_are_drawn(audited_copy: Path, tmp_path: Path) -> None:
    ids = ("round/01.jpg", "round/07.jpg", "square/02.jpg", "square/18.jpg")  # the second one was truncated
    cells = cells_of(audited_copy, *ids)
    whole_HWC = sheet_of(audited_copy, cells, 2)
    away = {**cells[2].labelled.image, "uri": str(tmp_path / "gone.jpg")}
    small = {**cells[3].labelled.image, "uri": cells[0].labelled.image["uri"]}
    for at, image in ((2, away), (3, small)):
        cells[at].labelled.image.update(image)
    broken_HWC = sheet_of(audited_copy, cells, 2)
    assert not np.array_equal(whole_HWC, broken_HWC)
    for column, row in ((0, 0), (1, 0)):
        np.testing.assert_array_equal(field_of(whole_HWC, column, row), field_of(broken_HWC, column, row))
    for column, row in ((1, 0), (0, 1), (1, 1)):
        field_HWC = field_of(broken_HWC, column, row).astype(int)
        assert np.ptp(field_HWC, axis=2).max() == 0  # grey, with grey letters
        assert 0.8 < (field_HWC[..., 0] == 240).mean() < 0.995


def test_cells_stand_in_rows_and_a_sheet_is_no_larger_than_they_need(audited: Path) -> None:
    cells = cells_of(audited, *["round/01.jpg", "square/02.jpg"] * 3)
    for columns, rows in ((1, 6), (2, 3), (5, 2), (20, 1)):
        sheet_HWC = sheet_of(audited, cells, columns)
        used = min(columns, 6)
        assert sheet_HWC.shape == (TOP + rows * CELL_HEIGHT, used * CELL_WIDTH + MARGIN, 3)
        np.testing.assert_array_equal(
            field_of(sheet_HWC, 2 % used, 2 // used), field_of(sheet_of(audited, cells[:1], 1), 0, 0)
        )
    assert [columns_for(number) for number in (1, 2, 3, 4, 7, 20, 21, 400)] == [1, 2, 3, 2, 3, 5, 5, 20]


def test_captions_fit_their_cells_whatever_they_hold(audited_copy: Path) -> None:
    document = json.loads((audited_copy / "run.json").read_text())
    document["class_names"][417] = "räd 🦊\n fox " * 30
    (audited_copy / "run.json").write_text(json.dumps(document))
    (cell,) = cells_of(audited_copy, "round/01.jpg")
    cell.labelled.image["image_id"] = "a\nb/" * 100 + "tabby.jpg"
    run = existing_run(RunDir(str(audited_copy)))
    (first, _), (second, _) = captions_of(run, cell)
    assert (first[0], first[-9:]) == ("…", "tabby.jpg")
    assert second.startswith("räd")
    assert "… 0." in second
    for line in (first, second):
        assert text_size(line, LETTERS)[0] <= PICTURE_WIDTH
        assert line.isprintable()


def test_an_audit_that_cannot_be_read_costs_no_picture(audited_copy: Path) -> None:
    shown = [Command("show", audited_copy, "round/01.jpg", "--to", audited_copy / "a.png")]
    (audited_copy / "audit" / "truth.parquet").write_bytes(b"PAR1")
    shown.append(Command("show", audited_copy, "round/01.jpg", "--to", audited_copy / "b.png"))
    assert [done.code for done in shown] == [0, 0]
    assert "without the true boxes: cannot read" in shown[1].err
    with_truth_HWC, without_HWC = (cv2.imread(str(audited_copy / name)) for name in ("a.png", "b.png"))
    x0, y0, x1, _ = TRUE_BOX
    assert (with_truth_HWC[y0, x0:x1] == 255).all(1).mean() > 0.6
    assert (without_HWC[y0, x0:x1] == 255).all(1).mean() < 0.1


def test_an_audit_of_an_older_kind_without_true_boxes_says_iou_alone(audited_copy: Path) -> None:
    (audited_copy / "audit" / "truth.parquet").unlink()
    (cell,) = cells_of(audited_copy, "round/01.jpg")
    assert (cell.truth, cell.iou is not None) == ([], True)
