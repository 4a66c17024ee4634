# SPDX-License-Identifier: Apache-2.0
"""The schemes of papers 000/001, section III: KNQ, ENQ and uniform codes, and uniform weights."""

import numpy as np

from nuq.formats.arithmetic import to_fixed
from nuq.formats.quantizer import RULES, VARIANTS, Quantizer
from nuq.model_prep.quantize.kmeans import exact_kmeans
from nuq.model_prep.quantize.quantizers import WeightFormat, activations, weights
from nuq.model_prep.quantize.quantizers.codebook import fit_activations
from nuq.model_prep.quantize.quantizers.histogram import uniform_error


@activations("knq", "knq", rule=RULES)
def knq(
    histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool, rule: str
) -> Quantizer:  # fmt: skip
    """2^bits integer centroids of least squared error, by exact k-means (units QK and CK).

    Args:
        histogram, bits, qm, frac, signed: as of every `Scheme`.
        rule: "nearest", or "floor" (the papers as written).
    """
    return fit_activations("knq", best_table, histogram, bits, qm, frac, signed, rule)


def best_table(counts: np.ndarray, first: int, number: int, keep_zero: bool) -> np.ndarray:
    """The table of least squared error (see `codebook.Table`)."""
    return exact_kmeans(counts, number, zero_first=keep_zero) + first


@activations("enq", "enq", variant=VARIANTS)
def enq(
    histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool, variant: str
) -> Quantizer:  # fmt: skip
    """The upper bits of y (units QE and CE); there is no table to fit.

    Args:
        histogram, bits, qm, frac, signed: as of every `Scheme`.
        variant: "floor" (the papers), "mid" (a code stands for the middle of its step) or "round"
            (to the nearest step).
    """
    return Quantizer("enq", bits, qm, frac, variant=variant, signed=signed)


@activations("uniform", "uniform")
def uniform(histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool) -> Quantizer:
    """V_i = i * 2^-F; with a width per layer it is the papers' CLNQ. The code is y itself.

    At bits = qm it is the format of the histogram itself. With fewer bits F is the one, not above
    `frac`, with the least squared error over the histogram (finer steps clip more); with more bits
    the range stays and the step shrinks.
    """
    if bits >= qm:
        return Quantizer("uniform", bits, bits, frac + bits - qm, signed=signed)
    best = min(
        range(frac, frac - (qm - bits) - 1, -1),  # of equal errors the finest step
        key=lambda out_frac: uniform_error(histogram, qm, frac, signed, bits, out_frac),
    )
    return Quantizer("uniform", bits, bits, best, signed=signed)


@weights("uniform", 2, 16, 14)
def uniform_weights(values: np.ndarray, bits: int) -> WeightFormat:
    """Signed fixed point, one F per layer (papers 000/001: 14 bits).

    >>> uniform_weights(np.array([0.5, -1.0]), 4).integers.tolist()
    [2, -4]
    """
    integers, frac = to_fixed(values, bits)
    return WeightFormat("uniform", bits, frac, integers)
