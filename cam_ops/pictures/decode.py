"""Decode a picture.

Pictures are uint8 RGB arrays of shape (H, W, 3) **after EXIF orientation**; all coordinates of the project
refer to them, also where a picture was decoded at a reduced scale. Letters: H, W height and width of an array.
"""

import contextlib
import io
import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cam_ops.arrays import U8
from cam_ops.errors import BadImage
from cam_ops.settings import Preprocessing

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own bound: 256 MiB of RGB
MAX_SIDE = 2**20  # OpenCV's bound
MAX_SCANS = 500  # as libjpeg-turbo advises: a progressive JPEG's scan of a few bytes is a pass over all its pixels
STL10_SIDE = 96
STL10_BYTES = 3 * STL10_SIDE * STL10_SIDE
JPEG = b"\xff\xd8\xff"  # how OpenCV tells it, too
SCAN = b"\xff\xda"
PNG = b"\x89PNG\r\n\x1a\n"
MAGICS = (JPEG, PNG, b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHER_KINDS = ((0, b"GIF8", "GIF"), (4, b"ftyp", "HEIC, AVIF or video"), (0, b"\0\x05\x16\x07", "macOS's AppleDouble"))
TIFF_PARTS = ((273, 279), (324, 325))  # tags: where strips or tiles begin, how many bytes they have
SCALES = (8, 4, 2)  # that libjpeg decodes at by smaller inverse transforms: 1 / n, sizes rounded up
FLAGS = {  # the `GRAYSCALE` ones carry the scale alone; the `COLOR` ones ask for BGR as well, which excludes RGB
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
PILLOW_ERRORS = (OSError, ValueError, SyntaxError, TypeError, IndexError, ArithmeticError, EOFError, struct.error)


_ADDRESS = re.compile(r" object at 0x[0-9a-f]+")  # the tables hold nothing that changes from run to run


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture's pixels, perhaps fewer than it has, and its own size, which coordinates refer to."""

    pixels_HWC: U8
    width: int
    height: int


def whole(image_HWC: U8) -> Decoded:
    """Return a picture at its full scale."""
    height, width = image_HWC.shape[:2]
    return Decoded(pixels_HWC=image_HWC, width=width, height=height)


def decode(encoded: bytes) -> U8:
    """Return the picture as RGB, shape (H, W, 3), with its EXIF orientation applied.

    Raises BadImage with status ``empty``, ``too_large`` (bounds are checked on the header, before
    decoding), ``truncated`` or ``undecodable``.
    """
    return _decode_at(1, encoded, *_checked_size(encoded)).pixels_HWC


def decode_for(encoded: bytes, config: Preprocessing) -> Decoded:
    """Return the picture with the pixels that the network's input is made from.

    With ``config.decode`` ``reduced`` a large JPEG is decoded at 1/2, 1/4 or 1/8, at which it is still no smaller than
    that input. Raises what `decode` raises.
    """
    width, height = _checked_size(encoded)
    scale = _scale(width, height, config) if config.decode == "reduced" and encoded.startswith(JPEG) else 1
    return _decode_at(scale, encoded, width, height)


def _scale(width: int, height: int, config: Preprocessing) -> int:
    """Return the largest n so that the picture at 1/n has the input's pixels, and shows whether it was turned.

    Sides that differ by a few pixels may be equal at 1/n; such a picture is decoded at a scale at which they differ.
    """
    extent = _extent(width, height, config)
    for n in SCALES:
        if extent >= n * config.image_size and (width == height or -(-width // n) != -(-height // n)):
            return n
    return 1


def _extent(width: int, height: int, config: Preprocessing) -> int:
    """Return how many of the picture's pixels become the side of the network's input, where those are fewest."""
    if config.resize == "letterbox":
        return max(width, height)
    return min(width, height) if config.resize == "warp" else crop_side(width, height, config)


def crop_side(width: int, height: int, config: Preprocessing) -> int:
    """Return the side of the centred square that ``center-crop`` keeps, in pixels of the picture."""
    return max(1, round(min(height, width) * config.crop_fraction))


def _decode_at(scale: int, encoded: bytes, width: int, height: int) -> Decoded:
    """Decode at 1 / `scale` a picture that has the given size by its header, before EXIF orientation."""
    try:
        decoded_HWC = cv2.imdecode(np.frombuffer(encoded, np.uint8), FLAGS[scale])
    except cv2.error as error:
        raise BadImage("undecodable", str(error).strip()) from None
    if decoded_HWC is None:
        raise _why_not_decoded(encoded)
    pixels_HWC = np.asarray(decoded_HWC, np.uint8)
    for wide, high in ((width, height), (height, width)):  # as it is, or turned by its EXIF orientation
        if pixels_HWC.shape[:2] == (-(-high // scale), -(-wide // scale)):
            return Decoded(pixels_HWC=pixels_HWC, width=wide, height=high)
    high, wide = pixels_HWC.shape[:2]
    raise BadImage("undecodable", f"it has {wide}x{high} pixels, by its header {width}x{height}")


def decode_stl10(raw: bytes) -> U8:
    """Return one picture of STL10's binary files as RGB, shape (96, 96, 3).

    Its `STL10_BYTES` bytes are the red, green and blue planes, each column by column
    (https://cs.stanford.edu/~acoates/stl10). Raises BadImage with status ``truncated`` where there are fewer.
    """
    if len(raw) < STL10_BYTES:
        raise BadImage("truncated", f"{len(raw)} of the {STL10_BYTES} bytes of an STL10 picture are left")
    planes_CWH = np.frombuffer(raw, np.uint8).reshape(3, STL10_SIDE, STL10_SIDE)
    return np.ascontiguousarray(planes_CWH.transpose(2, 1, 0))


def _checked_size(encoded: bytes) -> tuple[int, int]:
    """Return width and height by the header, before EXIF orientation."""
    if not encoded:
        raise BadImage("empty", "the file has no bytes")
    if len(encoded) > MAX_BYTES:
        raise BadImage("too_large", f"more than {MAX_BYTES} bytes")
    width, height = _header_size(encoded)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadImage("too_large", f"{width}x{height} pixels, the limit is {MAX_PIXELS}, of a side {MAX_SIDE}")
    if encoded.startswith(PNG):
        _check_chunks(encoded)
    return width, height


def _check_chunks(encoded: bytes) -> None:
    """Raise BadImage where a PNG ends inside a chunk: OpenCV 5.0 fills as much memory as the chunk's length says."""
    start, kind = len(PNG), b""
    while start < len(encoded) and kind != b"IEND":
        length, kind = int.from_bytes(encoded[start : start + 4]), encoded[start + 4 : start + 8]
        start += 12 + length
    if start > len(encoded) or kind != b"IEND":
        raise BadImage("truncated", "the PNG file ends before its last chunk does")


def _header_size(encoded: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as picture:
            num_scans = encoded.count(SCAN) if "progressive" in picture.info else 1
            size = picture.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too_large", str(error)) from None
    except PILLOW_ERRORS:
        raise _why_no_header(encoded) from None
    if num_scans > MAX_SCANS:
        raise BadImage("too_large", f"a progressive JPEG of {num_scans} scans, the limit is {MAX_SCANS}")
    return size


def _why_no_header(encoded: bytes) -> BadImage:
    if not any(encoded.startswith(magic) or magic.startswith(encoded) for magic in MAGICS):
        kinds = [f"; its first bytes are {kind}'s" for at, magic, kind in OTHER_KINDS if encoded.startswith(magic, at)]
        return BadImage("undecodable", "no JPEG, PNG, WebP, BMP or TIFF file" + "".join(kinds))
    content = _Content(encoded)
    with contextlib.suppress(*PILLOW_ERRORS):  # as before
        Image.open(content, formats=PILLOW_FORMATS).close()
    if content.is_short or _riff_is_cut(encoded):  # Pillow opens a WebP file only if it is whole
        return BadImage("truncated", "the file ends before its header does, or before its header says")
    return BadImage("undecodable", "its header is damaged")


def _why_not_decoded(encoded: bytes) -> BadImage:
    """OpenCV 5 returns None for every damaged picture; Pillow says whether it merely ends too early."""
    content, reason, is_cut = _Content(encoded), "OpenCV cannot decode it", False
    try:
        with Image.open(content, formats=PILLOW_FORMATS) as picture:
            is_cut = isinstance(picture, TiffImageFile) and _part_is_cut(picture, len(encoded))
            picture.load()
    except PILLOW_ERRORS as error:
        reason = f"{type(error).__name__}: {_ADDRESS.sub('', str(error))}"
    is_cut |= content.is_short or "truncated" in reason or "unexpected end" in reason.lower()
    return BadImage("truncated" if is_cut else "undecodable", reason)


def _part_is_cut(picture: TiffImageFile, num_bytes: int) -> bool:
    tags = picture.tag_v2
    parts = [zip(tags.get(start, ()), tags.get(length, ()), strict=False) for start, length in TIFF_PARTS]
    return any(start + length > num_bytes for part in parts for start, length in part)


class _Content(io.BytesIO):
    """Notes whether its reader needed more than there is."""

    is_short = False

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if size is not None and len(chunk) < size:
            self.is_short |= not chunk or size < ImageFile.MAXBLOCK  # a whole block is asked for on suspicion
        return chunk


def _riff_is_cut(encoded: bytes) -> bool:
    return encoded[:4] == b"RIFF" and int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
