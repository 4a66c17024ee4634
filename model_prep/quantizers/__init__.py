# SPDX-License-Identifier: Apache-2.0
"""The quantization schemes by name: each module has `fit(histogram, bits, qm, frac, **options)`.

A further scheme is one more module and one more line in SCHEMES.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_prep.errors import UserError
from model_prep.quantizers import enq, knq, uniform
from model_prep.quantizers.base import Quantizer

SCHEMES: dict[str, Callable[..., Quantizer]] = {
    "knq": knq.fit,
    "enq": enq.fit,
    "uniform": uniform.fit,
}


def fit(
    scheme: str, histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """Fit a quantizer of the named scheme to counts [2^qm] of the integers y = value * 2^frac.

    The first count is of y = -2^(qm - 1) where `signed`, else of 0.
    """
    if scheme not in SCHEMES:
        raise UserError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme}")
    return SCHEMES[scheme](histogram, bits, qm, frac, signed=signed, **options)
