# SPDX-License-Identifier: Apache-2.0
"""Widths by SQNR (paper 002, section 4): water-filling across layers, and what it predicts.

A quantization step i (the weights or the activations of a layer) of width beta has an SQNR of
kappa * beta dB (eq. 2); 1/gamma adds up over the steps (eq. 9). The least sum of rho * beta for a
given output SQNR has rho * gamma constant (eq. 13). Imports numpy, the Graph, plan and quantizers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_prep import quantizers
from model_prep.allocation.clipping import signal_and_noise
from model_prep.errors import UserError
from model_prep.fake_quant import sqnr_db
from model_prep.fixed_point import to_fixed
from model_prep.graph import Graph
from model_prep.plan import PARAMETER_BITS, LayerPlan, Plan
from model_prep.quantizers.base import HARDWARE, PLAN_WIDTHS, lowest

KAPPA = 3.0  # dB per bit in section 5 of the paper, which measured 2 to 4
MEASURED = range(3, 9)  # widths that kappa is measured at
COSTS = ("parameters", "activations", "macs")


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
        return 10 ** (-self.sqnr_db(bits) / 10)

    def bits(self, noise: float) -> float:
        """The width, a real number, that has 1/gamma = `noise`."""
        return (-10 * math.log10(noise) - self.offset) / self.kappa


@dataclass(frozen=True)
class Step:
    """One quantization step.

    Attributes:
        name: for example "conv1 weights".
        rho: what a bit costs: number of parameters, of activations, or of multiply-accumulates.
        efficiency: its SQNR over its width.
    """

    name: str
    rho: float
    efficiency: Efficiency = Efficiency()


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
    noise = sum(10 ** (-value / 10) for value in steps_db)
    return -10 * math.log10(noise) if noise else math.inf


def predicted_sqnr_db(
    weight_bits: Sequence[int], activation_bits: Sequence[int], kappa: float = KAPPA
) -> list[float]:
    """SQNR in dB of every layer's output before it is quantized itself (equation 8, table 6).

    Args:
        weight_bits: of every layer in order.
        activation_bits: of every layer's input.
        kappa: dB per bit.

    >>> [round(value, 2) for value in predicted_sqnr_db([8, 6], [16, 16])]
    [23.98, 17.02]
    """
    steps: list[float] = []
    outputs = []
    for weight, activation in zip(weight_bits, activation_bits, strict=True):
        steps += [kappa * weight, kappa * activation]
        outputs.append(output_sqnr_db(steps))
    return outputs


def water_fill(steps: Sequence[Step], target_db: float) -> list[float]:
    """Real widths, one per step, with the least sum of rho * width at an output SQNR in dB.

    With 1/gamma_i = lambda_i the sum of rho_i / kappa_i * log(1 / lambda_i) is least where lambda_i
    is in proportion to rho_i / kappa_i (equation 13, with a kappa for each step).

    >>> [round(bits, 2) for bits in water_fill([Step("a", 1), Step("b", 8)], 20.0)]
    [9.85, 6.84]
    """
    shares = [step.rho / step.efficiency.kappa for step in steps]
    if not steps or min(shares) <= 0:
        raise UserError("there must be steps to give bits to, each with a rho above 0")
    allowed = 10 ** (-target_db / 10)
    return [
        step.efficiency.bits(allowed * share / sum(shares))
        for step, share in zip(steps, shares, strict=True)
    ]


def integer_widths(
    steps: Sequence[Step], target_db: float, limits: tuple[int, int] = (2, 16)
) -> list[int]:
    """Integer widths within `limits` that keep the target, near the water-filling solution.

    Starting from its widths rounded down, one bit at a time goes where it removes most noise for
    its rho, until the target is kept; then bits that are not needed are taken back, the dearest
    first.

    Raises:
        UserError: the target cannot be reached.

    >>> integer_widths([Step("a", 1), Step("b", 8)], 20.0)
    [9, 7]
    """
    low, high = limits
    goal = 10 ** (-target_db / 10) * (1 + 1e-12)
    bits = [min(max(math.floor(real), low), high) for real in water_fill(steps, target_db)]

    def noise() -> float:
        return sum(
            step.efficiency.noise(width) for step, width in zip(steps, bits, strict=True)
        )  # fmt: skip

    def gain(index: int) -> float:
        line = steps[index].efficiency
        return (line.noise(bits[index]) - line.noise(bits[index] + 1)) / steps[index].rho

    while noise() > goal:
        open_ = [index for index in range(len(steps)) if bits[index] < high]
        if not open_:
            raise UserError(
                f"the target must be at most {-10 * math.log10(noise()):.2f} dB, what {high} bits "
                f"everywhere have, not {target_db:.2f} dB"
            )
        bits[max(open_, key=gain)] += 1
    for index in sorted(range(len(steps)), key=lambda i: -steps[i].rho):
        while bits[index] > low:
            bits[index] -= 1
            if noise() > goal:
                bits[index] += 1
                break
    return bits


def costs(graph: Graph, kind: str) -> dict[str, int]:
    """rho by layer name: what a bit more costs there.

    Args:
        graph: the network.
        kind: "parameters" (weights), "activations" (stored values of every layer but the last) or
            "macs" (for weights or activations; of layers with weights).
    """
    if kind == "parameters":
        return {layer.name: layer.weight.size for layer in graph.layers if layer.has_weights}
    if kind == "activations":
        return {layer.name: math.prod(layer.out_shape) for layer in graph.layers[:-1]}
    if kind == "macs":
        return {layer.name: layer.macs for layer in graph.layers if layer.has_weights}
    raise UserError(f"rho must be one of {', '.join(COSTS)}, not {kind}")


def weight_sqnr_db(values: np.ndarray, widths: Iterable[int] = MEASURED) -> dict[int, float]:
    """SQNR in dB by width of weights in fixed point (equation 4)."""
    exact = np.asarray(values, np.float64)
    measured = {}
    for bits in widths:
        integers, frac = to_fixed(exact, bits)
        noise = float(np.square(integers * 2.0**-frac - exact).sum())
        measured[bits] = sqnr_db(float(np.square(exact).sum()), noise)
    return measured


def activation_sqnr_db(
    layer: LayerPlan, counts: np.ndarray, qm: int, frac: int, widths: Iterable[int] = MEASURED
) -> dict[int, float]:
    """SQNR in dB by width of activations in the scheme of a plan (equation 4).

    Args:
        layer: scheme, options and sign.
        counts: histogram [2^qm] of y.
        qm, frac: width and F of y.
        widths: those out of the scheme's range are left out.
    """
    low, high = _limits(layer, qm)
    measured = {}
    for bits in widths:
        if low <= bits <= high:
            fitted = quantizers.fit(
                str(layer.scheme), counts, bits, qm, frac, signed=layer.signed, **layer.options
            )
            sums = signal_and_noise(counts, lowest(qm, layer.signed), frac, fitted)
            measured[bits] = sqnr_db(*sums)
    return measured


def _limits(layer: LayerPlan, qm: int) -> tuple[int, int]:
    """Widths that a layer's scheme allows at this qm."""
    low, high = PLAN_WIDTHS[str(layer.scheme)]
    return low, high if HARDWARE[str(layer.scheme)] == "uniform" else min(high, qm)


