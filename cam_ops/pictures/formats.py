"""Formats of pictures: which are read, by which suffixes and first bytes they are known, and what to do about others.

One table for all sources. OpenCV decodes JPEG, PNG, WebP, BMP and TIFF, Pillow the others (`decode`); HEIC needs the
package `pillow-heif` beside it. Of animations and files of several pictures the first one is taken.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

HEAD_BYTES = 256  # of a file, by which its format is known
START_BYTES = 20  # that tell formats which are read, but for brands

CONVERT = "convert them to PNG or JPEG"
HEIF_CURE = "pip install pillow-heif to have them read"
_SUFFIX = re.compile(r"\.(?=[0-9]*[a-z])([a-z0-9]{1,8})$")  # neither the date in `seen 05.11` nor the number in `a.001`


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormat:
    """A format: its name for people, its suffixes without dot, and the bytes that its files begin with."""

    name: str
    suffixes: tuple[str, ...]
    starts: tuple[bytes, ...] = ()  # alternatives
    further: re.Pattern[bytes] | None = None  # what they must match as well, or alone
    brands: frozenset[bytes] = frozenset()  # where it is an ISO base media file: one of these is among its brands
    pillow: str = ""  # Pillow's name for it; empty where it is not read
    cure: str = CONVERT  # where it is not read


OPENCV = (
    PictureFormat(
        name="JPEG", suffixes=("jpg", "jpeg", "jpe", "jfif", "mpo"), starts=(b"\xff\xd8\xff",), pillow="JPEG"
    ),
    PictureFormat(name="PNG", suffixes=("png", "apng"), starts=(b"\x89PNG\r\n\x1a\n",), pillow="PNG"),
    PictureFormat(
        name="WebP", suffixes=("webp",), starts=(b"RIFF",), further=re.compile(rb".{8}WEBP", re.DOTALL), pillow="WEBP"
    ),
    PictureFormat(
        name="BMP",
        suffixes=("bmp", "dib"),
        starts=(b"BM",),
        further=re.compile(rb".{15}\0{3}", re.DOTALL),
        pillow="BMP",
    ),
    PictureFormat(
        name="TIFF",
        suffixes=("tif", "tiff"),
        starts=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        pillow="TIFF",
    ),
)
PILLOW = (
    PictureFormat(name="GIF", suffixes=("gif",), starts=(b"GIF87a", b"GIF89a"), pillow="GIF"),
    PictureFormat(
        name="PPM",  # and PGM, PBM, as texts and as bytes
        suffixes=("ppm", "pgm", "pbm", "pnm"),
        starts=tuple(b"P%d" % number for number in range(1, 7)),
        further=re.compile(rb"..\s+[0-9#]"),
        pillow="PPM",
    ),
    PictureFormat(name="AVIF", suffixes=("avif",), brands=frozenset({b"avif", b"avis"}), pillow="AVIF"),
    PictureFormat(
        name="JPEG 2000",
        suffixes=("jp2", "j2k"),
        starts=(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        pillow="JPEG2000",
    ),
)
HEIF = PictureFormat(
    name="HEIC",
    suffixes=("heic", "heif", "hif"),
    brands=frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}),
    pillow="HEIF",
    cure=HEIF_CURE,
)
NOT_READ = (
    PictureFormat(name="JPEG XL", suffixes=("jxl",), starts=(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    PictureFormat(name="JPEG 2000 of several parts", suffixes=("jpx", "jpf", "jpm", "j2c", "jpc", "mj2")),
    PictureFormat(name="JPEG XR", suffixes=("jxr", "wdp", "hdp")),
    PictureFormat(name="ICO, several pictures of which none is the first", suffixes=("ico", "cur", "icns")),
    PictureFormat(name="TGA, of which no file says that it is one", suffixes=("tga",)),
    PictureFormat(name="PAM and PFM", suffixes=("pam", "pfm"), starts=(b"P7\n", b"PF\n", b"Pf\n")),
    PictureFormat(
        name="OpenEXR and Radiance, whose pixels are floats",
        suffixes=("exr", "hdr"),
        starts=(b"v/1\x01", b"#?RADIANCE"),
    ),
    PictureFormat(
        name="a camera's raw format",
        suffixes=("dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef", "srw"),
        brands=frozenset({b"crx "}),
    ),
    PictureFormat(name="Photoshop's PSD", suffixes=("psd", "psb"), starts=(b"8BPS",)),
    PictureFormat(name="SVG", suffixes=("svg", "svgz"), starts=(b"<svg",)),
    PictureFormat(name="DICOM", suffixes=("dcm", "dicom"), further=re.compile(rb".{128}DICM", re.DOTALL)),
    PictureFormat(name="DDS", suffixes=("dds",), starts=(b"DDS ",)),
    PictureFormat(name="PCX, SGI, XBM and XPM", suffixes=("pcx", "sgi", "xbm", "xpm")),
    PictureFormat(name="macOS's AppleDouble", suffixes=(), starts=(b"\0\x05\x16\x07",)),
)
FORMATS = (*OPENCV, *PILLOW, HEIF, *NOT_READ)
_BY_SUFFIX = {suffix: form for form in FORMATS for suffix in form.suffixes}


@lru_cache(maxsize=1)
def has_heif() -> bool:
    """Say whether the package that reads HEIC is installed here."""
    return find_spec("pillow_heif") is not None


def is_read(form: PictureFormat | None) -> bool:
    """Say whether pictures of a format are decoded here; None is no format."""
    return form is not None and bool(form.pillow) and (form is not HEIF or has_heif())


@lru_cache(maxsize=1)
def read_formats() -> tuple[PictureFormat, ...]:
    """Return the formats that are decoded here."""
    return tuple(form for form in FORMATS if is_read(form))


@lru_cache(maxsize=1)
def read_suffixes() -> frozenset[str]:
    """Return the suffixes, in small letters and without dot, of files that are taken for pictures here."""
    return frozenset(suffix for form in read_formats() for suffix in form.suffixes)


def suffix_of(name: str) -> str:
    """Return a file's suffix in small letters and without dot, empty where its name has none."""
    found = _SUFFIX.search(name.rpartition("/")[2].lower(), 1) if name else None
    return found[1] if found else ""


def format_named(suffix: str) -> PictureFormat | None:
    """Return the format that a suffix, as `suffix_of` has it, stands for."""
    return _BY_SUFFIX.get(suffix)


def format_of(head: bytes) -> PictureFormat | None:
    """Return the format of a file by its first `HEAD_BYTES`, or fewer where it ends before; None if it is none."""
    brands = _brands(head)
    return next((form for form in FORMATS if form.brands & brands or _begins(form, head)), None)


def may_become_one(head: bytes) -> bool:
    """Say whether a file that has no more bytes than these could be a picture that is read, but for its end."""
    if len(head) < 12 and b"ftyp".startswith(head[4:8]):  # sizes and brands of ISO base media files vary
        return True
    starts = [start for form in read_formats() for start in form.starts]
    return len(head) < START_BYTES and any(start.startswith(head[: len(start)]) for start in starts)


def _begins(form: PictureFormat, head: bytes) -> bool:
    if form.starts and not head.startswith(form.starts):
        return False
    return form.further.match(head) is not None if form.further else bool(form.starts)


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO base media file, the first one and those that it is compatible with."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4]), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
