"""The annotation formats, and which of them a ground truth has: the first in `FORMATS` that recognises it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from cam_ops.errors import UsageError
from cam_ops.outside import size_of_file
from cluster.formats.coco import COCO
from cluster.formats.entries import Frame
from cluster.formats.files import files_below, reading
from cluster.formats.format import Format
from cluster.formats.loc_csv import LOC
from cluster.formats.pascal_voc import VOC, VOC_HALF_OPEN, VOC_INCLUSIVE, is_annotation
from cluster.formats.pixels.masks import MASKS
from cluster.formats.table import TABLE, TABLE_FRACTIONS, TABLE_INCLUSIVE, TABLE_SUFFIXES
from cluster.formats.tar import TAR
from cluster.formats.wsol import WSOL
from cluster.formats.yolo import YOLO, YOLO_POLYGONS, is_labels
from cluster.storage.objects import absolute

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
HEAD_BYTES = 2**16
OTHER_JSON = {"labelme": b'"shapes"', "Supervisely": b'"objects"', "VIA": b'"regions"'}

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
    for flag, address in (("--truth", truth), *([("--masks", masks)] if masks is not None else [])):
        if not address:
            raise UsageError(f"{flag} expects a local file or folder, got an empty text")
        if "://" in address:
            raise UsageError(f"{flag} expects a local file or folder, got {address.partition('://')[0]}://...; copy it")
    path = absolute(truth)
    found = _format_of(path) if truth_format == "auto" else {known.name: known for known in FORMATS}[truth_format]
    if found.is_folder and not os.path.isdir(path):
        raise UsageError(f"--truth-format {found.name} expects a folder, {path} is none; check --truth")
    batches = found.read(path, path if masks is None else absolute(masks))
    return TruthSource(format=found.name, frame=found.frame, batches=batches)


def _format_of(path: str) -> Format:
    """Tell a truth's format; that of a folder by its files where nothing else tells it."""
    found = next((known for known in FORMATS if known.recognise(path)), None)
    if found is YOLO:
        return _yolo_or_voc(path)
    if found:
        return found
    if not os.path.exists(path):
        raise UsageError(f"there is no ground truth at {path}; check --truth")
    if not os.path.isdir(path):
        raise _unknown(path, _cure_of(path))
    names = islice((name for _, _, names in os.walk(path) for name in names), NUM_LOOKED_AT)
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    if YOLO.suffix in suffixes and not _first(path, ".txt", is_labels):
        suffixes.remove(YOLO.suffix)  # notes and lists
    found = next((known for known in FORMATS if known.suffix in suffixes), None)
    other = None if found in (VOC, YOLO) else _first(path, (".json", *TABLE_SUFFIXES))
    if other:  # pictures may lie beside it, and look like masks
        masks = f", or --truth-format {MASKS.name}" if found is MASKS else ""
        raise _unknown(path, f"it holds {os.path.relpath(other, path)}: {_cure_of(other)}{masks}")
    if found:
        return found
    raise _unknown(path)


def _yolo_or_voc(path: str) -> Format:
    """Tell what a folder with names of classes, or with labels, is: VOC may have such, too."""
    if not (voc := _first(path, ".xml", is_annotation)):
        return YOLO
    if labels := _first(path, ".txt", is_labels):
        of_voc, of_yolo = (os.path.relpath(file, path) for file in (voc, labels))
        raise _unknown(path, f"it holds {of_voc}, of {VOC.name}, and {of_yolo}, of {YOLO.name}")
    return VOC


def _first(path: str, suffix: str | tuple[str, ...], fits: Callable[[str], bool] = lambda file: True) -> str | None:
    """Return the first file below a folder that fits, of some that have the suffix."""
    with reading(path, "a folder"):
        return next((file for _, file in islice(files_below(path, suffix), NUM_LOOKED_AT) if fits(file)), None)


def _cure_of(file: str) -> str:
    """Say what is to be given in place of a file, or of the folder that it is in."""
    name, folder = file.lower(), os.path.dirname(file)
    if name.endswith((".yaml", ".yml", ".txt", ".names", ".xml", ".png")):
        return f"give the folder, --truth {folder}"
    if name.endswith((".zip", ".tar.gz", ".tgz")):
        return "unpack it, and give the folder"
    if name.endswith(TABLE_SUFFIXES):
        return f"give --truth {file}, or its folder"
    if name.endswith(".json"):
        with reading(file, "JSON"):
            size_of_file(file)
            with open(file, "rb") as opened:
                head = opened.read(HEAD_BYTES)
        tool = next((tool for tool, word in OTHER_JSON.items() if word in head), None)
        return f"the JSON of {tool} is not read, write it as COCO" if tool else f"of coco, give the file itself: {file}"
    return ""


def _unknown(path: str, cure: str = "") -> UsageError:
    formats = f"give --truth-format, one of {', '.join(known.name for known in FORMATS)}"
    return UsageError(f"cannot tell the format of the ground truth {path}; {f'{cure}; or ' if cure else ''}{formats}")
