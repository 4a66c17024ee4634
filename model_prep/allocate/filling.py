# SPDX-License-Identifier: Apache-2.0
"""Water-filling on a network: its activations and weights as steps, their widths, their SQNR.

Which layers take part, within which widths, with what line of SQNR over the width (paper 002,
section 5), and what that predicts of every layer's output (table 6).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nuq.formats.arithmetic import lowest
from nuq.formats.errors import UserError
from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate import sqnr
from nuq.model_prep.allocate.problem import Group, Problem
from nuq.model_prep.allocate.sqnr import Efficiency, Limits, Step
from nuq.model_prep.graph import INPUT, Graph
from nuq.model_prep.quantize.calibrate import FloatMaps, Formats
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers import LAYER, WEIGHTS, fit_weights
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.score import inverse_sqnr, layer_sqnr_db, sqnr_db

DEFAULT_BITS = 5  # the default target: as little noise as this width everywhere
MEASURED = range(3, 9)  # widths that kappa is measured at
COSTS = ("parameters", "activations", "macs")
RHO = "activations"  # what a bit costs where nothing else is said
_FIXED_POINT = ("uniform", "dynamic")  # schemes of weights that have no codebook
Measurement = Callable[[Iterable[int]], dict[int, float]]  # SQNR in dB by width of those given


@dataclass
class Filling:
    """Layers whose widths water-filling is to choose, against one target."""

    kappa: float | None  # dB per bit of all steps; None: measure each step's line
    steps: dict[str, Step] = field(default_factory=dict)  # by layer name
    settled: dict[str, int] = field(default_factory=dict)  # widths of layers without noise

    def add(self, name: str, rho: float, limits: Limits, dead: bool, measure: Measurement) -> None:
        """One more layer; where it is `dead`, its values all 0, it gets its narrowest width.

        Raises:
            UserError: SQNR that no line over the width fits.
        """
        line = limits[0] if dead else self._line(name, limits, measure)
        if isinstance(line, int):
            self.settled[name] = line
        else:
            self.steps[name] = Step(rho, line, limits)

    def _line(self, name: str, limits: Limits, measure: Measurement) -> Efficiency | int:
        """The line of a layer, or the narrowest width without noise where there is no line."""
        if self.kappa is not None:
            return Efficiency(self.kappa)
        low, high = limits
        known = measure(bits for bits in MEASURED if low <= bits <= high)
        if sum(map(math.isfinite, known.values())) < 2:
            known = measure(range(low, high + 1))
            exact = [bits for bits, value in known.items() if value == math.inf]
            if exact and sum(map(math.isfinite, known.values())) < 2:
                return min(exact)
        try:
            return sqnr.fit_efficiency(known)
        except UserError as error:
            raise UserError(f"layer {name}: {error}; set KAPPA, which holds for all") from None

    def sqnr_db(self, bits: int) -> float:
        """SQNR in dB of one width everywhere, as near as the limits allow, by the lines."""
        return sqnr.output_sqnr_db(
            step.efficiency.sqnr_db(min(max(bits, step.limits[0]), step.limits[1]))
            for step in self.steps.values()
        )

    def widths(self, target_db: float, option: str = "the target") -> dict[str, int]:
        """Widths by layer name that reach a target in dB.

        Raises:
            UserError: no widths do; the message calls the target `option`.
        """
        remedy = "lower it"
        if self.kappa is not None:
            remedy = f"lower {option}, raise KAPPA or leave KAPPA out"
        if not self.steps:
            return dict(self.settled)
        bits = sqnr.integer_widths(list(self.steps.values()), target_db, option, remedy)
        return {**self.settled, **dict(zip(self.steps, bits, strict=True))}


def costs(graph: Graph, kind: str) -> dict[str, int]:
    """rho by layer name, what a bit more costs there: one of COSTS.

    "activations" are the stored values of all layers but the heads; others are of layers with
    weights.
    """
    weighted = [layer for layer in graph.layers if layer.has_weights]
    if kind == "parameters":
        return {layer.name: layer.weight.size for layer in weighted}
    return graph.elements if kind == "activations" else {one.name: one.macs for one in weighted}


def reading_costs(graph: Graph, kind: str) -> dict[str, float]:
    """rho of the stored maps by layer name, heads left out: what a bit more costs its readers.

    A bit of an activation is paid by the layers that multiply by it. Of "macs" and "parameters" a
    map has those of all layers that read it; of a concatenation's, each part has the share of its
    channels. "activations" are the stored values themselves. Readers without weights cost nothing,
    so a map may have 0, which `of_activations` replaces.
    """
    paid = costs(graph, kind)
    if kind == "activations":
        return dict(paid)
    read = {layer.name: 0.0 for layer in graph.stored}
    for layer in graph.layers:
        for part in graph.sources_of(layer):
            if part != INPUT:
                share = graph.source_shape(part)[0] / layer.in_shape[0]
                read[part] += paid.get(layer.name, 0) * share
    return read


def weight_sqnr_db(
    values: np.ndarray, widths: Iterable[int] = MEASURED, scheme: str = "uniform",
    scale: str = LAYER,
) -> dict[int, float]:  # fmt: skip
    """SQNR in dB by width of weights [out, ...] in a scheme (equation 4), with a weight_scale."""
    exact = np.asarray(values, np.float64)
    measured = {}
    for bits in widths:
        stored = fit_weights(scheme, exact, bits, scheme, scale)
        noise = float(np.square(stored.values - exact).sum())
        measured[bits] = sqnr_db(float(np.square(exact).sum()), noise)
    return measured


def code_sqnr_db(
    formats: Formats, layers: Sequence[LayerPlan], own: Mapping[str, Quantizer]
) -> float:
    """SQNR in dB of the activations of layers, together, in their codes (equation 4)."""
    power = np.zeros(2)
    for layer in layers:
        first, frac = lowest(formats.qm, layer.y_signed), formats.fracs[layer.name]
        power += signal_and_noise(
            formats.counts[layer.name], first, frac, own[layer.name], activation=layer.activation
        )
    return sqnr_db(*power)


def of_activations(problem: Problem, kind: str, kappa: float | None = None) -> Filling:
    """The groups of a problem as steps, a bit's cost as in `reading_costs`.

    A group that costs nothing (an addition or a pool reads it, nothing that multiplies) is given
    the least cost of any map, so that it gets no fewer bits than the cheapest of the others would.
    """
    rho, formats = reading_costs(problem.graph, kind), problem.formats
    least = min((cost for cost in rho.values() if cost > 0), default=1.0)
    filling = Filling(kappa)
    for group in problem.groups:
        layers = problem.members[group.name]
        counted = [layer for layer in layers if layer.counted]
        zero = -lowest(formats.qm, layers[0].y_signed)
        dead = not any(np.delete(formats.counts[one.name], zero).any() for one in counted)
        filling.add(
            group.name, sum(rho[name] for name in group.layers) or least,
            (group.widths[0], group.widths[-1]), dead, partial(_measure, problem, group, counted),
        )  # fmt: skip
    return filling


def _measure(
    problem: Problem, group: Group, layers: Sequence[LayerPlan], widths: Iterable[int]
) -> dict[int, float]:
    return {
        bits: code_sqnr_db(problem.formats, layers, problem.quantizers(group, bits))
        for bits in widths
    }


def of_weights(
    graph: Graph, plan: Plan, kappa: float | None = None, kind: str = "parameters",
    keep: Collection[str] = (),
) -> Filling:  # fmt: skip
    """The plan's weights in fixed point as steps (the paper's section 5.1); codebooks are left out.

    A bit costs `kind`, "parameters" (the paper's) or "macs". Widths of the layers in `keep` stay.
    """
    rho = costs(graph, kind)
    filling = Filling(kappa)
    for layer, chosen in zip(graph.layers, plan.layers, strict=True):
        scheme = chosen.weight_scheme
        if layer.name in rho and layer.name not in keep and scheme in _FIXED_POINT:
            filling.add(
                layer.name, rho[layer.name], WEIGHTS[scheme].widths,
                not layer.weight.any(), partial(
                    weight_sqnr_db, layer.weight, scheme=scheme, scale=chosen.weight_scale
                ),
            )  # fmt: skip
    return filling


def weight_widths(
    graph: Graph, plan: Plan, weights_db: float, rho: str, kappa: float | None,
    keep: Collection[str],
) -> dict[str, int]:  # fmt: skip
    """Widths by layer with which all weights in fixed point together have `weights_db` dB.

    Args:
        rho, kappa: as for `allocate`.
        keep: layers whose weights' widths stay.

    Raises:
        UserError: no widths reach it, or no weights have a width to choose.
    """
    filling = of_weights(graph, plan, kappa, "macs" if rho == "macs" else "parameters", keep)
    found = filling.widths(weights_db, "WEIGHTS_DB")
    if not found:
        raise UserError(
            "WEIGHTS_DB must have weights to choose widths for, in fixed point and without a "
            "width of their own, not none; leave out WEIGHTS_DB, or set WEIGHT_SCHEME or "
            "FC_WEIGHT_SCHEME to uniform and leave out WEIGHT_BITS and FC_WEIGHT_BITS"
        )
    return found


def predict(
    graph: Graph, weights_db: Mapping[str, float], codes_db: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """SQNR in dB of every layer's output (002, equation 8) on any graph.

    Inverse SQNRs add up along a chain; where maps join (concatenation, addition) the mean of the
    parts' is taken. What quantizing the input and the biases and rounding to qm bits add is left
    out, and so are weights and stored activations whose SQNR is not given by layer name.

    Returns:
        (before the output itself is quantized, after it), by layer name.
    """
    noise, before, after = {INPUT: 0.0}, dict[str, float](), dict[str, float]()
    for layer in graph.layers:
        name = layer.name
        read = float(np.mean([noise[part] for part in graph.sources_of(layer)]))
        computed = read + inverse_sqnr(weights_db.get(name, math.inf))
        noise[name] = computed + inverse_sqnr(codes_db.get(name, math.inf))
        before[name], after[name] = sqnr_db(1.0, computed), sqnr_db(1.0, noise[name])
    return before, after


def weight_steps(graph: Graph, plan: Plan) -> dict[str, float]:
    """Measured SQNR in dB of stored weights in the plan's schemes and widths, by layer name."""
    return {
        layer.name: weight_sqnr_db(
            layer.weight, [own.weight_bits], own.weight_scheme, own.weight_scale
        )[own.weight_bits]
        for layer, own in zip(graph.layers, plan.layers, strict=True)
        if layer.has_weights
    }


def code_steps(
    plan: Plan, quantizers: Mapping[str, Quantizer], formats: Formats
) -> dict[str, float]:
    """Measured SQNR in dB of activations in their codes, by layer name."""
    return {
        layer.name: code_sqnr_db(formats, [layer], quantizers)
        for layer in plan.layers if layer.name in quantizers
    }  # fmt: skip


@dataclass(frozen=True)
class Allocated:
    """Widths by water-filling."""

    plan: Plan  # with all widths fixed
    target_db: float  # SQNR of all open activations together that was asked for, or the default's
    nb: int  # bits of all activations of one image
    predicted_db: dict[str, float]  # SQNR of every layer's stored output, by layer name
    measured_db: dict[str, float]


def allocate(
    problem: Problem, source: InputFormat, maps: FloatMaps, target_db: float | None = None,
    rho: str = RHO, kappa: float | None = None,
    weight_bits: Mapping[str, int] | None = None,
) -> Allocated:  # fmt: skip
    """Open widths of activations by water-filling, beside those of weights.

    Args:
        problem, source: the open widths and histograms, the input's format.
        maps: of the float network on the images to measure on.
        target_db: of all open activations together; None: what DEFAULT_BITS everywhere would have.
        rho: what a bit costs: see `reading_costs`, and for weights `costs`.
        kappa: dB per bit; None: measured for each step.
        weight_bits: what `weight_widths` gave; None leaves the widths of weights alone.

    Raises:
        UserError: no widths reach the target.
    """
    graph = problem.graph
    activations = of_activations(problem, rho, kappa)
    target = activations.sqnr_db(DEFAULT_BITS) if target_db is None else target_db
    bits = activations.widths(target, "TARGET_DB")
    widths = tuple(bits[group.name] for group in problem.groups)
    plan = problem.plan(widths)
    if weight_bits is not None:
        plan = plan.with_values("weight_bits", weight_bits)
    quantizers = problem.choice(widths).quantizers
    codes = code_steps(plan, quantizers, problem.formats)
    _, stored = predict(graph, weight_steps(graph, plan), codes)
    measured = layer_sqnr_db(FakeQuantized(graph, source, plan.layers), maps, quantizers)
    return Allocated(plan, target, problem.nb(widths), stored, measured)
