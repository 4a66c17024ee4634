# SPDX-License-Identifier: Apache-2.0
"""The quantization schemes by name: each module has `fit(histogram, bits, qm, frac, **options)`.

A further scheme is one more module, one more line in SCHEMES, and one in HARDWARE, which says what
its codes are run by. Schemes that store weights have `fit_weights(values, bits)`, too.
"""

from collections.abc import Callable

import numpy as np

from formats.errors import UserError
from formats.quantizer import WIDTHS, Quantizer
from model_prep.quantize.quantizers import (
    dynamic,
    enq,
    kmeans_gaussian,
    kmeans_linear,
    knq,
    optimal_step,
    uniform,
    weight_kmeans,
)
from model_prep.quantize.quantizers.weights import WeightFormat

# schemes of a plan: the scheme that their codes are stored and converted by
HARDWARE = {
    "knq": "knq", "enq": "enq", "uniform": "uniform", "optimal": "uniform", "dynamic": "uniform",
    "linear": "knq", "gaussian": "knq",
}  # fmt: skip
PLAN_WIDTHS = {scheme: WIDTHS[hardware] for scheme, hardware in HARDWARE.items()}
SCHEMES: dict[str, Callable[..., Quantizer]] = {
    "knq": knq.fit,
    "enq": enq.fit,
    "uniform": uniform.fit,
    "optimal": optimal_step.fit,
    "dynamic": dynamic.fit,
    "linear": kmeans_linear.fit,
    "gaussian": kmeans_gaussian.fit,
}
WEIGHT_FITS: dict[str, Callable[..., WeightFormat]] = {
    "optimal": optimal_step.fit_weights,
    "dynamic": dynamic.fit_weights,
    "kmeans": weight_kmeans.fit_weights,
    "linear": kmeans_linear.fit_weights,
    "gaussian": kmeans_gaussian.fit_weights,
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
