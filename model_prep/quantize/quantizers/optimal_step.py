# SPDX-License-Identifier: Apache-2.0
"""Fixed point by the optimal step size of a density (paper 002, sections 3.1-3.3 and table 1).

The step of the symmetric uniform quantizer with the least squared error, from the paper's table for
1 to 4 bits and computed for more; s = xi * Stepsize(beta), xi = 3 sigma, n = -ceil(log2 s).
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from nuq.formats.arithmetic import MAX_FRAC
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.quantize.quantizers import activations
from nuq.model_prep.quantize.quantizers.histogram import half_width

# The table is taken as printed. Computed, two of its cells differ: 0.461 for Laplacian, 4 bits, and
# 1.066 for Gamma, 2 bits, with errors 0.05% and 0.004% below those of the printed steps.
XI = 3.0  # effective deviation over sigma, section 5 of the paper
TABLE_1 = {
    "uniform": (1.0, 0.5, 0.25, 0.125),  # density of range -1..1, the others of variance 1
    "gaussian": (1.596, 0.996, 0.586, 0.335),
    "laplacian": (1.414, 1.087, 0.731, 0.456),
    "gamma": (1.154, 1.060, 0.796, 0.540),
}
DENSITIES = ("gaussian", "laplacian", "gamma", "uniform")

_Tails = tuple[torch.Tensor, torch.Tensor]


def _gaussian(x: torch.Tensor) -> _Tails:
    return (
        torch.erfc(x / math.sqrt(2)) / 2,
        torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    )


def _laplacian(x: torch.Tensor) -> _Tails:
    rate = math.sqrt(2)
    tail = torch.exp(-rate * x) / 2
    return tail, tail * (x + 1 / rate)


def _gamma(x: torch.Tensor) -> _Tails:
    """|x| has a gamma density of shape 1/2 and rate sqrt(3)/2."""
    rate = math.sqrt(3) / 2
    root = torch.sqrt(rate * x)
    tail = torch.erfc(root)
    return tail / 2, (tail + 2 / math.sqrt(math.pi) * root * torch.exp(-root * root)) / (4 * rate)


_TAILS: dict[str, Callable[[torch.Tensor], _Tails]] = {
    "gaussian": _gaussian, "laplacian": _laplacian, "gamma": _gamma
}  # fmt: skip


def squared_error(density: str, bits: int, step: float) -> float:
    """Mean squared error of the symmetric uniform quantizer on a density of variance 1.

    With tails Q(x) = P(X > x), T(x) = E[X; X > x] and levels (k + 1/2) s on either side, summation
    by parts gives 1 - 2 s T(0) - 4 s sum T(k s) + s^2 Q(0) / 2 + 4 s^2 sum k Q(k s), k >= 1.

    >>> round(squared_error("gaussian", 1, 1.596), 4)  # Max: 1 - 2/pi
    0.3634
    """
    k = torch.arange(1 << (bits - 1), dtype=torch.float64)
    above, first_moment = _TAILS[density](k * step)
    inner = float(first_moment[0] / 2 + first_moment[1:].sum())
    outer = float(above[0] / 8 + (k * above).sum())
    return 1 - 4 * step * inner + 4 * step * step * outer


@cache
def computed_step(density: str, bits: int) -> float:
    """The step with the least squared error, by a search without derivatives.

    >>> round(computed_step("gaussian", 3), 3), round(computed_step("laplacian", 3), 3)
    (0.586, 0.731)
    """
    if density == "uniform":
        return 2.0 ** (1 - bits)

    def error(logarithm: float) -> float:
        return squared_error(density, bits, math.exp(logarithm) / 2**bits)

    # 2^bits steps cover 1 to 200 deviations, whatever the density and the width
    found = minimize_scalar(
        error, bounds=(0.0, math.log(200)), method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(found.x) / 2**bits


def step_size(density: str, bits: int) -> float:
    """Stepsize(beta) of table 1; computed beyond its 4 bits.

    >>> step_size("gaussian", 2), step_size("uniform", 5)
    (0.996, 0.0625)
    """
    table = TABLE_1[density]
    return table[bits - 1] if bits <= len(table) else computed_step(density, bits)


def fraction_bits(sigma: float, density: str, bits: int, xi: float = XI) -> int:
    """n = -ceil(log2(xi * sigma * Stepsize(bits))), section 3.3 of the paper.

    >>> fraction_bits(1.0, "gaussian", 2)  # 3 * 0.996 = 2.988: steps of 4
    -2
    """
    return min(MAX_FRAC, -math.ceil(math.log2(xi * sigma * step_size(density, bits))))


@activations("optimal", "uniform", density=DENSITIES)
def optimal(
    histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool, density: str
) -> Quantizer:  # fmt: skip
    """Uniform codes whose step is the optimal one, rounded up to a power of two.

    The paper's quantizer is symmetric. Unsigned activations are the positive half of a symmetric
    density: sigma is the root mean square of those above 0, and `bits` bits on one side are the
    step size of bits + 1. The default density is the paper's assumption.
    """
    sigma = half_width(histogram, qm, signed) * 2.0**-frac
    step_bits = bits if signed else bits + 1
    out_frac = fraction_bits(sigma, density, step_bits) if sigma else frac
    return Quantizer("uniform", bits, bits, out_frac, signed=signed)
