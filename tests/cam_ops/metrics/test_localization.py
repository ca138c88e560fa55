"""Boxes as written against true ones, worked out by hand."""

import numpy as np
import pytest
import torch
import torchvision

from cam_ops.metrics import localization
from cam_ops.metrics.localization import failure_of


def test_overlaps_are_torchvisions() -> None:
    rng = np.random.default_rng(0)
    boxes_N4, truth_G4 = (np.sort(rng.random((n, 2, 2)) * 9, axis=1).reshape(n, 4) for n in (40, 30))
    expected = torchvision.ops.box_iou(torch.from_numpy(boxes_N4), torch.from_numpy(truth_G4))
    np.testing.assert_allclose(localization.overlaps(boxes_N4, truth_G4), expected.numpy(), atol=1e-12)


def test_a_box_of_nothing_overlaps_nothing() -> None:
    nothing = np.zeros((1, 4))
    assert localization.overlaps(nothing, nothing).tolist() == [[0.0]]
    assert localization.overlaps(np.zeros((0, 4)), nothing).shape == (0, 1)


TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float64)


@pytest.mark.parametrize(
    ("box", "reachable", "is_top", "expected"),
    [
        ([[0, 0, 10, 10]], 1.0, True, None),
        ([[0, 0, 10, 10]], 1.0, None, None),
        ([[0, 0, 10, 10]], 1.0, False, "wrong_class"),
        ([[0, 0, 10, 10]], 0.4, True, "unreachable"),
        ([[0, 0, 30, 10]], 1.0, False, "several_in_one"),  # both are inside
        ([[0, 0, 12, 20]], 1.0, True, "too_large"),  # 100 / 240
        ([[2, 2, 6, 6]], 1.0, True, "part"),
        ([[8, 8, 14, 14]], 1.0, True, "missed"),  # 4 of its 36 are inside
        ([], 1.0, True, "missed"),
    ],
)
def test_failures(box: list[list[float]], reachable: float, is_top: bool | None, expected: str | None) -> None:
    assert failure_of(np.array(box, np.float32).reshape(-1, 4), TRUTH, reachable, is_top) == expected


def test_what_a_crop_lets_through_bounds_the_overlap() -> None:
    assert localization.reachable_overlap(TRUTH[:1], np.float32([5, 0, 15, 10])) == 0.5
    assert localization.reachable_overlap(TRUTH, np.float32([5, 0, 35, 10])) == 1.0
    assert localization.reachable_overlap(TRUTH, np.float32([40, 0, 50, 10])) == 0.0


def test_pointing_and_energy() -> None:
    map_SS, mask_SS = np.array([[3.0, -5.0], [1.0, 0.0]]), np.array([[1, 1], [0, 0]], np.uint8)
    assert localization.points_inside(map_SS, mask_SS)
    assert not localization.points_inside(map_SS, 1 - mask_SS)
    assert localization.energy_inside(map_SS, mask_SS) == 0.75
    assert localization.energy_inside(-np.ones((2, 2)), mask_SS) == 0.0


@pytest.mark.parametrize(("area", "name"), [(1023.9, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")])
def test_sizes_are_cocos(area: float, name: str) -> None:
    assert localization.size_name(area) == name
