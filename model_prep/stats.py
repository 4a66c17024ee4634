# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals for two networks' answers to the same images.

Differences are taken image by image, since both networks find the same images hard: an interval
for the difference is then far narrower than the two rates' own. Bootstrap percentiles (Efron 1979)
and the exact binomial intervals and test (Clopper and Pearson 1934; McNemar 1947).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import binomtest

from nuq.formats.images import best_classes, tops

_RESAMPLES = 10_000
_MEANS = 2_000  # resamples of a mean
_SEED = 20


@dataclass(frozen=True)
class Paired:
    """A difference of two rates over the same images, in points of percent."""

    difference: float  # second rate minus first
    low: float  # ends of the 95% bootstrap interval
    high: float
    lost: int  # images that only the first has right
    gained: int  # images that only the second has right
    p_value: float  # of the exact McNemar test that both are equally good


def rate_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a rate, in percent.

    >>> [round(end, 2) for end in rate_interval(8, 10)]
    [44.39, 97.48]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes must be 0..{trials}, not {successes}")
    interval = binomtest(successes, trials).proportion_ci(confidence, "exact")
    return 100 * float(interval.low), 100 * float(interval.high)


def paired(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Paired:
    """The difference of two networks that were right (bool [N]) on the same images.

    >>> paired(np.array([True] * 8 + [False] * 2), np.array([True] * 9 + [False])).difference
    10.0
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"both must be [N] with N > 0, not {first.shape} and {second.shape}")
    change = second.astype(np.int64) - first.astype(np.int64)
    lost, gained = int((change < 0).sum()), int((change > 0).sum())
    total = len(change)
    # resampling images = drawing how many of them are lost and gained
    shares = np.array([lost, gained, total - lost - gained]) / total
    draws = np.random.default_rng(_SEED).multinomial(total, shares, _RESAMPLES)
    means = 100 * (draws[:, 1] - draws[:, 0]) / total
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    unequal = lost + gained
    p_value = float(binomtest(lost, unequal).pvalue) if unequal else 1.0
    return Paired(
        100 * (gained - lost) / total, float(low), float(high), lost, gained, p_value
    )  # fmt: skip


def divergences(exact: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of the outputs' probabilities from float's, in nats: float64 [N].

    Args:
        exact, other: logits [N, classes] of the float and the other network.
    """
    answer, reply = (log_softmax(np.asarray(one, np.float64), axis=1) for one in (exact, other))
    return np.asarray((np.exp(answer) * (answer - reply)).sum(axis=1))


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """{mean, low, high} of values [N] of images: the bootstrap interval of their mean.

    >>> mean_interval(np.ones(5))
    {'mean': 1.0, 'low': 1.0, 'high': 1.0}
    """
    generator, total = np.random.default_rng(_SEED), len(values)
    means = [values[generator.integers(0, total, total)].mean() for _ in range(_MEANS)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def compare(
    exact: np.ndarray, other: np.ndarray, labels: np.ndarray, which: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Another network's answers beside the float network's, with 95% intervals.

    Args:
        exact, other: logits [N, classes] of the float and the other network.
        labels: int [N].
        which: top-k, none: what so many classes have; those of as many or more are left out.

    Returns:
        By "topK": {difference, low, high, lost, gained, p_value}; by "agreementK": {percent, low,
        high}, how often the float network's first answer is among the other's first K.
    """
    found: dict[str, Any] = {}
    first = best_classes(exact, 1)[:, 0]
    for top in which or tops(exact.shape[1]):
        if top >= exact.shape[1]:
            continue
        best = best_classes(other, top)
        before = (best_classes(exact, top) == labels[:, None]).any(axis=1)
        after = (best == labels[:, None]).any(axis=1)
        found[f"top{top}"] = asdict(paired(before, after))
        same = int((best == first[:, None]).any(axis=1).sum())
        low, high = rate_interval(same, len(first))
        found[f"agreement{top}"] = {"percent": 100 * same / len(first), "low": low, "high": high}
    return found
