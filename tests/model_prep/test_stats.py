# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests against counting by hand and against simulation."""

import math

import numpy as np
import pytest

from nuq.model_prep import stats


def tail(successes: int, trials: int, rate: float) -> float:
    """Probability of at least `successes` in `trials`, term by term."""
    return sum(
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k)
        for k in range(successes, trials + 1)
    )


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (5, 20), (20, 20), (60, 436)])
def test_the_exact_interval_leaves_its_tails(successes: int, trials: int) -> None:
    low, high = (end / 100 for end in stats.rate_interval(successes, trials))
    assert low <= successes / trials <= high
    if successes:
        assert tail(successes, trials, low) == pytest.approx(0.025, rel=1e-6)
    if successes < trials:
        assert 1 - tail(successes + 1, trials, high) == pytest.approx(0.025, rel=1e-6)


def test_paired_counts_only_images_that_differ() -> None:
    first = np.array([1, 1, 1, 0, 0, 1, 1, 1], bool)
    second = np.array([1, 0, 0, 1, 0, 1, 0, 1], bool)
    found = stats.paired(first, second)
    assert (found.lost, found.gained, found.difference) == (3, 1, -25.0)
    assert found.p_value == pytest.approx(2 * (4 + 1) / 16)
    assert found.low <= found.difference <= found.high


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        kind = random.choice(3, size=300, p=[0.08, 0.05, 0.87])
        found = stats.paired(kind != 1, kind != 0)
        hits += found.low <= -3.0 <= found.high
    assert hits >= 88


def test_equal_answers_have_no_difference() -> None:
    right = np.array([True, False, True])
    found = stats.paired(right, right)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_compare_counts_agreement_and_leaves_out_wide_tops() -> None:
    exact = np.array([[3.0, 2, 1], [0, 1, 2]])
    other = np.array([[2.0, 3, 1], [0, 1, 2]])
    found = stats.compare(exact, other, np.array([0, 2]), which=(1, 2, 5))
    assert sorted(found) == ["agreement1", "agreement2", "top1", "top2"]
    assert found["top1"]["difference"] == -50
    assert found["agreement1"]["percent"] == 50
    assert found["agreement2"]["percent"] == 100


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="^both must be"):
        stats.paired(np.zeros(2, bool), np.zeros(3, bool))
    with pytest.raises(ValueError, match="^successes must be"):
        stats.rate_interval(4, 3)
