# SPDX-License-Identifier: Apache-2.0
"""KNQ: 2^bits integer centroids by exact k-means (papers 000/001, section III; units QK and CK)."""

import numpy as np

from formats.arithmetic import lowest
from formats.errors import UserError
from formats.quantizer import WIDTHS, Quantizer, check_qm, thresholds
from model_prep.quantize.kmeans import exact_kmeans
from model_prep.quantize.quantizers.histogram import only


def fit(
    histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: str | None,
) -> Quantizer:  # fmt: skip
    """The KNQ quantizer with the least squared error over the histogram.

    Args:
        histogram: counts [2^qm] of the integers y from the smallest up (already clipped, the
            paper's bound).
        bits: width T of a code, 1..8.
        qm: width of y.
        frac: F of y.
        signed: whether y may be negative; its smallest value is -2^(qm - 1) then.
        options: rule "nearest" (default) or "floor" (the paper as written).
    """
    only("knq", options, "rule")
    check_qm(qm)
    low, high = WIDTHS["knq"]
    if not low <= bits <= min(high, qm):
        raise UserError(f"knq bits must be {low}..{min(high, qm)}, not {bits}")
    rule = options.get("rule") or "nearest"
    # Only the smallest centroid can be forced to 0, which is the smallest y of unsigned ones alone.
    centroid = exact_kmeans(histogram, 1 << bits, zero_first=False if signed else None)
    centroid += lowest(qm, signed)
    return Quantizer(
        "knq", bits, qm, frac,
        rule=rule, centroid=centroid, threshold=thresholds(centroid, rule), signed=signed,
    )  # fmt: skip
