# SPDX-License-Identifier: Apache-2.0
"""Uniform codes: V_i = i * 2^-F (papers 000/001; with a width per layer it is their CLNQ).

The code is y itself, so its width is qm. Imports `model_prep.quantizers.base` and numpy.
"""

from __future__ import annotations

import numpy as np

from model_prep.errors import UserError
from model_prep.quantizers.base import Quantizer, lowest, squared_error


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """A uniform quantizer of `bits` bits whose F suits the histogram.

    At bits = qm it is the format of the histogram itself. With fewer bits F is the one, not above
    `frac`, with the least squared error over the histogram (finer steps clip more); with more bits
    the range stays and the step shrinks.

    Args:
        histogram: counts [2^qm] of the integers y, each standing for y * 2^-frac.
        bits: width of a code, 2..16.
        qm: width of the histogram's integers.
        frac: F of the histogram's integers.
        signed: whether they may be negative; the first is -2^(qm - 1) then.
        options: none is known; variant and rule may be passed as None.
    """
    unknown = sorted(name for name, value in options.items() if value is not None)
    if unknown:
        raise UserError(f"uniform must have no {unknown[0]}, not {options[unknown[0]]}; drop it")
    if bits >= qm:
        return Quantizer("uniform", bits, bits, frac + bits - qm, signed=signed)
    first, low = lowest(qm, signed), lowest(bits, signed)
    high = low + (1 << bits) - 1
    y = np.arange(first, first + len(histogram))
    best, best_error = frac, np.inf
    for shift in range(qm - bits + 1):
        half = (1 << shift) >> 1
        values = np.clip((y + half) >> shift, low, high) << shift
        error = squared_error(histogram, values, first)
        if error < best_error:
            best, best_error = frac - shift, error
    return Quantizer("uniform", bits, bits, best, signed=signed)
