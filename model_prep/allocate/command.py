# SPDX-License-Identifier: Apache-2.0
"""The command `allocate`: images and formats to a problem, a method,
plan.toml and JSON.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from formats.build import write_atomic
from formats.errors import UserError
from formats.images import ImageSet
from formats.options import Options
from model_prep import data
from model_prep.allocate import budget, clipping, predicted, quenn, search, uniform
from model_prep.allocate.cache import cache_bytes, layers_to_keep
from model_prep.allocate.measure import METRICS, Measure, hardest_first
from model_prep.allocate.problem import Problem, plan_toml
from model_prep.allocate.scheduler import connect, open_pool
from model_prep.graph import Graph
from model_prep.networks.spec import NetworkSpec
from model_prep.quantize import calibrate
from model_prep.quantize.calibrate import ToFloat
from model_prep.quantize.fake_quant import Evaluator, FakeQuantized
from model_prep.quantize.manifest import InputFormat
from model_prep.quantize.plan import Plan, Settings, check_widths, read_toml

_IMAGES = {True: 256, False: 8}  # searched on, with and without labels
_DELTA = {"accuracy": 1.0, "agreement": 5.0, "sqnr": 30.0}  # points or dB
_QUENN_IMAGES = 50  # paper 004
_OF_SQNR = ("target_db", "weights_db", "rho", "kappa")
_TRYING = "search, budget or quenn"
_NOT_OF_SQNR = {"nb": "budget", "exhaustive": "search", "compare_cache": "search",
                "metric": _TRYING, "scheduler": _TRYING, "cache_gb": _TRYING}  # fmt: skip


@dataclass(frozen=True)
class Seconds:
    """Time on the clock, and of the processor over all threads of this process.

    The second hardly depends on what else the machine does. It leaves out a cluster's workers.
    """

    wall: float
    cpu: float

    @staticmethod
    def now() -> Seconds:
        """Both clocks; only differences mean something."""
        return Seconds(time.perf_counter(), time.process_time())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s of CPU, {self.wall:.1f} s"


@dataclass(frozen=True)
class Prepared:
    """All that a method needs.

    Attributes:
        problem: groups, histograms and fits.
        network: the fake-quantized network.
        images: to search on, hardest first.
        labels: whether their labels mean something.
        to_float: from pixels to network inputs.
        uniform_score: of the qm-bit uniform network, A' of papers 000/001, in percent top-1 or dB.
    """

    problem: Problem
    network: FakeQuantized
    images: ImageSet
    labels: bool
    to_float: ToFloat
    uniform_score: float


def prepare(
    spec: NetworkSpec, graph: Graph, source: InputFormat, plan: Plan, images: ImageSet,
    labels: bool, number: int | None = None,
) -> Prepared:  # fmt: skip
    """Calibrate, find qm and F, and choose the images to search on.

    Args:
        spec, graph, source: the network and its input format.
        plan: with open widths.
        images: the calibration images; histograms see all of them.
        labels: whether their labels may judge.
        number: images to search on; default 256, or 8 without labels.

    Raises:
        UserError: fewer images than `number`, or a plan without open widths.
    """
    number = min(len(images), _IMAGES[labels]) if number is None else number
    if not 1 <= number <= len(images):
        raise UserError(f"IMAGES must be 1..{len(images)}, the calibration images, not {number}")
    to_float = partial(data.to_float, spec)
    few = images.take(slice(number))
    network = FakeQuantized(graph, source, plan.layers)
    evaluator = Evaluator(network, few.pixels, few.labels if labels else None, to_float)
    maxima = calibrate.maxima(graph, images.pixels, to_float)
    base = uniform.find(evaluator, maxima, plan, _DELTA["accuracy" if labels else "sqnr"])
    plan = replace(plan, qm=base.qm)
    check_widths(plan)
    fracs = clipping.choose(graph, images.pixels, to_float, base, maxima, plan)
    counts = calibrate.histograms(graph, images.pixels, to_float, base.qm, fracs, plan.signed)
    problem = Problem(graph, plan, counts, base.qm, fracs)
    order = hardest_first(graph, few.pixels, few.labels if labels else None, to_float)
    chosen = replace(few, pixels=few.pixels[order], labels=few.labels[order])
    return Prepared(problem, network, chosen, labels, to_float, base.score)


@contextmanager
def measuring(
    ready: Prepared, metric: str | None = None, scheduler: str | None = None,
    cache_gb: float | None = None, cached: bool = True, floats: bool = True,
) -> Iterator[Measure]:  # fmt: skip
    """A Measure of the prepared network, its pool closed at the end.

    Args:
        ready: from `prepare`.
        metric: one of `measure.METRICS`; default: accuracy with labels, else sqnr.
        scheduler: address of a Dask scheduler; None: the cores of this machine.
        cache_gb: size of the activation cache; None: a quarter of the free memory.
        cached: False evaluates every candidate from the pixels on.
        floats: whether bases hold uniform or float layers, whose cache is twice as large.
    """
    metric = metric or ("accuracy" if ready.labels else "sqnr")
    if metric not in METRICS:
        raise UserError(f"METRIC must be one of {', '.join(METRICS)}, not {metric}")
    problem, pixels = ready.problem, ready.images.pixels
    typical = {} if floats else problem.choice(problem.widest).quantizers
    keep = layers_to_keep(problem.graph, typical, len(pixels), cache_bytes(cache_gb))
    labels = ready.images.labels if ready.labels else None
    with open_pool(scheduler, ready.network, list(calibrate.batches(pixels)), keep) as pool:
        yield Measure(ready.network, pixels, labels, ready.to_float, pool, metric, cached)


def goal_of(ready: Prepared, measure: Measure, delta: float | None) -> float:
    """The least score: A' (of the qm-bit uniform network) less delta."""
    score, _ = measure.score(ready.problem.full_width())
    return score - (_DELTA[measure.metric] if delta is None else delta)


