"""Bring what a truth says of some images into one frame: a row of TRUTH for each.

Letters: B boxes, I images.

Boxes stand twice in a row. *Ours* are float64, half-open pixels of the picture. Those for *wsolevaluation* are its
integers: the truth's own where its ends are inside, else the beginning truncated and the end, rounded up, less one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import F64, I32, I64, Bools
from cam_ops.tables import CORNERS
from cluster.formats.entries import MAX_SIDE, Frame
from cluster.truth.problems import Problem, Problems

BOX = pa.struct(
    [
        *(pa.field(name, pa.float64(), nullable=False) for name in CORNERS),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("wx0", "wy0", "wx1", "wy1")),
        pa.field("class_id", pa.int32()),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
TRUTH = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("truth_id", pa.string()),
        pa.field("true_class", pa.int32()),
        pa.field("boxes", pa.list_(BOX), nullable=False),
        pa.field("truth_width", pa.int32()),
        pa.field("truth_height", pa.int32()),
        pa.field("masks", pa.list_(pa.string()), nullable=False),
        pa.field("ignore", pa.string()),
    ]
)
"""One row per planned image, in the plan's order; `truth_id` is null where the truth does not name it.

`true_class` is the truth's class of the image, else its label in the run, else the one class of all its boxes. Boxes
and masks are in the truth's order. `truth_width`, `truth_height` are what wsolevaluation's integers are scaled by: the
truth's size, or the picture's where that is swapped or absent.
"""

ROUNDING_PX: dict[Frame, float] = {"fractions": 0.01}  # YOLO writes six decimals
TOLERANCE_PX = 1e-6  # sums of float64, as COCO's x + width
OUTSIDE_PX = 1  # ImageNet's own boxes end a pixel outside

ClassOf = Callable[[pa.ChunkedArray], I32]
"""From words to classes, -1 where a word is null or means none."""


def half_open(raw_B4: F64, frame: Frame, sizes_B2: I64) -> F64:
    """Return a truth's boxes as half-open pixels; `sizes_B2` are the pictures' widths and heights."""
    match frame:
        case "half-open":
            boxes_B4 = raw_B4
        case "inclusive":
            boxes_B4 = raw_B4 + np.array([0, 0, 1, 1])
        case "from-1":
            boxes_B4 = raw_B4 - np.array([1, 1, 0, 0])
        case "fractions":
            boxes_B4 = raw_B4 * np.tile(sizes_B2, 2)
    whole_B4 = np.rint(boxes_B4)
    return np.where(np.abs(boxes_B4 - whole_B4) < ROUNDING_PX.get(frame, TOLERANCE_PX), whole_B4, boxes_B4)


def wsol_integers(raw_B4: F64, half_open_B4: F64, frame: Frame) -> I32:
    """Return the integers that wsolevaluation takes for boxes, ends inside."""
    if frame in ("inclusive", "from-1"):
        return raw_B4.astype(np.int32)
    ends_B2 = np.ceil(half_open_B4[:, 2:]) - 1
    return np.hstack([np.trunc(half_open_B4[:, :2]), ends_B2]).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of TRUTH, and what was wrong."""

    rows: pa.Table
    problems: dict[str, Problem]
    shares_classes: bool


