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
import torch
from tqdm import tqdm

from formats.arithmetic import lowest, to_fixed
from model_prep.allocate.cache import Choice
from model_prep.allocate.measure import Measure
from model_prep.allocate.problem import Problem
from model_prep.quantize.calibrate import FloatMaps
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import Plan

FRACTIONS = range(8, 21)  # fractional lengths tried, paper 004 section 3.2
WEIGHT_WIDTHS = (4, 6, 8, 10, 12, 14)
_FINER = 3  # lengths beyond the distribution's own, for values that 8-20 cannot hold
_FLOAT_BITS = 32
_CONFIGURATIONS = 12


@dataclass(frozen=True)
class Format:
    """Phase 1: one variable of one layer at one width.

    Attributes:
        layer, variable: name, and "weights" or "activations".
        bits: the width.
        integer_length: ceil(log2 max|V|), equation 2.
        fractional_length: the one of least error among those tried; may be negative.
        error: mean squared error with it.
        minimum, maximum, mean, std: of the variable.
    """

    layer: str
    variable: str
    bits: int
    integer_length: int
    fractional_length: int
    error: float
    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True)
class Trial:
    """Phase 2: one configuration and what it does.

    Attributes:
        what: the variables quantized, for reading.
        weight_bits, activation_bits: by layer name; what is missing stays float.
        norm: L2 distance of the output from float, averaged over the images.
        score, sqnr_db: as the measure has them.
        weights_saved, activations_saved: percent of the bits of 32-bit floats.
    """

    what: str
    weight_bits: dict[str, int]
    activation_bits: dict[str, int]
    norm: float
    score: float
    sqnr_db: float
    weights_saved: float
    activations_saved: float


@dataclass(frozen=True)
class QuennResult:
    """Both phases' tables, and the configuration kept.

    Attributes:
        formats: phase 1.
        single, groups, everything: phase 2, in its order.
        best: from `everything`.
        plan: the best one's.
        norms: by layer name, the best one's L2 distance from float averaged over the images.
        float_score: what the float network scores, in `unit`.
    """

    formats: list[Format]
    single: list[Trial]
    groups: list[Trial]
    everything: list[Trial]
    best: Trial
    plan: Plan
    norms: dict[str, float]
    float_score: float
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
    formats, signed = problem.formats, problem.open_plan.signed
    for group in problem.groups:
        for name in group.layers:
            first = lowest(formats.qm, name in signed)
            y = np.arange(first, first + (1 << formats.qm)) * 2.0 ** -formats.fracs[name]
            for bits in group.widths:
                found.append(analyse(name, "activations", y, formats.counts[name], bits))
    return found


class _Space:
    """Configurations of a problem as choices; the base is the float network."""

    def __init__(self, problem: Problem, measure: Measure) -> None:
        self.problem, self.measure = problem, measure
        weighted = [layer for layer in problem.graph.layers if layer.has_weights]
        self.weights = {layer.name: layer.weight for layer in weighted}
        exact = {n: torch.from_numpy(np.ascontiguousarray(w)) for n, w in self.weights.items()}
        self.base = Choice({}, exact, dict.fromkeys(exact, "float"))
        self._rounded: dict[tuple[str, int], torch.Tensor] = {}

    def choice(self, weight_bits: Mapping[str, int], bits: Mapping[str, int]) -> Choice:
        """The float network with these variables quantized."""
        weights, labels = dict(self.base.weights), dict(self.base.labels)
        for name, width in weight_bits.items():
            weights[name], labels[name] = self._fixed(name, width), width
        widths = tuple(bits.get(group.name, group.widths[-1]) for group in self.problem.groups)
        fitted = self.problem.choice(widths).quantizers
        return Choice({name: fitted[name] for name in bits}, weights, labels)

    def _fixed(self, name: str, bits: int) -> torch.Tensor:
        if (name, bits) not in self._rounded:
            integers, frac = to_fixed(self.weights[name], bits)
            self._rounded[name, bits] = torch.from_numpy((integers * 2.0**-frac).astype(np.float32))
        return self._rounded[name, bits]

    def trial(self, what: str, weight_bits: Mapping[str, int], bits: Mapping[str, int]) -> Trial:
        """Run a configuration."""
        measure = self.measure
        outputs = measure.outputs(self.choice(weight_bits, bits), self.base)
        gap = (outputs - measure.sample.logits).astype(np.float64)
        sizes = {name: values.size for name, values in self.weights.items()}
        return Trial(
            what, dict(weight_bits), dict(bits), float(np.sqrt((gap**2).sum(axis=1)).mean()),
            *measure.rate(outputs), _saved(weight_bits, sizes),
            _saved(bits, self.problem.graph.elements),
        )  # fmt: skip


