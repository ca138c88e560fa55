"""Draw one image of a run: its heat maps and boxes over the picture."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, F64, U8
from cam_ops.boxes.normalise import enlarge_and_normalise
from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.pictures.decode import decode
from cam_ops.pictures.overlays import COLOURS, WHITE, blog_panels, draw_box, overlay
from cam_ops.tables import CORNERS
from cluster.audit.files import TrueBox
from cluster.display.choosing import Place, named
from cluster.export.pictures import own_file
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.reading import read_whole
from cluster.runs.record import Run, again, maps_of
from cluster.sources.kinds import decoder_of
from cluster.sources.reading import read_image
from cluster.storage.options import StorageOptions

MAX_CORNER = 2.0**24  # pixels
MAX_PIXELS = 2**28  # of panels side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What a run says of one image."""

    image: dict[str, Any]  # its row of the images table
    heatmaps: list[dict[str, Any]]
    boxes: list[dict[str, Any]]


def read_labelled(run_dir: RunDir, run: Run, image_id: str) -> Labelled:
    """Return the rows of one image; raises UsageError if it was not planned, StorageError if it is not done yet."""
    return read_places(run_dir, run, named(run_dir, run, [image_id]))[0]


def read_places(run_dir: RunDir, run: Run, places: Sequence[Place]) -> list[Labelled]:
    """Return the rows of planned images, in their order; a shard at a time is read. Raises StorageError."""
    rows_of: dict[int, set[int]] = defaultdict(set)
    for shard, row in places:
        rows_of[shard].add(row)
    maps_dir, maps_run = maps_of(run_dir, run)
    found: dict[Place, Labelled] = {}
    for shard, rows in rows_of.items():
        if not run_dir.exists(shard_name("images", shard)):
            raise StorageError(f"shard {shard} of {run_dir.root} is not done; run {again(run_dir, run)}")
        tables = read_whole(run_dir, run, maps_dir, maps_run, shard)
        found |= {(shard, row): _labelled(run_dir, tables, shard, row) for row in rows}
    return [found[place] for place in places]


def _labelled(run_dir: RunDir, tables: dict[str, pa.Table], shard: int, row: int) -> Labelled:
    of_row = {name: table.filter(np.equal(table["row"].to_numpy(), row)).to_pylist() for name, table in tables.items()}
    corners = [found[name] for found in of_row["heatmaps"] + of_row["boxes"] for name in CORNERS]
    if not of_row["images"] or not all(abs(corner) <= MAX_CORNER for corner in corners):
        raise StorageError(f"what {run_dir.root} says of row {row} of shard {shard} cannot be drawn; see `verify`")
    return Labelled(image=of_row["images"][0], heatmaps=of_row["heatmaps"], boxes=of_row["boxes"])


def read_picture(labelled: Labelled, options: StorageOptions) -> U8:
    """Return the picture that was labelled, RGB (H, W, 3); raises StorageError where it is not to be had."""
    picture_HWC, why = picture_or_why(labelled.image, options)
    if picture_HWC is None:
        raise StorageError(f"cannot draw {labelled.image['image_id']!r}, it is {why}")
    return picture_HWC


def picture_or_why(image: dict[str, Any], options: StorageOptions) -> tuple[U8 | None, str]:
    """Return the picture that was labelled, RGB (H, W, 3), or why it is not to be had."""
    if image["status"] != "ok":
        return None, f"{image['status']}: {image['error']}"
    try:
        whole = own_file(image) and image["size"] >= 0  # what became of the whole file shows, too
        content = read_image(image["uri"], image["offset"], -1 if whole else image["size"], options)
        if whole and len(content) != image["size"]:
            return None, f"another picture by now: it had {image['size']} bytes when it was labelled"
        picture_HWC = (decoder_of(image) or decode)(content)
    except BadImage as bad:
        return None, f"{bad.status}: {bad}"
    if picture_HWC.shape[:2] != (image["height"], image["width"]):
        return None, f"another picture by now: it had {image['width']}x{image['height']} pixels when it was labelled"
    return picture_HWC, ""


