"""What goes into an export, whatever its format: pictures with their boxes and maps, classes, and where files are put.

Boxes are those of a run: pixels of the picture as it is seen, half-open. Files have names below the export's folder.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from math import floor
from typing import IO, Literal, Protocol

from cam_ops.arrays import F32
from cam_ops.pictures.formats import format_named, suffix_of
from cam_ops.settings import MapConfig, Size

DIGITS = 3  # of pixels behind the point: a corner is off by half a thousandth at most
SCORE_DIGITS = 6
MAX_PACKED_BYTES = 512 * 2**20  # of pictures in one file; one picture alone may have more

PicturesChoice = Literal["link", "copy", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box of a run."""

    class_id: int
    x0: float
    y0: float
    x1: float
    y1: float
    score: float  # of the class, 0..1
    energy: float  # 0..1
    probability: float | None  # 0..1; None where the run has no calibration

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1, rounded to DIGITS."""
        return round(self.x0, DIGITS), round(self.y0, DIGITS), round(self.x1, DIGITS), round(self.y1, DIGITS)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x, y, width, height, rounded to DIGITS."""
        x0, y0, x1, y1 = self.corners
        return x0, y0, round(x1 - x0, DIGITS), round(y1 - y0, DIGITS)

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """The first and last columns and rows, counted from 0: x0, y0, x1, y1, ends inside.

        Each side is the nearest one between pixels, off by half of one at most. Where a box would have no pixel then,
        it is the one that its middle is in. So `x0 <= x1` always, and both are columns of the picture if the box is.
        """
        (x0, x1), (y0, y1) = _pixels(self.x0, self.x1), _pixels(self.y0, self.y1)
        return x0, y0, x1, y1


def _pixels(start: float, end: float) -> tuple[int, int]:
    first, last = round(start), round(end) - 1
    return (first, last) if first <= last else (floor((start + end) / 2),) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """The stored map of a class."""

    class_id: int
    score: float  # of the class, 0..1
    raw_hw: F32  # on its grid
    rectangle_4: F32  # the part of the picture that the grid covers: x0, y0, x1, y1


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of an export, with what the filters left of its boxes."""

    image_id: str
    number: int  # its place in the run's plan, from 1
    name: str  # of its file: its id, unless that cannot name a file of its own
    split: str  # empty where there are none
    width: int
    height: int
    labels: tuple[int, ...]
    uri: str  # the file or object that holds it alone, else empty
    boxes: list[Box]
    maps: list[Map] = field(default_factory=list)  # if the format has them: at least one
    content: bytes = b""  # if the format has it: its file, upright

    @property
    def stem(self) -> str:
        """The name without its suffix; in formats with files by picture no other picture has it."""
        return split_suffix(self.name)[0]

    @property
    def boxed_maps(self) -> list[Map]:
        """The maps of the classes that have a box, the highest score first."""
        boxed = {box.class_id for box in self.boxes}
        found = (each for each in self.maps if each.class_id in boxed)
        return sorted(found, key=lambda each: (-each.score, each.class_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of an export."""

    names: tuple[str, ...]  # by class_id; no two are equal, none has a control character
    numbers: Mapping[int, int]  # from the class_ids that are exported, rising, to their places among these, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """The ids of another dataset."""

    images: Mapping[str, int]  # by the run's image_id
    categories: Mapping[int, int]  # by class_id
    sizes: Mapping[str, tuple[int | None, int | None]]  # width and height there, by the run's image_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an export is written."""

    root: str  # the folder's path or address
    run: str  # that of the run
    input_size: Size  # to which maps are enlarged
    maps: MapConfig
    has_pictures: bool  # whether they are in the export
    is_calibrated: bool  # whether boxes have a probability
    classes: Classes
    confidence: bool = False
    url_prefix: str | None = None
    high: float = 0.5
    low: float = 0.2
    at_grid: bool = False
    like: Like | None = None


