# SPDX-License-Identifier: Apache-2.0
"""Refinement: scaling changes no float result, tables are optimal, learning only ever helps."""

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import random_graphs
import torch

from formats import network as manifest
from formats.arithmetic import to_fixed
from formats.commands import main
from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep import data, networks, run, weights
from model_prep.allocate import budget
from model_prep.footprint import average_bits, plan_bits
from model_prep.graph import Graph, Layer
from model_prep.quantize import plan_file
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.integers import network_input
from model_prep.quantize.plan import LayerPlan, Plan, Settings, parse_refine
from model_prep.quantize.plan_file import resolve
from model_prep.quantize.refine import distil, equalise, pipeline, sensitivity, tables
from model_prep.quantize.student import Activation, Student, _convolve, rising

SPEC = networks.get("digits")
TO_FLOAT = partial(data.to_float, SPEC)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return weights.load(SPEC, None, np.zeros((1, *SPEC.in_shape), np.uint8)).graph


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return data.load(SPEC, None).pixels[:48]


def plan_of(graph: Graph, **settings: object) -> Plan:
    chosen = {"scheme": "knq", "bits": 2, "refine": "all", **settings}
    return resolve(graph, Settings(**chosen), Settings())  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_scaled_channels_give_the_same_float_results(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = random_graphs.random_graph(random)
    names = [n for n in equalise.scalable(graph) if graph.layer(n).has_weights]
    scales = {n: np.exp(random.normal(size=len(graph.layer(n).bias))) for n in names}
    x = torch.from_numpy(random.standard_normal((2, *graph.in_shape)).astype(np.float32))
    want = {layer.name: out for layer, out in run.run_float(graph, x)}
    scaled = equalise.rescale(graph, scales)
    for layer, out in run.run_float(scaled, x):
        factor = equalise.channel_scales(graph, scales, layer.name)
        expected = want[layer.name] * torch.from_numpy(factor).float()[:, None, None]
        largest = float(expected.abs().max()) + 1e-6
        assert float((out - expected).abs().max()) < 2e-4 * largest, layer.name


def test_some_random_networks_can_be_scaled() -> None:
    graphs = [random_graphs.random_graph(np.random.default_rng(seed)) for seed in range(30)]
    assert sum(bool(equalise.scalable(graph)) for graph in graphs) >= 5


def test_found_scales_make_channels_alike(graph: Graph, pixels: np.ndarray) -> None:
    scales = equalise.find_scales(graph, lambda: [TO_FLOAT(pixels)])
    scaled = equalise.rescale(graph, scales)
    assert scales
    for layer, stored in run.run_float(scaled, TO_FLOAT(pixels)):
        if layer.name in scales:
            occupied = (stored != 0).sum((0, 2, 3))
            rms = (stored.square().sum((0, 2, 3)) / occupied.clamp(min=1)).sqrt()
            alive = rms[(occupied > 0) & (torch.from_numpy(scales[layer.name]) < 60)]
            assert float(alive.max() / alive.min()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
def test_the_student_computes_what_fake_quantization_does(
    graph: Graph, pixels: np.ndarray, scheme: str
) -> None:
    plan = plan_of(graph, scheme=scheme, bits=3)
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    fitted, _ = tables.fit_all(plan, measured.weights, 12, measured.fracs)
    student = Student(graph, network_input(SPEC), plan.layers, fitted, rounded=False)
    for layer in graph.layers:
        for store, values in ((student.weights, layer.weight), (student.biases, layer.bias)):
            integers, frac = to_fixed(values, 14)
            store[layer.name].data.copy_(torch.from_numpy(integers * 2.0**-frac))
    with torch.no_grad():
        got = student(student.inputs(pixels)).numpy()
    want = FakeQuantized(graph, network_input(SPEC), plan.layers).logits(pixels, fitted)
    np.testing.assert_allclose(got, want, atol=2e-3)


def four_levels() -> Quantizer:
    return Quantizer(
        "knq", 2, 6, 0, rule="nearest", centroid=np.array([0, 4, 8, 12], np.int32),
        threshold=np.array([0, 2, 6, 10], np.int32),
    )  # fmt: skip


def test_gradients_pass_up_to_the_largest_value_and_sum_by_code() -> None:
    activation = Activation(four_levels())
    assert activation.latent is not None
    x = torch.tensor([0.2, 1.7, 5.0, 9.6, 40.0], requires_grad=True)
    with torch.enable_grad():
        out = activation(x)
        (out * torch.tensor([1.0, 10, 100, 1000, 10000])).sum().backward()
    assert out.tolist() == [0, 4, 4, 12, 12]
    assert x.grad is not None
    assert activation.latent.grad is not None
    assert x.grad.tolist() == [1, 10, 100, 1000, 0]
    assert activation.latent.grad.tolist() == [4 * sums for sums in (1, 110, 0, 11000)]


def test_tables_get_the_gradients_of_maps_in_any_memory_order() -> None:
    quantizer = four_levels()
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 14
    factors = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    codes = torch.from_numpy(quantizer.encode_table.astype(np.int64))[(maps + 0.5).long()]
    want = 4 * torch.stack([factors[codes == code].sum() for code in range(4)])
    for ours, theirs in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        activation = Activation(quantizer)
        assert activation.latent is not None
        with torch.enable_grad():
            out = activation(maps.contiguous(memory_format=ours))
            (out * factors.contiguous(memory_format=theirs)).sum().backward()
        assert activation.latent.grad is not None
        torch.testing.assert_close(activation.latent.grad, want, atol=4e-4, rtol=1e-4)


def test_gradients_stop_at_both_ends_of_a_signed_table() -> None:
    activation = Activation(
        Quantizer(
            "knq", 1, 5, 0, rule="nearest", centroid=np.array([-8, 4], np.int32),
            threshold=np.array([0, -2], np.int32), signed=True,
        )
    )  # fmt: skip
    x = torch.tensor([-16.0, -14.0, 0.0, 10.0, 11.0, 99.0], requires_grad=True)
    with torch.enable_grad():
        activation(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("kernel", "stride", "pads"), [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1)])
def test_the_student_convolves_as_the_float_network(kernel: int, stride: int, pads: int) -> None:
    random = np.random.default_rng(3)
    weight = random.standard_normal((5, 3, kernel, kernel)).astype(np.float32)
    bias = random.standard_normal(5).astype(np.float32)
    layer = Layer("a", "conv", ("input",), weight, bias, (stride, stride), (pads,) * 4)
    x = torch.from_numpy(random.standard_normal((2, 3, 6, 6)).astype(np.float32))
    own = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    torch.testing.assert_close(_convolve(layer, x, *own), run.convolve(layer, x, *own))


def test_learned_tables_stay_increasing_integers_in_range() -> None:
    for levels in itertools.product([-2.0, 0.0, 4.2, 18.0], repeat=4):
        table = rising(np.array(levels), 0, 15)
        assert (np.diff(table) > 0).all()
        assert table[0] >= 0
        assert table[-1] <= 15
    assert rising(np.array([0, 1, 2, 3]), 0, 15).tolist() == [0, 1, 2, 3]


def brute(weights: np.ndarray, number: int) -> float:
    """Least weighted error of any table that starts at 0."""
    values = np.arange(len(weights))
    best = np.inf
    for rest in itertools.combinations(range(1, len(weights)), number - 1):
        table = np.array([0, *rest])
        error = np.abs(values[:, None] - table).min(axis=1)
        best = min(best, float((weights * error**2).sum()))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_weighted_tables_are_optimal_with_zero_kept(seed: int) -> None:
    weights = np.random.default_rng(seed).exponential(size=16) ** 3
    one = LayerPlan("a", 14, 14, "knq", 2, {"rule": "nearest"})
    found, factor = tables.fit_one(one, weights, 2, 4, 0)
    assert found.centroid is not None
    assert (found.centroid[0], factor) == (0, 1.0)
    error = tables.weighted_error(found, weights, 4, 0)
    assert error == pytest.approx(brute(weights, 4), rel=1e-4)


@pytest.mark.parametrize("scheme", ["uniform", "enq"])
def test_a_free_factor_never_increases_the_error(scheme: str) -> None:
    weights = np.random.default_rng(5).exponential(size=256) * np.exp(-np.arange(256) / 30)
    options = {"variant": "round"} if scheme == "enq" else {}
    one = LayerPlan("a", 14, 14, scheme, 3, options)
    fixed, _ = tables.fit_one(one, weights, 3, 8, 2)
    free, factor = tables.fit_one(one, weights, 3, 8, 2, free=True)
    before = tables.weighted_error(fixed, weights, 8, 2)
    assert tables.weighted_error(free, weights, 8, 2, factor) <= before


def test_the_weights_are_squared_gradients(graph: Graph, pixels: np.ndarray) -> None:
    plan = plan_of(graph)
    fracs = dict.fromkeys((layer.name for layer in graph.layers[:-1]), 8)
    counts, found = sensitivity.fisher_histograms(graph, [TO_FLOAT(pixels)], plan, 12, fracs)
    again = sensitivity.fisher_histograms(graph, [TO_FLOAT(pixels)], plan, 12, fracs)
    for name in counts:
        size = int(np.prod(graph.layer(name).out_shape))
        assert counts[name].sum() == size * len(pixels)
        assert found[name].min() >= 0
        assert (found[name][counts[name] == 0] == 0).all()
        np.testing.assert_array_equal(found[name], again[1][name])


@pytest.mark.parametrize("average", [2.0, 2.6, 3.0, 4.5])
def test_allocation_stays_in_its_budget_and_beats_one_width(
    graph: Graph, pixels: np.ndarray, average: float
) -> None:
    plan = plan_of(graph)
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    found = budget.expected_losses(plan, measured)
    done = budget.for_average(plan, graph, found, average)
    assert average_bits(graph, done) <= average
    total = sum(found[one.name][one.bits] for one in done.layers if one.bits is not None)
    assert total <= sum(by_width[int(average)] for by_width in found.values()) * (1 + 1e-9)
    with pytest.raises(UserError, match="^the average width must be 2.00 bits or more"):
        budget.for_average(plan, graph, found, 1.5)


def test_nb_counts_what_is_stored_and_the_plan_file_gives_the_plan_again(
    graph: Graph, pixels: np.ndarray, tmp_path: Path
) -> None:
    plan = plan_of(graph)
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    done = budget.for_average(plan, graph, budget.expected_losses(plan, measured), 3.4)
    done = replace(done, distil_steps=7)
    path = tmp_path / "plan.toml"
    path.write_text(plan_file.text(done, measured.fracs))
    nb = sum(
        layer.out_shape[0] * layer.out_shape[1] * layer.out_shape[2] * (one.bits or 0)
        for layer, one in zip(graph.layers[:-1], done.layers[:-1], strict=True)
    )
    assert plan_bits(graph, done) == nb
    assert resolve(graph, Settings(), Settings(), path) == done


def test_distillation_brings_the_answers_nearer(graph: Graph, pixels: np.ndarray) -> None:
    plan = plan_of(graph)
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    before = pipeline.refine(
        measured, replace(plan, refine=parse_refine("equalise,sensitivity")), network_input(SPEC),
        pixels, TO_FLOAT,
    )  # fmt: skip
    recipe = distil.Recipe(steps=40, held_out=64)  # too few images to hold some back
    after, again = (
        pipeline.refine(measured, plan, network_input(SPEC), pixels, TO_FLOAT, recipe)
        for _ in range(2)
    )

    def divergence(found: pipeline.Refined) -> float:
        student = Student(
            found.graph, network_input(SPEC), plan.layers, found.quantizers, rounded=False
        )
        lesson = distil._Lesson(student, TO_FLOAT, recipe)
        lesson.teacher = Student(graph, network_input(SPEC), plan.layers, {}, rounded=False)
        return lesson.divergence(pixels)

    assert divergence(after) < 0.95 * divergence(before)
    for one, other in zip(after.graph.layers, again.graph.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)


def test_learning_that_does_harm_is_dropped(graph: Graph, pixels: np.ndarray) -> None:
    plan = plan_of(graph)
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    fitted, _ = tables.fit_all(plan, measured.weights, 12, measured.fracs)
    source = network_input(SPEC)
    student = Student(measured.exact, source, plan.layers, fitted, rounded=False)
    kept = distil.distil(student, pixels, TO_FLOAT, distil.Recipe(steps=5, rate=10.0))
    assert not kept
    for layer in measured.exact.layers:
        assert np.array_equal(student.weights[layer.name].detach(), layer.weight)
        assert np.array_equal(student.biases[layer.name].detach(), layer.bias)
    learned = student.quantizers()
    assert {name: one.key for name, one in learned.items()} == {
        name: one.key for name, one in fitted.items()
    }


def test_augmented_images_keep_their_form(pixels: np.ndarray) -> None:
    found = distil.augment(pixels, np.random.default_rng(1), 0.5)
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    assert (found != pixels).any()


def test_the_flow_records_what_was_done(tmp_path: Path) -> None:
    options = ["quantize", "NET=digits", "BITS=2", "IMAGES=60"]
    assert main([*options, "REFINE=all", f"OUT={tmp_path}"]) == 0
    entry = json.loads((tmp_path / "quantized" / "manifest.json").read_text())
    assert entry["calibration"]["refine"] == ["equalise", "sensitivity", "distil"]
    network = manifest.load(tmp_path / "quantized")
    scaled = [layer for layer in network.layers if layer.scale is not None]
    assert scaled
    assert all(layer.scale is not None and (layer.scale > 0).all() for layer in scaled)
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 3 for layer in network.layers)


def test_unknown_techniques_are_refused(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^REFINE must be all, none or of equalise, "):
        parse_refine("magic")
    path = tmp_path / "plan.toml"
    path.write_text("refine = 3\n")
    with pytest.raises(UserError, match="refine must be a text"):
        resolve(graph, Settings(), Settings(scheme="knq", bits=3), path)


def test_the_plan_says_how_long_to_distil(
    graph: Graph, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = resolve(graph, Settings(refine="distil", distil_steps=2), Settings(scheme="knq", bits=3))
    measured = pipeline.measure(graph, plan, 12, pixels, TO_FLOAT)
    steps = []
    monkeypatch.setattr(pipeline, "distil", lambda *args: steps.append(args[-1].steps))
    pipeline.refine(measured, plan, network_input(SPEC), pixels, TO_FLOAT)
    assert steps == [2]
