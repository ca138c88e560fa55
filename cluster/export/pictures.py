"""The pictures of an export: linked as they are, or written so that every reader sees them as the boxes are drawn.

Boxes are of the picture as it is seen. Readers that ignore EXIF orientation see the stored pixels, so a picture that it
turns is written anew, upright; so is one that XMP turns, as Pillow sees it and OpenCV does not; and one of a format
that few read.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import cv2

from cam_ops.arrays import U8
from cam_ops.errors import BadImage
from cam_ops.pictures.decode import decode
from cam_ops.pictures.formats import OPENCV, PictureFormat, format_of
from cam_ops.pictures.header import PILLOW_ERRORS
from cam_ops.pictures.orientation import AS_STORED, QUARTER, orientation_of
from cluster.formats.exported import split_suffix
from cluster.sources.kinds import decoder_of
from cluster.sources.reading import HEAD_BYTES, header_of, read_image
from cluster.sources.source import Row
from cluster.sources.tables.cells import is_cell
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions

JPEG_QUALITY = 95
JPEG_END = b"\xff\xd9"
JPEG, PNG = OPENCV[0], OPENCV[1]
START_BYTES = 2**18  # of a JPEG, in which its EXIF and XMP lie
TURNED_BY_XMP = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')  # as Pillow finds it
KEPT = {"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "mpo"}  # suffixes that readers of folders look for
LOSSY = {"JPEG", "WEBP", "AVIF", "JPEG2000", "HEIF"}  # by Pillow's names


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A picture as it goes out: its bytes, or the local file that has them."""

    form: PictureFormat
    content: bytes
    path: str | None = None
    is_new: bool = False  # encoded here


def own_file(row: Row) -> str:
    """Return the address of the file or object that holds a planned picture alone; empty where there is none."""
    is_whole = row["offset"] == 0 and not is_cell(row["size"]) and decoder_of(row) is None
    return row["uri"] if is_whole else ""


def read_ready(row: Row, options: StorageOptions, *, may_link: bool, as_jpeg: bool) -> Ready:
    """Read a picture of a run's images table as it goes out; `may_link` to its file, if it has one.

    Raises BadImage where it is gone, or has not the pixels or bytes that the run saw, StorageError where storage fails.
    """
    if own := decoder_of(row):
        return _encoded(own(_content(row, options)), is_lossy=as_jpeg)
    path = _local_path(row) if may_link else None
    start = read_image(row["uri"], 0, START_BYTES, options) if path else b""
    content = b"" if start.startswith(JPEG.starts) else _content(row, options)
    try:
        turn, width, height = orientation_of(content) if content else header_of(row, options)
        num_bytes = len(content) if content or path is None else os.path.getsize(path)
    except PILLOW_ERRORS:
        raise BadImage("undecodable", "it is no picture") from None
    form = format_of((content or start)[:HEAD_BYTES])
    if form is None or (row["width"], row["height"]) != ((height, width) if turn >= QUARTER else (width, height)):
        raise BadImage("undecodable", f"it has {width}x{height} pixels")
    if row["size"] >= 0 and num_bytes != row["size"]:
        raise BadImage("undecodable", f"it has {num_bytes} bytes")
    is_upright = turn == AS_STORED and not TURNED_BY_XMP.search(content or start)
    if not is_upright or form not in OPENCV or (as_jpeg and form is not JPEG):
        return _encoded(decode(content or _content(row, options)), is_lossy=as_jpeg or form.pillow in LOSSY)
    if path and form is JPEG and not _ends_well(path):
        return Ready(form=form, content=_content(row, options))
    return Ready(form=form, content=content, path=path)


def _ends_well(path: str) -> bool:
    """Say whether a JPEG ends as it should; Ultralytics mends others where they lie, which must not be the user's."""
    with open(path, "rb") as file:
        file.seek(-len(JPEG_END), os.SEEK_END)
        return file.read() == JPEG_END


def _content(row: Row, options: StorageOptions) -> bytes:
    """Return a picture's bytes, of a file of its own all that it has now."""
    return read_image(row["uri"], row["offset"], -1 if own_file(row) else row["size"], options)


def _local_path(row: Row) -> str | None:
    address = own_file(row)
    if not address or is_store(address):
        return None
    return os.fsdecode(unquote_to_bytes(address[7:])) if address.startswith("file://") else address


def _encoded(pixels_HWC: U8, *, is_lossy: bool) -> Ready:
    form = JPEG if is_lossy else PNG
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if is_lossy else []
    return Ready(form=form, content=cv2.imencode(_suffix(form), pixels_HWC[..., ::-1], flags)[1].tobytes(), is_new=True)


def _suffix(form: PictureFormat) -> str:
    return f".{form.suffixes[0]}"


def name_with(name: str, ready: Ready, *, as_jpeg: bool) -> str:
    """Return a name that says what the file is: its own suffix where that is of the format, else the format's."""
    stem, suffix = split_suffix(name)
    if as_jpeg:
        return stem + _suffix(ready.form)
    return name if suffix.lower().removeprefix(".") in KEPT & {*ready.form.suffixes} else stem + _suffix(ready.form)
