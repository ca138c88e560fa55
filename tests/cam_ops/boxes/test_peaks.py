"""Regions split at peaks: values worked out by hand, a slow flooding pixel by pixel, and scikit-image as oracles."""

import cv2
import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from cam_ops.boxes.normalise import enlarge_and_normalise
from cam_ops.boxes.peaks import pieces_above
from cam_ops.boxes.regions import regions_above
from cam_ops.settings import MapConfig

Pieces = list[tuple[float, int, list[int]]]


def pieces_of(map_HW: object, threshold: float = 0.2) -> Pieces:
    """Return peak, pixel count and bounds of each piece, in order."""
    regions_N4, sizes_N, peak_N = pieces_above(np.array(map_HW, np.float64), threshold)
    return sorted(zip(peak_N.tolist(), sizes_N.tolist(), regions_N4.tolist(), strict=True))


@pytest.mark.parametrize(
    ("row", "pieces"),
    [
        ([10, 6, 9], [(9, 2, 3), (10, 0, 2)]),  # down by 3 from the lower one: h itself splits
        ([10, 7, 9], [(10, 0, 3)]),
        ([10, 6, 9, 7, 8], [(9, 2, 5), (10, 0, 2)]),  # 8 goes to 9, of which it is a shoulder
        ([8, 7, 9, 6, 10], [(9, 0, 3), (10, 3, 5)]),
        ([10, 5, 6, 4, 9], [(9, 3, 5), (10, 0, 3)]),  # 6 goes where its saddle is higher
        ([9, 4, 6, 5, 10], [(9, 0, 2), (10, 2, 5)]),
        ([10, 3, 6, 3, 9], [(6, 2, 3), (9, 3, 5), (10, 0, 2)]),
        ([6, 5, 7, 5, 8, 5, 10], [(8, 0, 5), (10, 5, 7)]),  # 6 goes to 7, and both to 8
        ([10, 1, 3, 1, 2.9], [(3, 2, 3), (10, 0, 1)]),  # regions of their own, one of them too low
    ],
)
def test_a_row_is_split_where_the_map_falls_by_h_from_either_peak(
    row: list[float], pieces: list[tuple[float, int, int]]
) -> None:
    assert pieces_of([row]) == [(peak, x1 - x0, [x0, 0, x1, 1]) for peak, x0, x1 in pieces]
    assert pieces_of(np.transpose([row])) == [(peak, x1 - x0, [0, x0, 1, x1]) for peak, x0, x1 in pieces]


def test_a_saddle_may_lie_across_a_corner_and_a_way_round_counts() -> None:
    assert pieces_of([[10, 0], [0, 9]]) == [(10, 2, [0, 0, 2, 2])]
    assert pieces_of([[10, 0, 9], [8, 8, 8]]) == [(10, 5, [0, 0, 3, 2])]
    assert pieces_of([[10, 0, 9], [6, 5, 6]]) == [(9, 2, [2, 0, 3, 2]), (10, 3, [0, 0, 2, 2])]


def test_a_pixel_as_high_as_another_belongs_with_the_one_that_comes_first() -> None:
    assert pieces_of([[10, 4, 4, 4, 10]]) == [(10, 2, [3, 0, 5, 1]), (10, 3, [0, 0, 3, 1])]
    assert pieces_of([[10, 0, 10], [10, 10, 10]]) == [(10, 5, [0, 0, 3, 2])]  # a plateau that begins twice is one peak
    assert pieces_of([[0, 0, 10], [5, 0, 7], [5, 5, 6]]) == [(10, 6, [0, 0, 3, 3])]


@pytest.mark.parametrize("side", [1, 2, 7])
def test_a_flat_map_is_one_piece_and_one_without_a_positive_value_none(side: int) -> None:
    assert pieces_of(np.full((side, side), 5)) == [(5, side * side, [0, 0, side, side])]
    for value in (0, -1, np.nan):
        assert pieces_of(np.full((side, side), value)) == []
    assert pieces_of([[10, 0, np.nan, 9]]) == []


