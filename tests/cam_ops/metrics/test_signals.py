"""Signals of small maps and classes, worked out by hand."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from cam_ops.metrics.signals import (
    DENSITY_SIDE,
    QUANTA,
    ClassSums,
    Shortcut,
    class_sums,
    count_components,
    doubt,
    map_signals,
    suspected_shortcuts,
)
from cam_ops.settings import MapConfig

NO_BOXES = (np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros((0, 2), np.int64))


def maps(*rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_one_cell_a_uniform_map_and_one_between() -> None:
    one = [[0, 0, 0, 0], [0, 0, 8, 0], [-9, 0, 0, 0], [0, 0, 0, 0]]
    uniform = [[2] * 4] * 4
    two = [[3, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    signals = map_signals(maps(one, uniform, two))
    bits = 0.75 * np.log2(4 / 3) + 0.25 * np.log2(4)
    np.testing.assert_allclose(signals.entropy_P, [0, 1, bits / 4], atol=1e-15)
    # Gini by its definition: mean absolute difference over all ordered pairs of cells, over twice the mean
    differences = 2 * (14 * 3 + 14 * 1 + 2)
    np.testing.assert_allclose(signals.concentration_P, [15 / 16, 0, differences / 256 / (2 * 4 / 16)], atol=1e-15)
    np.testing.assert_allclose(signals.border_mass_P, [0, 12 / 16, 0.75], atol=1e-15)


def test_entropy_is_scipys() -> None:
    raw_Phw = np.random.default_rng(0).normal(size=(20, 7, 5)).astype(np.float32)
    wanted = [scipy_entropy(np.maximum(raw_hw, 0).ravel().astype(float), base=35) for raw_hw in raw_Phw]
    np.testing.assert_allclose(map_signals(raw_Phw).entropy_P, wanted, rtol=1e-12)


def test_a_map_without_a_positive_value_has_no_signals_and_bad_values_count_as_nothing() -> None:
    signals = map_signals(maps([[-1] * 3] * 3, [[0] * 3] * 3, [[np.nan] * 3, [np.inf, 1, 0], [0] * 3]))
    for values in (signals.entropy_P, signals.concentration_P, signals.border_mass_P):
        assert np.isnan(values).tolist() == [True, True, False]
    assert (signals.entropy_P[2], signals.border_mass_P[2]) == (0, 0)


def test_a_grid_that_is_all_border_has_no_border_mass_and_no_maps_have_no_signals() -> None:
    assert np.isnan(map_signals(maps([[1, 2], [3, 4]])).border_mass_P).all()
    assert map_signals(np.zeros((1, 1, 1), np.float32) + 1).entropy_P.tolist() == [0]
    assert map_signals(np.zeros((0, 7, 7), np.float32)).border_mass_P.shape == (0,)


def test_two_blobs_are_two_components_above_what_lies_between_them() -> None:
    raw_Phw = maps([[0] * 5, [8, 0, 0, 0, 6], [0] * 5, [0] * 5, [0] * 5], [[-1] * 5] * 5)
    rectangle_P4, size_P2 = np.array([[0, 0, 50, 50]] * 2, np.float32), np.array([[50, 50]] * 2)
    for at, number in ((0.5, 2), (0.9, 1)):
        counts_P = count_components(raw_Phw, rectangle_P4, size_P2, 50, MapConfig(), np.array([at, at]))
        assert counts_P.tolist() == [number, 0]


def test_doubts_add_up() -> None:
    centre = [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    signals = map_signals(maps(centre, centre, [[1] * 3] * 3, [[0] * 3] * 3, centre))
    score_P = np.array([1, 0.25, 0.5, 0, 1], np.float32)
    values = doubt(score_P, signals, np.array([0.5, 0.96, 0.3, np.nan, 0]))
    np.testing.assert_allclose(values, [0, 0.75 + 1, 0.5 + 1 + 8 / 9, 4, 1], atol=1e-15)


def test_class_sums_do_not_depend_on_how_a_run_is_cut() -> None:
    generator = np.random.default_rng(1)
    class_P = generator.integers(0, 5, 60).astype(np.int32)
    raw_Phw = generator.normal(size=(60, 7, 7)).astype(np.float32)
    boxes_P4 = np.tile(np.array([[3, 4, 40, 30]], np.float32), (60, 1)) + generator.random((60, 4)).astype(np.float32)
    size_P2 = np.tile([[64, 48]], (60, 1))

    def part(rows: slice) -> ClassSums:
        return class_sums(class_P[rows], raw_Phw[rows], class_P[rows], boxes_P4[rows], size_P2[rows])

    whole = part(slice(None))
    cut = part(slice(50, 60)) + part(slice(0, 3)) + part(slice(3, 3)) + part(slice(3, 50))
    for name in ("class_C", "maps_Chw", "num_maps_C", "density_CGG"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    positive_Phw = np.maximum(raw_Phw.astype(float), 0)
    normalised_Phw = positive_Phw / positive_Phw.max((1, 2), keepdims=True)
    wanted_Chw = np.stack([normalised_Phw[class_P == c].mean(0) for c in range(5)])
    np.testing.assert_allclose(whole.mean_maps(), wanted_Chw, atol=1 / QUANTA)


def test_a_class_whose_maps_are_blank_has_boxes_but_no_mean_map() -> None:
    one = class_sums(
        np.array([3, 9], np.int32),
        maps([[-1] * 3] * 3, [[2] * 3] * 3),
        np.array([3], np.int32),
        np.array([[0, 0, 10, 5]], np.float32),
        np.array([[20, 10]]),
    )
    assert (one.class_C.tolist(), one.num_maps_C.tolist()) == ([3, 9], [0, 1])
    assert np.isnan(one.mean_maps()[0]).all()
    assert (one.mean_maps()[1] == 1).all()
    wanted_GG = np.zeros((DENSITY_SIDE, DENSITY_SIDE))
    wanted_GG[:8, :8] = 1
    np.testing.assert_array_equal(one.density_CGG[0], wanted_GG)
    assert not one.density_CGG[1].any()


def test_a_box_counts_where_it_covers_a_cells_centre() -> None:
    boxes_N4 = np.array([[0.4, 0, 1.5, 1], [0.5, 15.5, 1.6, 16], [0, 0, 16, 16]], np.float32)
    counted = class_sums(
        np.zeros(0, np.int32),
        np.zeros((0, 7, 7), np.float32),
        np.zeros(3, np.int32),
        boxes_N4,
        np.full((3, 2), DENSITY_SIDE),
    )
    wanted_GG = np.ones((16, 16))
    wanted_GG[0, 0] += 1  # centre .5 lies in .4..1.5, and 1.5 does not: half-open
    wanted_GG[15, :2] += 1
    np.testing.assert_array_equal(counted.density_CGG[0], wanted_GG)


@pytest.mark.parametrize(
    ("cells", "place", "share"),
    [
        ([(6, 6, 10.0), (3, 3, 1.0)], "bottom right", 10 / 11),
        ([(0, 5, 3.0), (1, 4, 1.0), (3, 3, 1.0)], "top right", 0.8),
        ([(0, 3, 2.0), (6, 3, 2.0), (3, 3, 1.0)], "border", 0.8),
        ([(3, 3, 2.0), (0, 0, 1.9)], None, 0),
    ],
)
def test_a_class_that_looks_at_a_corner_or_the_border_is_suspected(
    cells: list[tuple[int, int, float]], place: str | None, share: float
) -> None:
    usual_hw, odd_hw = np.zeros((7, 7), np.float32), np.zeros((7, 7), np.float32)
    usual_hw[2:5, 2:5] = 1
    for row, column, value in cells:
        odd_hw[row, column] = value
    classes = [(4, usual_hw, 20), (7, odd_hw, 20), (8, usual_hw, 25), (9, odd_hw, 19)]
    class_P = np.repeat([c for c, _, _ in classes], [n for _, _, n in classes]).astype(np.int32)
    raw_Phw = np.concatenate([np.repeat(map_hw[None], n, 0) for _, map_hw, n in classes])
    found = suspected_shortcuts(class_sums(class_P, raw_Phw, *NO_BOXES))
    if place is None:
        assert found == []
        return
    others = 1 / 9 if place.startswith(("top", "bottom")) else 0.0
    assert found == [
        Shortcut(class_id=7, place=place, share=pytest.approx(share), others=pytest.approx(others), num_images=20)
    ]


def test_nothing_is_suspected_where_all_classes_look_there_or_where_there_is_one() -> None:
    corner_hw = np.zeros((7, 7), np.float32)
    corner_hw[0, 0] = 1
    for class_P in (np.repeat([0, 1, 2], 20).astype(np.int32), np.zeros(60, np.int32)):
        assert suspected_shortcuts(class_sums(class_P, np.repeat(corner_hw[None], 60, 0), *NO_BOXES)) == []


def test_the_border_is_the_same_part_of_the_picture_on_finer_grids() -> None:
    coarse_Phw = np.random.default_rng(1).random((5, 7, 7)).astype(np.float32)
    fine_Phw = coarse_Phw.repeat(4, 1).repeat(4, 2)
    np.testing.assert_allclose(map_signals(fine_Phw).border_mass_P, map_signals(coarse_Phw).border_mass_P, rtol=1e-6)
