"""What truth files say, one entry after the other, whatever their format; and how such files are opened.

An entry says one thing or several of an image: a box, a mask, a class, a size. Coordinates stand as in the file, whose
format fixes their `Frame`. Files are anybody's: what is read whole has at most so many bytes, nothing is executed.
"""

import csv
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa

from cam_ops.errors import UsageError
from cam_ops.tables import CORNERS
from cluster.listing import image_id_of
from cluster.storage import is_plain

Frame = Literal["half-open", "inclusive", "from-1", "fractions"]
"""What coordinates mean: pixels whose ends are outside; pixels whose ends are inside, counted from 0, or from 1, as
Pascal VOC does; fractions of the picture's width and height, as YOLO does."""

ROWS_PER_BATCH = 2**15
MAX_SIDE = 2**24  # pixels
VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_LINE = 2**16  # characters
NUM_SHOWN = 10
UNREADABLE = (ValueError, ArithmeticError, RecursionError, EOFError, csv.Error, zlib.error)

ENTRIES = pa.schema(
    [
        pa.field("image", pa.string()),  # null, or empty, where it names none
        *(pa.field(name, pa.float64()) for name in CORNERS),  # null where the entry has no box
        pa.field("word", pa.string()),  # for the class of the box
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("image_word", pa.string()),  # for the class of the image
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mask", pa.string()),  # absolute path
        pa.field("ignore", pa.string()),
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
    size: tuple[int | None, int | None] = (None, None)  # width, height
    mask: str | None = None
    ignore: str | None = None


def batches_of(entries: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
    """Yield entries as batches of schema ENTRIES."""
    rest = iter(entries)
    while chunk := list(islice(rest, ROWS_PER_BATCH)):
        rows = [
            (e.image, *e.box, e.word, e.crowd, e.image_word, *e.size, e.mask or None, e.ignore or None) for e in chunk
        ]
        columns = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), ENTRIES, strict=True)]
        yield pa.record_batch(columns, schema=ENTRIES)


def size_of(width: float, height: float) -> tuple[int | None, int | None]:
    """Return a picture's size as an entry has it: none unless both sides are whole and can be."""
    sides = (width, height)
    return (int(width), int(height)) if all(1 <= s <= MAX_SIDE and s == int(s) for s in sides) else (None, None)


@contextmanager
def reading(path: str | Path, kind: str, cure: str = "mend it, or give another --truth-format") -> Iterator[None]:
    """Turn what goes wrong while a truth file is read into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the ground truth {path}: {error.strerror or error}; check --truth") from None
    except (*UNREADABLE, pa.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(f"cannot read {path} as {kind}: {reason}; {cure}") from None


def read_bounded(path: str | Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file. Raises OSError; ValueError if it is none, or has more than `max_bytes`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    if found.st_size > max_bytes:
        raise ValueError(f"it has {found.st_size} bytes, at most {max_bytes} are read")
    with open(path, "rb") as file:
        return file.read(max_bytes)


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a text file that is not blank, with its number from 1, without blanks around it.

    Raises OSError; ValueError where a line is too long or not in UTF-8.
    """
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            if line := line.strip():
                yield number, line


def bounded_lines(file: IO[str]) -> Iterator[str]:
    """Yield the lines of an open file. Raises ValueError where one is too long."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line has more than {MAX_LINE} characters: {line[:40]!r}...")
        yield line


def files_below(folder: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Yield the path below `folder`, as image ids have it, and the full path of each file with a suffix, in order.

    Hidden files are left out. Raises OSError where a folder cannot be listed.
    """

    def stop(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=stop):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                path = os.path.join(root, name)
                yield image_id_of(os.path.relpath(path, folder)), path


def path_below(folder: str, name: str) -> str:
    """Return the path of a file that a truth file names. Raises ValueError if the name leads out of `folder`."""
    if not is_plain(name) or "\0" in name:
        raise ValueError(f"it names {name[:200]!r}, which is absolute, or has empty, . or .. parts")
    return os.path.join(folder, name)
