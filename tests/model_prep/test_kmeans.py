# SPDX-License-Identifier: Apache-2.0
"""The exact k-means against brute force, against a plain dynamic programme, and on its speed."""

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuq.formats.errors import UserError
from nuq.formats.quantizer import thresholds
from nuq.model_prep.quantize.kmeans import exact_kmeans


def total_error(histogram: np.ndarray, centroids: np.ndarray) -> int:
    """Squared error with every value at its nearest centroid, in Python integers."""
    table = centroids.tolist()
    return sum(
        count * min((value - centroid) ** 2 for centroid in table)
        for value, count in enumerate(np.asarray(histogram).tolist())
    )


def plain_optimum(histogram: np.ndarray, number: int, zero_first: bool) -> int:
    """Least squared error by the textbook O(k n^2) recurrence, in Python integers."""
    points = [(value, count) for value, count in enumerate(histogram.tolist()) if count]

    def cost(first: int, last: int, center: int | None = None) -> int:
        part = points[first:last]
        s0 = sum(count for _, count in part)
        s1 = sum(value * count for value, count in part)
        if center is None:
            center = (2 * s1 + s0) // (2 * s0)
        return sum(count * (value - center) ** 2 for value, count in part)

    size = len(points)
    best = [0] + [cost(0, last, 0 if zero_first else None) for last in range(1, size + 1)]
    for used in range(2, min(number, size) + 1):
        best = [0] * used + [
            min(best[first] + cost(first, last) for first in range(used - 1, last))
            for last in range(used, size + 1)
        ]
    return best[size]


histograms = st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 7, 50]), min_size=3, max_size=9).filter(
    any
)


@settings(deadline=None)
@given(histograms, st.data())
def test_no_table_of_integers_is_better(counts: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(counts)))
    histogram = np.array(counts)
    found = exact_kmeans(histogram, number, zero_first=False)
    best = min(
        total_error(histogram, np.array(table))
        for table in itertools.combinations(range(len(counts)), number)
    )
    assert total_error(histogram, found) == best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 20))
def test_equals_the_plain_dynamic_programme(seed: int, size: int, number: int) -> None:
    random = np.random.default_rng(seed)
    histogram = random.integers(0, 1000, size) * (random.random(size) < random.random())
    histogram[random.integers(size)] += 1
    if seed % 2:
        histogram[0] += 3000
    number = min(number, size)
    zero_first = bool(2 * histogram[0] > histogram.sum())
    found = exact_kmeans(histogram, number)
    assert total_error(histogram, found) == plain_optimum(histogram, number, zero_first)
    assert found.dtype == np.int32
    assert len(found) == number
    assert (np.diff(found) > 0).all()
    assert found[0] >= 0
    assert found[-1] < size
    if zero_first:
        assert found[0] == 0


def test_the_first_centroid_is_zero_only_where_most_activations_are_zero() -> None:
    histogram = np.array([4, 2, 0, 0, 0, 3])
    assert exact_kmeans(histogram, 1)[0] == 2
    assert exact_kmeans(histogram * [10, 1, 1, 1, 1, 1], 1)[0] == 0
    assert exact_kmeans(histogram, 1, zero_first=True)[0] == 0


@pytest.mark.parametrize("number", [1, 2, 5, 8, 16])
def test_fewer_values_than_entries_still_give_a_full_table(number: int) -> None:
    histogram = np.zeros(16, np.int64)
    histogram[[3, 9]] = 5
    found = exact_kmeans(histogram, number)
    assert len(set(found.tolist())) == number
    if number >= 2:
        assert {3, 9} <= set(found.tolist())
    assert found.tolist() == exact_kmeans(histogram, number).tolist()


def test_counts_of_a_billion_stay_exact() -> None:
    random = np.random.default_rng(8)
    histogram = np.zeros(4096, np.int64)
    histogram[random.choice(4096, 40, replace=False)] = random.integers(1, 10**9, 40)
    found = exact_kmeans(histogram, 6)
    zero_first = bool(2 * histogram[0] > histogram.sum())
    assert total_error(histogram, found) == plain_optimum(histogram, 6, zero_first)


def test_shape_of_a_published_table() -> None:
    """Paper 000, Table IV: finer steps near zero, ever coarser ones up to the bound at 2^qm - 1."""
    random = np.random.default_rng(4)
    activations = np.minimum(random.exponential(600, 10**6), 4095).astype(np.int64)
    histogram = np.bincount(activations, minlength=4096)
    histogram[0] += 10**6
    steps = np.diff(exact_kmeans(histogram, 32))
    assert exact_kmeans(histogram, 32)[0] == 0
    assert steps[1] < 100 < steps[-2]
    assert exact_kmeans(histogram, 32)[-1] > 3800


def test_32_centroids_on_4096_counters_avoid_the_dense_programme() -> None:
    """A dense dynamic programme reads all 4096 x 4096 intervals for each of 32 centroids."""
    histogram = np.random.default_rng(5).integers(1, 10**6, 4096)

    def least_seconds(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        return min(seconds)

    one_pass = least_seconds(lambda: np.add.outer(histogram, histogram).min(axis=1))
    assert least_seconds(lambda: exact_kmeans(histogram, 32)) < 32 * one_pass / 4


@pytest.mark.parametrize(
    ("histogram", "number", "text"),
    [
        ([0, 0], 1, "^histogram must hold counts of 0 or more, some above 0"),
        ([1, -1], 1, "^histogram must hold counts of 0 or more, some above 0"),
        ([1, 1], 3, "^number of centroids must be 1..2, not 3$"),
        ([1, 1], 0, "^number of centroids must be 1..2, not 0$"),
        ([0] * 4095 + [2**40], 1, "^histogram must stay exact in 64 bits, not 1099511627776 act"),
    ],
)
def test_bad_input(histogram: list[int], number: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        exact_kmeans(np.array(histogram), number)


def test_zero_cannot_be_forced_where_it_does_not_occur() -> None:
    with pytest.raises(UserError, match="^the value 0 must occur"):
        exact_kmeans(np.array([0, 1]), 1, zero_first=True)


@settings(deadline=None)
@given(st.sets(st.integers(0, 4095), min_size=2, max_size=64))
def test_nearest_thresholds_split_at_the_middle(values: set[int]) -> None:
    centroid = np.array(sorted(values))
    table = thresholds(centroid, "nearest").tolist()
    for j in range(1, len(centroid)):
        low, high, at = int(centroid[j - 1]), int(centroid[j]), table[j]
        assert abs(at - high) <= abs(at - low)
        assert abs(at - 1 - low) < abs(at - 1 - high)


def test_unknown_rule() -> None:
    with pytest.raises(UserError, match="^rule must be one of nearest, floor, not up$"):
        thresholds(np.array([0, 1]), "up")
