# SPDX-License-Identifier: Apache-2.0
"""Refinement: scaling changes no float result, tables are optimal, learning only ever helps."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import digits_network as digits
import numpy as np
import pytest
import random_graphs
import torch

from nuq.formats import network as manifest
from nuq.formats.activation import Activation
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import data, run
from nuq.model_prep.allocate import budget
from nuq.model_prep.footprint import average_bits, plan_bits
from nuq.model_prep.quantize import fracs, plan_file, sensitivity
from nuq.model_prep.quantize.calibrate import Calibration
from nuq.model_prep.quantize.plan import LayerPlan, Plan, Settings, parse_refine
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.refine import distil, equalise, pipeline
from nuq.model_prep.quantize.student import Student
from tests.checkout import python

PIXELS = data.load(digits.SPEC, None).pixels[:48]
INPUT, TO_FLOAT = digits.INPUT, digits.TO_FLOAT


def plan_of(**settings: object) -> Plan:
    return digits.plan_of(**{"bits": 2, "refine": "all", **settings})


@pytest.fixture(scope="module")
def measured() -> pipeline.Measured:
    """What `plan_of()` is refined from."""
    return pipeline.measure(digits.graph(), plan_of(), 12, PIXELS, TO_FLOAT)


def refine(
    measured: pipeline.Measured, plan: Plan, recipe: distil.Recipe | None = None
) -> pipeline.Refined:
    return pipeline.refine(measured, plan, INPUT, PIXELS, TO_FLOAT, recipe)


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


def test_found_scales_make_channels_alike() -> None:
    scales = equalise.find_scales(digits.graph(), lambda: [TO_FLOAT(PIXELS)])
    scaled = equalise.rescale(digits.graph(), scales)
    assert scales
    for layer, stored in run.run_float(scaled, TO_FLOAT(PIXELS)):
        if layer.name in scales:
            occupied = (stored != 0).sum((0, 2, 3))
            rms = (stored.square().sum((0, 2, 3)) / occupied.clamp(min=1)).sqrt()
            alive = rms[(occupied > 0) & (torch.from_numpy(scales[layer.name]) < 60)]
            assert float(alive.max() / alive.min()) == pytest.approx(1, abs=0.01)


def brute(weights: np.ndarray, number: int) -> float:
    """Least weighted error of any table that starts at 0."""
    values = np.arange(len(weights))
    best = np.inf
    for rest in itertools.combinations(range(1, len(weights)), number - 1):
        error = np.abs(values[:, None] - np.array([0, *rest])).min(axis=1)
        best = min(best, float((weights * error**2).sum()))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_weighted_tables_are_optimal_with_zero_kept(seed: int) -> None:
    weights = np.random.default_rng(seed).exponential(size=16) ** 3
    one = LayerPlan("a", 14, 14, "knq", 2, {"rule": "nearest"})
    found, factor = pipeline.fit_one(one, weights, 2, 4, 0)
    assert found.centroid is not None
    assert (found.centroid[0], factor) == (0, 1.0)
    error = pipeline.weighted_error(found, weights, 4, 0)
    assert error == pytest.approx(brute(weights, 4), rel=1e-4)


@pytest.mark.parametrize(("scheme", "options"), [("uniform", {}), ("enq", {"variant": "round"})])
def test_a_free_factor_never_increases_the_error(scheme: str, options: dict[str, str]) -> None:
    weights = np.random.default_rng(5).exponential(size=256) * np.exp(-np.arange(256) / 30)
    one = LayerPlan("a", 14, 14, scheme, 3, options)
    fixed, _ = pipeline.fit_one(one, weights, 3, 8, 2)
    free, factor = pipeline.fit_one(one, weights, 3, 8, 2, free=True)
    before = pipeline.weighted_error(fixed, weights, 8, 2)
    assert pipeline.weighted_error(free, weights, 8, 2, factor) <= before


def test_more_bits_than_y_has_keep_its_range() -> None:
    weights = np.array([5.0, 1, 1, 2])
    one = LayerPlan("a", 14, 14, "uniform", 16)
    assert pipeline.weighted_error(pipeline.fit_one(one, weights, 16, 2, 0)[0], weights, 2, 0) == 0


def test_many_layers_share_a_codebook_with_an_activation() -> None:
    """Their weights are counts of one whole, which the k-means holds; what weighs most decides."""
    leaky = Activation("leaky_relu", {"alpha": 0.1})
    plans = [LayerPlan(f"p{i}", 8, 8, "knq", 3, {"rule": "nearest"}, leaky, True) for i in range(9)]
    random = np.random.default_rng(1)
    weights = {one.name: random.random(1 << 12) for one in plans}
    fracs = dict.fromkeys(weights, 9)
    found = pipeline.fit_behind(plans, weights, 12, fracs)
    assert all(np.array_equal(one.centroid, found["p0"].centroid) for one in found.values())
    weights["p0"] = 1e6 * np.eye(1, 1 << 12, 3000)[0] + 1e-3 * weights["p0"]
    heavy = pipeline.fit_behind(plans, weights, 12, fracs)["p0"]
    values = heavy.decode_table * 2.0**-heavy.frac
    assert abs(values - (3000 - 2048) * 2.0**-9).min() < 2.0**-heavy.frac


def test_the_weights_are_squared_gradients() -> None:
    graph = digits.graph()
    fracs = dict.fromkeys((layer.name for layer in graph.layers[:-1]), 8)
    (counts, found), (_, again) = (
        sensitivity.histograms(graph, [TO_FLOAT(PIXELS)], fracs, 12, frozenset()) for _ in range(2)
    )
    for name in counts:
        size = int(np.prod(graph.layer(name).out_shape))
        assert counts[name].sum() == size * len(PIXELS)
        assert found[name].min() >= 0
        assert (found[name][counts[name] == 0] == 0).all()
        np.testing.assert_array_equal(found[name], again[name])


def test_another_seed_draws_other_classes() -> None:
    """For refinement, and where F is chosen."""
    graph = digits.graph()
    # of noise, whose class is not certain
    pixels = np.random.default_rng(0).integers(0, 17, PIXELS.shape, np.uint8)
    calibration = Calibration(graph, pixels, TO_FLOAT, 12)
    found, chosen = [], []
    for seed in (1, 2):
        plan = plan_of(seed=seed)
        found.append(pipeline.measure(graph, plan, 12, pixels, TO_FLOAT))
        chosen.append(fracs.by_layer(calibration, plan, 12).weighted or {})
    assert found[0].fracs == found[1].fracs
    for name in found[0].weights:
        assert not np.array_equal(*(one.weights[name] for one in found))
        assert np.array_equal(*(one[name].counts for one in chosen))
        assert not np.array_equal(*(one[name].weights for one in chosen))


@pytest.mark.parametrize("average", [2.0, 2.6, 3.0, 4.5])
def test_allocation_stays_in_its_budget_and_beats_one_width(
    measured: pipeline.Measured, average: float
) -> None:
    plan, graph = plan_of(), digits.graph()
    found = budget.expected_losses(plan, measured)
    done = budget.for_average(plan, graph, found, average)
    assert average_bits(graph, done) <= average
    total = sum(found[one.name][one.bits] for one in done.layers if one.bits is not None)
    assert total <= sum(by_width[int(average)] for by_width in found.values()) * (1 + 1e-9)
    with pytest.raises(UserError, match="^the average width must be 2.00 bits or more"):
        budget.for_average(plan, graph, found, 1.5)


def test_nb_counts_what_is_stored_and_the_plan_file_gives_the_plan_again(
    measured: pipeline.Measured, tmp_path: Path
) -> None:
    plan, graph = plan_of(), digits.graph()
    done = budget.for_average(plan, graph, budget.expected_losses(plan, measured), 3.4)
    done = replace(done, distil_steps=7, seed=3)
    path = tmp_path / "plan.toml"
    path.write_text(plan_file.text(done, measured.fracs))
    nb = sum(
        int(np.prod(layer.out_shape)) * (one.bits or 0)
        for layer, one in zip(graph.layers[:-1], done.layers[:-1], strict=True)
    )
    assert plan_bits(graph, done) == nb
    assert resolve(graph, Settings(), Settings(), path) == done


def test_distillation_brings_the_answers_nearer(measured: pipeline.Measured) -> None:
    plan = plan_of()
    before = refine(measured, replace(plan, refine=parse_refine("equalise,sensitivity")))
    recipe = distil.Recipe(steps=40, held_out=64)  # too few images to hold some back
    after, again = (refine(measured, plan, recipe) for _ in range(2))

    def divergence(found: pipeline.Refined) -> float:
        student = Student(found.graph, INPUT, plan.layers, found.quantizers, rounded=False)
        lesson = distil._Lesson(student, TO_FLOAT)
        lesson.teacher = Student(digits.graph(), INPUT, plan.layers, {}, rounded=False)
        return lesson.divergence(PIXELS)

    assert divergence(after) < 0.95 * divergence(before)
    for one, other in zip(after.graph.layers, again.graph.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)


def test_learning_that_does_harm_is_dropped(measured: pipeline.Measured) -> None:
    plan = plan_of()
    fits = pipeline.fit_all(plan, measured.weights, 12, measured.fracs)
    fitted: dict[str, Quantizer] = {name: one for name, (one, _) in fits.items()}
    student = Student(measured.exact, INPUT, plan.layers, fitted, rounded=False)
    kept = distil.distil(student, PIXELS, TO_FLOAT, distil.Recipe(steps=5, rate=10.0))
    assert not kept
    for layer in measured.exact.layers:
        assert np.array_equal(student.weights[layer.name].detach(), layer.weight)
        assert np.array_equal(student.biases[layer.name].detach(), layer.bias)
    assert {name: one.key for name, one in student.quantizers().items()} == {
        name: one.key for name, one in fitted.items()
    }


def test_augmented_images_keep_their_form() -> None:
    found = distil.augment(PIXELS, np.random.default_rng(1), 0.5)
    assert (found.shape, found.dtype) == (PIXELS.shape, np.uint8)
    assert (found != PIXELS).any()


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


def test_unknown_techniques_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^REFINE must be all, none or of equalise, "):
        parse_refine("magic")
    path = tmp_path / "plan.toml"
    path.write_text("refine = 3\n")
    with pytest.raises(UserError, match="refine must be a text"):
        resolve(digits.graph(), Settings(), Settings(scheme="knq", bits=3), path)


def test_the_plan_says_how_long_to_distil_and_what_is_drawn(
    measured: pipeline.Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = []
    monkeypatch.setattr(pipeline, "distil", lambda *args: recipes.append(args[-1]))
    refine(measured, plan_of(refine="distil", distil_steps=2, seed=9))
    assert recipes == [distil.Recipe(2, seed=9)]


def test_the_number_of_threads_changes_no_byte(tmp_path: Path) -> None:
    """All that refinement adds up is added in one order."""
    found = []
    for threads in ("1", "2"):
        options = ("NET=digits", "IMAGES=40", "BITS=3", "REFINE=all", "DISTIL_STEPS=3", "SEED=4")
        out = tmp_path / threads
        python(
            "-m", "nuq.model_prep", "quantize", *options, f"OUT={out}", OMP_NUM_THREADS=threads
        )  # fmt: skip
        files = sorted((out / "quantized").iterdir())
        found.append({path.name: path.read_bytes() for path in files})
    assert len(found[0]) >= 3
    assert found[0] == found[1]
