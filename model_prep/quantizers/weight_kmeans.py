# SPDX-License-Identifier: Apache-2.0
"""Weights by codebook: the best 2^bits signed integers, by exact k-means on a histogram.

A weight of `table_bits` bits is one of 2^table_bits integers, so the histogram describes a layer of
any size without loss, and dynamic programming (model_prep/kmeans.py) finds the global optimum.
Imports numpy, the fixed point helpers, k-means and the weight format.
"""

from __future__ import annotations

import numpy as np

from model_prep.fixed_point import to_fixed
from model_prep.kmeans import exact_kmeans
from model_prep.quantizers.weights import WeightFormat


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
    integers, frac = to_fixed(values, table_bits)
    top = (1 << (table_bits - 1)) - 1
    integers += top  # 0..2*top, where the histogram has its counts
    counts = np.bincount(integers.reshape(-1), minlength=2 * top + 1)
    table = exact_kmeans(counts, 1 << bits, zero_first=False) - top
    if 2 * counts[top] > integers.size and bits > 1:
        table[np.abs(table).argmin()] = 0
    middle = (table[:-1] + table[1:] + 1) // 2  # ties go up, as in rule nearest
    nearest = table[np.searchsorted(middle, np.arange(-top, top + 1), side="right")]
    return WeightFormat("kmeans", bits, frac, nearest[integers].astype(np.int64), table)
