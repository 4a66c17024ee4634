# SPDX-License-Identifier: Apache-2.0
"""Weights by codebook: the best 2^bits signed integers, by exact k-means on a histogram.

A weight of `table_bits` bits is one of 2^table_bits integers, so the histogram describes a layer of
any size without loss, and dynamic programming (kmeans.py) finds the global optimum.
"""

import numpy as np

from model_prep.quantize.kmeans import exact_kmeans
from model_prep.quantize.quantizers.codebook import fit_codebook
from model_prep.quantize.quantizers.weights import WeightFormat


def fit_weights(values: np.ndarray, bits: int, table_bits: int = 14) -> WeightFormat:
    """The codebook with the least squared error against the weights as `table_bits`-bit integers.

    Where more than half of the weights are 0 (a pruned layer), 0 is an entry; elsewhere it is one
    where the optimum says so.

    Args:
        values: float weights of a layer, any shape.
        bits: width of an index; the codebook has 2^bits entries.
        table_bits: signed width of an entry.

    >>> found = fit_weights(np.array([0.1, 0.11, -1.0, 0.52, 0.48]), 2, 8)
    >>> found.table.tolist(), found.integers.tolist(), found.frac
    ([-64, 7, 31, 33], [7, 7, -64, 33, 31], 6)
    """
    return fit_codebook("kmeans", _table, values, bits, table_bits)


def _table(counts: np.ndarray, first: int, number: int, keep_zero: bool) -> np.ndarray:
    """The rule of `codebook`, which leaves it to us where weights are 0 so often that 0 stays."""
    table = exact_kmeans(counts, number, zero_first=keep_zero) + first
    if 2 * counts[-first] > counts.sum() and number > 2:
        table[np.abs(table).argmin()] = 0
    return table
