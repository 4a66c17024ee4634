# SPDX-License-Identifier: Apache-2.0
"""The command `allocate`: images and formats to a problem, a method, plan.toml and JSON."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError
from nuq.formats.options import Options
from nuq.model_prep.allocate import budget, filling, pairs, quenn, search
from nuq.model_prep.allocate.measure import Measure, goal_of, measuring
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.allocate.scheduler import connect
from nuq.model_prep.footprint import average_bits, plan_bits
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize import fracs, plan_file
from nuq.model_prep.quantize.calibrate import FloatMaps, Formats
from nuq.model_prep.quantize.plan import AUTO, TECHNIQUES, Plan
from nuq.model_prep.quantize.plan_file import read_toml
from nuq.model_prep.quantize.refine import pipeline
from nuq.model_prep.quantize.score import Evaluator, Sample
from nuq.model_prep.quantize.sensitivity import answers
from nuq.model_prep.stages import Subject, calibrate, search_images

_IMAGES = {"quenn": 50, "pairs": 64}  # of methods with a number of their own: paper 004's
_OF_SQNR = ("target_db", "weights_db", "rho", "kappa")
_TRYING = "search, budget or quenn"
_OF_OTHERS = {"nb": "budget", "exhaustive": "search", "compare_cache": "search",
              "metric": _TRYING, "scheduler": _TRYING, "cache_gb": _TRYING}  # fmt: skip

Maps = Callable[[], FloatMaps]
Outcome = tuple[Plan, dict[str, Any]]  # what a method chose, and what allocation.json says of it
Method = Callable[[Problem, Sample, Maps, Options], Outcome]


def _measuring(
    problem: Problem, sample: Sample, options: Options, cached: bool = True, floats: bool = True
) -> AbstractContextManager[Measure]:
    pool = (options.metric, options.scheduler, options.cache_gb)
    return measuring(problem, sample, *pool, cached, floats)


def _without_plan(result: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "plan"}


def _timed_search(
    problem: Problem, sample: Sample, options: Options, cached: bool = True
) -> tuple[search.SearchResult, dict[str, float]]:
    """The search, and its seconds on the clock ("wall") and of the processor ("cpu").

    The processor's, over all threads of this process, hardly depend on what else the machine does.
    They leave out a cluster's workers.
    """
    with _measuring(problem, sample, options, cached, floats=False) as measure:
        goal = goal_of(problem, measure)
        wall, cpu = time.perf_counter(), time.process_time()
        if options.exhaustive:
            result = search.exhaustive(problem, measure, goal)
        else:
            result = search.coordinate(problem, measure, goal, options.order)
        return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _goal(problem: Problem, evaluator: Evaluator, goal: float) -> str:
    return evaluator.goal_text(goal, problem.open_plan.delta, problem.formats.qm)


def _search(problem: Problem, sample: Sample, maps: Maps, options: Options) -> Outcome:
    done, seconds = _timed_search(problem, sample, options)
    goal = _goal(problem, Evaluator(sample, options.metric), done.goal)
    print(
        f"search: {done.nb} bits ({100 * done.nb / done.start_nb:.1f}% of {done.start_bits} "
        f"everywhere), {done.score:.2f} {done.unit}, {goal}, "
        f"{done.evaluations} candidates in {seconds['wall']:.1f} s"
    )
    result = _without_plan(done)
    if options.compare_cache:
        again, slow = _timed_search(problem, sample, options, cached=False)
        ratio, wall_ratio = (seconds[key] / slow[key] for key in ("cpu", "wall"))
        texts = [f"{one['cpu']:.1f} s of CPU, {one['wall']:.1f} s" for one in (seconds, slow)]
        print(f"with the cache: {texts[0]}; without it: {texts[1]}; ratio {ratio:.3f} of CPU, "
              f"{wall_ratio:.3f} of wall-clock time; "
              f"results {'identical' if again == done else 'DIFFERENT'}")  # fmt: skip
        if again != done:
            raise RuntimeError("the cache changed a result")
        result["cache"] = {"seconds": seconds, "seconds_without": slow, "ratio": ratio,
                           "wall_ratio": wall_ratio}  # fmt: skip
    return done.plan, result


def _budget(problem: Problem, sample: Sample, maps: Maps, options: Options) -> Outcome:
    with _measuring(problem, sample, options) as measure:
        if options.nb is not None:
            budget.check_nb(problem, options.nb)
        table = budget.sensitivity(problem, measure)
        if options.nb is None:
            points = budget.front(problem, measure, table, options.points)
            goal = goal_of(problem, measure)
            chosen = next((point for point in points if point.measured >= goal), points[-1])
            which = "the smallest that reaches" if chosen.measured >= goal else "none reaches"
            why = f"{which} it: {_goal(problem, measure, goal)}"
        else:
            chosen = budget.best_for(problem, measure, table, options.nb)
            points = [chosen]
            why = f"the best within NB={options.nb}"
        print(f"{'NB':>12}{'predicted dB':>14}{'measured dB':>13}{measure.unit:>26}")
        for point in points:
            print(f"{point.nb:>12}{point.predicted_db:>14.2f}{point.measured_db:>13.2f}"
                  f"{point.measured:>26.2f}{'  *' if point is chosen else ''}")  # fmt: skip
        print(f"* {why}; dB: SQNR of the output against float")
    result = {"sensitivity": asdict(table), "front": [asdict(point) for point in points],
              "chosen": asdict(chosen)}  # fmt: skip
    return problem.plan(chosen.widths), result


def _quenn(problem: Problem, sample: Sample, maps: Maps, options: Options) -> Outcome:
    with _measuring(problem, sample, options) as measure:
        delta = measure.delta(problem.open_plan.delta)
        done = quenn.explore(problem, measure, maps(), delta)
    best = done.best
    print(
        f"quenn: weights {best.weights_saved:.1f}% and activations {best.activations_saved:.1f}% "
        f"smaller than float, {best.score:.2f} {done.unit}, output norm {best.norm:.4g}"
    )
    return done.plan, {**_without_plan(done), "normalised_norms": quenn.normalised(done.norms)}


def _sqnr(
    problem: Problem, sample: Sample, maps: Maps, options: Options,
    weight_bits: Mapping[str, int] | None,
) -> Outcome:  # fmt: skip
    graph = problem.graph
    done = filling.allocate(
        problem, sample.network.source, maps(), options.target_db, options.rho or filling.RHO,
        options.kappa, weight_bits,
    )  # fmt: skip
    print(f"{'layer':<34}{'bits':>6}{'weights':>9}{'predicted dB':>14}{'measured dB':>13}")
    for layer in done.plan.layers:
        bits = "-" if layer.bits is None else layer.bits
        weights = layer.weight_bits if graph.layer(layer.name).has_weights else "-"
        print(f"{layer.name:<34}{bits:>6}{weights:>9}{done.predicted_db[layer.name]:>14.2f}"
              f"{done.measured_db[layer.name]:>13.2f}")  # fmt: skip
    print(f"sqnr: {done.nb} bits, {average_bits(graph, done.plan):.2f} an activation, target "
          f"{done.target_db:.2f} dB")  # fmt: skip
    weight_bits = {layer.name: layer.weight_bits for layer in done.plan.layers}
    return done.plan, {
        "widths": _widths(done.plan), "weight_bits": weight_bits, **_without_plan(done)
    }  # fmt: skip


def _widths(plan: Plan) -> dict[str, int]:
    return {layer.name: layer.bits for layer in plan.layers if layer.bits is not None}


def _weights_kept(graph: Graph, options: Options) -> frozenset[str]:
    """Layers whose weights' width an option or the plan file sets; defaults do not count."""
    top, kinds, layers = read_toml(options.plan, graph) if options.plan else ({}, {}, {})
    if options.weight_bits is not None or "weight_bits" in top:
        return frozenset(layer.name for layer in graph.layers)
    kept = {name for name, table in layers.items() if "weight_bits" in table}
    set_by_kind = {kind for kind, table in kinds.items() if "weight_bits" in table}
    if options.fc_weight_bits is not None:
        set_by_kind.add("fc")
    return frozenset(kept | {layer.name for layer in graph.layers if layer.kind in set_by_kind})


