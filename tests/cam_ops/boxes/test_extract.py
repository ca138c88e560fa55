"""Maps and boxes: values worked out by hand, and OpenCV and torch as independent oracles."""

import cv2
import numpy as np
import pytest
import torch

from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.boxes.normalise import enlarge_and_normalise, normalise
from cam_ops.boxes.regions import regions_above
from cam_ops.errors import UsageError
from cam_ops.settings import BoxConfig, MapConfig, Size

WHOLE = np.array([0, 0, 80, 40], np.float32)


def boxes_of(
    raw_hw: object, *, size: Size = 8, rectangle: np.ndarray = WHOLE, components: str = "largest", **maps: str
):
    raw_hw = np.array(raw_hw, np.float32)
    box_config = BoxConfig(threshold=(0.5,), components=components)
    size_12 = np.array([[80, 40]])
    return boxes_from_heatmaps(raw_hw[None], rectangle[None], size_12, size, MapConfig(**maps), box_config)


def test_one_pixel_blob_is_a_unit_box() -> None:
    map_SS = np.zeros((8, 8))
    map_SS[3, 5] = 1
    regions_N4, sizes_N, peaks_N = regions_above(map_SS, 0.5)
    assert (regions_N4.tolist(), sizes_N.tolist(), peaks_N.tolist()) == ([[5, 3, 6, 4]], [1], [1.0])


def test_diagonal_neighbours_are_one_region_and_the_threshold_itself_is_inside() -> None:
    map_SS = np.zeros((4, 4))
    map_SS[0, 0], map_SS[1, 1], map_SS[3, 3] = 1.0, 0.5, 0.49
    assert regions_above(map_SS, 0.5)[0].tolist() == [[0, 0, 2, 2]]


def test_a_box_is_scaled_to_the_original_through_the_rectangle() -> None:
    raw_88 = np.zeros((8, 8))
    raw_88[2:4, 1:5] = 1
    found = boxes_of(raw_88, normalise="max")
    assert found.boxes_N4.tolist() == [[10, 10, 50, 20]]
    assert found.area_fraction_N.tolist() == [pytest.approx(400 / 3200)]
    assert found.peak_N.tolist() == [1]
    assert found.energy_N.tolist() == [1]


def test_a_map_that_is_no_square_has_a_scale_for_each_side() -> None:
    raw_hw = np.zeros((4, 10))
    raw_hw[1:3, 2:5] = 1
    found = boxes_of(raw_hw, size=(4, 10), normalise="max")  # 8 columns of the picture and 10 rows are a pixel
    assert found.boxes_N4.tolist() == [[16, 10, 40, 30]]
    padded = boxes_of(raw_hw, size=(4, 10), rectangle=np.array([0, -10, 80, 30], np.float32), normalise="max")
    assert padded.boxes_N4.tolist() == [[16, 0, 40, 20]]
    raw_hw[0] = 9  # in the padding now
    padded = boxes_of(raw_hw, size=(4, 10), rectangle=np.array([0, -10, 80, 30], np.float32), normalise="max")
    assert padded.boxes_N4.tolist() == [[16, 0, 40, 20]]


def test_padding_of_a_letterbox_belongs_to_no_box() -> None:
    raw_88 = np.ones((8, 8))
    raw_88[0] = 9  # the peak lies in the padding
    found = boxes_of(raw_88, rectangle=np.array([0, -20, 80, 60], np.float32), normalise="max")
    assert found.boxes_N4.tolist() == [[0, 0, 80, 40]]


def test_all_regions_rank_by_peak_then_area_then_position() -> None:
    raw_88 = np.zeros((8, 8))
    raw_88[0, 0] = 8
    raw_88[0, 7] = 8
    raw_88[4, 1:4] = 8
    raw_88[7, 7] = 10
    found = boxes_of(raw_88, components="all", normalise="max")
    assert found.boxes_N4.tolist() == [[70, 35, 80, 40], [10, 20, 40, 25], [0, 0, 10, 5], [70, 0, 80, 5]]
    np.testing.assert_allclose(found.peak_N, [1, 0.8, 0.8, 0.8])
    np.testing.assert_allclose(found.energy_N, [10 / 50, 24 / 50, 8 / 50, 8 / 50], rtol=1e-6)


def test_the_largest_region_has_the_most_pixels_even_if_another_peaks_higher() -> None:
    raw_88 = np.zeros((8, 8))
    raw_88[1:4, 1:4] = 6
    raw_88[7, 7] = 10
    assert boxes_of(raw_88, normalise="max").boxes_N4.tolist() == [[10, 5, 40, 20]]


