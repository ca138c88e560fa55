"""A contact sheet: images of a run with heat and boxes, in rows, what they are beneath each.

Pictures are uint8 RGB (H, W, 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cam_ops.arrays import U8
from cam_ops.pictures.overlays import draw_box, overlay
from cam_ops.pictures.text import put_text, shortened_to, text_size
from cluster.audit.files import TrueBox
from cluster.display.audited import Audited
from cluster.display.image import (
    Labelled,
    boxes_of,
    colour_of,
    corners_of_row,
    draw_truth,
    is_blog,
    normalised,
    picture_or_why,
    post_panels,
)
from cluster.process.console import shortened
from cluster.runs.record import Run
from cluster.storage.options import StorageOptions

MAX_SIDE = 20  # cells: a sheet of 20x20 has 40 million pixels
PICTURE_WIDTH, PICTURE_HEIGHT, MARGIN, LETTERS = 320, 240, 12, 14  # pixels
PAPER, INK, FAINT, EMPTY = (255, 255, 255), (24, 24, 24), (96, 96, 96), (240, 240, 240)
LINE_HEIGHT = 19
SHOWN_CHARACTERS = 200
CELL_WIDTH, CELL_HEIGHT = PICTURE_WIDTH + MARGIN, PICTURE_HEIGHT + 2 * LINE_HEIGHT + MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One image of a sheet, and which of its maps is shown."""

    labelled: Labelled
    heatmap: dict[str, Any] | None  # None where it has none
    iou: float | None  # by the audit, of the best box of that map
    failure: str | None
    truth: list[TrueBox]


def cell_of(labelled: Labelled, audited: Audited, class_id: int | None) -> Cell:
    """Choose the map of a class, else of the true one, else of the label, else the first; IoU is of the true class."""
    image = labelled.image
    place = image["shard"], image["row"]
    row = audited.rows.get(place, dict.fromkeys(("true_class", "iou", "failure")))
    of_class = {heatmap["class_id"]: heatmap for heatmap in reversed(labelled.heatmaps)}
    first = next(iter(labelled.heatmaps), None)
    wanted = (class_id, row["true_class"], image["label"])
    heatmap = next((of_class[known] for known in wanted if known in of_class), first)
    is_judged = heatmap is not None and heatmap["class_id"] == row["true_class"]
    return Cell(
        labelled=labelled,
        heatmap=heatmap,
        iou=row["iou"] if is_judged else None,
        failure=row["failure"] if is_judged else None,
        truth=audited.truth.get(place, []),
    )


def columns_for(number: int) -> int:
    """Return how many columns show so many pictures well."""
    return number if number <= 3 else int(np.ceil(np.sqrt(number)))


def draw_sheet(run: Run, cells: Sequence[Cell], columns: int, heading: str, options: StorageOptions) -> U8:
    """Draw cells in rows below a heading. A picture that cannot be read is a grey field with the reason."""
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    width = columns * CELL_WIDTH + MARGIN
    lines = _wrapped(heading, width - 2 * MARGIN)
    top = 2 * MARGIN + len(lines) * LINE_HEIGHT
    sheet_HWC = np.full((top + rows * CELL_HEIGHT, width, 3), PAPER, np.uint8)
    for i, line in enumerate(lines):
        put_text(sheet_HWC, MARGIN, MARGIN + i * LINE_HEIGHT, line, LETTERS, INK)
    for i, cell in enumerate(cells):
        y, x = top + i // columns * CELL_HEIGHT, MARGIN + i % columns * CELL_WIDTH
        sheet_HWC[y : y + PICTURE_HEIGHT, x : x + PICTURE_WIDTH] = _field(run, cell, options)
        for number, (line, colour) in enumerate(captions_of(run, cell)):
            put_text(sheet_HWC, x, y + PICTURE_HEIGHT + 1 + number * LINE_HEIGHT, line, LETTERS, colour)
    return sheet_HWC


def _field(run: Run, cell: Cell, options: StorageOptions) -> U8:
    """Return the field above the captions of a cell: the picture in its middle, or why there is none."""
    field_HWC = np.full((PICTURE_HEIGHT, PICTURE_WIDTH, 3), EMPTY, np.uint8)
    picture_HWC, why_not = picture_or_why(cell.labelled.image, options)
    if picture_HWC is None:
        for i, line in enumerate(_wrapped(shortened(why_not, SHOWN_CHARACTERS), PICTURE_WIDTH - 2 * MARGIN)):
            put_text(field_HWC, MARGIN, MARGIN + i * LINE_HEIGHT, line, LETTERS, FAINT)
        return field_HWC
    drawn_HWC = _drawn(run, cell, picture_HWC)
    high, wide = drawn_HWC.shape[:2]
    y, x = (PICTURE_HEIGHT - high) // 2, (PICTURE_WIDTH - wide) // 2
    field_HWC[y : y + high, x : x + wide] = drawn_HWC
    return field_HWC


def _drawn(run: Run, cell: Cell, picture_HWC: U8) -> U8:
    """Return a picture of the size of its cell, with heat and boxes."""
    if cell.heatmap and is_blog(run):
        return _fitted(post_panels(run, cell.heatmap, picture_HWC))[0]
    drawn_HWC, scale = _fitted(picture_HWC)
    if cell.heatmap:
        drawn_HWC = overlay(drawn_HWC, normalised(run, cell.heatmap), corners_of_row(cell.heatmap) * np.float32(scale))
    drawn_HWC = draw_truth(drawn_HWC, cell.truth, scale, 2)
    for box in reversed(boxes_of(run, cell.labelled, cell.heatmap["class_id"]) if cell.heatmap else []):
        drawn_HWC = draw_box(drawn_HWC, corners_of_row(box) * np.float32(scale), "", colour_of(box), 3)
    return drawn_HWC


def _fitted(picture_HWC: U8) -> tuple[U8, float]:
    """Return a picture as large as a cell takes it, and how much that enlarges it."""
    height, width = picture_HWC.shape[:2]
    scale = min(PICTURE_WIDTH / width, PICTURE_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture_HWC, size, interpolation=how), np.uint8), scale


def captions_of(run: Run, cell: Cell) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the lines of a cell: its id, then class, score and what the audit says."""
    image = cell.labelled.image
    lines = [(shortened_to(image["image_id"], LETTERS, PICTURE_WIDTH, keeps_end=True), INK)]
    if cell.heatmap is None:
        return [*lines, ("no map" if image["status"] == "ok" else "", FAINT)]
    class_id = cell.heatmap["class_id"]
    facts = f" {cell.heatmap['score']:.2f}"
    if not boxes_of(run, cell.labelled, class_id):
        facts += " · no box"
    if cell.iou is not None:
        facts += f" · IoU {cell.iou:.2f}"
    if cell.failure is not None:
        facts += f" · {cell.failure.replace('_', ' ')}"
    room = PICTURE_WIDTH - text_size(facts, LETTERS)[0]
    return [*lines, (shortened_to(run.class_names[class_id], LETTERS, room) + facts, FAINT)]


def _wrapped(text: str, width_px: int) -> list[str]:
    """Break a text into lines between its words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or text_size(longer, LETTERS)[0] <= width_px:
            lines[-1] = shortened_to(longer, LETTERS, width_px)
        else:
            lines.append(shortened_to(word, LETTERS, width_px))
    return lines
