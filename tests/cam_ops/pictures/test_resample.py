"""A map at the picture's pixels: values worked out by hand, and torch's own interpolation."""

import numpy as np
import pytest
import torch

from cam_ops.pictures import resample
from cam_ops.pictures.resample import at_pixels, inside, strips


def rectangle(*corners: float) -> np.ndarray:
    return np.array(corners, np.float32)


def interpolated(map_YX: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a map enlarged by torch."""
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(map_YX)[None, None], (height, width), mode="bilinear")
    return enlarged[0, 0].numpy()


def test_four_pixels_between_two_cells() -> None:
    values = at_pixels(np.array([[0.0, 1.0], [0.5, 0.5]]), rectangle(0, 0, 4, 4), range(4), 4)
    np.testing.assert_array_equal(values[0], [0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(values[3], [0.5] * 4)
    np.testing.assert_array_equal(values[:, 0], [0, 0.125, 0.375, 0.5])


@pytest.mark.parametrize("size", [(61, 47), (224, 224), (500, 375), (7, 5), (1, 1)])
def test_over_the_whole_picture_it_is_torchs_interpolation(size: tuple[int, int]) -> None:
    map_YX = np.random.default_rng(0).random((20, 32))
    values = at_pixels(map_YX, rectangle(0, 0, *size), range(size[1]), size[0])
    np.testing.assert_allclose(values, interpolated(map_YX, *size), rtol=0, atol=1e-12)


def test_a_map_of_the_pictures_own_size_is_itself_to_the_last_bit() -> None:
    map_YX = np.random.default_rng(0).random((224, 224))
    np.testing.assert_array_equal(at_pixels(map_YX, rectangle(0, 0, 224, 224), range(224), 224), map_YX)


def test_a_rectangle_that_reaches_beyond_the_picture_is_cut_at_its_edges() -> None:
    map_YX = np.random.default_rng(1).random((20, 32))
    values = at_pixels(map_YX, rectangle(-10, -3, 50, 37), range(30), 40)
    np.testing.assert_allclose(values, interpolated(map_YX, 60, 40)[3:33, 10:50], rtol=0, atol=1e-12)
    assert inside(rectangle(-10, -3, 50, 37), range(30), 40).all()


def test_a_rectangle_within_the_picture_fills_its_pixels_and_no_others() -> None:
    map_YX = np.random.default_rng(2).random((20, 32))
    covered = rectangle(5, 3, 25, 13)
    values, is_inside = (at_pixels(map_YX, covered, range(20), 40), inside(covered, range(20), 40))
    np.testing.assert_allclose(values[3:13, 5:25], interpolated(map_YX, 20, 10), rtol=0, atol=1e-12)
    assert (is_inside.sum(), is_inside[3:13, 5:25].sum()) == (200, 200)


def test_strips_are_all_rows_once_and_have_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    map_YX = np.random.default_rng(3).random((20, 32))
    whole = at_pixels(map_YX, rectangle(-4, 2.5, 90, 61), range(70), 90)
    for pixels in (1, 89, 91, 1000, 10**6):
        monkeypatch.setattr(resample, "PIXELS_AT_ONCE", pixels)
        rows = list(strips(90, 70))
        assert [row for some in rows for row in some] == list(range(70))
        parts = [at_pixels(map_YX, rectangle(-4, 2.5, 90, 61), some, 90) for some in rows]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
