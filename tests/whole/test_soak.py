"""A short soak; `make soak` is the long one."""

import pytest

from tests.support.soak import FAULTS, soak

pytestmark = pytest.mark.ray

NUM_IMAGES = 2000


def test_runs_that_are_killed_at_random_end_as_an_undisturbed_run() -> None:
    counts = soak(30, seed=1, num_images=NUM_IMAGES)
    assert counts["runs"] >= 1
    assert counts["images"] == counts["runs"] * NUM_IMAGES
    assert sum(counts[fault] for fault in FAULTS) >= 3
    assert [counts[name] for name in ("lost", "tables that differ", "foreign files", "not whole")] == [0, 0, 0, 0]
