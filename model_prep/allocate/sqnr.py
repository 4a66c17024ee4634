# SPDX-License-Identifier: Apache-2.0
"""Widths by SQNR (paper 002, section 4): water-filling across layers, and what it predicts.

A quantization step i (the weights or the activations of a layer) of width beta has an SQNR of
kappa * beta dB (eq. 2); 1/gamma adds up over the steps (eq. 9). The least sum of rho * beta for a
given output SQNR has rho * gamma constant (eq. 13).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuq.formats.errors import UserError
from nuq.model_prep.quantize.score import inverse_sqnr

KAPPA = 3.0  # dB per bit in section 5 of the paper, which measured 2 to 4
Limits = tuple[int, int]  # narrowest and widest


@dataclass(frozen=True)
class Efficiency:
    """SQNR of a step as a line over its width: `kappa` * width + `offset`, both in dB.

    The paper's equation 2 has no offset; measured lines have one.
    """

    kappa: float = KAPPA
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Refuse, by UserError, a line that does not rise."""
        if not self.kappa > 0:
            raise UserError(f"kappa must be above 0 dB per bit, not {self.kappa}")

    def sqnr_db(self, bits: float) -> float:
        """SQNR in dB of a width."""
        return self.kappa * bits + self.offset

    def noise(self, bits: float) -> float:
        """1/gamma of a width."""
        return inverse_sqnr(self.sqnr_db(bits))


@dataclass(frozen=True)
class Step:
    """One quantization step: the weights or the activations of a layer."""

    rho: float  # what a bit costs: number of parameters, of activations, or of MACs
    efficiency: Efficiency = Efficiency()
    limits: Limits = (2, 16)


def offset_bits(rho: float, reference: float, kappa: float = KAPPA) -> float:
    """beta_i - beta_j = 10 log10(rho_j / rho_i) / kappa, equation 15; j is the reference.

    Rounded to nearest this gives every cell of the paper's tables 3 and 5.

    >>> round(offset_bits(0.295, 0.007))
    -5
    """
    return 10 * math.log10(reference / rho) / kappa


def fit_efficiency(sqnr_db: Mapping[int, float]) -> Efficiency:
    """kappa by linear regression over measured SQNR, in dB by width.

    Widths without any noise are left out.

    Raises:
        UserError: fewer than two widths, or SQNR that does not rise.

    >>> fit_efficiency({2: 9.0, 3: 12.0, 4: 15.0})
    Efficiency(kappa=3.0, offset=3.0)
    """
    points = [(bits, value) for bits, value in sqnr_db.items() if math.isfinite(value)]
    if len(points) < 2:
        raise UserError(f"kappa must be measured at two widths or more, not {len(points)}")
    bits, values = np.array(points, np.float64).T
    bits_mean, mean = bits.mean(), values.mean()
    slope = float(((bits - bits_mean) * (values - mean)).sum() / ((bits - bits_mean) ** 2).sum())
    return Efficiency(slope, float(mean - slope * bits_mean))


def output_sqnr_db(steps_db: Iterable[float]) -> float:
    """Output SQNR in dB after steps of these SQNR in dB, equation 9; infinite without any.

    >>> round(output_sqnr_db([20.0, 20.0]), 2)
    16.99
    """
    noise = sum(inverse_sqnr(value) for value in steps_db)
    return -10 * math.log10(noise) if noise else math.inf


def predicted_sqnr_db(
    weight_bits: Sequence[int], activation_bits: Sequence[int], kappa: float = KAPPA
) -> list[float]:
    """SQNR in dB of every layer's output before it is quantized itself (equation 8, table 6).

    Widths are of every layer's weights and of its input.

    >>> [round(value, 2) for value in predicted_sqnr_db([8, 6], [16, 16])]
    [23.98, 17.02]
    """
    widths = zip(weight_bits, activation_bits, strict=True)
    steps = [kappa * bits for pair in widths for bits in pair]
    return [output_sqnr_db(steps[:end]) for end in range(2, len(steps) + 1, 2)]


def water_fill(steps: Sequence[Step], target_db: float) -> list[float]:
    """Real widths, one per step, with the least sum of rho * width at an output SQNR in dB.

    With 1/gamma_i = lambda_i the sum of rho_i / kappa_i * log(1 / lambda_i) is least where lambda_i
    is in proportion to rho_i / kappa_i (equation 13, with a kappa for each step).

    >>> [round(bits, 2) for bits in water_fill([Step(1), Step(8)], 20.0)]
    [9.85, 6.84]
    """
    if not steps or min(step.rho for step in steps) <= 0:
        raise UserError("there must be steps to give bits to, each with a rho above 0")
    # In dB and relative to the least kappa, so that no target and no kappa under- or overflows.
    least = min(step.efficiency.kappa for step in steps)
    shares = [step.rho * (least / step.efficiency.kappa) for step in steps]
    return [
        (target_db - 10 * math.log10(share / sum(shares)) - step.efficiency.offset)
        / step.efficiency.kappa
        for step, share in zip(steps, shares, strict=True)
    ]


def integer_widths(
    steps: Sequence[Step], target_db: float, option: str = "the target", remedy: str = "lower it"
) -> list[int]:
    """Integer widths within each step's limits that keep the target, near water-filling's.

    Starting from its widths rounded down, one bit at a time goes where it removes most noise for
    its rho, until the target is kept; then bits that are not needed are taken back, the dearest
    first.

    Raises:
        UserError: no widths reach the target, which is called `option`; `remedy` is what to do.

    >>> integer_widths([Step(1), Step(8)], 20.0)
    [9, 7]
    """
    goal = 10 ** (-target_db / 10) * (1 + 1e-12)
    bits = [
        math.floor(min(max(real, step.limits[0]), step.limits[1]))
        for real, step in zip(water_fill(steps, target_db), steps, strict=True)
    ]

    def noise() -> float:
        return sum(step.efficiency.noise(width) for step, width in zip(steps, bits, strict=True))

    def gain(index: int) -> float:
        line = steps[index].efficiency
        return (line.noise(bits[index]) - line.noise(bits[index] + 1)) / steps[index].rho

    while noise() > goal:
        open_ = [index for index, step in enumerate(steps) if bits[index] < step.limits[1]]
        if not open_:
            best = math.floor(-1000 * math.log10(noise())) / 100
            raise UserError(
                f"{option} must be at most {best:g} dB, what the widest widths have, not "
                f"{target_db:g} dB; {remedy}"
            )
        bits[max(open_, key=gain)] += 1
    for index in sorted(range(len(steps)), key=lambda i: -steps[i].rho):
        while bits[index] > steps[index].limits[0]:
            bits[index] -= 1
            if noise() > goal:
                bits[index] += 1
                break
    return bits