def test_peaks_rank_like_regions_and_share_the_map_s_mass_by_their_boxes() -> None:
    raw_88 = np.zeros((8, 8))
    raw_88[2, 1:6] = 8, 8, 5, 6, 10  # one region at .5 of the peak: the 8s end where the map has come down to 5
    raw_88[6, 1:3] = 6, 5
    found = boxes_of(raw_88, components="peaks", normalise="max")
    assert found.boxes_N4.tolist() == [[40, 10, 60, 15], [10, 10, 40, 15], [10, 30, 30, 35]]
    np.testing.assert_allclose(found.peak_N, [1, 0.8, 0.6])
    np.testing.assert_allclose(found.energy_N, [16 / 48, 21 / 48, 11 / 48], rtol=1e-6)
    np.testing.assert_allclose(found.area_fraction_N, [2 / 64, 3 / 64, 2 / 64])
    assert found.rank_N.tolist() == [0, 1, 2]
    assert len(boxes_of(raw_88, components="all", normalise="max").boxes_N4) == 2


@pytest.mark.parametrize(
    ("rectangle", "num_pixels"),
    [
        ([0, 0, 80, 40], 64),
        ([0, -20, 80, 60], 32),  # letterbox: half of the map is picture
        ([20, 0, 60, 40], 128),  # center-crop: the map is half of the picture
    ],
)
@pytest.mark.parametrize("components", ["all", "peaks"])
def test_regions_of_less_than_min_area_of_the_picture_are_left_out(
    rectangle: list[float], num_pixels: int, components: str
) -> None:
    raw_188 = np.zeros((1, 8, 8), np.float32)
    raw_188[0, 3, :3] = 8
    raw_188[0, 5, 6] = 10
    for min_area, sizes in ((0, [1, 3]), (1 / num_pixels, [1, 3]), (1.01 / num_pixels, [3]), (3.01 / num_pixels, [])):
        config = BoxConfig(threshold=(0.5,), components=components, min_area=min_area)
        rectangle_14, size_12 = np.array([rectangle], np.float32), np.array([[80, 40]])
        found = boxes_from_heatmaps(raw_188, rectangle_14, size_12, 8, MapConfig(), config)
        assert np.round(found.area_fraction_N * num_pixels).tolist() == sizes
        assert found.rank_N.tolist() == list(range(len(sizes)))


def test_min_area_is_one_hundredth_of_the_picture_for_peaks_and_else_nothing() -> None:
    assert [BoxConfig(components=name).least_area for name in ("largest", "all", "peaks")] == [0, 0, 0.01]
    assert BoxConfig(components="peaks", min_area=0).least_area == 0
    assert BoxConfig(components="peaks", min_area=0.01) == BoxConfig(components="peaks")
    assert BoxConfig(min_area=0) == BoxConfig()
    for components, min_area in (("largest", 0.1), ("all", 1), ("all", -0.1), ("peaks", np.nan)):
        with pytest.raises(UsageError, match="--min-area"):
            BoxConfig(components=components, min_area=min_area)


@pytest.mark.parametrize("how", ["minmax", "max", "ivr:50"])
@pytest.mark.parametrize(
    "raw", [np.zeros((7, 7)), np.full((7, 7), 3.0), np.full((7, 7), -3.0), np.full((7, 7), np.nan), np.zeros((1, 1))]
)
def test_an_empty_or_constant_map_gives_no_box(raw: np.ndarray, how: str) -> None:
    assert len(boxes_of(raw, normalise=how).boxes_N4) == 0


def test_normalisers_by_hand() -> None:
    map_22 = np.array([[-2.0, 0.0], [2.0, 6.0]])
    assert normalise(map_22, "minmax").tolist() == [[0, 0.25], [0.5, 1]]
    assert normalise(map_22, "max").tolist() == [[0, 0], [1 / 3, 1]]
    assert normalise(map_22, "ivr:50").tolist() == [[0, 0], [0.2, 1]]  # the median is 1


