# SPDX-License-Identifier: Apache-2.0
"""The searches for F, qm and a single width, on the digits network and on a made-up score."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from formats.errors import UserError
from formats.images import ImageSet
from model_prep import data, networks, weights
from model_prep.allocate import single, uniform
from model_prep.graph import Graph
from model_prep.quantize import calibrate, quantizers
from model_prep.quantize.fake_quant import Evaluator, FakeQuantized, sqnr_db
from model_prep.quantize.integers import network_input, quantize_layers
from model_prep.quantize.manifest import QuantizedNetwork
from model_prep.quantize.plan import Plan, Settings, resolve
from model_prep.quantize.reference import Reference

SPEC = networks.get("digits")
TO_FLOAT = partial(data.to_float, SPEC)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return data.load(SPEC, None, 200)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return weights.load(SPEC, None, np.zeros((1, 1, 8, 8), np.uint8)).graph


@pytest.fixture(scope="module")
def maxima(graph: Graph, images: ImageSet) -> dict[str, float]:
    return calibrate.maxima(graph, images.pixels, TO_FLOAT)


def plan_of(graph: Graph, **settings: object) -> Plan:
    return resolve(graph, Settings(**settings), Settings(scheme="knq", bits=4))  # type: ignore[arg-type]


def evaluator(graph: Graph, images: ImageSet, labels: bool) -> Evaluator:
    fake = FakeQuantized(graph, network_input(SPEC), plan_of(graph).layers)
    return Evaluator(fake, images.pixels, images.labels if labels else None, TO_FLOAT)


class MadeUp:
    """An evaluator with a score of our own: a stand-in for slow runs."""

    labels = None
    unit = "dB"
    float_score = math.inf

    def __init__(self, best_frac: int, per_bit: float = 6.0) -> None:
        self.best_frac, self.per_bit, self.calls = best_frac, per_bit, 0

    def score(self, chosen: dict[str, quantizers.Quantizer]) -> tuple[float, float]:
        self.calls += 1
        one = next(iter(chosen.values()))
        score = self.per_bit * one.bits - abs(one.frac - self.best_frac)
        return score, score


@pytest.mark.parametrize(("best", "found"), [(-3, 1), (1, 1), (2, 2), (3, 3), (9, 4)])
def test_the_search_for_frac_climbs_to_the_peak(graph: Graph, best: int, found: int) -> None:
    made_up = MadeUp(best)
    # 12 bits and a largest activation of 2000: F = 1 is the finest that clips nothing
    result = uniform.best_fracs(made_up, {"a": 2000.0, "b": 3.0}, 12, plan_of(graph))  # type: ignore[arg-type]
    assert result.fracs == {"a": found, "b": found}


def test_frac_per_layer_and_given_frac(graph: Graph) -> None:
    maxima = {"a": 2000.0, "b": 3.0}
    per_layer = replace(plan_of(graph), frac_mode="layer")
    found = uniform.best_fracs(MadeUp(0), maxima, 12, per_layer)  # type: ignore[arg-type]
    assert found.fracs == {"a": 1, "b": 10}
    given = replace(plan_of(graph), frac=5)
    assert uniform.best_fracs(MadeUp(0), maxima, 12, given).fracs == {"a": 5, "b": 5}  # type: ignore[arg-type]


def test_smallest_qm_by_sqnr(graph: Graph) -> None:
    plan = plan_of(graph, qm="auto", bits=2)
    found = uniform.find(MadeUp(1), {"a": 2000.0}, replace(plan, frac=1), 20.0)  # type: ignore[arg-type]
    assert found.qm == 12  # 6 dB a bit: 15 - 12 = 3 bits are 18 dB, a fourth would be 24


def test_smallest_qm_by_accuracy(graph: Graph, images: ImageSet, maxima: dict[str, float]) -> None:
    judge = evaluator(graph, images, labels=True)
    plan = plan_of(graph, qm="auto", bits=2)
    found = uniform.find(judge, maxima, plan, 1.0)
    assert found.score >= judge.float_score - 1.0
    assert uniform.best_fracs(judge, maxima, found.qm - 1, plan).score < judge.float_score - 1.0


def test_qm_that_cannot_be_reached(
    graph: Graph, images: ImageSet, maxima: dict[str, float]
) -> None:
    judge = evaluator(graph, images, labels=True)
    judge.float_logits = np.eye(10)[images.labels] + judge.float_logits * 0
    plan = replace(plan_of(graph, qm="auto", bits=2), frac=24)  # clips nearly everything
    with pytest.raises(
        UserError, match="^QM=auto must reach 99.00 % top-1, not .*; raise DELTA or"
    ):
        uniform.find(judge, maxima, plan, 1.0)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
def test_the_smallest_width_is_enough_and_one_less_is_not(
    graph: Graph, images: ImageSet, maxima: dict[str, float], scheme: str, labels: bool
) -> None:
    judge = evaluator(graph, images, labels)
    plan = plan_of(graph, scheme=scheme, bits="auto")
    base = uniform.best_fracs(judge, maxima, 12, plan)
    counts = calibrate.histograms(graph, images.pixels, TO_FLOAT, 12, base.fracs)
    goal = base.score - (1.0 if labels else 30.0)
    found = single.smallest_width(plan, counts, 12, base.fracs, judge, goal)
    widths = {layer.bits for layer in found.layers[:-1]}
    assert len(widths) == 1
    bits = widths.pop()
    assert bits is not None
    assert judge.score(single.fit_all(found, counts, 12, base.fracs))[0] >= goal
    if bits > 2:
        less = single.fit_all(plan.with_bits(bits - 1), counts, 12, base.fracs)
        assert judge.score(less)[0] < goal


def test_no_width_is_enough(graph: Graph, images: ImageSet, maxima: dict[str, float]) -> None:
    judge = evaluator(graph, images, labels=False)
    plan = plan_of(graph, bits="auto")
    fracs = uniform.layer_fracs(maxima, 12)
    counts = calibrate.histograms(graph, images.pixels, TO_FLOAT, 12, fracs)
    with pytest.raises(UserError, match="^BITS=auto must reach 200.00 dB of output SQNR"):
        single.smallest_width(plan, counts, 12, fracs, judge, 200.0)


def test_an_unfitting_layer_is_named(graph: Graph) -> None:
    counts = {layer.name: np.zeros(4096, np.int64) for layer in graph.layers}
    with pytest.raises(UserError, match="^layer conv1: histogram must hold counts of 0 or more"):
        single.fit_all(plan_of(graph), counts, 12, dict.fromkeys(counts, 0))


def test_fake_quantization_stays_near_the_integer_model(
    graph: Graph, images: ImageSet, maxima: dict[str, float]
) -> None:
    plan, source = plan_of(graph), network_input(SPEC)
    fracs = uniform.layer_fracs(maxima, 12)
    counts = calibrate.histograms(graph, images.pixels, TO_FLOAT, 12, fracs)
    fitted = single.fit_all(plan, counts, 12, fracs)
    layers = quantize_layers(
        graph, source, plan.layers, [fitted.get(layer.name) for layer in graph.layers]
    )
    network = QuantizedNetwork("digits", "trained", "0" * 64, 12, source, layers)
    raw = dict(Reference(network).run(source.encode(images.pixels)))[layers[-1].name]
    exact = raw.reshape(len(raw), -1) * 2.0 ** -layers[-1].out_frac
    fake = FakeQuantized(graph, source, plan.layers)
    close = fake.logits(images.pixels, fitted)
    difference = float(((exact - close) ** 2).sum())
    assert sqnr_db(float((exact**2).sum()), difference) > 40  # quantization itself leaves about 23


def test_sqnr_by_layer_grows_with_the_width(
    graph: Graph, images: ImageSet, maxima: dict[str, float]
) -> None:
    fake = FakeQuantized(graph, network_input(SPEC), plan_of(graph).layers)
    found = []
    for qm in (4, 6, 8):
        fracs = uniform.layer_fracs(maxima, qm)
        chosen = {name: quantizers.Quantizer("uniform", qm, qm, f) for name, f in fracs.items()}
        found.append(fake.layer_sqnr_db(images.pixels, TO_FLOAT, chosen))
    for name in maxima:
        assert found[0][name] + 6 < found[1][name] < found[2][name] - 6
