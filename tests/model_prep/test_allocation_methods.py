# SPDX-License-Identifier: Apache-2.0
"""Search, budget and QUENN on the digits network: results against brute force and by hand."""

import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import digits_network as digits
import numpy as np
import pytest
import torch
from digits_network import Ready, ready_for

from nuq.formats import network as manifest
from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.model_prep.allocate import budget, quenn, search
from nuq.model_prep.allocate.measure import Measure, measuring
from nuq.model_prep.allocate.problem import with_width
from nuq.model_prep.quantize import plan_file
from nuq.model_prep.quantize.calibrate import float_maps
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.score import Evaluator
from tests.checkout import shared


@pytest.fixture(scope="module")
def ready() -> Ready:
    return ready_for()


@pytest.fixture()
def measure(ready: Ready) -> Iterator[Measure]:
    with measuring(*ready, "sqnr") as made:
        yield made


@pytest.mark.parametrize("metric", ["accuracy", "agreement", "sqnr"])
def test_scores_are_the_evaluators(ready: Ready, metric: str) -> None:
    choice = ready.problem.choice(ready.problem.uniform(3))
    with measuring(*ready, metric) as measure:
        plain = Evaluator(ready.sample, metric)
        assert measure.score(choice) == plain.score(choice.quantizers)
        for number, group in enumerate(ready.problem.groups):
            other = ready.problem.with_group(choice, number, group.widths[1])
            score, sqnr = measure.score(other, choice)
            assert (score, sqnr) == plain.score(other.quantizers)
            for goal in (score, np.nextafter(score, -math.inf), np.nextafter(score, math.inf)):
                assert measure.reaches(other, choice, goal) == (score >= goal)


@pytest.mark.parametrize("metric", ["accuracy", "sqnr"])
@pytest.mark.parametrize("order", ["size", "backward", "forward"])
def test_cached_search_is_the_search(ready: Ready, metric: str, order: str) -> None:
    found = []
    for cached in (True, False):
        with measuring(*ready, metric, cached=cached) as measure:
            goal = ready.goal(measure, 2.0 if metric == "accuracy" else 30.0)
            found.append(search.coordinate(ready.problem, measure, goal, order))
    assert found[0] == found[1]
    result = found[0]
    assert result.score >= result.goal
    assert result.nb <= result.start_nb
    bits = {layer.name: layer.bits for layer in result.plan.layers if layer.scheme}
    assert bits == result.widths
    sizes = {layer.name: math.prod(layer.out_shape) for layer in ready.problem.graph.layers}
    assert result.nb == sum(sizes[name] * width for name, width in bits.items() if width)


def test_no_group_can_be_lowered_further(ready: Ready, measure: Measure) -> None:
    goal = ready.goal(measure, 30.0)
    result = search.coordinate(ready.problem, measure, goal)
    widths = tuple(result.widths[group.name] for group in ready.problem.groups)
    for number in range(len(widths)):
        lower = with_width(widths, number, widths[number] - 1)
        if widths[number] > ready.problem.narrowest[number]:
            assert measure.score(ready.problem.choice(lower))[0] < goal


def test_exhaustive_equals_brute_force(ready: Ready, measure: Measure) -> None:
    problem = ready.problem
    goal = ready.goal(measure, 44.0)
    found = search.exhaustive(problem, measure, goal)
    every = itertools.product(*[group.widths for group in problem.groups])
    smaller = [widths for widths in every if problem.nb(widths) < found.nb]
    assert len(smaller) > 20
    assert all(measure.score(problem.choice(widths))[0] < goal for widths in smaller)
    assert found.score >= goal


def test_a_goal_out_of_reach(ready: Ready, measure: Measure) -> None:
    with pytest.raises(UserError, match="^METHOD=search must reach 300.00 dB of output SQNR, not"):
        search.coordinate(ready.problem, measure, 300.0)


