"""Boxes at every level at once: equal to OpenCV's contours of each mask, on maps of all kinds."""

import argparse
from collections.abc import Iterator

import numpy as np
import pytest

from cam_ops.metrics.level_sets import LevelSets
from tests.support.wsol_reference import SIDE, level_ious, score_map

SMALL = 56  # of maps with thousands of contours
KINDS = ("random 7", "random 14", "random 28", "seldom", "steps", "noise", "rings", "checkers")


def random_map(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a score map: smooth ones as networks give them, and others made to be difficult."""
    side = SIDE if kind.startswith("random") else SMALL
    name, _, cells = kind.partition(" ")
    if name == "random":
        return score_map(rng.normal(size=(int(cells), int(cells))))
    if name == "seldom":  # plateaus of equal values
        return score_map((rng.random((7, 7)) < 0.15).astype(float), side)
    if name == "steps":
        return score_map(np.round(rng.normal(size=(14, 14))), side)
    if name == "noise":
        return rng.permutation(np.linspace(0, 1, side * side)).reshape(side, side)
    y, x = np.mgrid[:side, :side] - rng.integers(10, 46, (2, 1, 1))
    if name == "rings":  # regions in holes in regions
        wave = np.cos(np.hypot(y, x) / rng.uniform(3, 12))
    else:
        wave = np.cos(y / rng.uniform(3, 9)) * np.cos(x / rng.uniform(3, 9))
    wave = wave * rng.uniform(0.5, 1, (side, side)) if rng.random() < 0.3 else wave
    wave -= wave.min()
    return wave / wave.max()


def random_truth(side: int, rng: np.random.Generator) -> list[list[int]]:
    corners = np.sort(rng.integers(0, side, (rng.integers(1, 4), 2, 2)), axis=1)
    return corners.reshape(-1, 4).tolist()


def differences(count: int, seed: int) -> Iterator[str]:
    """Yield a line for each of so many maps whose boxes or overlaps are not OpenCV's."""
    rng, levels = np.random.default_rng(seed), {side: LevelSets(side) for side in (SIDE, SMALL)}
    for number in range(count):
        kind = KINDS[number % 3] if number % 10 < 7 else KINDS[3 + number // 10 % 5]
        score = random_map(kind, rng)
        truth = random_truth(len(score), rng)
        largest, every, boxes = level_ious(score, truth)
        found = levels[len(score)].overlaps(score, np.array(truth))
        if not (np.array_equal(found.box_L4, boxes) and np.array_equal(found.largest_L, largest)):
            yield f"{kind} {number}: the largest region"
        if not np.array_equal(found.all_L, every):
            yield f"{kind} {number}: all regions"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_boxes_and_overlaps_of_500_maps_are_those_of_opencvs_contours(seed: int) -> None:
    assert list(differences(100, seed)) == []


def test_a_map_of_zeros_has_the_reference_evaluators_box_of_nothing() -> None:
    found = LevelSets(SIDE).overlaps(np.zeros((SIDE, SIDE)), np.array([[0, 0, 1, 0]]))
    assert found.box_L4.tolist() == [[0, 0, 0, 0]] * 255
    assert found.largest_L.tolist() == found.all_L.tolist() == [0.5] * 255


def test_a_hole_counts_with_its_border_among_all_contours_but_is_never_the_largest() -> None:
    score = np.zeros((9, 9))
    score[1:8, 1:8] = 1
    score[3:6, 3:6] = 0
    found = LevelSets(9).overlaps(score, np.array([[2, 2, 7, 7]]))
    assert found.box_L4[0].tolist() == [1, 1, 8, 8]
    assert found.largest_L[0] == 36 / 64
    assert found.all_L[0] == 1.0  # x = 2, width 5: to 7, as wsolevaluation counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare level sets with OpenCV's contours on random maps.")
    parser.add_argument("--count", type=int, default=10_000)
    asked = parser.parse_args()
    bad = list(differences(asked.count, 0))
    print(f"{asked.count} maps, {len(bad)} differ", *bad[:10], sep="\n")
    raise SystemExit(bool(bad))
