"""The chosen images: their rows, small pictures, maps, true boxes.

A shard's tables are in memory at a time, and so many pictures as threads decode.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from cam_ops.arrays import F32, U8
from cam_ops.errors import StorageError
from cam_ops.foreign import visible
from cam_ops.tables import LABELS
from cluster.audit.shard import ShardTables
from cluster.display.choosing import Place
from cluster.display.image import corners_of_row, picture_or_why
from cluster.process.console import shortened
from cluster.report.records import Card, Corners, ShownBox, ShownMap
from cluster.runs.directory import RunDir
from cluster.runs.reading import first_boxes, raw_maps, read_whole
from cluster.runs.record import Run, maps_of
from cluster.storage.options import StorageOptions

MAX_MAPS = 5  # of an image
SIDES = (448, 384, 320, 256, 192, 128)  # pixels of a picture's longer side, the first with which all fit
QUALITY = 72  # of WebP
NUM_THREADS = 4
BOX_BYTES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the run's tables say of one image."""

    image: dict[str, Any]
    maps: tuple[ShownMap, ...]


def read_rows(
    run_dir: RunDir, run: Run, places: Iterable[Place], first: Mapping[Place, int | None]
) -> dict[Place, Rows]:
    """Read the rows of images, of each the map of the class `first` first; raises StorageError for a damaged shard."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for shard, row in places:
        rows_of[shard].append(row)
    maps_dir, maps_run = maps_of(run_dir, run)
    found: dict[Place, Rows] = {}
    for shard, rows in sorted(rows_of.items()):
        tables = ShardTables(**read_whole(run_dir, run, maps_dir, maps_run, shard))
        for row in rows:
            heatmaps = tables.heatmaps.filter(np.equal(tables.heatmaps["row"].to_numpy(), row))
            is_other_P = heatmaps["class_id"].to_numpy() != first.get((shard, row))
            heatmaps = heatmaps.take(np.argsort(is_other_P, kind="stable")[:MAX_MAPS])
            boxes = first_boxes(run.request, tables.boxes.filter(np.equal(tables.boxes["row"].to_numpy(), row)))
            shown = [
                _shown_map(
                    run, heatmap, raw_hw, [box for box in boxes.to_pylist() if box["class_id"] == heatmap["class_id"]]
                )
                for heatmap, raw_hw in zip(
                    heatmaps.drop_columns("heatmap").to_pylist(), raw_maps(heatmaps), strict=True
                )
            ]
            found[shard, row] = Rows(image=tables.images.slice(row, 1).to_pylist()[0], maps=tuple(shown))
    return found


def _shown_map(run: Run, heatmap: dict[str, Any], raw_hw: np.ndarray, boxes: list[dict[str, Any]]) -> ShownMap:
    class_id = heatmap["class_id"]
    return ShownMap(
        class_id=class_id,
        class_name=run.class_names[class_id],
        score=heatmap["score"],
        threshold=float(run.request.thresholds(np.array([class_id], np.int32))[0]),
        rectangle=corners_in(corners_of_row(heatmap)),
        raw_hw=np.array(raw_hw, np.float32),
        boxes=tuple(
            ShownBox(
                corners=corners_in(corners_of_row(box)),
                peak=box["peak"],
                energy=box["energy"],
                probability=box.get("probability"),
            )
            for box in sorted(boxes, key=lambda box: box["rank"])
        ),
    )


def corners_in(box_4: F32) -> Corners:
    """Return corners as numbers that JSON has."""
    x0, y0, x1, y1 = map(float, box_4)
    return x0, y0, x1, y1


def make_cards(run: Run, rows: list[Rows], options: StorageOptions, max_bytes: int) -> list[Card]:
    """Return a card for each image, in order, with pictures so small that all fit.

    Where even the smallest do not fit, those of the first that do. `max_bytes` are those on the page, about.
    """
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        cards = list(pool.map(lambda each: _card(run, each, options), rows))
    for side in SIDES:
        shrunk = cards if side == SIDES[0] else [_shrunk(card, side) for card in cards]
        sizes = np.cumsum([_size(card) for card in shrunk])
        if not len(sizes) or sizes[-1] <= max_bytes:
            return shrunk
    return shrunk[: int(np.searchsorted(sizes, max_bytes, side="right"))]


def _size(card: Card) -> int:
    """Return about how many bytes a card takes on the page."""
    names = [card.image_id, card.label or "", *(name for name, _ in card.top)]
    text = 2000 + 6 * sum(len(visible(name).encode()) for name in names)
    return len(card.picture or b"") * 4 // 3 + bytes_of_maps(card.maps) + text


def bytes_of_maps(maps: Iterable[ShownMap]) -> int:
    """Return about how many bytes maps and their boxes take on a page."""
    return sum(each.raw_hw.nbytes * 4 // 3 + BOX_BYTES * len(each.boxes) for each in maps)


def _card(run: Run, rows: Rows, options: StorageOptions) -> Card:
    picture, missing = _picture(rows.image, options)
    return replace(beside(run, rows), picture=picture, missing=missing)


def beside(run: Run, rows: Rows) -> Card:
    """Return the card of an image whose picture is on the page already."""
    image, names = rows.image, run.class_names
    labels = image.get(LABELS.name) or ([] if image["label"] is None else [image["label"]])
    best = zip(image["top_classes"], image["top_scores"], strict=True)
    return Card(
        image_id=image["image_id"],
        width=image["width"],
        height=image["height"],
        labels=tuple(names[label] for label in labels),
        top=tuple((names[class_id], score) for class_id, score in best),
        picture=None,
        missing="",
        maps=rows.maps,
        truth=None,
    )


def _picture(image: dict[str, Any], options: StorageOptions) -> tuple[bytes | None, str]:
    """Return a picture as WebP, at the largest of SIDES; None, and why, where it is not what the run saw."""
    try:
        picture_HWC, why = picture_or_why(image, options)
    except StorageError as error:
        picture_HWC, why = None, str(error)
    return (None, shortened(why, 200)) if picture_HWC is None else (_encoded(picture_HWC, SIDES[0]), "")


def _encoded(picture_HWC: U8, side: int) -> bytes:
    height, width = picture_HWC.shape[:2]
    if (scale := side / max(height, width)) < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture_HWC = np.asarray(cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)
    encoded: bytes = cv2.imencode(".webp", picture_HWC[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()
    return encoded


def _shrunk(card: Card, side: int) -> Card:
    if card.picture is None:
        return card
    decoded_HWC = np.asarray(cv2.imdecode(np.frombuffer(card.picture, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return replace(card, picture=_encoded(decoded_HWC[..., ::-1], side))