def _check_options(options: Options) -> None:
    """Refuse, by UserError, options that the method would ignore."""
    method = options.method
    if method != "sqnr":
        for key in _OF_SQNR:
            if getattr(options, key) is not None:
                raise UserError(
                    f"{key.upper()} must go with METHOD=sqnr, not METHOD={method}; leave out "
                    f"{key.upper()} or set METHOD=sqnr"
                )
    if method == "pairs":
        for key in ("nb", "exhaustive", "compare_cache"):
            if getattr(options, key):
                raise UserError(
                    f"{key.upper()} must go with METHOD={_OF_OTHERS[key]}, not METHOD=pairs, which "
                    f"finds no widths of codes; leave out {key.upper()}"
                )
    if method in ("sqnr", "loss"):
        for key, methods in _OF_OTHERS.items():
            if getattr(options, key) not in (None, False):
                raise UserError(
                    f"{key.upper()} must go with METHOD={methods}, not METHOD={method}, which "
                    f"tries no candidates; leave out {key.upper()}"
                )


def allocate(subject: Subject, options: Options) -> None:
    """The command: run the method, write options.out/plan.toml and options.out/allocation.json.

    Raises:
        UserError: fewer images than IMAGES, or a plan without open widths.
    """
    _check_options(options)
    print(subject.images.calibration_text)
    if options.scheduler:
        connect(options.scheduler).close()  # before minutes of preparation
    if options.method == "loss":
        _loss(subject, options)
        return
    pixels, labels = subject.images.calibration.pixels, subject.labels
    number = options.images
    if number is None:
        own = _IMAGES.get(options.method)
        number = min(own, len(pixels)) if own else search_images(labels, len(pixels))
    if not 1 <= number <= len(pixels):
        raise UserError(f"IMAGES must be 1..{len(pixels)}, the calibration images, not {number}")
    weight_bits = None
    if options.weights_db is not None:  # before calibration, which none of it needs
        weight_bits = filling.weight_widths(
            subject.graph, subject.plan, options.weights_db, options.rho or filling.RHO,
            options.kappa, _weights_kept(subject.graph, options),
        )  # fmt: skip
    calibration, evaluator, formats = calibrate(
        subject.graph, subject.input, subject.plan, pixels, labels, subject.to_float, number
    )
    if options.method == "pairs":
        found, _ = fracs.measured(formats, subject.plan, evaluator)
        _pairs(subject, options, number, evaluator.sample, found)
        return
    problem = Problem(subject.graph, subject.plan, formats)
    methods: dict[str, Method] = {
        "search": _search, "budget": _budget, "quenn": _quenn,
        "sqnr": partial(_sqnr, weight_bits=weight_bits),
    }  # fmt: skip
    plan, result = methods[options.method](
        problem, evaluator.sample.hardest_first(), calibration.maps, options
    )
    groups = [asdict(group) for group in problem.groups]
    _write(subject, options, number, plan, formats.fracs, {"groups": groups, **result})


