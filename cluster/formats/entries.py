"""What files of annotations say, one entry after the other, whatever their format.

An entry says one thing or several of an image: a box, a mask, a class, a size; or that something of it cannot be taken,
which one entry's fault must not hide. Coordinates stand as in the file, whose format fixes their `Frame`. Files are
anybody's: what is read whole has at most so many bytes, nothing is executed.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cam_ops.arrays import I64, Bools
from cam_ops.foreign import whole
from cam_ops.tables import CORNERS

Frame = Literal["half-open", "inclusive", "from-1", "fractions"]
"""What coordinates mean: pixels whose ends are outside; pixels whose ends are inside, counted from 0, or from 1, as
Pascal VOC does; fractions of the picture's width and height, as YOLO does."""

Size = tuple[int | None, int | None]  # width, height
UNKNOWN: Size = (None, None)
ROWS_PER_BATCH = 2**15
MAX_SIDE = 2**24  # pixels
VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")
NUM_SHOWN = 10

ENTRIES = pa.schema(
    [
        pa.field("image", pa.string()),  # null, or empty, where it names none
        *(pa.field(name, pa.float64()) for name in CORNERS),  # null where the entry has no box
        pa.field("word", pa.string()),  # for the class of the box
        pa.field("other_word", pa.string()),  # another one, where the two may be of two classes
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("image_word", pa.string()),  # for the class of the image
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mask", pa.string()),  # absolute path
        pa.field("ignore", pa.string()),
        pa.field("other_image", pa.string()),  # another name that the file has for the image
        pa.field("unusable", pa.string()),  # what is here and why it cannot be taken: an object, or of no image a file
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of `ENTRIES`."""

    image: str | None
    box: tuple[float | None, ...] = (None, None, None, None)
    word: str | None = None
    crowd: bool = False
    image_word: str | None = None
    size: Size = UNKNOWN
    mask: str | None = None
    ignore: str | None = None
    other_image: str | None = None
    unusable: str | None = None


def batches_of(entries: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
    """Yield entries as batches of schema ENTRIES."""
    rest = iter(entries)
    while chunk := list(islice(rest, ROWS_PER_BATCH)):
        rows = [
            (
                *(e.image, *e.box, e.word or None, None, e.crowd, e.image_word or None, *e.size),
                *(e.mask or None, e.ignore or None, e.other_image, e.unusable),
            )
            for e in chunk
        ]
        columns = [_column(column, kind.type) for column, kind in zip(zip(*rows, strict=True), ENTRIES, strict=True)]
        yield pa.record_batch(columns, schema=ENTRIES)


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # of names that are not UTF-8
        return pa.array([value and whole(value) for value in values], kind)


def number_of(value: object) -> float | None:
    """Return the number that a value, or a text, is; None where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def size_of(width: object, height: object) -> Size:
    """Return a picture's size as an entry has it: none unless both sides are whole numbers and can be."""
    sides = [side for side in map(number_of, (width, height)) if side and 1 <= side <= MAX_SIDE and side == int(side)]
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else UNKNOWN


def are_alike(said_I2: I64, sizes_I2: I64) -> Bools:
    """Say where a size is that of a picture, or of a copy of it: sides of the same ratio, but for rounding; (I, 2)."""
    off_I = np.abs(said_I2[:, 0] * sizes_I2[:, 1] - said_I2[:, 1] * sizes_I2[:, 0])
    are_known_I2 = (said_I2 > 0) & (sizes_I2 > 0)
    return np.asarray(are_known_I2.all(axis=1) & (off_I <= sizes_I2.max(axis=1)))
