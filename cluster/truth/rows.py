"""Bring what a truth says of some images into one frame: a row of TRUTH for each.

Letters: N what the truth says of objects, B those of them that are boxes, I images.

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
from cam_ops.pictures.orientation import AS_STORED, UNKNOWN_TURN
from cam_ops.tables import CORNERS
from cluster.formats.entries import Frame
from cluster.truth.frames import Frames, Turns, frames_of
from cluster.truth.placing import Placed, Sizes, placed, sizes_of
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
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("num_missing", pa.int32(), nullable=False),
        pa.field("num_unclear", pa.int32(), nullable=False),
    ]
)
"""One row per planned image, in the plan's order; `truth_id` is null where the truth does not name it.

`true_class` is the truth's class of the image, else its label in the run, else the one class of all its boxes. Boxes
and masks are in the truth's order. `truth_width`, `truth_height` are what wsolevaluation's integers are scaled by: the
truth's size, or the picture's where that is swapped or absent. `turn` is the EXIF orientation by which masks are still
to be turned, 1 for none. `num_missing` counts objects of the image that are there, but not known where: what does not
meet a true box need not be wrong, so the image is in no figure. `num_unclear` counts boxes whose class is not told: a
detection of any class may be right.
"""

DIFFERS_PX = 0.5  # boxes that are as far apart as this in two frames are two
NO_CLASS, NOT_TOLD = -1, -2
OPEN_FRAME = "open_frame"  # no problem to go on with

ClassOf = Callable[[pa.ChunkedArray], I32]
"""From words to classes: NO_CLASS where a word means none of the network's, NOT_TOLD where it is null or ambiguous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of TRUTH, and what was wrong."""

    rows: pa.Table
    problems: dict[str, Problem]
    shares_classes: bool