def run_search(
    ready: Prepared, options: Options, cached: bool = True
) -> tuple[search.SearchResult, Seconds]:
    """The search that the options ask for, and the time that it took."""
    pool = (options.metric, options.scheduler, options.cache_gb)
    with measuring(ready, *pool, cached=cached, floats=False) as measure:
        goal = goal_of(ready, measure, options.delta)
        start = Seconds.now()
        if options.exhaustive:
            found = search.exhaustive(ready.problem, measure, goal)
        else:
            found = search.coordinate(ready.problem, measure, goal, options.order)
        return found, Seconds.now() - start


def _search(ready: Prepared, options: Options) -> tuple[Plan, dict[str, Any]]:
    found, seconds = run_search(ready, options)
    print(
        f"search: {found.nb} bits ({100 * found.nb / found.start_nb:.1f}% of {found.start_bits} "
        f"everywhere), {found.score:.2f} {found.unit}, goal {found.goal:.2f}, "
        f"{found.evaluations} candidates in {seconds.wall:.1f} s"
    )
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    if options.compare_cache:
        again, slow = run_search(ready, options, cached=False)
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


def _budget(ready: Prepared, options: Options) -> tuple[Plan, dict[str, Any]]:
    problem = ready.problem
    with measuring(ready, options.metric, options.scheduler, options.cache_gb) as measure:
        if options.nb is not None:
            least = problem.nb(tuple(group.widths[0] for group in problem.groups))
            if options.nb < least:
                raise UserError(f"NB must be at least {least} bits, the narrowest codes, not "
                                f"{options.nb}")  # fmt: skip
        table = budget.sensitivity(problem, measure)
        if options.nb is None:
            points = budget.front(problem, measure, table, options.points)
            near = goal_of(ready, measure, options.delta)
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


def _quenn(ready: Prepared, options: Options) -> tuple[Plan, dict[str, Any]]:
    with measuring(ready, options.metric, options.scheduler, options.cache_gb) as measure:
        delta = _DELTA[measure.metric] if options.delta is None else options.delta
        found = quenn.explore(ready.problem, measure, ready.to_float, delta)
    best = found.best
    print(
        f"quenn: weights {best.weights_saved:.1f}% and activations {best.activations_saved:.1f}% "
        f"smaller than float, {best.score:.2f} {found.unit}, output norm {best.norm:.4g}"
    )
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    return found.plan, {**result, "normalised_norms": quenn.normalised(found.norms)}


