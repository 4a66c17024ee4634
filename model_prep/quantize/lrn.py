# SPDX-License-Identifier: Apache-2.0
"""The table of local response normalisation in fixed point, docs/formats.md 2.8."""

from __future__ import annotations

import math

import numpy as np

from model_prep.graph import Lrn

STEPS = 32  # table points per octave
ENTRIES = 32 * STEPS + 1
SQUARES_BITS = 36  # a sum of squares is below 2^36, the last point of the table
FACTOR_BITS = 16
MAX_TABLE_FRAC = 24


def points() -> np.ndarray:
    """The sums of squares that the table's entries stand for, int64 [ENTRIES].

    >>> points()[[0, 63, 64, 65, 96, 1024]].tolist() == [0, 63, 64, 66, 128, 1 << 36]
    True
    """
    index = np.arange(ENTRIES)
    exponent = np.where(index < 2 * STEPS, 0, index // STEPS - 1)
    return (index - STEPS * exponent) << exponent


def table(lrn: Lrn, in_frac: int) -> tuple[np.ndarray, int]:
    """(int32 [ENTRIES], table_frac) for inputs with `in_frac` fractional bits.

    >>> entries, frac = table(Lrn(5, 1e-4, 0.75, 1.0), 4)
    >>> frac, int(entries[0])
    (15, 32768)
    """
    squares = points().astype(np.float64) * 2.0 ** (-2 * in_frac)
    factors = (lrn.k + lrn.alpha / lrn.size * squares) ** -lrn.beta
    largest, top = float(factors.max()), (1 << FACTOR_BITS) - 1
    frac = min(MAX_TABLE_FRAC, math.frexp(top / largest)[1])
    while round(largest * 2.0**frac) > top:
        frac -= 1
    return np.rint(factors * 2.0**frac).astype(np.int32), frac
