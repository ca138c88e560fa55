"""The annotation formats, and which of them a ground truth has: the first in `FORMATS` that recognises it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from cam_ops.errors import UsageError
from cluster.formats.coco import COCO
from cluster.formats.entries import Frame
from cluster.formats.format import Format
from cluster.formats.loc_csv import LOC
from cluster.formats.masks import MASKS
from cluster.formats.pascal_voc import VOC, VOC_HALF_OPEN, VOC_INCLUSIVE
from cluster.formats.table import TABLE, TABLE_FRACTIONS, TABLE_INCLUSIVE
from cluster.formats.tar import TAR
from cluster.formats.wsol import WSOL
from cluster.formats.yolo import YOLO, YOLO_POLYGONS

FORMATS: tuple[Format, ...] = (
    COCO,
    VOC,
    VOC_INCLUSIVE,
    VOC_HALF_OPEN,
    WSOL,
    YOLO,
    YOLO_POLYGONS,
    LOC,
    TAR,
    TABLE,
    TABLE_INCLUSIVE,
    TABLE_FRACTIONS,
    MASKS,
)
NUM_LOOKED_AT = 10_000  # files of a folder

if TYPE_CHECKING:
    TruthFormat = str
else:
    TruthFormat = Literal[("auto", *(known.name for known in FORMATS))]
"""What --truth-format takes: the flag's choices follow from `FORMATS`, which a type checker cannot follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSource:
    """A truth that can be read once; reading raises UsageError."""

    format: str
    frame: Frame
    batches: Iterator[pa.RecordBatch]  # schema ENTRIES


def open_truth(truth: str, truth_format: TruthFormat, masks: str | None) -> TruthSource:
    """Find the format of a truth, a local file or folder, and begin to read it. Raises UsageError."""
    for flag, address in (("--truth", truth), ("--masks", masks or "")):
        if "://" in address:
            raise UsageError(f"{flag} expects a local file or folder, got {address.partition('://')[0]}://...; copy it")
    path = _absolute(truth)
    found = _format_of(path) if truth_format == "auto" else {known.name: known for known in FORMATS}[truth_format]
    if found.is_folder and not os.path.isdir(path):
        raise UsageError(f"--truth-format {found.name} expects a folder, {path} is none; check --truth")
    batches = found.read(path, _absolute(masks) if masks else path)
    return TruthSource(format=found.name, frame=found.frame, batches=batches)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _format_of(path: str) -> Format:
    """Tell a truth's format; that of a folder by its files' suffixes where nothing else tells it."""
    if found := next((known for known in FORMATS if known.recognise(path)), None):
        return found
    if not os.path.exists(path):
        raise UsageError(f"there is no ground truth at {path}; check --truth")
    names = islice((name for _, _, names in os.walk(path) for name in names), NUM_LOOKED_AT)
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    if found := next((known for known in FORMATS if known.suffix in suffixes), None):
        return found
    raise UsageError(
        f"cannot tell the format of the ground truth {path}; give --truth-format, one of "
        f"{', '.join(known.name for known in FORMATS)}" + ("; of coco, give the file itself" * (".json" in suffixes))
    )