def test_prediction_is_optimal_and_near(ready: Ready, measure: Measure) -> None:
    problem = ready.problem
    table = budget.sensitivity(problem, measure)
    front = budget.predicted_front(problem, table)
    spent = [problem.nb(widths) for widths in front]
    predicted = [budget.predicted_db(table, widths) for widths in front]
    assert spent == sorted(set(spent))
    assert predicted == sorted(predicted)
    every = list(itertools.product(*[group.widths for group in problem.groups]))
    noise = [table.noise(i) for i in range(len(problem.groups))]
    random = np.random.default_rng(1)
    for limit in random.integers(spent[0], spent[-1], 5).tolist():
        least = min(
            sum(noise[i][group.widths.index(bits)] for i, (group, bits) in
                enumerate(zip(problem.groups, widths, strict=True)))
            for widths in every if problem.nb(widths) <= limit
        )  # fmt: skip
        best = [widths for widths in front if problem.nb(widths) <= limit][-1]
        got = sum(noise[i][problem.groups[i].widths.index(bits)] for i, bits in enumerate(best))
        assert got == pytest.approx(least, rel=1e-9)
        measured = measure.score(problem.choice(best))[1]
        assert abs(measured - budget.predicted_db(table, best)) < 3


def test_front_and_budget(ready: Ready, measure: Measure) -> None:
    problem = ready.problem
    table = budget.sensitivity(problem, measure)
    points = budget.front(problem, measure, table, points=5, swaps=3)
    assert [p.nb for p in points] == sorted({p.nb for p in points})
    assert [p.measured_db for p in points] == sorted(p.measured_db for p in points)
    for point in points:
        assert measure.score(problem.choice(point.widths)) == (point.measured, point.measured_db)
    limit = (problem.nb(problem.uniform(1)) + problem.nb(problem.uniform(5))) // 2
    plain = budget.best_for(problem, measure, table, limit, swaps=0)
    better = budget.best_for(problem, measure, table, limit, swaps=20)
    assert better.nb <= limit
    assert better.measured_db >= plain.measured_db
    with pytest.raises(UserError, match="^NB must be at least .* bits, the narrowest codes, not 1"):
        budget.best_for(problem, measure, table, 1)


def test_fixed_widths_count_but_stay() -> None:
    bits = [3] * (len(digits.graph().layers) - 1)
    with pytest.raises(UserError, match="^BITS must leave a layer's width open to allocate"):
        ready_for(bits=bits)


def test_fixed_point_analysis_by_hand() -> None:
    values = np.array([-1.5, 0.25, 0.5, 3.0])
    found = quenn.analyse("a", "weights", values, np.ones(4, np.int64), 6)
    assert (found.integer_length, found.fractional_length, found.error) == (2, 3, 0.0)
    assert (found.minimum, found.maximum, found.mean) == (-1.5, 3.0, 0.5625)
    assert found.std == pytest.approx(values.std())
    small = quenn.analyse("a", "weights", values / 1024, np.ones(4, np.int64), 6)
    assert (small.integer_length, small.fractional_length, small.error) == (-8, 12, 0.0)
    rare = np.array([0.1, 0.2, 0.3, 100.0])
    clipped = quenn.analyse("a", "activations", rare, np.array([10**7, 10**7, 10**7, 1]), 4)
    assert clipped.fractional_length > 4 - clipped.integer_length


def test_quenn(ready: Ready) -> None:
    with measuring(*ready, "accuracy") as measure:
        found = quenn.explore(
            ready.problem, measure,
            float_maps(digits.graph(), ready.sample.pixels, digits.TO_FLOAT), 2.0, (3, 6, 10),
        )  # fmt: skip
        assert found.best.score >= measure.float_score - 2.0
        by_name = {trial.what: [] for trial in found.single}
        for trial in found.single:
            by_name[trial.what].append(trial.norm)
        for norms in by_name.values():
            assert norms[0] > norms[-1]  # the narrowest against the widest
    layers = {layer.name: layer for layer in found.plan.layers}
    for name, bits in found.best.weight_bits.items():
        assert layers[name].weight_bits == bits
    last = ready.problem.graph.layers[-1].name
    assert found.norms[last] == pytest.approx(found.best.norm, rel=1e-3)
    assert len(found.formats) == sum(
        3 * layer.has_weights for layer in ready.problem.graph.layers
    ) + sum(len(group.widths) * len(group.layers) for group in ready.problem.groups)
    size = sum(layer.weight.size for layer in ready.problem.graph.layers)
    kept = sum(
        layer.weight.size * found.best.weight_bits[layer.name]
        for layer in ready.problem.graph.layers
    )
    assert found.best.weights_saved == pytest.approx(100 * (1 - kept / size / 32))


