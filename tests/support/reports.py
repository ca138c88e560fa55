"""Small reports, made by hand: pictures of one colour, maps of a few cells."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from cam_ops.arrays import F32
from cluster.compare.driver import Comparison
from cluster.compare.tables import TableChanges
from cluster.report.records import (
    Against,
    Card,
    ClassRow,
    Command,
    Corners,
    Gallery,
    Head,
    Reason,
    Report,
    Setting,
    ShownBox,
    ShownMap,
    Truth,
)

SIDE = 8  # cells of a map and of the network's input, so that a map is as it is stored
SIZE = (80, 80)  # pixels: ten a cell
SETTING = Setting(
    input=(SIDE, SIDE),
    recipe="default",
    normalise="max",
    components="all",
    threshold=0.2,
    least_areas={"largest": 0.0, "all": 0.0, "peaks": 0.01},
    is_calibrated=False,
    is_per_class=False,
)
REBOX = "python -m jobs rebox run --threshold {threshold} --normalise {normalise} --components {components} --out new"


def blobs(*values: tuple[int, int, int, int, float]) -> F32:
    """Return a map, (8, 8), that is 0 but in rectangles of cells: x0, y0, x1, y1, value."""
    raw_hw = np.zeros((SIDE, SIDE), np.float32)
    for x0, y0, x1, y1, value in values:
        raw_hw[y0:y1, x0:x1] = value
    return raw_hw


def picture(colour: tuple[int, int, int] = (90, 120, 90)) -> bytes:
    """Return a WebP of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(file, "WEBP")
    return file.getvalue()


def shown_map(raw_hw: F32, *boxes: Corners, name: str = "fox", score: float = 0.9, threshold: float = 0.2) -> ShownMap:
    """Return a map with the boxes that the run's table has of it."""
    return ShownMap(
        class_id=0,
        class_name=name,
        score=score,
        threshold=threshold,
        rectangle=(0.0, 0.0, *map(float, SIZE)),
        raw_hw=raw_hw,
        boxes=tuple(ShownBox(corners=box, peak=1.0, energy=0.5, probability=None) for box in boxes),
    )


def card(image_id: str, *maps: ShownMap, truth: Sequence[Corners] | None = None, **fields: Any) -> Card:
    """Return a card; `truth` are true boxes."""
    made = Card(
        image_id=image_id,
        width=SIZE[0],
        height=SIZE[1],
        labels=("fox",),
        top=(("fox", 0.9),),
        picture=picture(),
        missing="",
        maps=maps,
        truth=None if truth is None else Truth(class_id=0, boxes=tuple(truth), iou=None, failure=None),
    )
    return replace(made, **fields)


def report(cards: Sequence[Card], galleries: Sequence[Gallery] | None = None, **fields: Any) -> Report:
    """Return a report of cards; by default one gallery has them all."""
    everything = Gallery(
        key="random", title="At random", says="Drawn by chance.", total=3456, cards=tuple(range(len(cards)))
    )
    made = Report(
        made="2026-11-29 12:00 UTC",
        version="0.1.0",
        head=Head(
            root="run",
            command_line="python -m jobs label --out run",
            sources=("photos",),
            facts=(("network", "resnet50"),),
            images=4000,
            done=4000,
            ok=3990,
            maps=3990,
            boxes=4100,
            without_box=20,
            reasons=(Reason(status="missing", error="no such file", images=10, example="gone.jpg"),),
            other_reasons=0,
            rate=40.0,
            labels=None,
        ),
        setting=SETTING,
        commands=(Command(name="rebox", does="makes new boxes", line=REBOX),),
        galleries=(everything,) if galleries is None else tuple(galleries),
        cards=tuple(cards),
        notes=(),
        left_out=0,
        histograms=(),
        density=np.zeros((4, 4), np.int64),
        classes=(),
        classes_total=0,
        audit=None,
        against=None,
        history=None,
    )
    return replace(made, **fields)


def class_row(name: str, **fields: Any) -> ClassRow:
    """Return what a run says of a class."""
    made = ClassRow(
        class_id=0,
        name=name,
        labelled=0,
        agreed=0,
        predicted=0,
        maps=1,
        boxes=1,
        empty=0,
        mean_score=None,
        mean_area=None,
        mean_map=None,
        density=np.zeros((4, 4), np.int64),
        place=None,
        gt_known_loc=None,
        ap=None,
    )
    return replace(made, **fields)


def against(*cards: Card, root: str = "run-b") -> Against:
    """Return another run, which has these cards."""
    tables = TableChanges(
        images_a=1,
        images_b=1,
        images=1,
        statuses=[],
        labels_changed=0,
        sizes_changed=0,
        class_lists_differ=False,
        top_classes=1,
        top_classes_changed=0,
        top_changes=[],
        boxes_a=1,
        boxes_b=1,
        box_pairs=1,
        only_a=0,
        only_b=0,
        mean_iou=0.5,
        below_half=0,
        images_moved=0,
        most_changed=[],
    )
    comparison = Comparison(
        a="run", b=root, settings={}, incomplete={}, tables=tables, audit=None, not_audited=["A", "B"]
    )
    return Against(root=root, comparison=comparison, setting=SETTING, cards=cards)
