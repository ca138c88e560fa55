"""EXIF orientation: told, and turned, as Pillow and OpenCV turn pictures."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from cam_ops.pictures.decode import decode
from cam_ops.pictures.orientation import orientation_of, turned, turned_boxes

WIDTH, HEIGHT = 28, 20


def stored(form: str, number: int, tag: int = 274) -> bytes:
    """A picture whose every pixel is another, in a format without loss but for JPEG."""
    pixels_HW3 = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels_HW3[..., 0], pixels_HW3[..., 1] = np.arange(HEIGHT)[:, None] * 12, np.arange(WIDTH) * 9
    exif = Image.Exif()
    exif[tag] = number
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_pixels_are_turned_as_both_libraries_turn_them(form: str, number: int) -> None:
    encoded = stored(form, number)
    found, width, height = orientation_of(encoded)
    assert (found, width, height) == (1 if form == "BMP" else number, WIDTH, HEIGHT)  # BMP keeps no EXIF
    with Image.open(io.BytesIO(stored(form, 1))) as picture, Image.open(io.BytesIO(encoded)) as other:
        shown_HW3 = turned(np.asarray(picture), found)
        np.testing.assert_array_equal(shown_HW3, np.asarray(ImageOps.exif_transpose(other)))
    if form not in ("JPEG", "MPO"):  # whose decoders differ by one
        np.testing.assert_array_equal(shown_HW3, decode(encoded))


@pytest.mark.parametrize("number", [0, 9, 300])
def test_numbers_that_are_none_leave_the_picture_as_it_is(number: int) -> None:
    assert orientation_of(stored("PNG", number)) == (1, WIDTH, HEIGHT)


def test_what_opencv_does_not_see_is_not_told() -> None:
    """XMP alone turns nothing; a PNG's chunk behind the pixels does."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, "JPEG", xmp=xmp)
    assert (orientation_of(stream.getvalue())[0], decode(stream.getvalue()).shape) == (1, (HEIGHT, WIDTH, 3))
    encoded = stored("PNG", 6)
    begin = encoded.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(encoded[begin : begin + 4])
    late = encoded[:begin] + encoded[end:-12] + encoded[begin:end] + encoded[-12:]
    assert (orientation_of(late)[0], decode(late).shape) == (6, (WIDTH, HEIGHT, 3))


@pytest.mark.parametrize("number", range(1, 9))
def test_a_box_holds_the_same_pixels_after_it_was_turned(number: int) -> None:
    boxes_N4 = np.array([(3, 5, 11, 9), (0, 0, WIDTH, HEIGHT), (27, 0, 28, 1)], np.float64)
    sizes_N2, numbers_N = np.tile(np.array([WIDTH, HEIGHT]), (3, 1)), np.full(3, number, np.int32)
    for box_4, shown_4 in zip(boxes_N4.astype(int), turned_boxes(boxes_N4, numbers_N, sizes_N2), strict=True):
        inside_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        inside_HW[box_4[1] : box_4[3], box_4[0] : box_4[2]] = 1
        exif = Image.Exif()
        exif[274] = number
        stream = io.BytesIO()
        Image.fromarray(inside_HW).save(stream, "PNG", exif=exif)
        with Image.open(stream) as picture:
            y_N, x_N = np.nonzero(np.asarray(ImageOps.exif_transpose(picture)))
        assert shown_4.tolist() == [x_N.min(), y_N.min(), x_N.max() + 1, y_N.max() + 1]
