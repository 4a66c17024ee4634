# SPDX-License-Identifier: Apache-2.0
"""The schemes of paper 004: dynamic fixed point (section 4.1), k-means, linear, Gaussian (4.2)."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from nuq.formats.arithmetic import at_frac
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.quantize.quantizers import WeightFormat, activations, weights
from nuq.model_prep.quantize.quantizers.codebook import fit_activations, fit_weights
from nuq.model_prep.quantize.quantizers.histogram import occupied, uniform_error
from nuq.model_prep.quantize.quantizers.intralayer import best_table
from nuq.model_prep.quantize.quantizers.optimal_step import step_size

SEARCHED = range(8, 21)  # fractional lengths that the paper tries
LEVELS = ("lloyd", "equal")
_MASS = 1 << 30  # counts of the Gaussian: k-means stays exact for integers of 15 bits


def integer_length(largest: float) -> int:
    """IL = ceil(log2(largest)), equation 2.

    >>> integer_length(5.0), integer_length(4.0), integer_length(0.3)
    (3, 2, -1)
    """
    return math.ceil(math.log2(largest))


def fractional_length(largest: float, bits: int, error: Callable[[int], float]) -> int:
    """FL of equation 3: BW - IL, or where that exceeds Y, the best of those searched, Y.

    Args:
        largest: largest magnitude, above 0.
        bits: BW less the sign bit of signed values, which the paper counts to the integer part.
        error: squared error of a fractional length.

    >>> fractional_length(5.0, 8, lambda frac: abs(frac - 12.0))
    5
    >>> fractional_length(0.001, 8, lambda frac: abs(frac - 12.0))
    12
    """
    wanted = bits - integer_length(largest)
    if wanted <= SEARCHED[0]:  # Y is never below
        return wanted
    return min(wanted, min(SEARCHED, key=error))


@activations("dynamic", "uniform")
def dynamic(histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool) -> Quantizer:
    """Uniform codes of BW = bits whose range covers the largest activation."""
    low, high = occupied(histogram, qm, signed)
    largest = max(-low, high) * 2.0**-frac
    if largest == 0:
        return Quantizer("uniform", bits, bits, frac, signed=signed)
    chosen = fractional_length(
        largest, bits - signed,
        lambda length: uniform_error(histogram, qm, frac, signed, bits, length),
    )  # fmt: skip
    return Quantizer("uniform", bits, bits, chosen, signed=signed)


@weights("dynamic", 2, 16, 14)
def dynamic_weights(values: np.ndarray, bits: int) -> WeightFormat:
    """Dynamic fixed point of BW = bits with the sign, rounded to nearest."""
    exact = np.asarray(values, np.float64)

    def error(length: int) -> float:
        return float(np.square(at_frac(exact, bits, length) * 2.0**-length - exact).sum())

    largest = float(np.abs(exact).max(initial=0))
    frac = fractional_length(largest, bits - 1, error) if largest else 0
    return WeightFormat("dynamic", bits, frac, at_frac(exact, bits, frac))


@weights("kmeans", 1, 8, 8, codebook=True)
def kmeans_weights(values: np.ndarray, bits: int) -> WeightFormat:
    """The codebook with the least squared error against the weights as integers.

    Where more than half of the weights are 0 (a pruned layer), 0 is an entry; elsewhere it is one
    where the optimum says so.

    >>> found = kmeans_weights(np.array([0.1, 0.11, -1.0, 0.52, 0.48]), 2)
    >>> found.table.tolist(), found.integers.tolist(), found.frac
    ([-4096, 431, 1966, 2130], [431, 431, -4096, 2130, 1966], 12)
    """

    def table(counts: np.ndarray, first: int, number: int, keep_zero: bool) -> np.ndarray:
        entries = best_table(counts, first, number, keep_zero)
        if 2 * counts[-first] > counts.sum() and number > 2:
            entries[np.abs(entries).argmin()] = 0
        return entries

    return fit_weights("kmeans", table, values, bits)


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


def _range(counts: np.ndarray, first: int, number: int) -> tuple[int, int]:
    """From the smallest to the largest integer that occurs, or `number` of them."""
    places = np.flatnonzero(counts)
    ends = first + int(places[0]), first + int(places[-1])
    return widened(*ends, number, first, first + len(counts) - 1)


def linear_table(counts: np.ndarray, first: int, number: int, keep_zero: bool) -> np.ndarray:
    """The middles of equal intervals over [min, max] (see `codebook.Table`).

    >>> linear_table(np.array([5, 1, 0, 0, 0, 0, 0, 1]), 0, 2, keep_zero=False)
    array([2, 6])
    >>> linear_table(np.array([5, 1, 0, 0, 0, 0, 0, 1]), 0, 2, keep_zero=True)
    array([0, 6])
    """
    entries = middles(*_range(counts, first, number), number)
    if keep_zero:
        entries[0] = 0
    return entries


def gaussian_counts(mean: float, deviation: float, low: int, high: int) -> np.ndarray:
    """A Gaussian as counts of the integers low..high, cut off outside (int64).

    >>> gaussian_counts(0.0, 1.0, -1, 1) / 2**30
    array([0.24197072, 0.39894228, 0.24197072])
    """
    y = np.arange(low, high + 1)
    density = np.exp(-(((y - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
    return np.rint(density * _MASS).astype(np.int64)


def gaussian_table(
    counts: np.ndarray, first: int, number: int, keep_zero: bool, levels: str = LEVELS[0]
) -> np.ndarray:
    """The table for a Gaussian with the mean and variance of the counts (see `codebook.Table`).

    It looks at the two moments and the range alone, and saturates the tails. The Gaussian is cut
    off at the smallest and the largest integer that occurs, as no code is needed beyond: for
    activations after a ReLU that is 0.

    Args:
        counts, first, number, keep_zero: as of every `codebook.Table`.
        levels: "lloyd", the optimal (Lloyd-Max) ones of that Gaussian, or "equal", the paper's
            equal intervals, of the optimal step of paper 002, table 1.
    """
    places = np.flatnonzero(counts)
    low, high = _range(counts, first, number)
    y = first + places
    mean = float(np.average(y, weights=counts[places]))
    deviation = math.sqrt(float(np.average((y - mean) ** 2, weights=counts[places])))
    deviation = max(deviation, 0.5)  # half a step: of a constant
    if levels == "equal":
        reach = number / 2 * step_size("gaussian", number.bit_length() - 1) * deviation
        bounds = max(low, round(mean - reach)), min(high, round(mean + reach))
        entries = middles(*widened(*bounds, number, low, high), number)
        if keep_zero:
            entries[0] = 0
        return entries
    expected = gaussian_counts(mean, deviation, low, high)
    if keep_zero:
        expected[0] = max(expected[0], 1)
    return best_table(expected, low, number, keep_zero)


@activations("linear", "knq")
def linear(histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool) -> Quantizer:
    """k-means linear: a code stands for the middle of one of equal intervals."""
    return fit_activations("linear", linear_table, histogram, bits, qm, frac, signed)


@activations("gaussian", "knq", levels=LEVELS)
def gaussian(
    histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool, levels: str
) -> Quantizer:  # fmt: skip
    """k-means Gaussian: the quantizer for a Gaussian of the layer's moments."""
    table = partial(gaussian_table, levels=levels)
    return fit_activations("gaussian", table, histogram, bits, qm, frac, signed)


weights("linear", 1, 8, 8, codebook=True)(partial(fit_weights, "linear", linear_table))
weights("gaussian", 1, 8, 8, codebook=True)(partial(fit_weights, "gaussian", gaussian_table))
