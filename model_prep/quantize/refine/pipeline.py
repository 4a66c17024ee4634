# SPDX-License-Identifier: Apache-2.0
"""The techniques in order, from a float network to one whose weights and tables are refined.

Quantizers are fitted to histograms weighted by how much the network's output depends on each
activation (`quantize.sensitivity`). KNQ stays an exact problem: the weights become
integers and the dynamic programme of `quantize.kmeans` minimises the weighted error, 0 kept exact.
Codes with equal steps have steps of a power of two; a factor on all channels of the layer makes any
step possible, hence the clipping of least error.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import lowest
from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize import behind, quantizers, sensitivity
from nuq.model_prep.quantize.calibrate import Calibration, ToFloat, narrowed
from nuq.model_prep.quantize.fracs import layer_fracs, network_fracs
from nuq.model_prep.quantize.kmeans import exact_kmeans
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers.codebook import table_quantizer
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.refine import equalise
from nuq.model_prep.quantize.refine.distil import Recipe, distil
from nuq.model_prep.quantize.student import Student

_BATCH_VALUES = 2_500_000  # input values of a batch
_TOTAL = 1 << 36  # weights are scaled to integers of this sum, which the k-means holds exactly
_STEPS = 8  # candidates for a step per octave
_SMOOTH = 0.02  # part of the average weight that every value gets


@dataclass(frozen=True)
class Measured:
    """What tables are fitted to, before any width is chosen."""

    exact: Graph  # the float network with its channels scaled
    scales: Mapping[str, np.ndarray]  # factor of each channel, by name of a layer with weights
    qm: int  # width of y
    fracs: Mapping[str, int]  # F by layer name
    # of every y (float64 [2^qm]) by owner of a quantizer; where that has an activation in it, by
    # layer, as each has its own y
    weights: Mapping[str, np.ndarray]
    free: frozenset[str]  # owners of quantizers whose layers may be scaled


@dataclass(frozen=True)
class Refined:
    """A refined network."""

    graph: Graph  # with the weights and biases to quantize
    exact: Graph  # the float network with the same channel scales, to compare with layer by layer
    scales: Mapping[str, np.ndarray]  # of stored values against the original's, by layer name
    quantizers: Mapping[str, Quantizer]  # by layer name


def measure(graph: Graph, plan: Plan, qm: int, pixels: np.ndarray, to_float: ToFloat) -> Measured:
    """Scale channels and measure (weighted) histograms, as far as plan.refine asks for it.

    Widths of the plan may be open. `pixels` are calibration images, uint8 [N, C, H, W].
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
    counts, weights = _by_owner(exact, inputs(), plan, qm, chosen)
    if "sensitivity" in plan.refine:
        found = {name: smoothed(counts[name], weights[name]) for name in counts}
    else:
        found = {name: count.astype(np.float64) for name, count in counts.items()}
    scalable = equalise.scalable(exact) if "equalise" in plan.refine else frozenset()
    free = frozenset(
        owner
        for owner, layers in plan.by_owner.items()
        if all(layer.name in scalable for layer in layers)
    )
    return Measured(exact, scales, qm, chosen, found, free)


def _by_owner(
    graph: Graph, batches: Iterable[torch.Tensor], plan: Plan, qm: int, fracs: Mapping[str, int]
) -> tuple[sensitivity.Histograms, sensitivity.Histograms]:  # fmt: skip
    """`sensitivity.histograms` summed over the layers that share a quantizer, by its owner."""
    owners = {
        one.name: one.name if any(other.activation for other in sharing) else owner
        for owner, sharing in plan.by_owner.items() for one in sharing if one.counted
    }  # fmt: skip
    own = {name: fracs[name] for name in owners}
    found = sensitivity.histograms(graph, batches, own, qm, plan.signed, plan.seed)
    sums: list[sensitivity.Histograms] = [{}, {}]
    for total, part in zip(sums, found, strict=True):
        for name, owner in owners.items():
            total[owner] = total.get(owner, 0) + part[name]
    return sums[0], sums[1]