def truth_rows(images: pa.Table, found: pa.Table, frame: Frame, class_of: ClassOf, turns: Turns) -> Part:
    """Make the rows of some images that follow each other, tables as `cluster.truth.matching.match` makes them."""
    problems, some = Problems(), _some(images, found)
    frames = frames_of(turns, some.pictures_I2, some.drawn_sizes(turns.masks_I2))
    turn_I = np.where(frames.is_stored_I, turns.orientation_I, AS_STORED).astype(np.int32)
    sizes = sizes_of(some.pictures_I2, some.said_I2, turn_I)
    _note_frames(problems, some, frames, turns, sizes)
    places = placed(some.raw_N4, some.box_at_N, frame, sizes)
    if frames.is_open_I.any():
        other_I = np.where(frames.is_open_I, turns.orientation_I, turn_I)
        other = placed(some.raw_N4, some.box_at_N, frame, sizes_of(some.pictures_I2, some.said_I2, other_I))
        _note_open_frames(problems, some, frames, places, other)
    are_lost_I = frames.is_lost_I | sizes.is_shape_I | some.have_sizes_I
    kept_N, num_missing_I = _good_boxes(problems, some, places, frame, are_lost_I)
    image_class_I = class_of(images["image_word"])
    words = some.boxes["word"]
    class_N = np.where(pc.is_null(words), image_class_I[some.box_at_N], class_of(words))
    kept_N = _first_ones(problems, some, kept_N, class_N)
    boxes, at_B, ours_B4, class_B = (
        some.boxes.take(kept_N),
        some.box_at_N[kept_N],
        places.ours_N4[kept_N],
        class_N[kept_N],
    )
    is_bare_B = (class_B == NOT_TOLD) & pc.is_null(boxes["word"]).to_numpy()
    problems.note("boxes_without_class", is_bare_B, lambda b: f"{some.id(at_B[b])}: {_corners(ours_B4[b])}")
    scale_by_I2 = sizes.shown(sizes.scale_by_I2)
    rows = {
        **{name: images[name] for name in ("shard", "row", "truth_id")},
        "true_class": _true_class(problems, some, image_class_I, _one_class(at_B, class_B, len(images))),
        "boxes": _lists(at_B, _structs(ours_B4, places.wsol_N4[kept_N], class_B, boxes["crowd"]), len(images)),
        "truth_width": _or_null(scale_by_I2[:, 0], least=1),
        "truth_height": _or_null(scale_by_I2[:, 1], least=1),
        **_masks(found, some.first, len(images)),
        "turn": pa.array(turn_I),
        "num_missing": pa.array(num_missing_I, pa.int32()),
        "num_unclear": pa.array(some.count(at_B[class_B == NOT_TOLD]), pa.int32()),
    }
    return Part(
        rows=pa.table({name: rows[name] for name in TRUTH.names}, schema=TRUTH).combine_chunks(),
        problems=problems.found,
        shares_classes=bool((class_B >= 0).any() or (image_class_I >= 0).any()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Some:
    """Some images, and what the truth says of them."""

    images: pa.Table
    found: pa.Table
    first: int  # place of the first image
    pictures_I2: I64  # sizes, 0 where unknown
    said_I2: I64
    have_sizes_I: Bools  # several, of which `said_I2` is the first
    at_N: I64
    boxes: pa.Table  # those of `found` with a box
    box_at_N: I64
    raw_N4: F64  # their corners

    def id(self, at: int) -> str:
        """Return the id of an image."""
        return str(self.images["image_id"][int(at)])

    def count(self, at_N: I64) -> I64:
        """Return how often each image is named."""
        return np.bincount(at_N, minlength=len(self.images))

    def at(self, name: str) -> I64:
        """Return the images of what has such a column."""
        return self.at_N[np.asarray(pc.is_valid(self.found[name]).to_numpy(), np.bool_)]

    def drawn_sizes(self, masks_I2: I64) -> I64:
        """Return the sizes that the truth says, or else those of masks."""
        return np.where(np.all(self.said_I2 > 0, axis=1)[:, None], self.said_I2, masks_I2)


def _some(images: pa.Table, found: pa.Table) -> _Some:
    first = images["place"][0].as_py()
    pictures_I2, said_I2 = (
        np.stack([images[name].fill_null(0).to_numpy().astype(np.int64) for name in names], 1)
        for names in (("width", "height"), ("truth_width", "truth_height"))
    )
    boxes = found.filter(found["has_box"])
    return _Some(
        images=images,
        found=found,
        first=first,
        pictures_I2=pictures_I2,
        said_I2=said_I2,
        have_sizes_I=np.asarray(images["has_sizes"].to_numpy(), np.bool_),
        at_N=found["place"].to_numpy() - first,
        boxes=boxes,
        box_at_N=boxes["place"].to_numpy() - first,
        raw_N4=np.stack([boxes[name].to_numpy() for name in CORNERS], 1),
    )


def _note_frames(problems: Problems, some: _Some, frames: Frames, turns: Turns, sizes: Sizes) -> None:
    are_lost_I = frames.is_lost_I | some.have_sizes_I
    for name, is_so_I in (
        ("swapped_sizes", sizes.is_swapped_I & ~are_lost_I),
        ("other_sizes", sizes.is_other_I & ~are_lost_I),
        ("other_shape", sizes.is_shape_I & ~are_lost_I),
        ("several_sizes", some.have_sizes_I),
    ):
        problems.note(
            name, is_so_I, lambda i: f"{some.id(i)}: {_by(some.said_I2[i])}, the picture {_by(sizes.own_I2[i])}"
        )
    is_auto, is_unknown_I = turns.frame == "auto", turns.orientation_I == UNKNOWN_TURN
    for name, is_so_I in (
        ("stored_frame", is_auto & frames.is_stored_I & (turns.orientation_I > AS_STORED)),
        ("unknown_turn", is_auto & is_unknown_I & ~frames.is_lost_I),
        ("lost_turn", frames.is_lost_I),
    ):
        problems.note(name, is_so_I, lambda i: some.id(i))


def _note_open_frames(problems: Problems, some: _Some, frames: Frames, places: Placed, other: Placed) -> None:
    """Note the images whose frame is open where that makes a difference."""
    is_apart_N = np.abs(places.ours_N4 - other.ours_N4).max(axis=1, initial=0) > DIFFERS_PX
    differs_I = some.count(some.box_at_N[is_apart_N & places.is_box_N]) + some.count(some.at("mask")) > 0
    problems.note(OPEN_FRAME, frames.is_open_I & differs_I, lambda i: some.id(i))


def _good_boxes(problems: Problems, some: _Some, places: Placed, frame: Frame, are_lost_I: Bools) -> tuple[I64, I64]:
    """Return which boxes are some, and how many objects of each image are missing.

    Fractions of a picture whose size is unknown are left out.
    """
    at_N = some.box_at_N
    has_size_N = np.all(some.pictures_I2 > 0, axis=1)[at_N]
    is_placed_N = (has_size_N | (frame != "fractions")) & ~are_lost_I[at_N]
    is_good_N, is_bad_N = is_placed_N & places.is_box_N, is_placed_N & ~places.is_box_N
    problems.note("bad_boxes", is_bad_N, lambda n: f"{some.id(at_N[n])}: {_corners(some.raw_N4[n])}")
    problems.note(
        "boxes_outside",
        is_good_N & places.is_outside_N & has_size_N,
        lambda n: f"{some.id(at_N[n])}: {_corners(places.ours_N4[n])}",
    )
    problems.note(
        "zero_based",
        is_good_N & (frame == "from-1") & (some.raw_N4[:, :2] < 1).any(axis=1),
        lambda n: f"{some.id(at_N[n])}: {_corners(some.raw_N4[n])}",
    )
    unusable = some.found["unusable"].drop_null()
    unusable_at_N = some.at("unusable")
    is_unusable_N = np.ones(len(unusable), np.bool_)
    problems.note("unusable_objects", is_unusable_N, lambda n: f"{some.id(unusable_at_N[n])}: {unusable[n]}")
    num_missing_I = some.count(at_N[is_bad_N]) + some.count(unusable_at_N) + are_lost_I
    return np.flatnonzero(is_good_N), num_missing_I


def _first_ones(problems: Problems, some: _Some, kept_N: I64, class_N: I32) -> I64:
    """Leave out boxes that the truth has said before, of the same image and class."""
    words_N = pc.dictionary_encode(some.boxes["word"].combine_chunks()).indices.fill_null(-1).to_numpy()
    words_N = np.where(class_N < 0, words_N, -1)
    keys_KN = np.stack([words_N, class_N, some.boxes["crowd"].to_numpy(), *some.raw_N4.T, some.box_at_N])[:, kept_N]
    order_N = np.lexsort(keys_KN)  # stable: of the same ones the first comes first
    sorted_KN = keys_KN[:, order_N]
    is_again_N = np.zeros(len(kept_N), np.bool_)
    is_again_N[order_N[1:]] = np.all(sorted_KN[:, 1:] == sorted_KN[:, :-1], axis=0)
    again_N = kept_N[is_again_N]
    problems.note(
        "duplicate_boxes",
        np.ones(len(again_N), np.bool_),
        lambda n: f"{some.id(some.box_at_N[again_N[n]])}: {_corners(some.raw_N4[again_N[n]])}",
    )
    return kept_N[~is_again_N]


def _true_class(problems: Problems, some: _Some, image_class_I: I32, box_class_I: I32) -> pa.Array:
    """Return the truth's class of each image, else its label, else that of its boxes."""
    own_I = np.where(image_class_I >= 0, image_class_I, box_class_I)
    label_I = some.images["label"].fill_null(-1).to_numpy()
    problems.note(
        "label_differs",
        (own_I >= 0) & (label_I >= 0) & (own_I != label_I),
        lambda i: f"{some.id(i)}: class {own_I[i]}, labelled {label_I[i]}",
    )
    return _or_null(np.where((image_class_I < 0) & (label_I >= 0), label_I, own_I))


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