def test_the_plan_file_gives_the_plan_again(ready: Ready, tmp_path: Path) -> None:
    problem = ready.problem
    widths = tuple(3 + i % 3 for i in range(len(problem.groups)))
    plan = problem.plan(widths)
    path = tmp_path / "plan.toml"
    path.write_text(plan_file.text(plan, problem.formats.fracs, "two\nlines"))
    again = resolve(problem.graph, Settings(), Settings(scheme="enq", bits=8), path)
    assert again.layers == plan.layers
    assert again.qm == problem.formats.qm
    if again.frac is not None:
        assert set(problem.formats.fracs.values()) == {again.frac}


@pytest.mark.parametrize(("refine", "steps"), [("all", 5), ("equalise", None), (None, None)])
def test_the_plan_file_keeps_what_is_to_be_refined(
    ready: Ready, tmp_path: Path, refine: str | None, steps: int | None
) -> None:
    problem = ready.problem
    qm = problem.formats.qm
    settings = Settings(scheme="knq", bits=3, qm=qm, refine=refine, distil_steps=steps)
    plan = resolve(problem.graph, {**settings, "clip": False, "frac_mode": "layer"}, Settings())
    path = tmp_path / "plan.toml"
    path.write_text(plan_file.text(plan, problem.formats.fracs, ""))
    again = resolve(problem.graph, Settings(), Settings(), path)
    assert (again.refine, again.distil_steps) == (plan.refine, plan.distil_steps)
    assert ("distil_steps" in path.read_text()) == (steps is not None)
    assert ("refine" in path.read_text()) == (refine is not None)
    if refine:  # which chooses F itself
        assert (again.frac, again.frac_mode, again.clip) == (None, "layer", False)
        path.write_text(plan_file.text(replace(plan, frac=4, clip=True), problem.formats.fracs, ""))
        again = resolve(problem.graph, Settings(), Settings(), path)
        assert (again.frac, again.clip) == (4, True)


def test_few_choices_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuq.model_prep.allocate.problem._CHOICES", 3)
    problem = ready_for(labels=False).problem
    base = problem.choice(problem.uniform(8))
    others = [problem.choice(problem.uniform(bits)) for bits in (2, 3, 4, 5)]
    assert problem.choice.cache_info().currsize == 3
    assert problem.choice(problem.uniform(5)) is others[-1]
    for bits in (2, 3, 4, 6):  # what is asked for again and again stays
        problem.choice(problem.uniform(bits))
        assert problem.choice(problem.uniform(5)) is others[-1]
    again = problem.choice(problem.uniform(8))
    assert again is not base
    assert all(again.quantizers[name] is one for name, one in base.quantizers.items())


def test_metric_needs_labels() -> None:
    plain = ready_for(labels=False)
    with (
        pytest.raises(UserError, match="^METRIC must be agreement or divergence or sqnr for"),
        measuring(*plain, "accuracy"),
    ):
        pass
    assert torch.get_num_threads() >= 1


def run(*options: object, net: object = "digits") -> int:
    return run_cli(main, ["allocate", f"NET={net}", *map(str, options)])


def allocated(folder: Path, *options: object, net: object = "digits") -> dict[str, Any]:
    """What the command writes to allocation.json."""
    assert run(f"OUT={folder}", *options, net=net) == 0
    entry: dict[str, Any] = json.loads((folder / "allocation.json").read_text())
    return entry