def test_enlargement_is_torch_s_bicubic_in_float64() -> None:
    raw_hw = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    enlarged_SS, scaled_SS = enlarge_and_normalise(raw_hw, 224, MapConfig(normalise="minmax"))
    torch_SS = torch.nn.functional.interpolate(
        torch.from_numpy(raw_hw).double()[None, None], size=(224, 224), mode="bicubic", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(enlarged_SS, torch_SS, atol=1e-12)
    low, high = torch_SS.min(), torch_SS.max()
    np.testing.assert_allclose(scaled_SS, (torch_SS - low) / (high - low), atol=1e-12)


def test_the_blog_recipe_scales_before_a_bilinear_enlargement() -> None:
    raw_hw = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    cam = raw_hw - np.min(raw_hw)
    cam = cam / np.max(cam)
    expected_SS = cv2.resize(cam, (128, 128))
    _, scaled_SS = enlarge_and_normalise(raw_hw, 128, MapConfig(recipe="blog", normalise="minmax"))
    np.testing.assert_array_equal(scaled_SS, expected_SS)


@pytest.mark.parametrize("text", ["mean", "ivr", "ivr:100", "ivr:x", "max:3"])
def test_an_unknown_normaliser_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--normalise expects"):
        MapConfig(normalise=text)


@pytest.mark.parametrize("components", ["largest", "all", "peaks"])
@pytest.mark.parametrize("rectangle", [(-9, -9, -1, -1), (5, 5, 9, 9), (np.nan, 0, 4, 4), (4, 4, 4, 4)])
def test_a_map_that_covers_nothing_of_its_picture_has_no_box(rectangle: tuple[float, ...], components: str) -> None:
    raw_hw = np.arange(9, dtype=np.float32).reshape(3, 3)
    with np.errstate(all="ignore"):
        found = boxes_from_heatmaps(
            raw_hw[None],
            np.array([rectangle], np.float32),
            np.array([(4, 4)]),
            16,
            MapConfig(normalise="minmax"),
            BoxConfig(components=components),
        )
    assert len(found.map_N) == 0


def assert_regions_are_opencv_s(map_SS: np.ndarray, threshold: float) -> int:
    """Compare bounds, sizes and peaks with those of labelling every pixel; return how many regions there are."""
    mask_SS = (map_SS >= threshold * map_SS.max()).astype(np.uint8)
    num_labels, labels_SS, stats, _ = cv2.connectedComponentsWithStats(mask_SS, connectivity=8)
    expected = sorted(
        (x, y, x + columns, y + rows, size, map_SS[labels_SS == label].max())
        for label, (x, y, columns, rows, size) in enumerate(stats[1:].tolist(), start=1)
    )
    regions_N4, sizes_N, peaks_N = regions_above(map_SS, threshold)
    found = zip(regions_N4.tolist(), sizes_N.tolist(), peaks_N.tolist(), strict=True)
    assert sorted((*region, size, peak) for region, size, peak in found) == expected
    return num_labels - 1


def test_regions_of_smooth_maps_are_opencv_s() -> None:
    generator, counts = np.random.default_rng(0), []
    for _ in range(300):
        grid, side = generator.integers(2, 15), int(generator.integers(16, 97))
        map_SS = cv2.resize(generator.normal(size=(grid, grid)), (side, side), interpolation=cv2.INTER_CUBIC)
        counts.append(assert_regions_are_opencv_s(map_SS, generator.uniform(0.05, 0.95)))
    assert (counts.count(1) > 30, max(counts) > 10) == (True, True)  # both ways to find them


def test_regions_of_noise_are_opencv_s() -> None:
    generator, counts = np.random.default_rng(1), []
    for _ in range(300):  # dense noise is one region with holes, in which islands lie; sparse noise is single pixels
        side = int(generator.integers(1, 25))
        on_SS = generator.random((side, side)) < generator.uniform(0.05, 0.98)
        on_SS[generator.integers(side), generator.integers(side)] = True
        map_SS = np.where(on_SS, generator.uniform(0.5, 1, (side, side)), generator.uniform(-1, 0.2, (side, side)))
        counts.append(assert_regions_are_opencv_s(map_SS, 0.4))
    assert (counts.count(1) > 30, max(counts) > 20) == (True, True)


@pytest.mark.parametrize(
    ("rows", "regions", "sizes"),
    [
        (["#####", "#...#", "#.#.#", "#...#", "#####"], [[0, 0, 5, 5], [2, 2, 3, 3]], [16, 1]),  # an island in a hole
        ([".###.", "#...#", "#.#.#", "#...#", ".###."], [[0, 0, 5, 5], [2, 2, 3, 3]], [12, 1]),  # diagonally closed
        (["#...#", ".#.#.", "..#..", ".#.#.", "#...#"], [[0, 0, 5, 5]], [9]),
        (["#....", ".....", ".....", ".....", "....#"], [[0, 0, 1, 1], [4, 4, 5, 5]], [1, 1]),
        (["#####"] * 5, [[0, 0, 5, 5]], [25]),
        (["....#"] * 5, [[4, 0, 5, 5]], [5]),
    ],
)
def test_regions_by_hand(rows: list[str], regions: list[list[int]], sizes: list[int]) -> None:
    map_SS = np.array([[letter == "#" for letter in row] for row in rows], np.float64)
    regions_N4, sizes_N, peaks_N = regions_above(map_SS, 0.5)
    assert (regions_N4.tolist(), sizes_N.tolist(), peaks_N.tolist()) == (regions, sizes, [1.0] * len(sizes))
