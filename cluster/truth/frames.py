"""In which frame a truth was drawn: the picture as it is seen, or as its file stores it before EXIF turns it.

A viewer shows the first; tools that ignore EXIF show the second. It matters where EXIF turns a picture. Sizes tell
which it was where width and height change places, and are not the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from cam_ops.arrays import I32, I64, Bools
from cam_ops.pictures.header import MAX_BYTES
from cam_ops.pictures.orientation import AS_STORED, QUARTER, UNKNOWN_TURN, orientation_of
from cluster.formats.entries import are_alike
from cluster.formats.files import read_bounded
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard

TruthFrame = Literal["auto", "oriented", "stored"]

Orientations = Callable[[Sequence[dict[str, Any]]], list[int]]
"""From rows of a plan, with the width and height of each picture as it is seen, to its EXIF orientation, 1 to 8;
UNKNOWN_TURN where it cannot be read, or is another picture by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How EXIF turns the pictures of some images, and what may tell whether their truth was drawn before or after."""

    frame: TruthFrame
    orientation_I: I32  # UNKNOWN_TURN where it matters, and is not known
    masks_I2: I64  # width and height of masks as a viewer shows them, 0 where they do not matter
    are_shown_I: Bools  # all that the truth has of it are masks with an EXIF orientation of their own


def turns_of(
    run_dir: RunDir, images: pa.Table, found: pa.Table, frame: TruthFrame, orientations: Orientations
) -> Turns:
    """Tell how EXIF turns those of some images that have objects, tables as `cluster.truth.matching.match` makes them.

    Pictures that could not be decoded are not asked for: they are in no figure.
    """
    first = images["place"][0].as_py()
    orientation_I = np.full(len(images), AS_STORED, np.int32)
    masks_I2 = np.zeros((len(images), 2), np.int64)
    if frame == "oriented":
        return Turns(frame=frame, orientation_I=orientation_I, masks_I2=masks_I2, are_shown_I=masks_I2[:, 0] > 0)
    objects = found.filter(pc.or_(found["has_box"], pc.is_valid(found["mask"])))
    at_J = np.unique(objects["place"].to_numpy()) - first
    at_J = at_J[images["width"].take(at_J).to_numpy() > 0]
    shard_J, row_J = (images[name].take(at_J).to_numpy() for name in ("shard", "row"))
    for shard in np.unique(shard_J).tolist():
        is_here_J = shard_J == shard
        planned = read_shard(run_dir, shard).take(row_J[is_here_J]).to_pylist()
        sizes = images.select(["width", "height"]).take(at_J[is_here_J]).to_pylist()
        rows = [{**row, **size} for row, size in zip(planned, sizes, strict=True)]
        orientation_I[at_J[is_here_J]] = orientations(rows)
    num_others_I = np.bincount(objects["place"].to_numpy() - first, minlength=len(images))
    are_turned_I = orientation_I > AS_STORED
    for mask in objects.filter(pc.is_valid(objects["mask"])).select(["place", "mask"]).to_pylist():
        at = mask["place"] - first
        if are_turned_I[at]:
            own, *size = _shown(mask["mask"])
            num_others_I[at] -= own > AS_STORED
            if not masks_I2[at].any():
                masks_I2[at] = size
    are_shown_I = masks_I2.any(axis=1) & (num_others_I == 0)
    return Turns(frame=frame, orientation_I=orientation_I, masks_I2=masks_I2, are_shown_I=are_shown_I)


def _shown(path: str) -> tuple[int, int, int]:
    """Return a mask's own EXIF orientation, its width and height as a viewer shows it.

    0 where they cannot be read: who reads its pixels will say so.
    """
    try:
        own, width, height = orientation_of(read_bounded(path, MAX_BYTES))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return AS_STORED, 0, 0
    return (own, height, width) if own >= QUARTER else (own, width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """How a truth stands to the pictures of some images; the letter I."""

    orientation_I: I32  # EXIF's, or UNKNOWN_TURN
    is_stored_I: Bools  # it was drawn in the stored frame
    is_open_I: Bools  # nothing tells which frame it was drawn in, though they differ
    is_lost_I: Bools  # it was drawn in the stored frame, and how that is turned is not known


def frames_of(turns: Turns, pictures_I2: I64, said_I2: I64) -> Frames:
    """Tell in which frame each image's truth was drawn; sizes, 0 where unknown, are of what is seen, and as it says."""
    frame, orientation_I = turns.frame, turns.orientation_I
    nowhere_I = np.zeros(len(orientation_I), np.bool_)
    is_known_I = orientation_I != UNKNOWN_TURN
    if frame != "auto":
        is_stored_I = nowhere_I if frame == "oriented" else (orientation_I > 1) | ~is_known_I
        return Frames(
            orientation_I=orientation_I,
            is_stored_I=is_stored_I & is_known_I,
            is_open_I=nowhere_I,
            is_lost_I=is_stored_I & ~is_known_I,
        )
    as_seen_I, as_stored_I = are_alike(said_I2, pictures_I2), are_alike(said_I2, pictures_I2[:, ::-1])
    can_be_quarter_I = (orientation_I >= QUARTER) | ~is_known_I
    is_stored_I = can_be_quarter_I & as_stored_I & ~as_seen_I & ~turns.are_shown_I
    return Frames(
        orientation_I=orientation_I,
        is_stored_I=is_stored_I & is_known_I,
        is_open_I=(orientation_I > 1) & ~turns.are_shown_I & ~((orientation_I >= QUARTER) & (as_seen_I ^ as_stored_I)),
        is_lost_I=is_stored_I & ~is_known_I,
    )