def truth_rows(images: pa.Table, found: pa.Table, frame: Frame, class_of: ClassOf) -> Part:
    """Make the rows of some images that follow each other, tables as `cluster.truth.matching.match` makes them."""
    problems, ids, first = Problems(), images["image_id"], images["place"][0].as_py()
    sizes = _checked_sizes(images, problems)
    boxes = found.filter(found["has_box"])
    at_B, ours_B4, wsol_B4, kept_B = _checked_boxes(boxes, first, frame, ids, sizes, problems)
    boxes = boxes.take(kept_B)
    image_class_I = class_of(images["image_word"])
    class_B = np.where(pc.is_null(boxes["word"]), image_class_I[at_B], class_of(boxes["word"]))
    own_I = np.where(image_class_I >= 0, image_class_I, _one_class(at_B, class_B, len(images)))
    label_I = images["label"].fill_null(-1).to_numpy()
    problems.note(
        "label_differs",
        (own_I >= 0) & (label_I >= 0) & (own_I != label_I),
        lambda i: f"{ids[i]}: class {own_I[i]}, labelled {label_I[i]}",
    )
    rows = {
        **{name: images[name] for name in ("shard", "row", "truth_id")},
        "true_class": _or_null(np.where((image_class_I < 0) & (label_I >= 0), label_I, own_I)),
        "boxes": _lists(at_B, _structs(ours_B4, wsol_B4, class_B, boxes["crowd"]), len(images)),
        "truth_width": _or_null(sizes.scale_by_I2[:, 0], least=1),
        "truth_height": _or_null(sizes.scale_by_I2[:, 1], least=1),
        **_masks(found, first, len(images)),
    }
    return Part(
        rows=pa.table({name: rows[name] for name in TRUTH.names}, schema=TRUTH).combine_chunks(),
        problems=problems.found,
        shares_classes=bool((class_B >= 0).any() or (image_class_I >= 0).any()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Widths and heights of images, 0 where unknown."""

    pictures_I2: I64
    scale_by_I2: I64  # what the truth's coordinates are fractions of
    factor_I2: F64  # from the truth's pixels to the picture's


def _checked_sizes(images: pa.Table, problems: Problems) -> _Sizes:
    """Compare the truth's sizes with the pictures' own."""
    pictures_I2, truth_I2 = (
        np.stack([images[name].fill_null(0).to_numpy().astype(np.int64) for name in names], 1)
        for names in (("width", "height"), ("truth_width", "truth_height"))
    )
    is_said_I: Bools = np.all(truth_I2 > 0, axis=1)
    differs_I = is_said_I & np.all(pictures_I2 > 0, axis=1) & np.any(pictures_I2 != truth_I2, axis=1)
    is_swapped_I = differs_I & np.all(pictures_I2 == truth_I2[:, ::-1], axis=1)
    is_other_I = differs_I & ~is_swapped_I
    for name, is_so_I in (("swapped_sizes", is_swapped_I), ("other_sizes", is_other_I)):
        problems.note(
            name, is_so_I, lambda i: f"{images['image_id'][i]}: {_by(truth_I2[i])}, the picture {_by(pictures_I2[i])}"
        )
    return _Sizes(
        pictures_I2=pictures_I2,
        scale_by_I2=np.where((is_said_I & ~is_swapped_I)[:, None], truth_I2, pictures_I2),
        factor_I2=np.where(is_other_I[:, None], pictures_I2 / np.maximum(truth_I2, 1), 1),
    )


def _checked_boxes(
    boxes: pa.Table, first: int, frame: Frame, ids: pa.ChunkedArray, sizes: _Sizes, problems: Problems
) -> tuple[I64, F64, I32, I64]:
    """Return image, our corners, wsolevaluation's corners, and place in `boxes` of each box that is one.

    Fractions of a picture whose size is unknown are left out.
    """
    at_N = boxes["place"].to_numpy() - first
    raw_N4 = np.stack([boxes[name].to_numpy() for name in CORNERS], 1)
    has_size_N = np.all(sizes.pictures_I2 > 0, axis=1)[at_N]
    with np.errstate(invalid="ignore", over="ignore"):
        pixels_N4 = half_open(raw_N4, frame, sizes.pictures_I2[at_N])
        is_good_N = (np.abs(pixels_N4) <= MAX_SIDE).all(1) & (pixels_N4[:, :2] < pixels_N4[:, 2:]).all(1)
    is_placed_N = has_size_N | (frame != "fractions")
    problems.note("bad_boxes", is_placed_N & ~is_good_N, lambda i: f"{ids[at_N[i]]}: {_corners(raw_N4[i])}")
    kept_B = np.flatnonzero(is_placed_N & is_good_N)
    at_B, raw_B4, pixels_B4 = at_N[kept_B], raw_N4[kept_B], pixels_N4[kept_B]
    ours_B4 = pixels_B4 * np.tile(sizes.factor_I2[at_B], 2)
    begins_out_B = np.any(ours_B4[:, :2] < -OUTSIDE_PX, axis=1)
    ends_out_B = np.any(ours_B4[:, 2:] > sizes.pictures_I2[at_B] + OUTSIDE_PX, axis=1)
    problems.note(
        "boxes_outside",
        (begins_out_B | ends_out_B) & has_size_N[kept_B],
        lambda i: f"{ids[at_B[i]]}: {_corners(ours_B4[i])}",
    )
    return at_B, ours_B4, wsol_integers(raw_B4, pixels_B4, frame), kept_B


def _one_class(at_B: I64, class_B: I32, num_images: int) -> I32:
    """Return the class that all boxes of an image have, -1 where there is none."""
    least_I, most_I = np.full(num_images, np.iinfo(np.int32).max), np.full(num_images, -1)
    np.minimum.at(least_I, at_B, class_B)
    np.maximum.at(most_I, at_B, class_B)
    return np.where(least_I == most_I, most_I, -1)


def _structs(ours_B4: F64, wsol_B4: I32, class_B: I32, crowd: pa.ChunkedArray) -> pa.StructArray:
    corners = [pa.array(np.ascontiguousarray(corner_B)) for corner_B in (*ours_B4.T, *wsol_B4.T)]
    return pa.StructArray.from_arrays([*corners, _or_null(class_B), crowd.combine_chunks()], fields=list(BOX))


def _lists(at_N: I64, values: pa.Array, num_images: int) -> pa.ListArray:
    """Put values into one list per image; `at_N` is the image of each, rising."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(at_N, minlength=num_images))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _masks(found: pa.Table, first: int, num_images: int) -> dict[str, pa.Array]:
    with_mask, with_ignore = found.filter(pc.is_valid(found["mask"])), found.filter(pc.is_valid(found["ignore"]))
    at_I, places = np.full(num_images, -1), with_ignore["place"].to_numpy() - first
    at_I[places[::-1]] = np.arange(len(places))[::-1]  # the first of an image wins
    return {
        "masks": _lists(with_mask["place"].to_numpy() - first, with_mask["mask"].combine_chunks(), num_images),
        "ignore": with_ignore["ignore"].combine_chunks().take(_or_null(at_I)),
    }


def _or_null(values_N: npt.NDArray[np.integer], least: int = 0) -> pa.Array:
    return pa.array(values_N.astype(np.int32), mask=values_N < least)


def _by(size_2: I64) -> str:
    return f"{size_2[0]}x{size_2[1]}"


def _corners(box_4: F64) -> str:
    return " ".join(f"{corner:g}" for corner in box_4)