def allocate_activations(
    plan: Plan, counts: Mapping[str, np.ndarray], qm: int, fracs: Mapping[str, int],
    rho: Mapping[str, float], target_db: float, kappa: float | None = None,
) -> Plan:  # fmt: skip
    """The plan with its open widths set by water-filling; layers that share count as one step.

    Args:
        plan: with open widths; fixed ones are not part of the target.
        counts, qm, fracs: as for `single.fit_all`.
        rho: cost of a bit by layer name, see `costs`.
        target_db: SQNR of all open steps together.
        kappa: dB per bit; None: measured for each step.
    """
    open_layers = [layer for layer in plan.layers if layer.scheme and layer.bits is None]
    shared: dict[str, list[LayerPlan]] = {}
    for layer in open_layers:
        shared.setdefault(layer.owner, []).append(layer)
    steps = []
    for owner, members in shared.items():
        seen = [layer for layer in members if layer.counted] or members
        histogram = np.sum([counts[layer.name] for layer in seen], axis=0)
        line = Efficiency(kappa) if kappa is not None else fit_efficiency(
            activation_sqnr_db(members[0], histogram, qm, fracs[owner])
        )  # fmt: skip
        steps.append(Step(owner, sum(rho[layer.name] for layer in members), line))
    limits = [_limits(layer, qm) for layer in open_layers]
    within = max(low for low, _ in limits), min(high for _, high in limits)
    chosen = dict(zip(shared, integer_widths(steps, target_db, within), strict=True))
    layers = [
        replace(layer, bits=chosen[layer.owner]) if layer in open_layers else layer
        for layer in plan.layers
    ]
    return replace(plan, layers=tuple(layers))


def allocate_weights(
    graph: Graph, plan: Plan, target_db: float, kappa: float | None = None, kind: str = "parameters"
) -> Plan:
    """The plan with the weights' widths set by water-filling (the paper's section 5.1).

    Args:
        graph: the float network.
        plan: any; its weight_bits are replaced.
        target_db: SQNR of all weights together.
        kappa: dB per bit; None: measured layer by layer.
        kind: rho, "parameters" (the paper's) or "macs".
    """
    rho = costs(graph, kind)
    weights = {layer.name: layer.weight for layer in graph.layers if layer.name in rho}
    steps = [
        Step(
            name, rho[name],
            Efficiency(kappa) if kappa is not None else fit_efficiency(weight_sqnr_db(values)),
        )
        for name, values in weights.items()
    ]  # fmt: skip
    chosen = dict(zip(weights, integer_widths(steps, target_db, PARAMETER_BITS), strict=True))
    layers = [
        replace(layer, weight_bits=chosen.get(layer.name, layer.weight_bits))
        for layer in plan.layers
    ]
    return replace(plan, layers=tuple(layers))
