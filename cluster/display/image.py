"""Draw one image of a run: its heat maps and boxes over the picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cam_ops.arrays import F32, U8
from cam_ops.boxes.normalise import enlarge_and_normalise
from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.pictures.overlays import COLOURS, blog_panels, draw_box, overlay
from cam_ops.tables import CORNERS
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.plan import find_image
from cluster.runs.reading import damaged, read_tables
from cluster.runs.record import Run, maps_of
from cluster.sources.reading import load_picture
from cluster.storage.options import StorageOptions

MAX_CORNER = 2.0**24  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What a run says of one image."""

    image: dict[str, Any]  # its row of the images table
    heatmaps: list[dict[str, Any]]
    boxes: list[dict[str, Any]]


def read_labelled(run_dir: RunDir, run: Run, image_id: str) -> Labelled:
    """Return the rows of one image; raises UsageError if it was not planned, StorageError if it is not done yet."""
    place = find_image(run_dir, run.plan, image_id)
    if place is None:
        raise UsageError(
            f"{image_id!r} is no image of {run_dir.root}; ids are paths below {' '.join(run.request.addresses)}"
        )
    shard, row = place
    if not run_dir.exists(shard_name("images", shard)):
        raise StorageError(
            f"{image_id!r} is in shard {shard}, which is not done; run the same `{run.command}` command again"
        )
    maps_dir, maps_run = maps_of(run_dir, run)
    try:
        found = read_tables(run_dir, run, maps_dir, maps_run, shard)
    except StorageError as error:
        raise damaged(run_dir, run, shard, error) from None
    tables = {name: table.filter(np.equal(table["row"].to_numpy(), row)).to_pylist() for name, table in found.items()}
    corners = [row[name] for row in tables["heatmaps"] + tables["boxes"] for name in CORNERS]
    if len(tables["images"]) != 1 or not all(abs(corner) <= MAX_CORNER for corner in corners):
        raise StorageError(f"what {run_dir.root} says of {image_id!r} cannot be drawn; see `verify`")
    return Labelled(image=tables["images"][0], heatmaps=tables["heatmaps"], boxes=tables["boxes"])


def read_picture(labelled: Labelled, options: StorageOptions) -> U8:
    """Decode the picture behind a row, RGB (H, W, 3); raises StorageError where it cannot be."""
    image = labelled.image
    try:
        return load_picture(image, options)
    except BadImage as bad:
        raise StorageError(f"cannot draw {image['image_id']!r}, it is {bad.status}: {bad}") from None


def draw(run: Run, labelled: Labelled, options: StorageOptions) -> U8:
    """Return one panel per explained class, side by side, RGB; the picture alone if it has no map.

    A panel is the picture under its normalised heat map with the boxes of that class, each with class, score and rank;
    in runs of the `blog` recipe it is the seed post's three pictures.
    """
    picture_HWC = read_picture(labelled, options)
    panels = list(_panels(run, labelled, picture_HWC))
    return np.concatenate(panels, axis=1) if panels else picture_HWC


def _panels(run: Run, labelled: Labelled, picture_HWC: U8) -> Iterator[U8]:
    for heatmap in labelled.heatmaps:
        raw_hw: F32 = np.array(heatmap["heatmap"], np.float32).reshape(run.grid)
        if run.request.maps.recipe == "blog":
            yield blog_panels(raw_hw, picture_HWC, run.request.preprocessing.image_size)
            continue
        _, map_YX = enlarge_and_normalise(raw_hw, run.request.preprocessing.image_size, run.request.maps)
        panel_HWC = overlay(picture_HWC, map_YX, _corners(heatmap))
        first = np.float32(run.request.thresholds(np.array([heatmap["class_id"]], np.int32))[0])
        boxes = [box for box in labelled.boxes if box["class_id"] == heatmap["class_id"] and box["threshold"] == first]
        for box in sorted(boxes, key=lambda box: -box["rank"]):
            caption = f"{box['class_name']} {box['score']:.2f}" + (f" #{box['rank']}" if len(boxes) > 1 else "")
            colour = COLOURS[box["rank"] % len(COLOURS)]
            panel_HWC = draw_box(panel_HWC, _corners(box), caption, colour)
        yield panel_HWC


def _corners(row: dict[str, Any]) -> F32:
    return np.array([row[name] for name in CORNERS], np.float32)