def _saved(bits: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Percent of the memory of 32-bit floats that is saved."""
    total = sum(sizes.values())
    kept = sum(size * bits.get(name, _FLOAT_BITS) for name, size in sizes.items())
    return 100 * (1 - kept / (total * _FLOAT_BITS)) if total else 0.0


def explore(
    problem: Problem, measure: Measure, maps: FloatMaps, delta: float,
    weight_widths: Sequence[int] = WEIGHT_WIDTHS,
) -> QuennResult:  # fmt: skip
    """Both phases.

    Of the configurations of all variables, the one with the fewest bits among those within `delta`
    of the float score (dB: of the best configuration's) is kept; without such the least norm.

    Args:
        problem, measure: groups and judge; the measure's images are those compared on (the paper
            takes 50).
        maps: of the float network on the images to compare on layer by layer.
        delta: what may be lost.
        weight_widths: widths of weights to try.
    """
    space = _Space(problem, measure)
    formats = layer_analysis(problem, weight_widths)
    single = _single(space, weight_widths)
    groups = _grouped(space, weight_widths)
    everything = _everything(space, single)
    exact = measure.float_score
    goal = (exact if math.isfinite(exact) else max(t.score for t in everything)) - delta
    fine = [trial for trial in everything if trial.score >= goal]
    best = max(fine, key=_saving) if fine else min(everything, key=lambda trial: trial.norm)
    plan = problem.plan(tuple(best.activation_bits[group.name] for group in problem.groups))
    choice = space.choice(best.weight_bits, best.activation_bits)
    return QuennResult(
        formats, single, groups, everything, best,
        plan.with_values("weight_bits", best.weight_bits),
        layer_norms(measure.sample.network, choice, maps), exact, measure.unit,
    )  # fmt: skip


def _saving(trial: Trial) -> tuple[float, float]:
    return trial.weights_saved + trial.activations_saved, -trial.norm


def _single(space: _Space, weight_widths: Sequence[int]) -> list[Trial]:
    """One variable of one layer (or group) at a time, the last layers first for the cache."""
    found = []
    jobs: list[tuple[str, dict[str, int], dict[str, int]]] = []
    for name in reversed(space.weights):
        jobs += [(f"{name} weights", {name: bits}, {}) for bits in weight_widths]
    for group in reversed(space.problem.groups):
        for bits in group.widths:
            jobs.append((f"{group.name} activations", {}, dict.fromkeys(group.layers, bits)))
    for job in tqdm(jobs, desc="one at a time", unit="run", disable=None, leave=False):
        found.append(space.trial(*job))
    return found


def _grouped(space: _Space, weight_widths: Sequence[int]) -> list[Trial]:
    """All weights of a kind of layer, all weights, all activations, each at one width."""
    kinds = {layer.name: layer.kind for layer in space.problem.graph.layers}
    jobs: list[tuple[str, dict[str, int], dict[str, int]]] = []
    for kind in (*dict.fromkeys(kinds[name] for name in space.weights), "all"):
        names = [name for name in space.weights if kind in ("all", kinds[name])]
        if kind == "all" and len({kinds[name] for name in space.weights}) == 1:
            continue
        jobs += [(f"{kind} weights", dict.fromkeys(names, bits), {}) for bits in weight_widths]
    for bits in sorted({bits for group in space.problem.groups for bits in group.widths}):
        widths = space.problem.by_name(space.problem.uniform(bits))
        jobs.append(("all activations", {}, widths))
    return [
        space.trial(*job)
        for job in tqdm(jobs, desc="groups", unit="run", disable=None, leave=False)
    ]


def _everything(space: _Space, single: Sequence[Trial]) -> list[Trial]:
    """All variables: each at the smallest width whose own norm stays below a common limit."""
    choices: dict[str, list[Trial]] = {}
    for trial in single:
        choices.setdefault(trial.what, []).append(trial)
    norms = sorted(trial.norm for trial in single if trial.norm > 0)
    if not norms:
        norms = [1.0]
    limits = np.quantile(norms, np.linspace(0, 1, _CONFIGURATIONS)).tolist()
    found: list[Trial] = []
    seen = set[tuple[object, ...]]()
    for limit in tqdm(limits, desc="all variables", unit="run", disable=None, leave=False):
        weight_bits: dict[str, int] = {}
        bits: dict[str, int] = {}
        for trials in choices.values():
            fine = [trial for trial in trials if trial.norm <= limit] or trials[-1:]
            weight_bits.update(fine[0].weight_bits)
            bits.update(fine[0].activation_bits)
        key = (*sorted(weight_bits.items()), *sorted(bits.items()))
        if key not in seen:
            seen.add(key)
            found.append(space.trial(f"norms up to {limit:.3g}", weight_bits, bits))
    return found


def layer_norms(network: FakeQuantized, choice: Choice, maps: FloatMaps) -> dict[str, float]:
    """Equation 1 for every layer: L2 distance from float, averaged over the images."""
    sums, images = {layer.name: 0.0 for layer in network.graph.layers}, 0
    with torch.inference_mode():
        for batch, exact in maps:
            images += len(batch)
            done = network.run(batch, choice.quantizers, choice.weights)
            for want, (layer, got) in zip(exact, done, strict=True):
                gap = (want - got).double().square().flatten(1).sum(dim=1).sqrt()
                sums[layer.name] += float(gap.sum())
    return {name: total / images for name, total in sums.items()}


def normalised(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms divided by the largest, as the paper's tables have them.

    >>> normalised({"a": 1.0, "b": 4.0})
    {'a': 0.25, 'b': 1.0}
    """
    largest = max(norms.values(), default=0.0)
    return {name: norm / largest if largest else 0.0 for name, norm in norms.items()}
