"""Masks of every depth: what is inside is what is not 0 in the file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cam_ops.errors import BadImage
from cluster.formats.pixels.mask_pixels import read_mask

SIDE = 8
INSIDE_HW = np.zeros((SIDE, SIDE), np.uint8)
INSIDE_HW[2:5, 1:7] = 1


def palette() -> Image.Image:
    """Colour 0 is white, colour 1 black, as no colour is told from its number."""
    picture = Image.fromarray(INSIDE_HW, "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    return picture


def with_alpha(colour_HW: np.ndarray, alpha_HW: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour_HW, colour_HW, colour_HW, alpha_HW]).astype(np.uint8))


ALL_HW = np.full((SIDE, SIDE), 255)
MASKS = {
    "1 and 0": Image.fromarray(INSIDE_HW),
    "one bit": Image.fromarray(INSIDE_HW.astype(bool)),
    "16 bits, below 256": Image.fromarray(INSIDE_HW.astype(np.uint16)),
    "16 bits": Image.fromarray(INSIDE_HW.astype(np.uint16) * 40_000),
    "an id as a colour": Image.fromarray(np.dstack([INSIDE_HW * 0, INSIDE_HW * 0, INSIDE_HW])),
    "palette": palette(),
    "opaque": with_alpha(INSIDE_HW * 255, ALL_HW),
    "transparent outside": with_alpha(INSIDE_HW * 255, INSIDE_HW * 255),
}


@pytest.mark.parametrize("name", MASKS)
def test_inside_is_what_is_not_nothing_at_any_depth(tmp_path: Path, name: str) -> None:
    MASKS[name].save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask([str(tmp_path / "mask.png")], None, SIDE), INSIDE_HW)


def test_sixteen_bits_of_colour_keep_their_lower_half(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.dstack([INSIDE_HW * 0, INSIDE_HW, INSIDE_HW * 0]).astype(np.uint16))
    np.testing.assert_array_equal(read_mask([str(tmp_path / "mask.png")], None, SIDE), INSIDE_HW)


@pytest.mark.parametrize(
    ("colour_HW", "alpha_HW"), [(ALL_HW, INSIDE_HW * 255), (ALL_HW * 0, INSIDE_HW * 255)], ids=["white", "black"]
)
def test_a_mask_with_two_meanings_is_not_read(tmp_path: Path, colour_HW: np.ndarray, alpha_HW: np.ndarray) -> None:
    with_alpha(colour_HW, alpha_HW).save(tmp_path / "mask.png")
    with pytest.raises(BadImage, match="transparency") as caught:
        read_mask([str(tmp_path / "mask.png")], None, SIDE)
    assert caught.value.status == "mask unreadable"


def test_a_palettes_mask_is_turned_by_its_own_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    palette().save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_mask([str(tmp_path / "mask.png")], None, SIDE), np.rot90(INSIDE_HW, -1))
