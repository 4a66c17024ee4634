# SPDX-License-Identifier: Apache-2.0
"""The techniques in order, from a float network to one whose weights and tables are refined."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from formats.network import InputFormat
from formats.quantizer import Quantizer
from model_prep.graph import Graph
from model_prep.quantize.calibrate import Calibration, ToFloat
from model_prep.quantize.fracs import layer_fracs, network_fracs
from model_prep.quantize.plan import Plan
from model_prep.quantize.refine import equalise, sensitivity, tables
from model_prep.quantize.refine.distil import Recipe, distil
from model_prep.quantize.student import Student

_BATCH_VALUES = 2_500_000  # input values of a batch without gradients


@dataclass(frozen=True)
class Measured:
    """What tables are fitted to, before any width is chosen.

    Attributes:
        exact: the float network with its channels scaled.
        scales: factor of each channel, by name of a layer with weights.
        qm: width of y.
        fracs: F by layer name.
        weights: weight of every y (float64 [2^qm]) by owner of a quantizer.
    """

    exact: Graph
    scales: Mapping[str, np.ndarray]
    qm: int
    fracs: Mapping[str, int]
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Refined:
    """A refined network.

    Attributes:
        graph: with the weights and biases to quantize.
        exact: the float network with the same channel scales, to compare with layer by layer.
        scales: stored values are those of the original network times this, by layer name.
        quantizers: by layer name.
    """

    graph: Graph
    exact: Graph
    scales: Mapping[str, np.ndarray]
    quantizers: Mapping[str, Quantizer]


def measure(graph: Graph, plan: Plan, qm: int, pixels: np.ndarray, to_float: ToFloat) -> Measured:
    """Scale channels and measure (weighted) histograms, as far as plan.refine asks for it.

    Args:
        graph: the float network.
        plan: which layers are quantized; widths may be open.
        qm: width of y.
        pixels: calibration images uint8 [N, C, H, W].
        to_float: from pixels to float inputs.
    """
    step = max(1, _BATCH_VALUES // pixels[0].size)

    def inputs() -> Iterator[torch.Tensor]:
        for first in range(0, len(pixels), step):
            x = to_float(pixels[first : first + step])
            yield x.contiguous(memory_format=torch.channels_last)

    scales = equalise.find_scales(graph, inputs) if "equalise" in plan.refine else {}
    exact = equalise.rescale(graph, scales)
    maxima = Calibration(exact, pixels, to_float, qm).maxima
    if plan.frac is None:
        chosen = layer_fracs(maxima, qm, plan)
    else:
        chosen = network_fracs(maxima, plan.frac, plan.signed)
    counts, weights = sensitivity.fisher_histograms(exact, inputs(), plan, qm, chosen)
    if "sensitivity" in plan.refine:
        found = {name: tables.smoothed(counts[name], weights[name]) for name in counts}
    else:
        found = {name: count.astype(np.float64) for name, count in counts.items()}
    return Measured(exact, scales, qm, chosen, found)


def free_layers(graph: Graph, plan: Plan) -> frozenset[str]:
    """The layers whose channels may be scaled, where plan.refine lets them be."""
    return equalise.scalable(graph) if "equalise" in plan.refine else frozenset()


def refine(
    measured: Measured, plan: Plan, source: InputFormat, pixels: np.ndarray, to_float: ToFloat,
    recipe: Recipe | None = None,
) -> Refined:  # fmt: skip
    """Fit the tables and, where plan.refine asks for it, distil.

    Args:
        measured: by `measure` on the same images.
        plan: with every width fixed.
        source: the input's format.
        pixels, to_float: as for `measure`.
        recipe: of the distillation, instead of the default with plan.distil_steps.
    """
    free = free_layers(measured.exact, plan)
    qm = measured.qm
    quantizers, factors = tables.fit_all(plan, measured.weights, qm, measured.fracs, free)
    owners = {one.name: one.owner for one in plan.layers}
    more = {
        name: np.full(len(measured.exact.layer(name).bias), factors[owners[name]])
        for name in sorted(free)
        if measured.exact.layer(name).has_weights and factors.get(owners[name], 1.0) != 1.0
    }
    exact = equalise.rescale(measured.exact, more)
    scales = {
        name: measured.scales.get(name, np.ones(1)) * more.get(name, np.ones(1))
        for name in {*measured.scales, *more}
    }
    refined = exact
    if "distil" in plan.refine:
        student = Student(exact, source, plan.layers, quantizers, rounded=False)
        distil(student, pixels, to_float, recipe or Recipe(steps=plan.distil_steps))
        refined, quantizers = student.trained(), student.quantizers()
    by_layer = {
        layer.name: equalise.channel_scales(exact, scales, layer.name) for layer in exact.layers
    }
    stored = {name: one for name, one in by_layer.items() if (one != 1.0).any()}
    return Refined(refined, exact, stored, quantizers)
