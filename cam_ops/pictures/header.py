"""What a picture says of itself before it is decoded: format, size, and that it is no bomb; or why it cannot be.

A header is read by Pillow, with no more than the one plugin that the first bytes ask for; that takes 0.03 ms, all of it
under Python's lock, so the size of an ordinary JPEG is read here, in 0.002 ms.
"""

import contextlib
import io
import re
import struct
from dataclasses import dataclass
from typing import Any

from PIL import AvifImagePlugin, Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from cam_ops.errors import BadImage
from cam_ops.pictures.formats import (
    HEAD_BYTES,
    HEIF,
    PictureFormat,
    format_of,
    is_read,
    may_become_one,
    read_formats,
)

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own bound: 256 MiB of RGB
MAX_SIDE = 2**20  # OpenCV's bound
MAX_TEXT_BYTES = 32 * 2**20  # of a PPM in digits, which Pillow reads at some 2 MB/s
MAX_SCANS = 500  # as libjpeg-turbo advises: a progressive JPEG's scan of a few bytes is a pass over all its pixels
JPEG = b"\xff\xd8\xff"  # how OpenCV tells it, too
SCAN = b"\xff\xda"
JPEG_SIZES, JPEG_PIXELS = (0xC0, 0xC1), 0xDA  # markers: SOF0 and SOF1, which are not progressive, and SOS
JPEG_OTHERS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, applications' own
JPEG_2000_END = b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"
PPM_TEXTS = (b"P1", b"P2", b"P3")
TIFF_PARTS = ((273, 279), (324, 325))  # tags: where strips or tiles begin, how many bytes they have
TIFF_BITS, TIFF_BANDS, TIFF_KIND = 258, 277, 339  # tags
TIFF_KINDS = {1: "whole numbers", 2: "signed whole numbers", 3: "floats", 5: "complex numbers", 6: "complex floats"}
BIG_TIFF = (b"II+\0", b"MM\0+")
PILLOW_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, IndexError, ArithmeticError, EOFError, struct.error),
    *(RuntimeError, KeyError),
)

_ADDRESS = re.compile(r" object at 0x[0-9a-f]+")  # the tables hold nothing that changes from run to run


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A picture's format, and its size before EXIF orientation."""

    form: PictureFormat
    width: int
    height: int


def open_picture(content: io.BytesIO, form: PictureFormat) -> Image.Image:
    """Open a picture of a format that is read, as Pillow does: pixels are decoded when they are asked for.

    On one thread: a replica has one core.
    """
    if form is HEIF:
        import pillow_heif  # an extra

        pillow_heif.options.DECODE_THREADS = 1
        pillow_heif.register_heif_opener()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return Image.open(content, formats=(form.pillow,))


def read_header(encoded: bytes) -> Header:
    """Return format and size; raises BadImage ``empty``, ``too_large``, ``truncated`` or ``undecodable``."""
    if not encoded:
        raise BadImage("empty", "the file has no bytes")
    if len(encoded) > MAX_BYTES:
        raise BadImage("too_large", f"more than {MAX_BYTES} bytes")
    form = format_of(encoded[:HEAD_BYTES])
    if form is None or not is_read(form):
        raise _why_not_read(encoded, form)
    if form.brands:
        _check_boxes(encoded, (b"dat",) if b"moov" in encoded else (b"iloc", b"dat"))  # `mdat`, or `idat` in `meta`
    elif form.pillow == "JPEG2000":
        _check_boxes(encoded if encoded[:1] == b"\0" else b"", ())
        if JPEG_2000_END not in encoded:  # which stands nowhere among its pixels
            raise BadImage("truncated", "the file ends before its last part does")
    size = jpeg_size(encoded) if encoded.startswith(JPEG) else None
    width, height = size or _size(encoded, form)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadImage("too_large", f"{width}x{height} pixels, the limit is {MAX_PIXELS}, of a side {MAX_SIDE}")
    if encoded.startswith(PNG):
        _check_chunks(encoded)
    if encoded.startswith(PPM_TEXTS) and len(encoded) > MAX_TEXT_BYTES:
        raise BadImage("too_large", f"a PPM in digits of more than {MAX_TEXT_BYTES} bytes; convert it to bytes")
    return Header(form=form, width=width, height=height)


def _why_not_read(encoded: bytes, form: PictureFormat | None) -> BadImage:
    if form is None and may_become_one(encoded):
        return BadImage("truncated", "the file ends before its header does")
    *names, last = [known.name for known in read_formats()]
    kind = f"; its first bytes are those of {form.name}: {form.cure}" if form else ""
    return BadImage("undecodable", f"no {', '.join(names)} or {last} file{kind}")


def _check_chunks(encoded: bytes) -> None:
    """Raise BadImage where a PNG ends inside a chunk: OpenCV 5.0 fills as much memory as the chunk's length says."""
    start, kind = len(PNG), b""
    while start < len(encoded) and kind != b"IEND":
        length, kind = int.from_bytes(encoded[start : start + 4]), encoded[start + 4 : start + 8]
        start += 12 + length
    if start > len(encoded) or kind != b"IEND":
        raise BadImage("truncated", "the PNG file ends before its last chunk does")