def draw(run: Run, labelled: Labelled, options: StorageOptions, truth: Sequence[TrueBox] = ()) -> U8:
    """Return one panel per explained class, side by side, RGB; the picture alone if it has no map.

    A panel is the picture under its normalised heat map with true boxes in white and those of that class in colours,
    each with class, score and rank; in runs of the `blog` recipe it is the seed post's three pictures. Raises
    StorageError where the picture is not to be had, UsageError where panels would have more than MAX_PIXELS.
    """
    picture_HWC = read_picture(labelled, options)
    height, width = picture_HWC.shape[:2]
    if not is_blog(run) and (num_maps := len(labelled.heatmaps)) > 1 and num_maps * height * width > MAX_PIXELS:
        raise UsageError(
            f"{labelled.image['image_id']!r} has {num_maps} maps, of {width}x{height} pixels each side by side, at "
            f"most {MAX_PIXELS} are drawn; --grid 1x1 draws one map, small"
        )
    panels = list(_panels(run, labelled, picture_HWC, truth))
    return np.concatenate(panels, axis=1) if panels else draw_truth(picture_HWC, truth)


def _panels(run: Run, labelled: Labelled, picture_HWC: U8, truth: Sequence[TrueBox]) -> Iterator[U8]:
    for heatmap in labelled.heatmaps:
        if is_blog(run):
            yield post_panels(run, heatmap, picture_HWC)
            continue
        panel_HWC = draw_truth(overlay(picture_HWC, normalised(run, heatmap), corners_of_row(heatmap)), truth)
        boxes = boxes_of(run, labelled, heatmap["class_id"])
        for box in reversed(boxes):
            caption = f"{box['class_name']} {box['score']:.2f}" + (f" #{box['rank']}" if len(boxes) > 1 else "")
            panel_HWC = draw_box(panel_HWC, corners_of_row(box), caption, colour_of(box))
        yield panel_HWC


def is_blog(run: Run) -> bool:
    """Say whether the run is of the seed post's recipe, whose pictures are the post's, too."""
    return run.request.maps.recipe == "blog"


def post_panels(run: Run, heatmap: dict[str, Any], picture_HWC: U8) -> U8:
    """Return the post's three pictures of a map."""
    raw_hw: F32 = np.array(heatmap["heatmap"], np.float32).reshape(run.grid)
    return blog_panels(raw_hw, picture_HWC, run.request.preprocessing.image_size)


def normalised(run: Run, heatmap: dict[str, Any]) -> F64:
    """Return a map as boxes are made of it, on the network's input, in 0..1."""
    raw_hw: F32 = np.array(heatmap["heatmap"], np.float32).reshape(run.grid)
    _, map_YX = enlarge_and_normalise(raw_hw, run.request.preprocessing.image_size, run.request.maps)
    return map_YX


def boxes_of(run: Run, labelled: Labelled, class_id: int) -> list[dict[str, Any]]:
    """Return an image's boxes of a class at the first threshold, or its own, best first."""
    first = np.float32(run.request.thresholds(np.array([class_id], np.int32))[0])
    boxes = [box for box in labelled.boxes if box["class_id"] == class_id and box["threshold"] == first]
    return sorted(boxes, key=lambda box: box["rank"])


def draw_truth(image_HWC: U8, truth: Sequence[TrueBox], scale: float = 1, line_px: int | None = None) -> U8:
    """Draw true boxes in white over a picture that is enlarged so much."""
    for true in truth:
        image_HWC = draw_box(image_HWC, true.box_4 * np.float32(scale), "", WHITE, line_px)
    return image_HWC


def colour_of(box: dict[str, Any]) -> tuple[int, int, int]:
    """Return the colour of a box, by its rank."""
    rank: int = box["rank"]
    return COLOURS[rank % len(COLOURS)]


def corners_of_row(row: dict[str, Any]) -> F32:
    """Return the box of a row, or the part of the picture that its map covers."""
    return np.array([row[name] for name in CORNERS], np.float32)