@pytest.mark.parametrize("method", ["search", "budget", "quenn", "sqnr", "loss"])
def test_the_command_writes_a_plan_that_quantize_takes(method: str, tmp_path: Path) -> None:
    more = ["AVERAGE=3.4", "REFINE=equalise"] if method == "loss" else []
    entry = allocated(tmp_path, "IMAGES=40", "POINTS=3", f"METHOD={method}", *more)
    assert (entry["method"], entry["images"]) == (method, 1437 if more else 40)
    plan = tmp_path / "plan.toml"
    again = ["quantize", "NET=digits", f"PLAN={plan}", f"OUT={tmp_path}"]
    assert run_cli(main, again) == 0
    bits = [layer.quantizer.bits for layer in manifest.load(tmp_path / "quantized").layers[:-1]]  # type: ignore[union-attr]
    table = tomllib.loads(plan.read_text())["layer"]
    assert bits == [table[name]["bits"] for name in list(table)[:-1]]


def test_sqnr_allocation_predicts_what_is_measured(tmp_path: Path) -> None:
    options = ["IMAGES=40", "METHOD=sqnr"]
    entry = allocated(tmp_path, *options, "TARGET_DB=22", "WEIGHTS_DB=20")
    for name, predicted in entry["predicted_db"].items():
        # An estimate: quantizers are taken to be independent, and layers to average no noise.
        assert -2 < entry["measured_db"][name] - predicted < 8, name
    table = tomllib.loads((tmp_path / "plan.toml").read_text())["layer"]
    assert {name: table[name]["weight_bits"] for name in table} == entry["weight_bits"]
    assert len(set(entry["weight_bits"].values())) > 1
    more = allocated(tmp_path, *options, "TARGET_DB=28", "RHO=macs", "KAPPA=6")
    assert more["nb"] > entry["nb"]


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ("POINTS=3", r"\* the smallest that reaches it: goal [\d.]+, DELTA 1 below 12-bit "),
        ("POINTS=3 METRIC=sqnr DELTA=0", r"\* none reaches it: goal [\d.]+, DELTA 0 below "),
        ("NB=9000", r"\* the best within NB=9000; dB: "),
    ],
)
def test_a_front_says_which_point_is_taken_and_why(
    options: str, last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = allocated(tmp_path, "IMAGES=40", "METHOD=budget", *options.split())
    said = capsys.readouterr().out
    marked = [line.split()[0] for line in said.splitlines() if line.endswith("  *")]
    assert marked == [str(entry["chosen"]["nb"])]
    assert re.search(f"^{last}", said, re.MULTILINE)


def test_a_search_says_what_it_had_to_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goal = r"goal [\d.]+, DELTA 1 below 12-bit uniform codes"
    allocated(tmp_path, "IMAGES=40")
    assert re.search(f"^search: .* % top-1, {goal}, ", capsys.readouterr().out, re.MULTILINE)
    assert run_cli(main, ["quantize", "NET=digits", "BITS=auto", f"OUT={tmp_path}"]) == 0
    found = re.search(
        rf"^BITS=auto: the smallest width for all layers is (\d) \({goal}\); ",
        capsys.readouterr().out, re.MULTILINE,
    )  # fmt: skip
    bits = {layer.quantizer.bits for layer in manifest.load(tmp_path / "quantized").layers[:-1]}  # type: ignore[union-attr]
    assert found and bits == {int(found[1])}


@pytest.mark.parametrize("rho", ["parameters", "macs"])
def test_sqnr_default_target_is_reached_with_any_kappa(rho: str, tmp_path: Path) -> None:
    entry = allocated(tmp_path, "IMAGES=9", "METHOD=sqnr", "KAPPA=3", f"RHO={rho}")
    steps = len(entry["widths"])
    assert entry["target_db"] == pytest.approx(15 - 10 * math.log10(steps))
    assert sum(10 ** (-0.3 * bits) for bits in entry["widths"].values()) <= steps * 10**-1.5 + 1e-9
    assert len(set(entry["widths"].values())) > 1


BAD_OPTIONS = [
    ("METHOD=search IMAGES=100000",
     "IMAGES must be 1..1437, the calibration images, not 100000"),
    ("METRIC=luck", "METRIC must be one of accuracy, agreement, divergence, sqnr, not 'luck'"),
    ("RHO=bytes", "RHO must be one of"),
    ("ORDER=luck", "ORDER must be one of"),
    ("METHOD=budget NB=1", "NB must be at least 2304 bits"),
    *((f"METHOD=sqnr {name}={value}", f"{name} must be a number above 0, not '{value}'")
      for value in ("nan", "inf", "0", "-3") for name in ("TARGET_DB", "WEIGHTS_DB", "KAPPA")),
    *((f"METHOD=sqnr {name}=5000{kappa}", f"{name} must be at most .* not 5000 dB; {remedy}")
      for name in ("TARGET_DB", "WEIGHTS_DB")
      for kappa, remedy in (("", "lower it"),
                            (" KAPPA=3", f"lower {name}, raise KAPPA or leave KAPPA out"))),
    ("METHOD=sqnr WEIGHTS_DB=20 WEIGHT_SCHEME=kmeans", "WEIGHTS_DB must have weights to choose"),
    ("METHOD=sqnr WEIGHTS_DB=20 WEIGHT_BITS=9", "WEIGHTS_DB must have .* leave out WEIGHT_BITS"),
    *((f"METHOD=sqnr {option}", f"{option.split('=')[0]} must go with METHOD={methods}, not "
       "METHOD=sqnr, which tries no candidates; leave out")
      for option, methods in {
          "NB=9000": "budget", "EXHAUSTIVE=1": "search", "COMPARE_CACHE=1": "search",
          **dict.fromkeys(("METRIC=sqnr", "SCHEDULER=tcp://x:1", "CACHE_GB=1"),
                          "search, budget or quenn")}.items()),
    *((f"METHOD={method} {name}={'macs' if name == 'RHO' else 20}",
       f"{name} must go with METHOD=sqnr, not METHOD={method}; leave out {name} or set "
       "METHOD=sqnr$")
      for name in ("TARGET_DB", "WEIGHTS_DB", "KAPPA", "RHO")
      for method in ("search", "budget", "quenn")),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sentence"), BAD_OPTIONS)
def test_bad_options(
    options: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("IMAGES=9", f"OUT={tmp_path}", *options.split()) == 2
    assert re.match(f"error: {sentence}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow()
def test_sqnr_allocation_of_weights_leaves_what_is_set(tmp_path: Path) -> None:
    plan = tmp_path / "asked.toml"
    layers = digits.graph().layers
    names = [layer.name for layer in layers]
    plan.write_text(f"[layer.{names[0]}]\nweight_bits = 11\n")

    def found(*more: object) -> dict[str, int]:
        entry = allocated(tmp_path, "IMAGES=9", "METHOD=sqnr", "WEIGHTS_DB=20", *more)
        bits: dict[str, int] = entry["weight_bits"]
        return bits

    free = found()
    kept = found(f"PLAN={plan}")
    assert kept[names[0]] == 11 != free[names[0]]
    classifier = [layer.name for layer in layers if layer.kind == "fc"]
    books = found("FC_WEIGHT_SCHEME=kmeans")
    assert classifier and all(books[name] == 8 for name in classifier)
    assert any(books[name] != 14 for name in names if name not in classifier)
    given = found("FC_WEIGHT_BITS=13")
    assert all(given[name] == 13 for name in classifier)
    assert max(found("WEIGHT_SCHEME=dynamic").values()) < 14


@pytest.mark.slow()
@pytest.mark.data()
def test_squeezenet_with_and_without_the_cache(tmp_path: Path) -> None:
    recipe = ["MEAN=123,117,104", "STD=1,1,1", "SCALE=1", "RESIZE=256"]
    net, images = shared("data/squeezenet_v1.0.onnx"), shared("data/imagenet500.npz")
    more = ["IMAGES=16", "DELTA=7", "COMPARE_CACHE=1"]
    entry = allocated(tmp_path, f"DATA={images}", *recipe, *more, net=net)
    assert entry["nb"] < entry["start_nb"]
    assert entry["score"] >= entry["goal"]
    assert entry["cache"]["ratio"] > 0  # its value depends on the machine
    assert entry["cache"]["wall_ratio"] > 0
