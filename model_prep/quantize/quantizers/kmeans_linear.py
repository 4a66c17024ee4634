# SPDX-License-Identifier: Apache-2.0
"""k-means linear: equal intervals over [min, max], a code stands for its middle
(paper 004, 4.2).
"""

import numpy as np

from formats.quantizer import Quantizer
from model_prep.quantize.quantizers.codebook import fit_activations, fit_codebook
from model_prep.quantize.quantizers.histogram import only
from model_prep.quantize.quantizers.weights import WeightFormat


def middles(low: int, high: int, number: int) -> np.ndarray:
    """Mid values, as integers, of equal intervals over the integers low..high.

    An integer y stands for the real values from y - 1/2 to y + 1/2, so the range is that of
    [low - 1/2, high + 1/2). Halves are rounded upwards.

    Args:
        low, high: the range, of at least `number` integers.
        number: intervals.

    >>> middles(0, 15, 4)  # 1.5, 5.5, 9.5, 13.5
    array([ 2,  6, 10, 14])
    """
    place = 2 * np.arange(number) + 1
    return ((2 * low - 1) * number + place * (high + 1 - low) + number) // (2 * number)


def widened(low: int, high: int, number: int, least: int, most: int) -> tuple[int, int]:
    """The range extended to `number` integers, upwards first, within least..most.

    >>> widened(3, 4, 4, 0, 7), widened(6, 7, 4, 0, 7)
    ((3, 6), (4, 7))
    """
    high = min(max(high, low + number - 1), most)
    return max(min(low, high - number + 1), least), high


def table(counts: np.ndarray, first: int, number: int, keep_zero: bool) -> np.ndarray:
    """The table of equal intervals over the integers that occur (see `codebook.Rule`).

    >>> table(np.array([5, 1, 0, 0, 0, 0, 0, 1]), 0, 2, keep_zero=False)
    array([2, 6])
    >>> table(np.array([5, 1, 0, 0, 0, 0, 0, 1]), 0, 2, keep_zero=True)
    array([0, 6])
    """
    places = np.flatnonzero(counts)
    low, high = first + int(places[0]), first + int(places[-1])
    low, high = widened(low, high, number, first, first + len(counts) - 1)
    entries = middles(low, high, number)
    if keep_zero:
        entries[0] = 0
    return entries


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """The linear quantizer over the range of a histogram.

    Args:
        histogram: counts [2^qm] of the integers y.
        bits: width of a code, 1..8.
        qm, frac: width and F of y.
        signed: whether y may be negative.
        options: none is known; others may be passed as None.
    """
    only("linear", options)
    return fit_activations("linear", table, histogram, bits, qm, frac, signed)


def fit_weights(values: np.ndarray, bits: int, table_bits: int = 14) -> WeightFormat:
    """A codebook of equal intervals over the range of the weights, see `codebook.fit_codebook`."""
    return fit_codebook("linear", table, values, bits, table_bits)
