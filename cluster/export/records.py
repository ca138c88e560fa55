"""From a shard's tables to the pictures of an export, before anything is read of the pictures themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import I64
from cam_ops.tables import CORNERS
from cluster.export.counts import Counts
from cluster.export.filters import Filters, labels_of
from cluster.export.names import file_name
from cluster.export.pictures import own_file
from cluster.export.splits import Split
from cluster.formats.exported import Box, Map, Picture
from cluster.runs.directory import RunDir
from cluster.runs.reading import box_problems, corners_of, damaged, first_boxes, raw_maps, read_table, read_whole
from cluster.runs.record import Run, maps_of
from cluster.sources.source import Row

NO_BOX = "no box that the filters leave"
NO_MAP = "no map"
NO_SPLIT = "no split in its folders"
NOT_LIKE = "not in --like"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which images and boxes go into an export, and under which names."""

    filters: Filters
    split: Split | None
    limit: int | None
    keep_empty: bool
    has_files: bool  # images have files of their own
    reserved: frozenset[str]
    meeting: I64  # places in the plan of images whose names must have a mark, rising
    like: frozenset[str] | None = None  # if given: images that are not in it are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The tables of a shard; boxes are those of the first threshold, `heatmaps` is None where no maps are wanted."""

    first: int  # the place of its first image in the plan
    images: pa.Table
    boxes: pa.Table
    heatmaps: pa.Table | None


def read_shard(run_dir: RunDir, run: Run, shard: int, selection: Selection, *, maps: bool) -> Shard:
    """Read a shard as far as --limit goes. Raises StorageError where it is damaged."""
    if maps:
        tables = read_whole(run_dir, run, *maps_of(run_dir, run), shard)
    else:
        tables = {table: read_table(run_dir, run, table, shard) for table in ("images", "boxes")}
        if problems := box_problems(run, tables["images"], tables["boxes"]):
            raise damaged(run_dir, run, shard, problems[0])
    images, first_only = tables["images"], first_boxes(run.request, tables["boxes"])
    first = shard * run.plan.shard_size
    if selection.limit is not None and selection.limit < first + len(images):
        images = images.slice(0, max(0, selection.limit - first))
        first_only = first_only.filter(pc.less(first_only["row"], len(images)))
    return Shard(first=first, images=images, boxes=first_only, heatmaps=tables.get("heatmaps"))


def pictures_of(shard: Shard, selection: Selection, counts: Counts) -> Iterator[tuple[Picture, Row]]:
    """Yield the pictures of a shard that go out, each with its row of the images table; count what does not."""
    boxes, taken = selection.filters.apply(shard.images, shard.boxes)
    counts.boxes_left_out += taken
    boxes_B = _boxes(shard, boxes)
    maps_B = _maps(shard)
    labels_B = labels_of(shard.images)
    first, end = np.searchsorted(selection.meeting, [shard.first, shard.first + len(boxes_B)])
    must_mark_B = np.zeros(len(boxes_B), np.bool_)
    must_mark_B[selection.meeting[first:end] - shard.first] = True
    for at, image in enumerate(shard.images.to_pylist()):
        image_id = image["image_id"]
        split = selection.split.of(image_id) if selection.split else ""
        has_maps = shard.heatmaps is None or bool(maps_B[at])
        if reason := _left_out(image, split, boxes_B[at], selection, has_maps=has_maps):
            counts.leave_out(image_id, reason, len(boxes_B[at]))
            continue
        picture = Picture(
            image_id=image_id,
            number=shard.first + at + 1,
            name=file_name(image_id, selection.reserved, must_mark=bool(must_mark_B[at]), is_file=selection.has_files),
            split=split or "",
            width=image["width"],
            height=image["height"],
            labels=labels_B[at],
            uri=own_file(image),
            boxes=boxes_B[at],
            maps=maps_B[at],
        )
        yield picture, image


def _left_out(image: Row, split: str | None, boxes: list[Box], selection: Selection, *, has_maps: bool) -> str:
    """Return why an image is left out, nothing where it is not."""
    if image["status"] != "ok":
        return str(image["status"])
    if selection.like is not None and image["image_id"] not in selection.like:
        return NOT_LIKE
    if not boxes and not selection.keep_empty:
        return NO_BOX
    if not has_maps:
        return NO_MAP
    return NO_SPLIT if split is None else ""


def _boxes(shard: Shard, boxes: pa.Table) -> list[list[Box]]:
    """Return the boxes of each image of a shard."""
    columns = {name: boxes[name].to_pylist() for name in ("class_id", *CORNERS, "score", "energy")}
    is_calibrated = "probability" in boxes.column_names
    columns["probability"] = boxes["probability"].to_pylist() if is_calibrated else [None] * len(boxes)
    boxes_B: list[list[Box]] = [[] for _ in range(len(shard.images))]
    for row, *values in zip(boxes["row"].to_pylist(), *columns.values(), strict=True):
        boxes_B[row].append(Box(**dict(zip(columns, values, strict=True))))
    return boxes_B


def _maps(shard: Shard) -> list[list[Map]]:
    """Return the maps of each image of a shard."""
    maps_B: list[list[Map]] = [[] for _ in range(len(shard.images))]
    if shard.heatmaps is None:
        return maps_B
    columns = (shard.heatmaps[name].to_pylist() for name in ("row", "class_id", "score"))
    raw_Phw, rectangle_P4 = raw_maps(shard.heatmaps), corners_of(shard.heatmaps)
    for row, class_id, score, raw_hw, rectangle_4 in zip(*columns, raw_Phw, rectangle_P4, strict=True):
        if row < len(maps_B):
            maps_B[row].append(Map(class_id=class_id, score=score, raw_hw=raw_hw, rectangle_4=rectangle_4))
    return maps_B
