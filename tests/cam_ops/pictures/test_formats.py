"""By which suffixes and first bytes pictures are known: written by Pillow and by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from cam_ops.pictures.formats import (
    FORMATS,
    HEAD_BYTES,
    format_named,
    format_of,
    is_read,
    read_suffixes,
    suffix_of,
)

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


@pytest.mark.parametrize(
    ("form", "mode", "options", "name"),
    [
        *((form, "RGB", {}, form) for form in ("JPEG", "PNG", "BMP", "TIFF", "GIF", "AVIF", "PPM")),
        ("WEBP", "RGB", {}, "WebP"),
        *(("PPM", mode, {}, "PPM") for mode in ("L", "1", "I;16")),
        *(("JPEG2000", "RGB", options, "JPEG 2000") for options in ({}, {"no_jp2": True})),
        ("TIFF", "RGB", {"big_tiff": True}, "TIFF"),
        ("MPO", "RGB", {}, "JPEG"),
        ("DDS", "RGB", {}, "DDS"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(form: str, mode: str, options: dict[str, bool], name: str) -> None:
    stream = io.BytesIO()
    PICTURE.convert(mode).save(stream, form, **options)
    found = format_of(stream.getvalue()[:HEAD_BYTES])
    assert found is not None
    assert found.name == name
    assert is_read(found) == (form != "DDS")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(20), "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp41isom" + bytes(20), None),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\x05\x16\x07" + bytes(30), "macOS's AppleDouble"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"BM's notes on P5, in words", None),
        (b"P5_notes", None),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"GIF", None),
        (b"\xff\xd8", None),
        (b"", None),
    ],
)
def test_what_only_looks_like_one_is_none(head: bytes, name: str | None) -> None:
    found = format_of(head)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *(("a.JPG", "jpg"), ("b/c.d/e.tar.gz", "gz"), ("n.Jpe", "jpe"), ("x.7z", "7z"), ("clip.3gp", "3gp")),
        *(("a", ""), ("b.c/d", ""), (".profile", ""), ("IMG.0001", ""), ("seen 05.11.", ""), ("a.b c", ""), ("", "")),
        (".hidden.png", "png"),
    ],
)
def test_a_suffix_is_what_follows_the_last_dot_and_has_a_letter(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_no_suffix_stands_for_two_formats() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix_of(f"x.{suffix}") == suffix for suffix in suffixes)
    assert all(is_read(format_named(suffix)) for suffix in read_suffixes())
    assert {"jpg", "png", "ppm", "gif", "avif", "jpe", "mpo"} <= read_suffixes()
    assert not {"jxl", "svg", "tga", "dng", "txt"} & read_suffixes()
