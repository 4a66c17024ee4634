# SPDX-License-Identifier: Apache-2.0
"""Uniform codes: V_i = i * 2^-F (papers 000/001; with a width per layer it is their CLNQ).

The code is y itself, so its width is qm.
"""

import numpy as np

from formats.quantizer import Quantizer
from model_prep.quantize.quantizers.histogram import only, uniform_error


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
    only("uniform", options)
    if bits >= qm:
        return Quantizer("uniform", bits, bits, frac + bits - qm, signed=signed)
    best = min(
        range(frac, frac - (qm - bits) - 1, -1),  # of equal errors the finest step
        key=lambda out_frac: uniform_error(histogram, qm, frac, signed, bits, out_frac),
    )
    return Quantizer("uniform", bits, bits, best, signed=signed)
