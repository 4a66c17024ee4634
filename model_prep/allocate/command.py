# SPDX-License-Identifier: Apache-2.0
"""The command `allocate`: images and formats to a problem, a method,
plan.toml and JSON.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from formats.build import write_atomic
from formats.errors import UserError
from formats.options import Options
from model_prep.allocate import budget, loss, predicted, quenn, search
from model_prep.allocate.cache import cache_bytes, layers_to_keep
from model_prep.allocate.measure import Measure
from model_prep.allocate.problem import Problem
from model_prep.allocate.scheduler import connect, open_pool
from model_prep.footprint import average_bits, plan_bits
from model_prep.graph import Graph
from model_prep.quantize import plan_file
from model_prep.quantize.calibrate import FloatMaps, batches
from model_prep.quantize.plan import AUTO, TECHNIQUES, Plan
from model_prep.quantize.plan_file import read_toml
from model_prep.quantize.refine import pipeline
from model_prep.quantize.score import Evaluator, Sample
from model_prep.stages import Subject, calibrate, search_images

_QUENN_IMAGES = 50  # paper 004
_OF_SQNR = ("target_db", "weights_db", "rho", "kappa")
_TRYING = "search, budget or quenn"
_OF_OTHERS = {"nb": "budget", "exhaustive": "search", "compare_cache": "search",
              "metric": _TRYING, "scheduler": _TRYING, "cache_gb": _TRYING}  # fmt: skip


@dataclass(frozen=True)
class Seconds:
    """Time on the clock, and of the processor over all threads of this process.

    The second hardly depends on what else the machine does. It leaves out a cluster's workers.
    """

    wall: float
    cpu: float

    @staticmethod
    def now() -> "Seconds":
        """Both clocks; only differences mean something."""
        return Seconds(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s of CPU, {self.wall:.1f} s"


@contextmanager
def measuring(
    problem: Problem, sample: Sample, metric: str | None = None, scheduler: str | None = None,
    cache_gb: float | None = None, cached: bool = True, floats: bool = True,
) -> Iterator[Measure]:  # fmt: skip
    """A Measure of a problem, its pool closed at the end.

    Args:
        problem: the network and its open widths.
        sample: images to search on.
        metric: a key of `score.METRICS`; default: accuracy with labels, else sqnr.
        scheduler: address of a Dask scheduler; None: the cores of this machine.
        cache_gb: size of the activation cache; None: a quarter of the free memory.
        cached: False evaluates every candidate from the pixels on.
        floats: whether bases hold uniform or float layers, whose cache is twice as large.
    """
    Evaluator(sample, metric)  # refuses before anything is sent
    typical = {} if floats else problem.choice(problem.widest).quantizers
    limit = cache_bytes(cache_gb)
    keep = layers_to_keep(problem.graph, typical, len(sample.pixels), limit)
    with open_pool(scheduler, sample.network, list(batches(sample.pixels)), keep) as pool:
        yield Measure(sample, pool, metric, cached)


def delta_of(problem: Problem, measure: Measure) -> float:
    """What a search may lose."""
    delta = problem.open_plan.delta
    return measure.metric.delta if delta is None else delta


def goal_of(problem: Problem, measure: Measure) -> float:
    """The least score: A' (of the qm-bit uniform network) less delta."""
    return measure.score(problem.full_width())[0] - delta_of(problem, measure)


def run_search(
    problem: Problem, sample: Sample, options: Options, cached: bool = True
) -> tuple[search.SearchResult, Seconds]:
    """The search that the options ask for, and the time that it took."""
    pool = (options.metric, options.scheduler, options.cache_gb)
    with measuring(problem, sample, *pool, cached=cached, floats=False) as measure:
        goal = goal_of(problem, measure)
        start = Seconds.now()
        if options.exhaustive:
            found = search.exhaustive(problem, measure, goal)
        else:
            found = search.coordinate(problem, measure, goal, options.order)
        return found, Seconds.now() - start


def _search(
    problem: Problem, sample: Sample, maps: Callable[[], FloatMaps], options: Options
) -> tuple[Plan, dict[str, Any]]:
    found, seconds = run_search(problem, sample, options)
    print(
        f"search: {found.nb} bits ({100 * found.nb / found.start_nb:.1f}% of {found.start_bits} "
        f"everywhere), {found.score:.2f} {found.unit}, goal {found.goal:.2f}, "
        f"{found.evaluations} candidates in {seconds.wall:.1f} s"
    )
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    if options.compare_cache:
        again, slow = run_search(problem, sample, options, cached=False)
        same = again == found
        ratio, wall_ratio = seconds.cpu / slow.cpu, seconds.wall / slow.wall
        print(f"with the cache: {seconds}; without it: {slow}; ratio {ratio:.3f} of CPU, "
              f"{wall_ratio:.3f} of wall-clock time; "
              f"results {'identical' if same else 'DIFFERENT'}")  # fmt: skip
        if not same:
            raise RuntimeError("the cache changed a result")
        result["cache"] = {"seconds": asdict(seconds), "seconds_without": asdict(slow),
                           "ratio": ratio, "wall_ratio": wall_ratio}  # fmt: skip
    return found.plan, result


