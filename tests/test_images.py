import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from cam_ops.fit import fit
from cam_ops.images import BadImage, decode, decode_for, whole
from cam_ops.settings import Preprocessing


def encoded(image_HWC: np.ndarray, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, form, **options)
    return stream.getvalue()


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def config(resize: str, **changes: object) -> Preprocessing:
    values = {
        "image_size": 8,
        "mean": (0.5, 0.25, 0.0),
        "std": (1.0, 1.0, 1.0),
        "interpolation": "bilinear",
        "resize": resize,
        "crop_fraction": 0.5,
        "decode": "full",
    }
    return Preprocessing(**{**values, **changes})


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_applies_it(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(20, 30), form, exif=exif)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_that_ends_too_early_is_truncated(form: str, kept: float) -> None:
    content = encoded(picture(120, 160), form)
    with pytest.raises(BadImage) as caught:
        decode(content[: int(len(content) * kept)])
    assert caught.value.status == "truncated"


def test_bad_bytes_have_their_status() -> None:
    bomb = encoded(np.zeros((1, 1, 3), np.uint8), "BMP")
    bomb = bomb[:18] + (100_000).to_bytes(4, "little") + (100_000).to_bytes(4, "little") + bomb[26:]
    for content, status in ((b"", "empty"), (b"not a picture", "undecodable"), (bomb, "too_large")):
        with pytest.raises(BadImage) as caught:
            decode(content)
        assert caught.value.status == status


def test_grey_and_sixteen_bit_and_alpha_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), expected)
    np.testing.assert_array_equal(decode(encoded(np.dstack([expected, 255 - grey]), "PNG")), expected)
    np.testing.assert_array_equal(decode(encoded(grey.astype(np.uint16) * 257, "PNG")), expected)


def test_warp_covers_the_whole_picture_and_resamples_as_pillow() -> None:
    image_HWC = picture(375, 500)
    square_SS3, rectangle = fit(whole(image_HWC), config("warp", image_size=224))
    pillow = np.asarray(Image.fromarray(image_HWC).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(square_SS3.astype(int) - pillow).max() <= 1
    np.testing.assert_array_equal(rectangle, [0, 0, 500, 375])


def test_letterbox_pads_with_the_mean_and_its_rectangle_reaches_beyond_the_picture() -> None:
    square_SS3, rectangle = fit(whole(np.full((20, 40, 3), 255, np.uint8)), config("letterbox"))
    np.testing.assert_array_equal(rectangle, [0, -10, 40, 30])
    np.testing.assert_array_equal(square_SS3[2:6], 255)
    np.testing.assert_array_equal(square_SS3[[0, 1, 6, 7]], np.broadcast_to([128, 64, 0], (4, 8, 3)))


def test_center_crop_covers_a_centred_square() -> None:
    image_HWC = np.zeros((40, 60, 3), np.uint8)
    image_HWC[10:30, 20:40] = 200
    square_SS3, rectangle = fit(whole(image_HWC), config("center-crop"))
    np.testing.assert_array_equal(rectangle, [20, 10, 40, 30])
    np.testing.assert_array_equal(square_SS3, 200)


def reduced(resize: str, side: int, **changes: object) -> Preprocessing:
    return config(resize, image_size=side, decode="reduced", crop_fraction=0.875, **changes)


@pytest.mark.parametrize("resize", ["warp", "letterbox", "center-crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (1000, 999), (1000, 1000), (997, 1013), (640, 481)])
def test_sizes_and_rectangles_are_those_of_the_full_picture(
    resize: str, orientation: int, width: int, height: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramps_HWC = np.zeros((height, width, 3), np.uint8)
    ramps_HWC[..., 0] = np.linspace(0, 255, width)
    ramps_HWC[..., 1] = np.linspace(0, 255, height)[:, None]
    content = encoded(ramps_HWC, "JPEG", quality=95, subsampling=0, exif=exif)
    for side in (50, 100, 224, 499):
        settings = reduced(resize, side)
        small, full = decode_for(content, settings), whole(decode(content))
        assert (small.width, small.height) == (full.width, full.height)
        (square_SS3, rectangle), (expected_SS3, expected) = fit(small, settings), fit(full, settings)
        np.testing.assert_array_equal(rectangle, expected)
        one_pixel, rounding = 255 / side, 3
        assert np.abs(square_SS3.astype(int) - expected_SS3).max() <= one_pixel + rounding


@pytest.mark.parametrize(
    ("resize", "side", "scale"),
    [
        *(("warp", 64, 8), ("warp", 65, 4), ("warp", 128, 4), ("warp", 129, 2), ("warp", 256, 2), ("warp", 257, 1)),
        *(("letterbox", 96, 8), ("letterbox", 97, 4), ("letterbox", 384, 2), ("letterbox", 385, 1)),
        *(("center-crop", 56, 8), ("center-crop", 57, 4), ("center-crop", 224, 2), ("center-crop", 225, 1)),
    ],
)
def test_the_scale_is_the_smallest_with_all_pixels_of_the_input(resize: str, side: int, scale: int) -> None:
    content = encoded(picture(512, 768), "JPEG")  # the shorter side is 512, the longer 768, the crop 448
    assert decode_for(content, reduced(resize, side)).pixels_HWC.shape == (512 // scale, 768 // scale, 3)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("form", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_pixels_are_those_of_pillow(scale: int, form: str, progressive: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(1203, 1601)).convert(form).save(stream, "JPEG", progressive=progressive)
    small = decode_for(stream.getvalue(), reduced("warp", 1203 // scale))
    with Image.open(stream) as opened:
        opened.draft(form, (1601 // scale, 1203 // scale))
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(small.pixels_HWC, expected)


def test_reduced_pixels_are_means_of_blocks() -> None:
    content = encoded(picture(1200, 1600), "JPEG", quality=95)
    for scale in (2, 4, 8):
        small_HWC = decode_for(content, reduced("warp", 1200 // scale)).pixels_HWC
        means_HWC = decode(content).reshape(1200 // scale, scale, 1600 // scale, scale, 3).mean((1, 3))
        assert np.abs(small_HWC - means_HWC).max() < 3


def test_small_pictures_and_other_formats_are_decoded_in_full() -> None:
    small = encoded(picture(447, 900), "JPEG")
    for content in (small, *(encoded(picture(1000, 1200), form) for form in ("PNG", "WEBP", "BMP", "TIFF"))):
        np.testing.assert_array_equal(decode_for(content, reduced("warp", 224)).pixels_HWC, decode(content))
    large = encoded(picture(1000, 1200), "JPEG")
    np.testing.assert_array_equal(decode_for(large, config("warp")).pixels_HWC, decode(large))


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("side", [50, 100, 224])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_file_that_ends_too_early_is_truncated_at_every_scale(
    kept: float, side: int, progressive: bool
) -> None:
    noise_HWC = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    content = encoded(noise_HWC, "JPEG", progressive=progressive)
    with pytest.raises(BadImage) as caught:
        decode_for(content[: int(len(content) * kept)], reduced("warp", side))
    assert caught.value.status == "truncated"
