# SPDX-License-Identifier: Apache-2.0
"""ENQ: the upper `bits` of the qm-bit integer y (papers 000/001, section III; units QE and CE)."""

import numpy as np

from formats.quantizer import Quantizer
from model_prep.quantize.quantizers.histogram import only


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """An ENQ quantizer; ENQ has no table, so the histogram is not looked at.

    Args:
        histogram: counts [2^qm] of the integers y.
        bits: width E of a code, 1..qm.
        qm: width of y.
        frac: F of y.
        signed: whether y may be negative.
        options: variant "floor" (the paper, default), "mid" (a code stands for the middle of its
            step) or "round" (to the nearest step).
    """
    only("enq", options, "variant")
    variant = options.get("variant") or "floor"
    return Quantizer("enq", bits, qm, frac, variant=variant, signed=signed)
