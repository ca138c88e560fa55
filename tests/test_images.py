import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from cam_ops.fit import fit
from cam_ops.images import BadImage, decode
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
    square_SS3, rectangle = fit(image_HWC, config("warp", image_size=224))
    pillow = np.asarray(Image.fromarray(image_HWC).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(square_SS3.astype(int) - pillow).max() <= 1
    np.testing.assert_array_equal(rectangle, [0, 0, 500, 375])


def test_letterbox_pads_with_the_mean_and_its_rectangle_reaches_beyond_the_picture() -> None:
    square_SS3, rectangle = fit(np.full((20, 40, 3), 255, np.uint8), config("letterbox"))
    np.testing.assert_array_equal(rectangle, [0, -10, 40, 30])
    np.testing.assert_array_equal(square_SS3[2:6], 255)
    np.testing.assert_array_equal(square_SS3[[0, 1, 6, 7]], np.broadcast_to([128, 64, 0], (4, 8, 3)))


def test_center_crop_covers_a_centred_square() -> None:
    image_HWC = np.zeros((40, 60, 3), np.uint8)
    image_HWC[10:30, 20:40] = 200
    square_SS3, rectangle = fit(image_HWC, config("center-crop"))
    np.testing.assert_array_equal(rectangle, [20, 10, 40, 30])
    np.testing.assert_array_equal(square_SS3, 200)
