# SPDX-License-Identifier: Apache-2.0
"""Dynamic fixed point: a format per layer and kind of variable (paper 004, section 4.1, eq. 2-3).

IL = ceil(log2(max |V|)), FL = BW - IL, and FL = Y where it would exceed Y, the fractional length
with the least error among those of the paper's search, 8 to 20.
"""

import math
from collections.abc import Callable

import numpy as np

from formats.arithmetic import at_frac
from formats.quantizer import Quantizer
from model_prep.quantize.quantizers.histogram import occupied, only, uniform_error
from model_prep.quantize.quantizers.weights import WeightFormat

SEARCHED = range(8, 21)  # fractional lengths that the paper tries


def integer_length(largest: float) -> int:
    """IL = ceil(log2(largest)), equation 2.

    >>> integer_length(5.0), integer_length(4.0), integer_length(0.3)
    (3, 2, -1)
    """
    return math.ceil(math.log2(largest))


def fractional_length(largest: float, bits: int, error: Callable[[int], float]) -> int:
    """FL of equation 3.

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


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """Uniform codes whose range covers the largest activation.

    Args:
        histogram: counts [2^qm] of the integers y, each standing for y * 2^-frac.
        bits: BW, 2..16.
        qm: width of y.
        frac: F of y.
        signed: whether y may be negative.
        options: none is known; others may be passed as None.
    """
    only("dynamic", options)
    low, high = occupied(histogram, qm, signed)
    largest = max(-low, high) * 2.0**-frac
    if largest == 0:
        return Quantizer("uniform", bits, bits, frac, signed=signed)
    chosen = fractional_length(
        largest, bits - signed,
        lambda length: uniform_error(histogram, qm, frac, signed, bits, length),
    )  # fmt: skip
    return Quantizer("uniform", bits, bits, chosen, signed=signed)


def fit_weights(values: np.ndarray, bits: int, table_bits: int = 14) -> WeightFormat:
    """Weights in dynamic fixed point, rounded to nearest.

    Args:
        values: float weights.
        bits: BW with the sign, 2..16.
        table_bits: not used, as there is no table.
    """
    exact = np.asarray(values, np.float64)

    def error(length: int) -> float:
        return float(np.square(at_frac(exact, bits, length) * 2.0**-length - exact).sum())

    largest = float(np.abs(exact).max(initial=0))
    frac = fractional_length(largest, bits - 1, error) if largest else 0
    return WeightFormat("dynamic", bits, frac, at_frac(exact, bits, frac))
