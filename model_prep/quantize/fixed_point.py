# SPDX-License-Identifier: Apache-2.0
"""Signed fixed point with the largest F that fits: weights, biases, the network's input.

The rounding of weights is docs/formats.md 2.3's operand, 14 bits in papers 000/001.
"""

from __future__ import annotations

import math

import numpy as np

MAX_FRAC = 40  # finer steps than 2^-40 only help weights that are zero for every purpose


def largest_frac(largest: float, top: int, most: int = MAX_FRAC) -> int:
    """The largest F, at most `most`, with round(largest * 2^F) <= top.

    >>> largest_frac(1.0, 8191), largest_frac(0.9999, 8191), largest_frac(3000.0, 8191)
    (12, 13, 1)
    """
    if largest == 0:
        return min(most, 0)
    frac = min(most, math.frexp(top / largest)[1])
    while round(largest * 2.0**frac) > top:
        frac -= 1
    return frac


def to_fixed(values: np.ndarray, bits: int, most: int = MAX_FRAC) -> tuple[np.ndarray, int]:
    """Signed fixed point with the largest F that fits the largest magnitude.

    Rounds to nearest, ties to even. The range is symmetric: -2^(bits-1) is not used.

    Returns:
        (int64 array, F).

    >>> to_fixed(np.array([0.5, -1.0, 0.0625]), 4)
    (array([ 2, -4,  0]), 2)
    """
    frac = largest_frac(float(np.abs(values).max(initial=0)), (1 << (bits - 1)) - 1, most)
    return at_frac(values, bits, frac), frac


def at_frac(values: np.ndarray, bits: int, frac: int) -> np.ndarray:
    """Signed fixed point with a given F (int64): to nearest, ties to even, saturating.

    >>> at_frac(np.array([0.5, -1.0, 0.0625]), 3, 2)
    array([ 2, -3,  0])
    """
    top = (1 << (bits - 1)) - 1
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**frac)
    return np.clip(scaled, -top, top).astype(np.int64)
