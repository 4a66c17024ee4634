# SPDX-License-Identifier: Apache-2.0
"""QUENN's two phases (paper 004): analyse every layer's variables, then explore the network.

Phase 1 finds integer and fractional lengths of weights and activations at several widths. Phase 2
quantizes one variable at a time, groups of them, then all, against the float network by the L2 norm
of equation 1, and keeps the smallest configuration that is good enough.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from nuq.formats.arithmetic import lowest, to_fixed
from nuq.model_prep.allocate.cache import Choice, FloatBase
from nuq.model_prep.allocate.measure import Measure
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.quantize.behind import numbers
from nuq.model_prep.quantize.calibrate import FloatMaps
from nuq.model_prep.quantize.fake_quant import floats
from nuq.model_prep.quantize.plan import Plan
from nuq.model_prep.quantize.quantizers import SCHEMES
from nuq.model_prep.quantize.score import layer_pairs

FRACTIONS = range(8, 21)  # fractional lengths tried, paper 004 section 3.2
WEIGHT_WIDTHS = (4, 6, 8, 10, 12, 14)
_FINER = 3  # lengths beyond the distribution's own, for values that 8-20 cannot hold
_FLOAT_BITS = 32
_CONFIGURATIONS = 12


@dataclass(frozen=True)
class Format:
    """Phase 1: one variable of one layer at one width."""

    layer: str
    variable: str  # "weights" or "activations"
    bits: int
    integer_length: int  # ceil(log2 max|V|), equation 2
    fractional_length: int  # the one of least error among those tried; may be negative
    error: float  # mean squared, with it
    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True)
class Trial:
    """Phase 2: one configuration and what it does."""

    what: str  # is quantized, for reading
    weight_bits: dict[str, int]  # by layer name; what is missing stays float
    activation_bits: dict[str, int]
    norm: float  # L2 distance of the output from float, averaged over the images
    score: float  # as the measure has it
    sqnr_db: float
    weights_saved: float  # percent of the bits of 32-bit floats
    activations_saved: float


@dataclass(frozen=True)
class QuennResult:
    """Both phases' tables, and the configuration kept."""

    formats: list[Format]  # phase 1
    single: list[Trial]  # phase 2, in its order
    groups: list[Trial]
    everything: list[Trial]
    best: Trial  # of `everything`
    plan: Plan  # the best one's
    norms: dict[str, float]  # by layer name, the best one's, as of a Trial
    float_score: float  # what the float network scores, in `unit`
    unit: str


def analyse(
    name: str, variable: str, values: np.ndarray, counts: np.ndarray, bits: int
) -> Format:  # fmt: skip
    """The best fixed-point format of values that occur `counts` times each.

    Tries the fractional length that follows from the largest magnitude (equation 3, a bit for the
    sign where there are negative values), a few finer ones, and 8 to 20.
    """
    total = max(1, int(counts.sum()))
    mean = float((values * counts).sum() / total)
    present = values[counts > 0] if counts.any() else np.zeros(1)
    largest = float(np.abs(present).max())
    signed = bool(present.min() < 0)
    integer = math.ceil(math.log2(largest)) if largest > 0 else 0
    own = bits - signed - integer
    low = lowest(bits, signed)
    best, least = own, math.inf
    for length in sorted({*range(own, own + _FINER + 1), *FRACTIONS}):
        codes = np.clip(np.floor(values * 2.0**length + 0.5), low, low + (1 << bits) - 1)
        error = float((counts * (codes * 2.0**-length - values) ** 2).sum()) / total
        if error < least:
            best, least = length, error
    return Format(
        name, variable, bits, integer, best, least, float(present.min()), float(present.max()),
        mean, math.sqrt(max(0.0, float((counts * (values - mean) ** 2).sum()) / total)),
    )  # fmt: skip


