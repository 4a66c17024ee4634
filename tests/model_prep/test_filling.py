# SPDX-License-Identifier: Apache-2.0
"""Water-filling on networks of all kinds of layers: what a bit costs, limits, dead layers."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import random_graphs
import torch

from nuq.formats.arithmetic import Average, Window
from nuq.formats.errors import UserError
from nuq.model_prep.allocate import filling
from nuq.model_prep.allocate.filling import Filling
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from nuq.model_prep.quantize.calibrate import Formats, float_maps
from nuq.model_prep.quantize.plan import Plan, Settings
from nuq.model_prep.quantize.plan_file import resolve

QM = 10


def conv(name: str, source: str, channels: int, out: int = 8, size: int = 1) -> Layer:
    random = np.random.default_rng(len(name) + channels)
    weight = random.standard_normal((out, channels, size, size)).astype(np.float32)
    return Layer(name, "conv", (source,), weight, np.zeros(out, np.float32), pads=(size // 2,) * 4)


def bare(name: str, kind: str, *sources: str, **fields: object) -> Layer:
    return Layer(name, kind, sources, no_weight(), no_bias(), activation=None, **fields)  # type: ignore[arg-type]


def all_kinds() -> Graph:
    """a -> (b, c) joined -> d; a + d -> average -> last; only layers without weights read d."""
    return Graph(
        "kinds", (3, 4, 4),
        [
            conv("a", INPUT, 3), conv("b", "a", 8), conv("c", "a", 8, 16, 3),
            conv("d", "joined", 24), bare("sum", "add", "a", "d"),
            bare("pool", "maxpool", "sum", pool=Window((2, 2), (2, 2))),
            bare("mean", "avgpool", "pool", average=Average((2, 2), (1, 1))),
            conv("last", "mean", 8, 5),
        ],
        {"joined": ("b", "c")},
    )  # fmt: skip


def problem_of(
    graph: Graph, plan: Plan | None = None, dead: Iterable[str] = (), **settings: object
) -> Problem:
    """A problem with random histograms; of `dead` layers all activations are 0."""
    asked = Settings(bits="auto", qm=QM, **settings)  # type: ignore[arg-type]
    plan = plan or resolve(graph, asked, Settings(scheme="knq"))
    random = np.random.default_rng(3)
    counts = {}
    for layer in plan.layers[:-1]:
        zero = 1 << (QM - 1) if layer.signed else 0
        values = random.normal(0, 1 << (QM - 3), 3000) + zero
        values = np.clip(np.abs(values), 0, (1 << QM) - 1).astype(int)
        if layer.name in dead:
            values[:] = zero
        counts[layer.name] = np.bincount(values, minlength=1 << QM)
    return Problem(graph, plan, Formats(QM, dict.fromkeys(counts, 6), counts))


def test_a_bit_costs_what_its_readers_multiply() -> None:
    graph = all_kinds()
    macs = {layer.name: layer.macs for layer in graph.layers}
    found = filling.reading_costs(graph, "macs")
    assert found == pytest.approx({
        "a": macs["b"] + macs["c"], "b": macs["d"] / 3, "c": macs["d"] * 2 / 3, "d": 0.0,
        "sum": 0.0, "pool": 0.0, "mean": macs["last"],
    })  # fmt: skip
    sizes = filling.reading_costs(graph, "parameters")
    assert (sizes["a"], sizes["mean"]) == (8 * 8 + 16 * 8 * 9, 5 * 8)
    assert sizes["b"] + sizes["c"] == pytest.approx(graph.layer("d").weight.size)
    elements = filling.reading_costs(graph, "activations")
    assert elements == {layer.name: math.prod(layer.out_shape) for layer in graph.layers[:-1]}


@pytest.mark.parametrize("rho", ["macs", "parameters"])
def test_maps_that_nothing_multiplies_cost_as_the_cheapest(rho: str) -> None:
    graph = all_kinds()
    steps = filling.of_activations(problem_of(graph), rho, 6.0).steps
    costs = filling.reading_costs(graph, rho)
    assert steps["d"].rho == min(cost for cost in costs.values() if cost)
    assert steps["b"].rho == pytest.approx(costs["b"] + costs["c"])
    alone = Graph("sums", (8, 2, 2), [conv("a", INPUT, 8), bare("mean", "add", "a", "a")])
    assert filling.of_activations(problem_of(alone), rho, 6.0).steps["a"].rho == 1.0


def to_float(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255)


@pytest.mark.parametrize("seed", range(24))
def test_any_network_is_allocated(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = random_graphs.read_graph(random)
    problem = problem_of(graph)
    source = random_graphs.random_input(random, graph)
    pixels = random.integers(0, 256, (2, *graph.in_shape), np.uint8)
    for rho in filling.COSTS:
        maps = float_maps(graph, pixels, to_float)
        weight_bits = filling.weight_widths(graph, problem.open_plan, 20.0, rho, None, ())
        found = filling.allocate(problem, source, maps, None, rho, weight_bits=weight_bits)
        assert not found.plan.searches_bits
        assert found.predicted_db.keys() == found.measured_db.keys()


def test_each_layer_has_the_limits_of_its_scheme() -> None:
    graph = all_kinds()
    plan = resolve(graph, Settings(scheme="uniform", bits="auto", qm=QM), Settings())
    knq = {"scheme": "knq", "options": {"rule": "nearest"}}
    mixed = plan.each(lambda layer: knq if layer.name == "d" else {})
    steps = filling.of_activations(problem_of(graph, mixed), "activations", 6.0)
    assert (steps.steps["d"].limits, steps.steps["a"].limits) == ((1, 8), (2, QM))
    bits = steps.widths(steps.sqnr_db(16), "TARGET_DB")
    assert bits == {name: step.limits[1] for name, step in steps.steps.items()}


def test_dead_layers_get_their_narrowest_width() -> None:
    graph = all_kinds()
    for kappa in (None, 6.0):
        steps = filling.of_activations(problem_of(graph, dead=["d", "mean"]), "activations", kappa)
        assert steps.settled == {"d": 1, "mean": 1}
        bits = steps.widths(steps.sqnr_db(6), "TARGET_DB")
        assert (bits["d"], bits["mean"]) == (1, 1) and bits["a"] > 3
    names = [layer.name for layer in graph.layers]
    signed = filling.of_activations(problem_of(graph, dead=names, scheme="uniform"), "activations")
    assert set(signed.widths(20.0, "TARGET_DB").values()) == {2}


def measured(known: Mapping[int, float]) -> filling.Measurement:
    return lambda widths: {bits: known[bits] for bits in widths if bits in known}


def test_layers_that_no_line_fits() -> None:
    few = Filling(None)
    few.add("gate", 1.0, (1, 8), False, measured({1: 9.0, **dict.fromkeys(range(2, 9), math.inf)}))
    assert few.settled == {"gate": 2} and not few.steps
    few.add("coarse", 1.0, (1, 4), False, measured({1: 6.0, 2: 12.0, 3: 18.0, 4: math.inf}))
    assert few.steps["coarse"].efficiency.kappa == pytest.approx(6.0)
    text = "^layer x: kappa must be measured at two widths or more, not 1; set KAPPA"
    with pytest.raises(UserError, match=text):
        few.add("x", 1.0, (3, 3), False, measured({3: 9.0}))
    with pytest.raises(UserError, match="^layer y: kappa must be above 0 dB per bit, not .*KAPPA"):
        few.add("y", 1.0, (2, 8), False, measured({3: 9.0, 4: 8.0}))


def test_weights_in_codebooks_are_left_alone() -> None:
    graph = all_kinds()
    plan = resolve(graph, Settings(scheme="uniform", bits=8), Settings())
    schemes = {"a": "kmeans", "b": "dynamic"}
    plan = plan.with_values("weight_scheme", schemes)
    assert list(filling.of_weights(graph, plan, keep=["c"]).steps) == ["b", "d", "last"]
    graph.layer("d").weight[:] = 0
    assert filling.of_weights(graph, plan, 6.0).settled == {"d": 2}
    bits = filling.of_weights(graph, plan).widths(20.0)
    assert "a" not in bits and bits["b"] != plan.layers[1].weight_bits
