"""What a batch norm gets, in units of its running statistics: worked out by hand, and of photographs."""

import math

import pytest
import torch
from torch import nn

from cam_ops.network.statistics import Distance, distance_from_training, has_statistics


def normed(mean: float, variance: float) -> nn.Module:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network[0].running_mean.fill_(mean)
    network[0].running_var.fill_(variance)
    return network.eval().requires_grad_(False)


def test_spread_and_shift_by_hand() -> None:
    images = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)  # mean 2, sum of squares 32 over 31
    distance = distance_from_training(normed(mean=-4.0, variance=9.0), images)
    assert distance is not None
    assert distance.layer == "0"
    assert distance.spread == pytest.approx(32 / 31 / 9, rel=1e-4)
    assert distance.shift == pytest.approx(6 / 3, rel=1e-4)
    assert not distance.is_far


@pytest.mark.parametrize(
    ("spread", "shift", "is_far"),
    [(0.5, 0.2, False), (0.049, 0, True), (8.1, 0, True), (1, 3.1, True), (math.nan, 0, True), (1, math.inf, True)],
)
def test_what_is_far(spread: float, shift: float, is_far: bool) -> None:
    assert Distance(layer="0", spread=spread, shift=shift).is_far == is_far


def test_without_training_there_is_no_distance() -> None:
    fresh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    assert not has_statistics(fresh)
    assert distance_from_training(fresh.eval(), torch.rand(2, 3, 8, 8)) is None
    assert has_statistics(normed(0.0, 2.0))
