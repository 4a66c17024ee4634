# SPDX-License-Identifier: Apache-2.0
"""SQNR of every layer, predicted from its quantizers' own and measured (paper 002, table 6).

Imports numpy, the graph, plan, quantizer, water-filling, problem and fake-quantized modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_prep.allocation import sqnr
from model_prep.allocation.clipping import signal_and_noise
from model_prep.allocation.measure import inverse_sqnr
from model_prep.allocation.problem import Problem
from model_prep.calibrate import ToFloat
from model_prep.errors import UserError
from model_prep.fake_quant import FakeQuantized, sqnr_db
from model_prep.graph import INPUT, Graph
from model_prep.plan import Plan
from model_prep.quantizers.base import Quantizer, lowest
from model_prep.quantizers.weights import fit_weights


@dataclass(frozen=True)
class Allocated:
    """Widths by water-filling.

    Attributes:
        plan: with all widths fixed.
        nb: bits of all activations of one image.
        predicted_db, measured_db: SQNR of every layer's stored output, by layer name.
    """

    plan: Plan
    nb: int
    predicted_db: dict[str, float]
    measured_db: dict[str, float]


def predict(
    graph: Graph, weights_db: Mapping[str, float], codes_db: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """SQNR in dB of every layer's output (002, equation 8) on any graph.

    Inverse SQNRs add up along a chain; where maps join (concatenation, addition) the mean of the
    parts' is taken.

    Args:
        graph: the network.
        weights_db, codes_db: SQNR in dB of weights and of stored activations by layer name; what
            is not named has no noise.

    Returns:
        (before the output itself is quantized, after it), by layer name.
    """
    stored, before = {INPUT: 0.0}, {}
    for layer in graph.layers:
        parts = [part for name in layer.inputs for part in graph.parts_of(name)]
        noise = float(np.mean([stored[part] for part in parts]))
        before[layer.name] = noise + inverse_sqnr(weights_db.get(layer.name, math.inf))
        stored[layer.name] = before[layer.name] + inverse_sqnr(codes_db.get(layer.name, math.inf))
    return _decibels(before), _decibels({layer.name: stored[layer.name] for layer in graph.layers})


def _decibels(noise: Mapping[str, float]) -> dict[str, float]:
    return {name: sqnr_db(1.0, one) for name, one in noise.items()}


def weight_steps(graph: Graph, plan: Plan) -> dict[str, float]:
    """Measured SQNR in dB of stored weights in the plan's schemes and widths, by layer name."""
    found = {}
    for layer, chosen in zip(graph.layers, plan.layers, strict=True):
        if layer.has_weights:
            own = fit_weights(chosen.weight_scheme, layer.weight, chosen.weight_bits, layer.name)
            exact = layer.weight.astype(np.float64)
            noise = np.square(own.integers * 2.0**-own.frac - exact).sum()
            found[layer.name] = sqnr_db(float(np.square(exact).sum()), float(noise))
    return found


def code_steps(
    quantizers: Mapping[str, Quantizer], counts: Mapping[str, np.ndarray], qm: int,
    fracs: Mapping[str, int],
) -> dict[str, float]:  # fmt: skip
    """Measured SQNR in dB of activations in their codes, by layer name.

    Args:
        quantizers: by layer name.
        counts: histograms [2^qm] by layer name.
        qm, fracs: width and F of the histograms' integers.
    """
    return {
        name: sqnr_db(*signal_and_noise(counts[name], lowest(qm, own.signed), fracs[name], own))
        for name, own in quantizers.items()
    }


def allocate(
    problem: Problem, network: FakeQuantized, pixels: np.ndarray, to_float: ToFloat,
    target_db: float, rho: str = "activations", kappa: float | None = None,
    weights_db: float | None = None,
) -> Allocated:  # fmt: skip
    """Open widths of activations, and if asked those of weights, by water-filling.

    Args:
        problem: the open widths and histograms.
        network: gives the input's format.
        pixels: images to measure on, uint8 [N, C, H, W].
        to_float: from pixels to network inputs.
        target_db: SQNR of all open activations together, in dB.
        rho: what a bit costs: see `sqnr.costs`.
        kappa: dB per bit; None: measured for each step.
        weights_db: SQNR of all weights together; None leaves their widths alone.

    Raises:
        UserError: no widths reach a target, or weights to choose widths for have codebooks.
    """
    graph, qm = problem.graph, problem.qm
    books = [layer.name for layer in problem.open_plan.layers if layer.weight_scheme != "uniform"]
    if weights_db is not None and books:
        raise UserError(
            f"WEIGHTS_DB needs weights in fixed point, not the codebook of {books[0]}; leave out "
            "WEIGHTS_DB or set WEIGHT_SCHEME=uniform"
        )
    costs = {layer.name: 0 for layer in graph.layers} | sqnr.costs(graph, rho)
    plan = sqnr.allocate_activations(
        problem.open_plan, problem.counts, qm, problem.fracs, costs, target_db, kappa
    )
    if weights_db is not None:
        kind = "macs" if rho == "macs" else "parameters"
        plan = sqnr.allocate_weights(graph, plan, weights_db, kappa, kind)
    bits = {layer.name: layer.bits for layer in plan.layers if layer.bits is not None}
    widths = tuple(bits[group.name] for group in problem.groups)
    quantizers = problem.choice(widths).quantizers
    codes = code_steps(quantizers, problem.counts, qm, problem.fracs)
    _, stored = predict(graph, weight_steps(graph, plan), codes)
    exact = FakeQuantized(graph, network.source, plan.layers)
    measured = exact.layer_sqnr_db(pixels, to_float, quantizers)
    return Allocated(plan, problem.nb(widths), stored, measured)
