# SPDX-License-Identifier: Apache-2.0
"""Uniform weights: signed fixed point, one F per layer (papers 000/001: 14 bits)."""

import numpy as np

from formats.arithmetic import to_fixed
from model_prep.quantize.quantizers.weights import WeightFormat


def fit_weights(values: np.ndarray, bits: int, table_bits: int = 14) -> WeightFormat:
    """Weights as integers of `bits` bits; `table_bits` is for schemes with a codebook.

    >>> fit_weights(np.array([0.5, -1.0]), 4).integers.tolist()
    [2, -4]
    """
    integers, frac = to_fixed(values, bits)
    return WeightFormat("uniform", bits, frac, integers)
