# SPDX-License-Identifier: Apache-2.0
"""k-means Gaussian: the quantizer for a Gaussian of the layer's mean and variance (paper 004, 4.2).

It looks at the two moments and the range alone, and saturates the tails. Levels "lloyd" are the
optimal (Lloyd-Max) ones of that Gaussian; "equal" are the paper's equal intervals, of the optimal
step of paper 002, table 1.
"""

import math
from functools import partial

import numpy as np

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.quantize.kmeans import exact_kmeans
from model_prep.quantize.quantizers import kmeans_linear
from model_prep.quantize.quantizers.codebook import fit_activations, fit_codebook
from model_prep.quantize.quantizers.histogram import only
from model_prep.quantize.quantizers.optimal_step import step_size
from model_prep.quantize.quantizers.weights import WeightFormat

LEVELS = ("lloyd", "equal")
_MASS = 1 << 30  # counts of the Gaussian: k-means stays exact for integers of 15 bits


def gaussian_counts(mean: float, deviation: float, low: int, high: int) -> np.ndarray:
    """A Gaussian as counts of the integers low..high, cut off outside (int64).

    >>> gaussian_counts(0.0, 1.0, -1, 1) / 2**30
    array([0.24197072, 0.39894228, 0.24197072])
    """
    y = np.arange(low, high + 1)
    density = np.exp(-(((y - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
    return np.rint(density * _MASS).astype(np.int64)


def table(
    counts: np.ndarray, first: int, number: int, keep_zero: bool, levels: str = LEVELS[0]
) -> np.ndarray:
    """The table for a Gaussian with the mean and variance of the counts (see `codebook.Rule`).

    The Gaussian is cut off at the smallest and the largest integer that occurs, as no code is
    needed beyond: for activations after a ReLU that is 0.
    """
    places = np.flatnonzero(counts)
    low, high = first + int(places[0]), first + int(places[-1])
    low, high = kmeans_linear.widened(low, high, number, first, first + len(counts) - 1)
    y = first + places
    mean = float(np.average(y, weights=counts[places]))
    deviation = math.sqrt(float(np.average((y - mean) ** 2, weights=counts[places])))
    deviation = max(deviation, 0.5)  # half a step: of a constant
    if levels == "equal":
        reach = number / 2 * step_size("gaussian", number.bit_length() - 1) * deviation
        bounds = max(low, round(mean - reach)), min(high, round(mean + reach))
        entries = kmeans_linear.middles(*kmeans_linear.widened(*bounds, number, low, high), number)
        if keep_zero:
            entries[0] = 0
        return entries
    expected = gaussian_counts(mean, deviation, low, high)
    if keep_zero:
        expected[0] = max(expected[0], 1)
    return exact_kmeans(expected, number, zero_first=keep_zero).astype(np.int64) + low


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """The quantizer for a Gaussian with the moments of a histogram.

    Args:
        histogram: counts [2^qm] of the integers y.
        bits: width of a code, 1..8.
        qm, frac: width and F of y.
        signed: whether y may be negative.
        options: levels "lloyd" (default) or "equal".
    """
    only("gaussian", options, "levels")
    levels = options.get("levels") or LEVELS[0]
    if levels not in LEVELS:
        raise UserError(f"levels must be one of {', '.join(LEVELS)}, not {levels}")
    rule = partial(table, levels=levels)
    return fit_activations("gaussian", rule, histogram, bits, qm, frac, signed)


def fit_weights(
    values: np.ndarray, bits: int, table_bits: int = 14, levels: str = LEVELS[0]
) -> WeightFormat:
    """A codebook for a Gaussian of the weights' moments, see `codebook.fit_codebook`."""
    return fit_codebook("gaussian", partial(table, levels=levels), values, bits, table_bits)
