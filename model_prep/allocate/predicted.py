# SPDX-License-Identifier: Apache-2.0
"""SQNR of every layer, predicted from its quantizers' own and measured (paper 002, table 6)."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from formats.arithmetic import lowest
from formats.errors import UserError
from formats.network import InputFormat
from formats.quantizer import Quantizer
from model_prep.allocate import filling, sqnr
from model_prep.allocate.problem import Problem
from model_prep.graph import INPUT, Graph
from model_prep.quantize.calibrate import FloatMaps, Formats
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import Plan
from model_prep.quantize.quantizers.histogram import signal_and_noise
from model_prep.quantize.score import inverse_sqnr, layer_sqnr_db, sqnr_db

DEFAULT_BITS = 5  # the default target: as little noise as this width everywhere


@dataclass(frozen=True)
class Allocated:
    """Widths by water-filling.

    Attributes:
        plan: with all widths fixed.
        target_db: SQNR of all open activations together that was asked for, or the default's.
        nb: bits of all activations of one image.
        predicted_db, measured_db: SQNR of every layer's stored output, by layer name.
    """

    plan: Plan
    target_db: float
    nb: int
    predicted_db: dict[str, float]
    measured_db: dict[str, float]


def predict(
    graph: Graph, weights_db: Mapping[str, float], codes_db: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """SQNR in dB of every layer's output (002, equation 8) on any graph.

    Inverse SQNRs add up along a chain; where maps join (concatenation, addition) the mean of the
    parts' is taken. What quantizing the input and the biases and rounding to qm bits add is left
    out.

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
            bits = chosen.weight_bits
            measured = sqnr.weight_sqnr_db(layer.weight, [bits], chosen.weight_scheme)
            found[layer.name] = measured[bits]
    return found


def code_steps(
    quantizers: Mapping[str, Quantizer], formats: Formats
) -> dict[str, float]:  # fmt: skip
    """Measured SQNR in dB of activations in their codes, by layer name."""
    return {
        name: sqnr_db(
            *signal_and_noise(
                formats.counts[name], lowest(formats.qm, own.signed), formats.fracs[name], own
            )
        )
        for name, own in quantizers.items()
    }


def allocate(
    problem: Problem, source: InputFormat, maps: FloatMaps, target_db: float | None = None,
    rho: str = "activations", kappa: float | None = None, weights_db: float | None = None,
    keep_weights: Collection[str] = (),
) -> Allocated:  # fmt: skip
    """Open widths of activations, and if asked those of weights, by water-filling.

    Args:
        problem: the open widths and histograms.
        source: the input's format.
        maps: of the float network on the images to measure on.
        target_db: SQNR of all open activations together, in dB; None: what DEFAULT_BITS everywhere
            would have.
        rho: what a bit costs: see `sqnr.reading_costs`, and for weights `sqnr.costs`.
        kappa: dB per bit; None: measured for each step.
        weights_db: SQNR of all fixed-point weights together; None leaves their widths alone.
        keep_weights: layers whose weights' widths stay in any case.

    Raises:
        UserError: no widths reach a target, or no weights have a width to choose.
    """
    graph = problem.graph
    open_widths = {group.name: group.widths for group in problem.groups}
    activations = filling.of_activations(
        problem.open_plan, problem.formats, sqnr.reading_costs(graph, rho), open_widths, kappa
    )  # fmt: skip
    target = activations.sqnr_db(DEFAULT_BITS) if target_db is None else target_db
    bits = activations.widths(target, "TARGET_DB")
    widths = tuple(bits[group.name] for group in problem.groups)
    plan = problem.plan(widths)
    if weights_db is not None:
        kind = "macs" if rho == "macs" else "parameters"
        weights = filling.of_weights(graph, plan, kappa, kind, keep_weights)
        weight_bits = weights.widths(weights_db, "WEIGHTS_DB")
        if not weight_bits:
            raise UserError(
                "WEIGHTS_DB must have weights to choose widths for, in fixed point and without a "
                "width of their own, not none; leave out WEIGHTS_DB, or set WEIGHT_SCHEME or "
                "FC_WEIGHT_SCHEME to uniform and leave out WEIGHT_BITS and FC_WEIGHT_BITS"
            )
        plan = plan.with_values("weight_bits", weight_bits)
    quantizers = problem.choice(widths).quantizers
    codes = code_steps(quantizers, problem.formats)
    _, stored = predict(graph, weight_steps(graph, plan), codes)
    measured = layer_sqnr_db(FakeQuantized(graph, source, plan.layers), maps, quantizers)
    return Allocated(plan, target, problem.nb(widths), stored, measured)