class Place(Protocol):
    """Takes the files of an export, each of which appears whole or not at all; methods raise StorageError."""

    @property
    def settings(self) -> Settings:
        """How it is written."""

    def put(self, name: str, content: bytes) -> None:
        """Put a file in place."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file; it is put in place where nothing was raised."""


class Part(Place, Protocol):
    """Some of an export's pictures, those of shards that follow each other."""

    @property
    def number(self) -> int:
        """Its place among the parts, from 0."""

    def note(self, section: str, split: str, line: bytes) -> None:
        """Leave a line, without its end, for the files that are made of all parts."""


class Whole(Place, Protocol):
    """An export whose parts are all there."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits, an empty one where there are none."""

    def notes(self, section: str, split: str) -> Iterator[bytes]:
        """Yield the lines that the parts left, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """A format that a run can be exported to."""

    name: str  # for --to
    entries: tuple[str, ...]
    """All files and folders that it may make in the export's folder, but for those of pictures."""
    write: Callable[[Iterator[Picture], Part], None]
    """Write a part."""
    finish: Callable[[Whole], None]
    """Write what is made of all parts."""
    pictures: PicturesChoice = "none"
    """What is put beside the annotations unless --pictures says it."""
    folder: str = "images"
    """Where that is put."""
    has_split_folders: bool = True
    """Whether pictures of different splits lie in folders of their own there."""
    is_jpeg: bool = False
    """Whether all pictures must be JPEG files, NAME.jpg."""
    embeds: bool = False
    """Whether pictures lie in the format's own files: their `content` is wanted."""
    maps: bool = False
    """Whether maps are wanted; an image that has none is left out."""
    has_files: bool = False
    """Whether pictures have files of their own, so that names without suffix must differ."""
    split: str = ""
    """--split where none is given."""
    lists_classes: bool = True
    """Whether classes are in it that have no box."""
    reserved: frozenset[str] = frozenset()
    """Names that no folder of a picture may have."""
    check: Callable[[Settings], None] = lambda settings: None
    """Raise UsageError where the format cannot hold such an export; called before anything is written."""


def folder_of(form: ExportFormat, split: str) -> str:
    """Return the folder that pictures lie in."""
    return f"{form.folder}/{split}" if split and form.has_split_folders else form.folder


def document_name(name: str, split: str) -> str:
    """Return the name of a document of one split: `annotations.json`, or `annotations/train.json`."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}/{split}.{suffix}" if split else name


def split_suffix(name: str) -> tuple[str, str]:
    """Split off the suffix by which a name is that of a picture, with its dot; it may have none."""
    suffix = suffix_of(name)
    if not format_named(suffix):
        return name, ""
    at = len(name) - len(suffix) - 1
    return name[:at], name[at:]


def joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines with a comma between them."""
    for number, line in enumerate(lines):
        yield b",\n" + line if number else line


Add = Callable[[Picture], None]
Begin = Callable[[IO[bytes]], AbstractContextManager[Add]]


def pack(pictures: Iterator[Picture], part: Part, name: Callable[[str], str], suffix: str, begin: Begin) -> None:
    """Write a part's pictures into a file for each split, by what `begin` makes of it; where it is full, into more.

    Files are called as `name` says for the split: NAME.SUFFIX, then NAME_001.SUFFIX, which sort as they follow.
    """
    with ExitStack() as stack:
        adds: dict[str, tuple[ExitStack, Add]] = {}
        num_bytes, num_files = Counter[str](), Counter[str]()
        for picture in pictures:
            split = picture.split
            if split in adds and num_bytes[split] + len(picture.content) > MAX_PACKED_BYTES:
                adds.pop(split)[0].close()
                num_bytes[split] = 0
            if split not in adds:
                further = f"_{num_files[split]:03d}" if num_files[split] else ""
                opened = stack.enter_context(ExitStack())
                file = opened.enter_context(part.open(f"{name(split)}{further}{suffix}"))
                adds[split] = opened, opened.enter_context(begin(file))
                num_files[split] += 1
            num_bytes[split] += len(picture.content)
            adds[split][1](picture)
