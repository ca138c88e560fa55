"""The slow implementation of finer maps: values worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.refine_reference import reference_map, reference_tensors

LEFT = (0.0, 0.0, 0.5, 1.0)  # a picture that covers the left half: of a grid of 2 x 2, two cells


def test_two_cells_are_opposite_so_each_keeps_its_own_seed() -> None:
    cam_22 = [[4, 9], [1, 9]]  # the 9s lie in the padding
    a16_222 = [[[3, 7], [1, 7]], [[1, 7], [2, 7]]]
    a8_122 = [[[5, 7], [6, 7]]]
    gradient_222 = [[[2, 1], [0.5, 1]], [[-1, 1], [1, 1]]]  # G is 3 * 2 above and 1 * .5 + 2 * 1 below
    refined_22 = reference_map(cam_22, a16_222, a8_122, gradient_222, LEFT)
    np.testing.assert_allclose(refined_22, [[4 * 6, 0], [1 * 2.5, 0]], rtol=1e-12)


def test_without_a_seed_the_map_is_the_raw_one_and_without_features_the_seed_stays() -> None:
    cam_22, ones_122 = np.array([[4.0, 9], [-1, 9]]), np.ones((1, 2, 2))
    assert reference_map(cam_22, ones_122, ones_122, 0 * ones_122, LEFT).tolist() == [[4, 0], [0, 0]]
    assert reference_map(cam_22, ones_122, ones_122, ones_122).tolist() == [[4, 9], [0, 9]]


def test_cells_that_are_alike_share_their_seeds() -> None:
    cam_22 = [[4, 1], [9, 1]]
    a16_122 = np.array([[[3, 3], [1, 1]]])  # less the mean: 1 above, -1 below
    refined_22 = reference_map(cam_22, a16_122, a16_122, 1 / a16_122)  # G is 1: the seeds are 2, 1, 3, 1
    np.testing.assert_allclose(refined_22, [[1.5**2, 1.5**2], [2**2, 2**2]], rtol=1e-12)


def test_features_at_stride_8_move_a_seed_to_their_own_half_of_a_cell() -> None:
    cam_22, a16_122 = [[1, 0], [1, 0]], np.ones((1, 2, 2))  # no features at stride 16: A is (S8 / 2) ^ 2
    a8_144 = np.array([[[1, 1, 1, 0]] * 4])  # less the mean .75: pooled to .25 on the left and -.25 on the right
    refined_44 = reference_map(cam_22, a16_122, a8_144, a16_122)
    np.testing.assert_allclose(refined_44, [[1, 1, 1, 0]] * 4, atol=1e-12)


def test_tensors_are_those_of_the_modules_and_the_gradient_is_by_the_first() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
        network[3].weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 8.0], [0.0, 1.0]]))
    image_1122 = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    a16_211, a8_222, gradient_211 = reference_tensors(network.eval(), image_1122, "1", "0", 1)
    assert a8_222.tolist() == [[[2, 4], [6, 12]], [[-1, -2], [-3, -6]]]
    assert a16_211.ravel().tolist() == [6, -3]
    assert gradient_211.ravel().tolist() == [3, 8]
    assert {array.dtype for array in (a16_211, a8_222, gradient_211)} == {np.dtype(np.float64)}
    assert reference_map([[1.0]], a16_211, a16_211, gradient_211) == pytest.approx(18)
