"""Bootstrap weights: whole numbers that an id alone decides, distributed as Poisson(1); intervals of sums."""

import math

import numpy as np
import pytest

from cam_ops.metrics.bootstrap import image_seeds, interval, poisson_weights, uniforms
from cam_ops.metrics.figures import Figure


def test_splitmix64_gives_the_published_sequence() -> None:
    """The reference implementation (Vigna) with seed 1234567: its first outputs, of which 53 bits are kept."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    seed_1 = np.array([1234567], np.uint64)
    assert uniforms(seed_1, range(1, 5))[:, 0].tolist() == [(x >> 11) / 2**53 for x in published]


def test_weights_are_poisson_and_do_not_depend_on_the_other_images() -> None:
    ids = [f"a/{i}.jpg" for i in range(2000)]
    weights_BN = poisson_weights(image_seeds(ids), 200)
    expected_k = [math.exp(-1) / math.factorial(k) for k in range(6)]
    shares_k = np.bincount(weights_BN.ravel(), minlength=6)[:6] / weights_BN.size
    np.testing.assert_allclose(shares_k, expected_k, atol=0.003)
    assert np.corrcoef(weights_BN[:50])[np.triu_indices(50, 1)].std() == pytest.approx(2000**-0.5, rel=0.1)
    alone = poisson_weights(image_seeds([ids[7]]), 200)
    np.testing.assert_array_equal(alone[:, 0], weights_BN[:, 7])
    np.testing.assert_array_equal(poisson_weights(image_seeds(ids), 30, first=150), weights_BN[150:180])


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values_N = np.random.default_rng(0).random(400)
    weights_BN = poisson_weights(image_seeds([str(i) for i in range(400)]), 1000).astype(float)
    low, high = interval(values_N.mean(), weights_BN @ values_N / weights_BN.sum(1))
    half = 1.96 * values_N.std() / 20
    assert (low, high) == (
        pytest.approx(values_N.mean() - half, abs=0.004),
        pytest.approx(values_N.mean() + half, abs=0.004),
    )
    assert np.isnan(interval(1.0, np.full(5, np.nan))).all()


def test_replicates_that_are_all_too_high_surround_the_figure() -> None:
    assert interval(10.0, np.linspace(20, 21, 1001)) == (pytest.approx(9.525), pytest.approx(10.475))


def test_an_interval_ends_where_percentages_do_and_holds_its_figure() -> None:
    document = Figure(value_R=np.array([97.0, 80, 90, 100]), images=3).document()
    assert (document["low"], document["high"]) == (pytest.approx(87.5), 100)
    assert Figure(value_R=np.array([0.1 + 0.2] * 3), images=3).document()["low"] == 0.1 + 0.2
