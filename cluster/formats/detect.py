"""Ground truth of any format as a stream of entries: which format it is, and who reads it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa

from cam_ops.errors import UsageError
from cluster.formats import coco as truth_json
from cluster.formats import loc_csv as truth_loc
from cluster.formats import masks as truth_masks
from cluster.formats import pascal_voc as truth_folders
from cluster.formats import table as truth_lines
from cluster.formats import tar as truth_tar
from cluster.formats import wsol as truth_wsol
from cluster.formats import yolo as truth_yolo
from cluster.formats.entries import Frame, batches_of
from cluster.formats.files import reading

Format = Literal["coco", "voc", "yolo", "loc", "wsol", "table", "table-inclusive", "tar", "masks"]
FORMATS: tuple[Format, ...] = get_args(Format)
FRAMES: dict[Format, Frame] = {
    **dict.fromkeys(FORMATS, "half-open"),
    "voc": "from-1",
    "yolo": "fractions",
    **dict.fromkeys(("loc", "wsol", "table-inclusive"), "inclusive"),
}
NUM_LOOKED_AT = 10_000  # files of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSource:
    """A truth that can be read once; reading raises UsageError."""

    format: Format
    frame: Frame
    batches: Iterator[pa.RecordBatch]  # schema ENTRIES


def open_truth(truth: str, truth_format: Literal["auto"] | Format, masks: str | None) -> TruthSource:
    """Find the format of a truth, a local file or folder, and begin to read it. Raises UsageError."""
    for flag, address in (("--truth", truth), ("--masks", masks or "")):
        if "://" in address:
            raise UsageError(f"{flag} expects a local file or folder, got {address.partition('://')[0]}://...; copy it")
    path = os.path.abspath(os.path.expanduser(truth))
    kind = _format_of(path) if truth_format == "auto" else truth_format
    if kind in ("voc", "yolo", "wsol", "masks") and not os.path.isdir(path):
        raise UsageError(f"--truth-format {kind} expects a folder, {path} is none; check --truth")
    return TruthSource(format=kind, frame=FRAMES[kind], batches=_batches(path, kind, masks))


def _batches(path: str, kind: Format, masks: str | None) -> Iterator[pa.RecordBatch]:
    match kind:
        case "table" | "table-inclusive":
            return truth_lines.table(path)
        case "coco":
            entries = truth_json.coco(path)
        case "tar":
            entries = truth_tar.tar(path)
        case "loc":
            entries = truth_loc.loc(path)
        case "wsol":
            entries = truth_wsol.wsol(path, os.path.abspath(os.path.expanduser(masks)) if masks else path)
        case "voc":
            entries = truth_folders.voc(path)
        case "yolo":
            entries = truth_yolo.yolo(path)
        case "masks":
            entries = truth_masks.masks(path)
    return batches_of(entries)


def _format_of(path: str) -> Format:
    """Tell a truth's format by names, and by the header of a CSV."""
    name = path.lower()
    if os.path.isdir(path):
        return _format_of_folder(Path(path))
    if name.endswith(".tar"):  # with wildcards, too
        return "tar"
    if not os.path.exists(path):
        raise UsageError(f"there is no ground truth at {path}; check --truth")
    if name.endswith(".json"):
        return "coco"
    if name.endswith(truth_lines.TABLE_SUFFIXES):
        with reading(path, "a table"):
            return "loc" if set(truth_loc.LOC) <= set(truth_lines.header_of(path)) else "table"
    raise _unknown(path)


def _format_of_folder(folder: Path) -> Format:
    if any((folder / name).exists() for name in truth_wsol.WSOL):
        return "wsol"
    if any((folder / name).exists() for name in (truth_yolo.YOLO_LABELS, *truth_yolo.YOLO_NAMES)):
        return "yolo"
    with reading(folder, "a folder"):
        if truth_tar.tar_paths(str(folder)):
            return "tar"
        if truth_lines.table_files(str(folder)):
            return "table"
        names = islice((name for _, _, names in os.walk(folder) for name in names), NUM_LOOKED_AT)
        suffixes = {os.path.splitext(name)[1].lower() for name in names}
    by_suffix: dict[str, Format] = {".xml": "voc", ".txt": "yolo", ".png": "masks"}
    found = next((kind for suffix, kind in by_suffix.items() if suffix in suffixes), None)
    if found is None:
        raise _unknown(str(folder))
    return found


def _unknown(path: str) -> UsageError:
    return UsageError(
        f"cannot tell the format of the ground truth {path}; give --truth-format, one of {', '.join(FORMATS)}"
    )