def _sqnr(ready: Prepared, options: Options) -> tuple[Plan, dict[str, Any]]:
    found = predicted.allocate(
        ready.problem, ready.network, ready.images.pixels, ready.to_float, options.target_db,
        options.rho or "activations", options.kappa, options.weights_db,
        _weights_kept(ready.problem.graph, options),
    )  # fmt: skip
    print(f"{'layer':<34}{'bits':>6}{'weights':>9}{'predicted dB':>14}{'measured dB':>13}")
    for layer in found.plan.layers:
        bits = "-" if layer.bits is None else layer.bits
        weights = layer.weight_bits if ready.problem.graph.layer(layer.name).has_weights else "-"
        print(f"{layer.name:<34}{bits:>6}{weights:>9}{found.predicted_db[layer.name]:>14.2f}"
              f"{found.measured_db[layer.name]:>13.2f}")  # fmt: skip
    print(f"sqnr: {found.nb} bits, {found.nb / ready.problem.values:.2f} an activation, target "
          f"{found.target_db:.2f} dB")  # fmt: skip
    result = {name: value for name, value in asdict(found).items() if name != "plan"}
    widths = {layer.name: layer.bits for layer in found.plan.layers if layer.bits is not None}
    weights_bits = {layer.name: layer.weight_bits for layer in found.plan.layers}
    return found.plan, {"widths": widths, "weight_bits": weights_bits, **result}


def _weights_kept(graph: Graph, options: Options) -> frozenset[str]:
    """Layers whose weights' width an option or the plan file sets; defaults do not count."""
    empty: tuple[Settings, dict[str, Any], dict[str, Any]] = (Settings(), {}, {})
    top, kinds, layers = read_toml(options.plan, graph) if options.plan else empty
    if options.weight_bits is not None or top.weight_bits is not None:
        return frozenset(layer.name for layer in graph.layers)
    kept = {name for name, table in layers.items() if "weight_bits" in table}
    set_by_kind = {kind for kind, table in kinds.items() if "weight_bits" in table}
    if options.fc_weight_bits is not None:
        set_by_kind.add("fc")
    return frozenset(kept | {layer.name for layer in graph.layers if layer.kind in set_by_kind})


def _check_options(options: Options) -> None:
    """Refuse, by UserError, options that the method would ignore."""
    if options.method != "sqnr":
        for key in _OF_SQNR:
            if getattr(options, key) is not None:
                raise UserError(
                    f"{key.upper()} must go with METHOD=sqnr, not METHOD={options.method}; leave "
                    f"out {key.upper()} or set METHOD=sqnr"
                )
        return
    for key, methods in _NOT_OF_SQNR.items():
        if getattr(options, key) not in (None, False):
            raise UserError(
                f"{key.upper()} must go with METHOD={methods}, not METHOD=sqnr, which tries no "
                f"candidates; leave out {key.upper()}"
            )


def allocate(
    spec: NetworkSpec, graph: Graph, source: InputFormat, plan: Plan, images: ImageSet,
    labels: bool, options: Options,
) -> None:  # fmt: skip
    """The command: run the method, write options.out/plan.toml and options.out/allocation.json.

    Args:
        spec, graph, source, plan: the network.
        images: the calibration images.
        labels: whether their labels may judge.
        options: of the command line.
    """
    _check_options(options)
    if options.scheduler:
        connect(options.scheduler).close()  # before minutes of preparation
    number = options.images
    if options.method == "quenn" and number is None:
        number = min(_QUENN_IMAGES, len(images))
    ready = prepare(spec, graph, source, plan, images, labels, number)
    methods = {"search": _search, "budget": _budget, "quenn": _quenn, "sqnr": _sqnr}
    method = methods[options.method]
    found, result = method(ready, options)
    folder = options.folder
    text = f"Made by the allocation method {options.method} for {spec.name}."
    write_atomic(folder / "plan.toml", plan_toml(found, ready.problem.fracs, text))
    entry = {"method": options.method, "network": spec.name, "images": len(ready.images),
             "labels": labels, "groups": [asdict(group) for group in ready.problem.groups],
             **result}  # fmt: skip
    write_atomic(folder / "allocation.json", json.dumps(_plain(entry), indent=1) + "\n")
    print(f"written: {folder / 'plan.toml'}, {folder / 'allocation.json'}")


def _plain(value: Any) -> Any:
    """The value with infinite numbers as null, which JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