def layer_analysis(problem: Problem, weight_widths: Sequence[int] = WEIGHT_WIDTHS) -> list[Format]:
    """Phase 1 for all layers: weights from the graph, activations from the histograms."""
    found = []
    for layer in problem.graph.layers:
        if layer.has_weights:
            flat = layer.weight.astype(np.float64).ravel()
            ones = np.ones(len(flat), np.int64)
            for bits in weight_widths:
                found.append(analyse(layer.name, "weights", flat, ones, bits))
    formats = problem.formats
    for group in problem.groups:
        for own in problem.members[group.name]:
            name = own.name
            stored = numbers(own.activation, formats.qm, formats.fracs[name], own.signed)
            for bits in group.widths:
                found.append(analyse(name, "activations", stored, formats.counts[name], bits))
    return found


# what is quantized, bits of weights and of activations by layer name
Job = tuple[str, dict[str, int], dict[str, int]]


class _Space:
    """Configurations of a problem as choices; the base is the float network."""

    def __init__(self, problem: Problem, measure: Measure) -> None:
        self.problem, self.measure = problem, measure
        self._float = FloatBase(problem.graph, lambda weight, bits: floats(*to_fixed(weight, bits)))
        self.sizes = {name: values.size for name, values in self._float.weights.items()}
        # bits of an entry of a map's table, where its codes need one (section 4.2: 2^n * width)
        self.entries = {
            layer.name: problem.formats.qm for layer in problem.open_plan.layers
            if layer.scheme is not None and SCHEMES[layer.scheme].hardware == "knq"
        }  # fmt: skip

    def choice(self, weight_bits: Mapping[str, int], bits: Mapping[str, int]) -> Choice:
        """The float network with these variables quantized."""
        widths = tuple(bits.get(group.name, group.widths[-1]) for group in self.problem.groups)
        fitted = self.problem.choice(widths).quantizers
        return self._float.choice(weight_bits, {name: fitted[name] for name in bits})

    def run(self, title: str, jobs: Sequence[Job]) -> list[Trial]:
        """Run configurations."""
        bar = tqdm(jobs, desc=title, unit="run", disable=None, leave=False)
        return [self._trial(*job) for job in bar]

    def _trial(self, what: str, weight_bits: dict[str, int], bits: dict[str, int]) -> Trial:
        measure = self.measure
        outputs = measure.outputs(self.choice(weight_bits, bits), self._float.base)
        gap = (outputs - measure.sample.logits).astype(np.float64)
        return Trial(
            what, weight_bits, bits, float(np.sqrt((gap**2).sum(axis=1)).mean()),
            *measure.rate(outputs), saved(weight_bits, self.sizes),
            saved(bits, self.problem.graph.elements, self.entries),
        )  # fmt: skip


def saved(
    bits: Mapping[str, int], sizes: Mapping[str, int], entries: Mapping[str, int] | None = None
) -> float:
    """Percent of the memory of 32-bit floats that is saved, less what tables take.

    Args:
        bits: width by name; what is missing stays float.
        sizes: values by name.
        entries: bits of an entry of the table of 2^bits that a codebook needs, by name.

    >>> saved({"a": 4}, {"a": 100}), saved({"a": 4}, {"a": 100}, {"a": 10})
    (87.5, 82.5)
    """
    total = sum(sizes.values())
    kept = sum(size * bits.get(name, _FLOAT_BITS) for name, size in sizes.items())
    kept += sum(entry << bits[name] for name, entry in (entries or {}).items() if name in bits)
    return 100 * (1 - kept / (total * _FLOAT_BITS)) if total else 0.0