def _budget(
    problem: Problem, sample: Sample, maps: Callable[[], FloatMaps], options: Options
) -> tuple[Plan, dict[str, Any]]:
    with measuring(problem, sample, options.metric, options.scheduler, options.cache_gb) as measure:
        if options.nb is not None:
            least = problem.nb(tuple(group.widths[0] for group in problem.groups))
            if options.nb < least:
                raise UserError(f"NB must be at least {least} bits, the narrowest codes, not "
                                f"{options.nb}")  # fmt: skip
        table = budget.sensitivity(problem, measure)
        if options.nb is None:
            points = budget.front(problem, measure, table, options.points)
            near = goal_of(problem, measure)
            good = [point for point in points if point.measured >= near]
            chosen = good[0] if good else points[-1]
        else:
            chosen = budget.best_for(problem, measure, table, options.nb)
            points = [chosen]
        print(f"{'NB':>12}{'predicted dB':>14}{'measured dB':>13}{measure.unit:>26}")
        for point in points:
            print(f"{point.nb:>12}{point.predicted_db:>14.2f}{point.measured_db:>13.2f}"
                  f"{point.measured:>26.2f}")  # fmt: skip
    result = {"sensitivity": asdict(table), "front": [asdict(point) for point in points],
              "chosen": asdict(chosen)}  # fmt: skip
    return problem.plan(chosen.widths), result


def _quenn(
    problem: Problem, sample: Sample, maps: Callable[[], FloatMaps], options: Options
) -> tuple[Plan, dict[str, Any]]:
    with measuring(problem, sample, options.metric, options.scheduler, options.cache_gb) as measure:
        found = quenn.explore(problem, measure, maps(), delta_of(problem, measure))
    best = found.best
    print(
        f"quenn: weights {best.weights_saved:.1f}% and activations {best.activations_saved:.1f}% "
        f"smaller than float, {best.score:.2f} {found.unit}, output norm {best.norm:.4g}"
    )
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    return found.plan, {**result, "normalised_norms": quenn.normalised(found.norms)}


def _sqnr(
    problem: Problem, sample: Sample, maps: Callable[[], FloatMaps], options: Options
) -> tuple[Plan, dict[str, Any]]:
    found = predicted.allocate(
        problem, sample.network.source, maps(), options.target_db, options.rho or "activations",
        options.kappa, options.weights_db, _weights_kept(problem.graph, options),
    )  # fmt: skip
    print(f"{'layer':<34}{'bits':>6}{'weights':>9}{'predicted dB':>14}{'measured dB':>13}")
    for layer in found.plan.layers:
        bits = "-" if layer.bits is None else layer.bits
        weights = layer.weight_bits if problem.graph.layer(layer.name).has_weights else "-"
        print(f"{layer.name:<34}{bits:>6}{weights:>9}{found.predicted_db[layer.name]:>14.2f}"
              f"{found.measured_db[layer.name]:>13.2f}")  # fmt: skip
    print(f"sqnr: {found.nb} bits, {found.nb / problem.values:.2f} an activation, target "
          f"{found.target_db:.2f} dB")  # fmt: skip
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    widths = {layer.name: layer.bits for layer in found.plan.layers if layer.bits is not None}
    weights_bits = {layer.name: layer.weight_bits for layer in found.plan.layers}
    return found.plan, {"widths": widths, "weight_bits": weights_bits, **result}


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
    if method in ("sqnr", "loss"):
        for key, methods in _OF_OTHERS.items():
            if getattr(options, key) not in (None, False):
                raise UserError(
                    f"{key.upper()} must go with METHOD={methods}, not METHOD={method}, which "
                    f"tries no candidates; leave out {key.upper()}"
                )


def allocate(subject: Subject, options: Options) -> None:
    """The command: run the method, write options.out/plan.toml and options.out/allocation.json.

    Args:
        subject: the network and its calibration images.
        options: of the command line.

    Raises:
        UserError: fewer images than IMAGES, or a plan without open widths.
    """
    _check_options(options)
    if options.scheduler:
        connect(options.scheduler).close()  # before minutes of preparation
    if options.method == "loss":
        _loss(subject, options)
        return
    pixels, labels = subject.images.calibration.pixels, subject.labels
    number = options.images
    if number is None:
        paper = min(_QUENN_IMAGES, len(pixels))
        number = paper if options.method == "quenn" else search_images(labels, len(pixels))
    if not 1 <= number <= len(pixels):
        raise UserError(f"IMAGES must be 1..{len(pixels)}, the calibration images, not {number}")
    calibration, evaluator, formats = calibrate(
        subject.graph, subject.input, subject.plan, pixels, labels, subject.to_float, number
    )
    problem = Problem(subject.graph, subject.plan, formats)
    methods = {"search": _search, "budget": _budget, "quenn": _quenn, "sqnr": _sqnr}
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
    losses = loss.losses(plan, measured)
    for average in options.average:
        one = loss.allocate(plan, measured.exact, losses, average)
        widths = {layer.name: layer.bits for layer in one.layers if layer.bits is not None}
        result = {"widths": widths, "nb": plan_bits(subject.graph, one), "losses": losses}
        suffix = f"_{average:g}" if len(options.average) > 1 else ""
        _write(subject, options, len(pixels), one, measured.fracs, result, suffix)


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
    paths = folder / f"plan{suffix}.toml", folder / f"allocation{suffix}.json"
    write_atomic(paths[0], plan_file.text(plan, fracs, text))
    write_atomic(paths[1], json.dumps(_plain(entry), indent=1) + "\n")
    print(f"written: {paths[0]}, {paths[1]}, {average:.3f} bits an activation")


def _plain(value: Any) -> Any:
    """The value with infinite numbers as null, which JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