def _check_boxes(encoded: bytes, needed: tuple[bytes, ...]) -> None:
    """Raise BadImage where a file of boxes, as AVIF and JPEG 2000 are, ends inside one of them, or before the needed.

    What is no box is left to the decoder to find.
    """
    start, length = 0, 8
    while start < len(encoded) and length >= 8:
        length, kind = int.from_bytes(encoded[start : start + 4]), encoded[start + 4 : start + 8]
        if length == 1:
            length = int.from_bytes(encoded[start + 8 : start + 16])
        if not length and kind.strip(b"\0"):  # to the end
            length = len(encoded) - start
        start += length
    if start > len(encoded) or not all(kind in encoded for kind in needed):
        raise BadImage("truncated", "the file ends before its last box does")


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Return width and height as stored of a JPEG that is not progressive, None where anything is unusual (ITU-T T.81).

    Where there is a size it is Pillow's, unless that finds a table damaged that `decode` will find so, too.
    """
    size, at = None, 2
    while at + 9 < len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == JPEG_PIXELS:
            return size
        length = encoded[at + 2] << 8 | encoded[at + 3]
        if marker in JPEG_SIZES:
            height, width = encoded[at + 5] << 8 | encoded[at + 6], encoded[at + 7] << 8 | encoded[at + 8]
            bits, bands = encoded[at + 4], encoded[at + 9]
            if size or bits != 8 or bands not in (1, 3) or length != 8 + 3 * bands or not width * height:
                return None
            size = width, height
        elif marker not in JPEG_OTHERS or length < 2:
            return None
        at += 2 + length
    return None


def _size(encoded: bytes, form: PictureFormat) -> tuple[int, int]:
    try:
        with open_picture(io.BytesIO(encoded), form) as picture:
            num_scans = encoded.count(SCAN) if "progressive" in picture.info else 1
            size = picture.size
            odd = _odd_tiff(picture.tag_v2) if isinstance(picture, TiffImageFile) else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too_large", str(error)) from None
    except PILLOW_ERRORS:
        raise _why_no_size(encoded, form) from None
    if num_scans > MAX_SCANS:
        raise BadImage("too_large", f"a progressive JPEG of {num_scans} scans, the limit is {MAX_SCANS}")
    if odd and TIFF_KINDS[2] in odd:  # OpenCV would take -1 for 255
        raise BadImage("undecodable", odd)
    return size


def _why_no_size(encoded: bytes, form: PictureFormat) -> BadImage:
    content = _Content(encoded)
    with contextlib.suppress(*PILLOW_ERRORS):  # as before
        open_picture(content, form).close()
    if content.is_short or _riff_is_cut(encoded):  # Pillow opens a WebP file only if it is whole
        return BadImage("truncated", "the file ends before its header does, or before its header says")
    odd = _odd_tiff(_tiff_tags(encoded)) if form.pillow == "TIFF" else None
    return BadImage("undecodable", odd or "its header is damaged")


def why_not_decoded(encoded: bytes, form: PictureFormat) -> BadImage:
    """Return why a picture with a good header could not be decoded: Pillow says whether it merely ends too early.

    OpenCV 5 returns None for every damaged picture.
    """
    content, reason, is_cut = _Content(encoded), "OpenCV cannot decode it", False
    try:
        picture = open_picture(content, form)
    except PILLOW_ERRORS:
        return _why_no_size(encoded, form)
    try:
        with picture:
            if isinstance(picture, TiffImageFile):
                is_cut = _part_is_cut(picture, len(encoded))
                reason = _odd_tiff(picture.tag_v2) or reason
            picture.load()
    except PILLOW_ERRORS as error:
        if reason.startswith("OpenCV"):
            reason = f"{type(error).__name__}: {_ADDRESS.sub('', str(error))}"
    is_cut |= content.is_short or "truncated" in reason or "unexpected end" in reason.lower()
    return BadImage("truncated" if is_cut else "undecodable", reason)


def _part_is_cut(picture: TiffImageFile, num_bytes: int) -> bool:
    tags = picture.tag_v2
    parts = [zip(tags.get(start, ()), tags.get(length, ()), strict=False) for start, length in TIFF_PARTS]
    return any(start + length > num_bytes for part in parts for start, length in part)


def _tiff_tags(encoded: bytes) -> Any:
    """Return the tags of a TIFF's first picture, none where they cannot be read."""
    start = encoded[: 16 if encoded.startswith(BIG_TIFF) else 8]
    with contextlib.suppress(*PILLOW_ERRORS):
        tags = ImageFileDirectory_v2(start)
        content = io.BytesIO(encoded)
        content.seek(tags.next)
        tags.load(content)
        return tags
    return {}


def _odd_tiff(tags: Any) -> str | None:
    """Say what a TIFF holds if it is sound and of a kind that neither OpenCV nor Pillow makes colours of."""
    with contextlib.suppress(*PILLOW_ERRORS):  # tags of another type than they should be
        bits, bands = max(tags.get(TIFF_BITS, (1,))), int(tags.get(TIFF_BANDS, 1))
        kind = max(tags.get(TIFF_KIND, (1,)))
        if kind in TIFF_KINDS and (kind != 1 or bits not in (1, 2, 4, 8, 16) or bands not in (1, 3, 4)):
            return (
                f"a TIFF of {bands} band(s) of {bits}-bit {TIFF_KINDS[kind]}; read are 1, 3 or 4 bands of 8 or 16 bits "
                "without sign: convert it to these"
            )
    return None


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
