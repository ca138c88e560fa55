"""What an export's formats share: a box's whole pixels."""

import numpy as np
import pytest

from cluster.formats.exported import Box

WIDTH = 37


def box(x0: float, x1: float) -> Box:
    return Box(class_id=0, x0=x0, y0=0, x1=x1, y1=1, score=0.5, energy=0.5, probability=None)


@pytest.mark.parametrize(
    ("ends", "pixels"),
    [
        ((3, 7), (3, 6)),  # as it is: four pixels
        ((3.4, 6.6), (3, 6)),
        ((3.6, 6.4), (4, 5)),
        ((0, 0.4), (0, 0)),  # none is half covered: the one that holds its middle
        ((3.6, 3.9), (3, 3)),
        ((3.9, 4.3), (4, 4)),
        ((36.8, 37), (36, 36)),
        ((0, 37), (0, 36)),
    ],
)
def test_a_box_s_pixels_are_those_between_the_nearest_lines(ends: tuple[float, float], pixels: tuple[int, int]) -> None:
    assert box(*ends).pixels == (pixels[0], 0, pixels[1], 0)


def test_pixels_are_in_the_picture_and_give_the_box_back_within_half_of_one() -> None:
    generator = np.random.default_rng(0)
    drawn_N2 = np.sort(generator.uniform(0, WIDTH, (20_000, 2)).astype(np.float32), axis=1)
    near_N2 = np.sort(generator.integers(0, 2 * WIDTH + 1, (2_000, 2)) / 2, axis=1)  # at, and amid, the lines
    thin_N2 = np.minimum(drawn_N2[:2_000, :1] + generator.uniform(0, 1, (2_000, 2)), WIDTH)
    ends_N2 = np.concatenate([drawn_N2, near_N2, np.sort(thin_N2.astype(np.float32), axis=1)])
    ends_N2 = ends_N2[ends_N2[:, 0] < ends_N2[:, 1]]
    pixels_N2 = np.array([box(*ends).pixels[::2] for ends in ends_N2.tolist()])
    assert (pixels_N2[:, 0].min(), pixels_N2[:, 1].max()) == (0, WIDTH - 1)
    assert (pixels_N2[:, 0] <= pixels_N2[:, 1]).all()
    off_N = np.abs(pixels_N2 + np.array([0, 1]) - ends_N2).max(axis=1)
    has_own_N = np.rint(ends_N2[:, 0]) < np.rint(ends_N2[:, 1])
    assert off_N[has_own_N].max() <= 0.5
    middle_N = ends_N2[~has_own_N].mean(axis=1)
    assert (pixels_N2[~has_own_N, 0] == np.floor(middle_N)).all()
    assert off_N[~has_own_N].max() < 1
    assert (ends_N2[~has_own_N, 1] - ends_N2[~has_own_N, 0]).max() <= 1