def _loss(subject: Subject, options: Options) -> None:
    """Widths for each average, by expected loss in the network that refinement starts from."""
    plan, pixels, qm = subject.plan, subject.images.calibration.pixels, subject.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number to allocate widths, not auto; set QM")
    plan = replace(plan, refine=plan.refine or TECHNIQUES)
    measured = pipeline.measure(subject.graph, plan, qm, pixels, subject.to_float)
    losses = budget.expected_losses(plan, measured)
    for average in options.average:
        one = budget.for_average(plan, measured.exact, losses, average)
        result = {"widths": _widths(one), "nb": plan_bits(subject.graph, one), "losses": losses}
        suffix = f"_{average:g}" if len(options.average) > 1 else ""
        _write(subject, options, len(pixels), one, measured.fracs, result, suffix)


def _pairs(
    subject: Subject, options: Options, images: int, sample: Sample, formats: Formats
) -> None:
    """Which layers multiply two products in a DSP block."""
    graph, plan = subject.graph, subject.plan
    if plan.searches_bits or plan.refine:
        word = "fixed widths, not BITS=auto" if plan.searches_bits else "no REFINE"
        raise UserError(f"METHOD=pairs must have {word}; give its plan.toml to a later command")
    metric = options.metric or ("divergence" if answers(graph) else "sqnr")
    pool = (options.scheduler, options.cache_gb)
    with measuring(None, sample, metric, *pool) as measure:
        done = pairs.choose(graph, plan, formats, measure, _weights_kept(graph, options))
    print(f"{'layer':<34}{'MACs %':>9}{'loss alone':>13}  products")
    for number, one in enumerate(done.candidates):
        print(f"{one.name:<34}{100 * one.macs:>9.1f}{one.loss:>13.5f}"
              f"  {'two' if number < done.narrow else 'one'}")  # fmt: skip
    print(f"pairs: {done.narrow} of {len(done.candidates)} layers, {100 * done.macs:.1f}% of the "
          f"MACs; {done.score:.4f} {done.unit}, one product everywhere {done.wide_score:.4f}, goal "
          f"{done.goal:.4f}")  # fmt: skip
    result = json.loads(json.dumps(_without_plan(done), default=sorted))
    _write(subject, options, images, done.plan, formats.fracs, result)


def _write(
    subject: Subject, options: Options, images: int, plan: Plan, fracs: Mapping[str, int],
    result: dict[str, Any], suffix: str = "",
) -> None:  # fmt: skip
    """Both files of the command, their names ending in `suffix`."""
    folder, name = options.folder, subject.spec.name
    average = average_bits(subject.graph, plan)
    text = (
        f"Made by the allocation method {options.method} for {name}: NB "
        f"{plan_bits(subject.graph, plan)} bits, {average:.3f} an activation."
    )
    entry = {"method": options.method, "network": name, "images": images,
             "labels": subject.labels is not None, **result}  # fmt: skip
    # JSON cannot hold infinite numbers: they become null
    entry = json.loads(json.dumps(entry), parse_constant=lambda _: None)
    paths = folder / f"plan{suffix}.toml", folder / f"allocation{suffix}.json"
    write_atomic(paths[0], plan_file.text(plan, fracs, text))
    write_atomic(paths[1], json.dumps(entry, indent=1) + "\n")
    print(f"widths: {', '.join(f'{layer} {bits}' for layer, bits in _widths(plan).items())}")
    print(f"written: {paths[0]}, {paths[1]}, {average:.3f} bits an activation")