def flooded(map_HW: np.ndarray, threshold: float) -> Pieces:
    """Flood the map from its highest pixel down, one pixel at a time, and join basins as soon as they may be."""
    peak = map_HW.max()
    owner: dict[tuple[int, int], tuple[int, int]] = {}  # of each pixel one nearer to its maximum

    def maximum_of(at: tuple[int, int]) -> tuple[int, int]:
        while owner[at] != at:
            at = owner[at]
        return at

    above = [tuple(at) for at in np.argwhere(map_HW >= threshold * peak).tolist()]
    for at in sorted(above, key=lambda at: (-map_HW[at], at)):
        around = [(at[0] + dy, at[1] + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        wet = sorted((near for near in around if near in owner), key=lambda near: (-map_HW[near], near))
        owner[at] = wet[0] if wet else at
        basins = sorted({maximum_of(near) for near in wet}, key=lambda top: (-map_HW[top], top))
        for top in basins[1:]:
            if map_HW[top] - map_HW[at] < 0.3 * peak:
                owner[top] = basins[0]
    found: Pieces = []
    for top in {maximum_of(at) for at in above}:
        rows, columns = zip(*[at for at in above if maximum_of(at) == top], strict=True)
        bounds = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
        found += [(map_HW[top], len(rows), bounds)] if map_HW[top] >= 0.3 * peak else []
    return sorted(found)


def blurred_noise(generator: np.random.Generator, side: int) -> np.ndarray:
    map_HW = cv2.GaussianBlur(generator.normal(size=(side, side + 3)), (0, 0), generator.uniform(0.5, 0.5 + side / 10))
    return map_HW / map_HW.max()


def test_pieces_of_noise_are_those_of_a_flooding_pixel_by_pixel() -> None:
    generator, counts = np.random.default_rng(0), []
    for _ in range(150):
        map_HW, threshold = blurred_noise(generator, int(generator.integers(2, 32))), generator.uniform(0.05, 0.6)
        pieces = pieces_of(map_HW, threshold)
        assert pieces == flooded(map_HW, threshold)
        counts.append(len(pieces))
    assert (min(counts), max(counts) > 10) == (1, True)


def test_peaks_of_maps_of_few_levels_are_those_of_a_flooding_pixel_by_pixel() -> None:
    generator = np.random.default_rng(1)
    for _ in range(150):
        map_HW = np.ceil(blurred_noise(generator, int(generator.integers(2, 24))) * 10)  # plateaus everywhere
        peaks, expected = ([piece[0] for piece in found] for found in (pieces_of(map_HW), flooded(map_HW, 0.2)))
        assert peaks == expected


def test_pieces_of_enlarged_maps_are_scikit_image_s_watershed_from_its_h_maxima() -> None:
    generator, num_split = np.random.default_rng(2), 0
    for _ in range(40):
        raw_hw = generator.normal(size=(int(generator.integers(3, 15)),) * 2).astype(np.float32)
        _, map_SS = enlarge_and_normalise(raw_hw, int(generator.integers(48, 160)), MapConfig())
        above_SS = map_SS >= 0.2
        region_SS = label(above_SS, connectivity=2)
        marker_SS = label(h_maxima(map_SS, 0.3, footprint=np.ones((3, 3))).astype(bool) & above_SS, connectivity=2)
        for region in set(np.unique(region_SS)) - set(region_SS[marker_SS > 0]) - {0}:  # lower than h all over
            marker_SS[region_SS == region] = marker_SS.max() + 1
        piece_SS = watershed(-map_SS, marker_SS, mask=above_SS, connectivity=2)
        masks = [piece_SS == piece for piece in range(1, piece_SS.max() + 1)]
        expected = sorted((map_SS[mask].max(), mask.sum()) for mask in masks if map_SS[mask].max() >= 0.3)
        found = [(peak, size) for peak, size, _ in pieces_of(map_SS)]
        np.testing.assert_allclose(found, expected, rtol=0.01)  # one pixel here and there on a watershed
        num_split += len(found) > region_SS.max()
    assert num_split > 5


def test_a_map_with_one_maximum_is_one_piece_its_region() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        centre_N, width_N = generator.uniform(0, 60, 2), generator.uniform(5, 30, 2)
        y_S1, x_1S = np.ogrid[:60, :60]
        distance_SS = ((y_S1 - centre_N[0]) / width_N[0]) ** 2 + ((x_1S - centre_N[1]) / width_N[1]) ** 2
        pieces, regions = pieces_above(np.exp(-distance_SS), 0.2), regions_above(np.exp(-distance_SS), 0.2)
        assert [part.tolist() for part in pieces] == [part.tolist() for part in regions]
        assert len(pieces[0]) == 1