def explore(
    problem: Problem, measure: Measure, maps: FloatMaps, delta: float,
    weight_widths: Sequence[int] = WEIGHT_WIDTHS,
) -> QuennResult:  # fmt: skip
    """Both phases.

    Of the configurations of all variables, the one with the fewest bits among those within `delta`
    of the float score (dB: of the best configuration's) is kept; without such the least norm.

    The measure's images are those compared on (the paper takes 50); `maps` are of the float network
    on the same images, to compare layer by layer.
    """
    space = _Space(problem, measure)
    formats = layer_analysis(problem, weight_widths)
    single = space.run("one at a time", _single(space, weight_widths))
    groups = space.run("groups", _grouped(space, weight_widths))
    everything = space.run("all variables", _everything(single))
    exact = measure.float_score
    goal = (exact if math.isfinite(exact) else max(t.score for t in everything)) - delta
    fine = [trial for trial in everything if trial.score >= goal]
    best = max(fine, key=_saving) if fine else min(everything, key=lambda trial: trial.norm)
    plan = problem.plan(tuple(best.activation_bits[group.name] for group in problem.groups))
    choice = space.choice(best.weight_bits, best.activation_bits)
    return QuennResult(
        formats, single, groups, everything, best,
        plan.with_values("weight_bits", best.weight_bits), _layer_norms(measure, choice, maps),
        exact, measure.unit,
    )  # fmt: skip


def _saving(trial: Trial) -> tuple[float, float]:
    return trial.weights_saved + trial.activations_saved, -trial.norm


def _single(space: _Space, weight_widths: Sequence[int]) -> list[Job]:
    """One variable of one layer (or group) at a time, the last layers first for the cache."""
    jobs: list[Job] = []
    for name in reversed(space.sizes):
        jobs += [(f"{name} weights", {name: bits}, {}) for bits in weight_widths]
    for group in reversed(space.problem.groups):
        for bits in group.widths:
            jobs.append((f"{group.name} activations", {}, dict.fromkeys(group.layers, bits)))
    return jobs


def _grouped(space: _Space, weight_widths: Sequence[int]) -> list[Job]:
    """All weights of a kind of layer, all weights, all activations, each at one width."""
    kinds: dict[str, list[str]] = {}
    for name in space.sizes:
        kinds.setdefault(space.problem.graph.layer(name).kind, []).append(name)
    if len(kinds) > 1:
        kinds["all"] = list(space.sizes)
    jobs: list[Job] = []
    for kind, names in kinds.items():
        jobs += [(f"{kind} weights", dict.fromkeys(names, bits), {}) for bits in weight_widths]
    for bits in sorted({bits for group in space.problem.groups for bits in group.widths}):
        widths = space.problem.by_name(space.problem.uniform(bits))
        jobs.append(("all activations", {}, widths))
    return jobs


def _everything(single: Sequence[Trial]) -> list[Job]:
    """All variables: each at the smallest width whose own norm stays below a common limit."""
    by_variable: dict[str, list[Trial]] = {}
    for trial in single:
        by_variable.setdefault(trial.what, []).append(trial)
    norms = [trial.norm for trial in single if trial.norm > 0] or [1.0]
    jobs: list[Job] = []
    for limit in np.quantile(norms, np.linspace(0, 1, _CONFIGURATIONS)).tolist():
        weight_bits: dict[str, int] = {}
        bits: dict[str, int] = {}
        for trials in by_variable.values():
            fine = [trial for trial in trials if trial.norm <= limit] or trials[-1:]
            weight_bits.update(fine[0].weight_bits)
            bits.update(fine[0].activation_bits)
        if all(job[1:] != (weight_bits, bits) for job in jobs):
            jobs.append((f"norms up to {limit:.3g}", weight_bits, bits))
    return jobs


def _layer_norms(measure: Measure, choice: Choice, maps: FloatMaps) -> dict[str, float]:
    """Equation 1 for every layer: L2 distance from float, averaged over the images."""
    network, images = measure.sample.network, len(measure.sample.pixels)
    sums = {layer.name: 0.0 for layer in network.graph.layers}
    for name, want, got in layer_pairs(network, maps, choice.quantizers, choice.weights):
        gap = (want - got).double()
        sums[name] += float(gap.square().flatten(1).sum(dim=1).sqrt().sum())
    return {name: total / images for name, total in sums.items()}


def normalised(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms divided by the largest, as the paper's tables have them.

    >>> normalised({"a": 1.0, "b": 4.0})
    {'a': 0.25, 'b': 1.0}
    """
    largest = max(norms.values(), default=0.0)
    return {name: norm / largest if largest else 0.0 for name, norm in norms.items()}
