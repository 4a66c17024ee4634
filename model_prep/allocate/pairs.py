# SPDX-License-Identifier: Apache-2.0
"""Which layers multiply two products in a DSP block (docs/faster.md), chosen by measurement.

A layer does where the values that it reads and its weights are narrow enough together; PRESET=fast
has the widths. Each layer is measured with narrow numbers alone; those that lose least for what
they multiply become narrow, as many as the network's output allows.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.allocate.measure import Measure
from nuq.model_prep.graph import INPUT, Graph
from nuq.model_prep.quantize.calibrate import Formats
from nuq.model_prep.quantize.fake_quant import FakeQuantized, floats
from nuq.model_prep.quantize.plan import BIAS_BITS, PRESETS, LayerPlan, Plan
from nuq.model_prep.quantize.quantizers import SCHEMES

NARROW: Mapping[str, Any] = PRESETS["fast"][0]
SHARE = 0.1  # what may be lost unless DELTA says it, of what the activations' codes lose already


@dataclass(frozen=True)
class Candidate:
    """A layer that may have narrow numbers."""

    name: str
    maps: frozenset[str]  # owners of the quantizers of what it reads
    macs: float  # share of the network's
    loss: float = 0.0  # of the metric, with this layer alone narrow


@dataclass(frozen=True)
class Paired:
    """Which layers have narrow numbers."""

    plan: Plan
    candidates: tuple[Candidate, ...]  # those of least loss a MAC first
    narrow: int  # how many of them
    wide_score: float  # with all numbers wide
    score: float
    goal: float
    unit: str

    @property
    def macs(self) -> float:
        """Share of the network's MACs in layers with narrow numbers."""
        return sum(one.macs for one in self.candidates[: self.narrow])


def candidates(graph: Graph, plan: Plan, keep: Collection[str] = ()) -> list[Candidate]:
    """The layers that narrow numbers are possible for.

    Weights in a codebook have wide entries; a uniform code is as wide as its plan says. Layers in
    `keep` have weights whose width is given.
    """
    owners = {layer.name: layer.owner for layer in plan.layers}
    plans = {layer.name: layer for layer in plan.layers}
    found = []
    for layer in graph.layers:
        own = plans[layer.name]
        if not layer.has_weights or layer.name in keep or own.weight_scheme != "uniform":
            continue
        maps = frozenset(owners[part] for part in graph.sources_of(layer) if part != INPUT)
        if all(_may_be_narrow(plans[name]) for name in maps):
            found.append(Candidate(layer.name, maps, layer.macs / graph.macs))
    return found


def _may_be_narrow(plan: LayerPlan) -> bool:
    bits = plan.bits or 0
    uniform = SCHEMES[str(plan.scheme)].hardware == "uniform"
    return bits <= NARROW["qm"] and (uniform or plan.centroids is None)


class _Trials:
    """Choices of narrow layers, and what they score."""

    def __init__(
        self, graph: Graph, plan: Plan, formats: Formats, measure: Measure,
        possible: Collection[Candidate],
    ) -> None:  # fmt: skip
        self._plan, self._measure = plan, measure
        self._codes = tuple(
            formats.fit(one) for one in (plan, plan.each(lambda layer: {"qm": NARROW["qm"]}))
        )
        kept = measure.sample.network
        narrow = FakeQuantized(graph, kept.source, narrowed(plan, possible).layers)
        self._weights = tuple(
            {name: floats(stored.values) for name, stored in network.stored.items()}
            for network in (kept, narrow)
        )
        self.base = self.choice(())
        self.score, _ = measure.score(self.base)

    def choice(self, layers: Collection[Candidate]) -> Choice:
        """These layers narrow, all others wide."""
        names, maps = numbers(layers)
        quantizers: dict[str, Quantizer] = {}
        for layer in self._plan.layers:
            if layer.scheme is not None:
                quantizers[layer.name] = self._codes[layer.owner in maps][layer.name]
        weights: dict[str, torch.Tensor] = {
            name: self._weights[name in names][name] for name in self._weights[0]
        }
        return Choice(quantizers, weights, {name: name in names for name in weights})

    def of(self, layers: Collection[Candidate]) -> float:
        """The score of these layers narrow."""
        return self._measure.score(self.choice(layers), self.base)[0]


def numbers(layers: Collection[Candidate]) -> tuple[frozenset[str], frozenset[str]]:
    """(layers whose weights are narrow, owners of quantizers whose values are) of narrow layers."""
    return frozenset(one.name for one in layers), frozenset().union(*(one.maps for one in layers))


def narrowed(plan: Plan, layers: Collection[Candidate]) -> Plan:
    """The plan with these layers narrow."""
    names, maps = numbers(layers)
    weights = {
        "weight_bits": NARROW["weight_bits"], "weight_scale": NARROW["weight_scale"],
        "bias_bits": BIAS_BITS[NARROW["weight_scale"]],
    }  # fmt: skip
    return plan.each(
        lambda layer: (
            (weights if layer.name in names else {})
            | ({"qm": NARROW["qm"]} if layer.scheme and layer.owner in maps else {})
        )
    )


def choose(
    graph: Graph, plan: Plan, formats: Formats, measure: Measure, keep: Collection[str] = ()
) -> Paired:
    """As many layers with narrow numbers as may be, those that lose least a MAC first.

    Args:
        graph, plan, formats: the network, all widths fixed, and what quantizers are fitted to.
        measure: scores; its network has the plan's weights.
        keep: layers whose weights' width is given.

    Raises:
        UserError: no layer can have narrow numbers.
    """
    possible = candidates(graph, plan, keep)
    if not possible:
        raise UserError(
            f"METHOD=pairs must have layers with weights of a width to choose (uniform, not given "
            f"by WEIGHT_BITS or a plan) that read codes of at most {NARROW['qm']} bits, not none"
        )
    trials = _Trials(graph, plan, formats, measure, possible)
    measured = [replace(one, loss=trials.score - trials.of([one])) for one in possible]
    ranked = tuple(sorted(measured, key=lambda one: (one.loss / one.macs, one.name)))
    allowed = plan.delta
    if allowed is None:
        allowed = SHARE * (measure.float_score - trials.score)
        if math.isinf(allowed):  # float has no noise, of which this is the share in dB
            allowed = 10 * math.log10(1 + SHARE)
    goal = trials.score - max(0.0, allowed)
    count, score = len(ranked), trials.of(ranked)
    while count and score < goal:  # one by one: losses of single layers do not quite add up
        count -= 1
        score = trials.of(ranked[:count])
    done = narrowed(plan, ranked[:count])
    return Paired(done, ranked, count, trials.score, score, goal, measure.unit)