def smoothed(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights with a part of the layer's average added, so that no value that occurs weighs 0."""
    total, weight = float(counts.sum()), float(weights.sum())
    if not total or not weight > 0:
        return counts.astype(np.float64)
    return weights * (1 - _SMOOTH) + counts * (weight / total * _SMOOTH)


def weighted_error(
    quantizer: Quantizer, weights: np.ndarray, qm: int, frac: int, factor: float = 1.0,
    activation: Activation | None = None,
) -> float:  # fmt: skip
    """Sum of weight * squared error, in units of float values: see `signal_and_noise`."""
    first = lowest(qm, quantizer.y_signed)
    return signal_and_noise(weights, first, frac, quantizer, factor, activation)[1]


def _scaled(weights: np.ndarray, total: float | None = None) -> np.ndarray:
    """The weights as counts, which k-means and the schemes' own rules take.

    `total` is the sum of all that are fitted together; None: of these alone.
    """
    return np.rint(weights * (_TOTAL / (total or weights.sum()))).astype(np.int64)


def _counted(weights: np.ndarray, total: float | None = None) -> np.ndarray:
    """The same, no weight above 0 rounded to 0."""
    scaled = _scaled(weights, total)
    scaled[(weights > 0) & (scaled == 0)] = 1
    return scaled


def _knq(plan: LayerPlan, weights: np.ndarray, bits: int, qm: int, frac: int) -> Quantizer:
    """The table of least weighted error."""
    scaled = _counted(weights)
    if not plan.signed:
        scaled[0] = max(scaled[0], 1)
    centroid = exact_kmeans(scaled, 1 << bits, zero_first=not plan.signed)
    centroid += lowest(qm, plan.signed)
    return table_quantizer(centroid, qm, frac, plan.signed, **plan.options)


def fit_one(
    plan: LayerPlan, weights: np.ndarray, bits: int, qm: int, frac: int, free: bool = False
) -> tuple[Quantizer, float]:
    """(quantizer of least weighted error, factor for the layer's values).

    Args:
        plan: scheme, options and sign.
        weights: float64 [2^qm] of the integers y from the smallest up.
        bits, qm, frac: width of a code, width and F of y; the plan may have less.
        free: whether the layer's values may be multiplied by a factor; else it is 1.
    """
    weights, qm, frac = narrowed(plan, weights, qm, frac)
    if plan.scheme == "knq":
        return _knq(plan, weights, bits, qm, frac), 1.0
    if plan.scheme not in ("uniform", "enq"):  # its own rule, from weights in place of counts
        return quantizers.fit(
            str(plan.scheme), _scaled(weights), bits, qm, frac, signed=plan.signed, **plan.options
        ), 1.0
    factors = 2.0 ** (np.arange(_STEPS) / _STEPS) if free else np.ones(1)
    if plan.scheme == "uniform":
        # F of the code, not of a qm-bit integer: coarsest where the range is that of y
        width, steps = bits, range(bits - qm - 1, max(qm, bits - qm) + 1)
    else:
        width, steps = qm, range(-1, bits + 1)
    trials = [
        Quantizer(plan.scheme, bits, width, frac + finer, signed=plan.signed, **plan.options)
        for finer in steps  # finer steps clip more
    ]
    return min(
        ((trial, float(factor)) for trial in trials for factor in factors),
        key=lambda one: weighted_error(one[0], weights, qm, frac, one[1]),
    )


def fit_all(
    plan: Plan, weights: Mapping[str, np.ndarray], qm: int, fracs: Mapping[str, int],
    free: Collection[str] = (),
) -> dict[str, tuple[Quantizer, float]]:  # fmt: skip
    """By layer name, its quantizer and the factor of its values.

    `weights` are as of `Measured`, `free` the owners whose layers may be scaled.
    """
    sets = plan.by_owner

    def one(layer: LayerPlan) -> dict[str, tuple[Quantizer, float]]:
        sharing = sets[layer.owner]
        if any(other.activation for other in sharing):
            return {
                name: (made, 1.0) for name, made in fit_behind(sharing, weights, qm, fracs).items()
            }
        found = fit_one(
            layer, weights[layer.owner], layer.bits or 0, qm, fracs[layer.owner],
            layer.owner in free,
        )  # fmt: skip
        return {other.name: found for other in sharing}

    return {name: found[name] for name, found in plan.fit_each(one).items()}


def fit_behind(
    layers: Sequence[LayerPlan], weights: Mapping[str, np.ndarray], qm: int,
    fracs: Mapping[str, int],
) -> dict[str, Quantizer]:  # fmt: skip
    """The quantizers of layers that share a codebook with an activation in it."""
    parts, unread = {}, np.ones(1 << qm, np.int64)
    total = sum(float(weights[layer.name].sum()) for layer in layers if layer.counted)
    for layer in layers:
        counts = _counted(weights[layer.name], total) if layer.counted else unread
        own, width, frac = narrowed(layer, counts, qm, fracs[layer.name])
        parts[layer.name] = behind.Part(layer.activation, frac, own)
    return behind.fit_all(layers, parts, width)


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
        recipe: instead of the default with the steps and the seed of the plan.
    """
    fitted = fit_all(plan, measured.weights, measured.qm, measured.fracs, measured.free)
    tables: Mapping[str, Quantizer] = {name: one for name, (one, _) in fitted.items()}
    more = {
        name: np.full(len(measured.exact.layer(name).bias), factor)
        for name, (_, factor) in fitted.items()
        if measured.exact.layer(name).has_weights and factor != 1.0
    }
    exact = equalise.rescale(measured.exact, more)
    scales = equalise.product(measured.scales, more)
    refined = exact
    if "distil" in plan.refine:
        student = Student(exact, source, plan.layers, tables, rounded=False)
        distil(student, pixels, to_float, recipe or Recipe(plan.distil_steps, seed=plan.seed))
        refined, tables = student.trained(), student.quantizers()
    by_layer = {
        layer.name: equalise.channel_scales(exact, scales, layer.name) for layer in exact.layers
    }
    stored = {name: one for name, one in by_layer.items() if (one != 1.0).any()}
    return Refined(refined, exact, stored, tables)
