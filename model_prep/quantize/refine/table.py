# SPDX-License-Identifier: Apache-2.0
"""Every scheme at several average widths, plain and refined, on labelled test images.

What the command `refinement` does. "plain" has one width
for all layers and the scheme's own fit; "allocated" spends the same NB by expected loss, with the
techniques that need no learning; "refined" adds distillation. Runs the float32 mode with
weights of the plan's width, which is close to the integers, not equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from formats.build import write_atomic
from formats.errors import UserError
from formats.images import percent_correct
from formats.options import Options
from formats.quantizer import Quantizer
from model_prep import accuracy, commands, data, stats
from model_prep.allocate import single, uniform
from model_prep.graph import Graph
from model_prep.quantize import calibrate
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.integers import network_input
from model_prep.quantize.plan import AUTO, Plan
from model_prep.quantize.refine import TECHNIQUES, allocate, distil, pipeline
from model_prep.quantize.refine.plan_file import Allocator

KINDS = ("plain", "allocated", "refined")


@dataclass(frozen=True)
class Case:
    """A network, its calibration and test images.

    Attributes:
        asked: the command line's network, plan and calibration images.
        pixels, labels: test images uint8 [N, C, H, W], int64 [N].
        exact: the float network's logits for them, float32 [N, classes].
    """

    asked: commands.Request
    pixels: np.ndarray
    labels: np.ndarray
    exact: np.ndarray

    @property
    def to_float(self) -> Callable[[np.ndarray], torch.Tensor]:
        """From pixels to the float network's inputs."""
        return partial(data.to_float, self.asked.source.spec)

    @property
    def calibration(self) -> np.ndarray:
        """Calibration images uint8 [N, C, H, W]."""
        return self.asked.images.calibration.pixels


def _with_scheme(asked: commands.Request, scheme: str) -> commands.Request:
    """The request with one scheme for all layers; equal steps are rounded to, as KNQ's are."""
    layers = tuple(
        one if one.scheme is None else replace(
            one, scheme=scheme, rule="nearest" if scheme == "knq" else None,
            variant="round" if scheme == "enq" else None,
        )
        for one in asked.plan.layers
    )  # fmt: skip
    plan = replace(asked.plan, layers=layers, refine=TECHNIQUES[:-1], frac_mode="layer")
    return replace(asked, plan=plan)


def _one_width(plan: Plan, bits: int) -> Plan:
    """The plan with the same width everywhere."""
    layers = tuple(one if one.scheme is None else replace(one, bits=bits) for one in plan.layers)
    return replace(plan, layers=layers, refine=())


def plain(case: Case, plan: Plan, qm: int) -> dict[str, Quantizer]:
    """The scheme's own fit to unweighted histograms, F per layer."""
    graph, pixels = case.asked.loaded.graph, case.calibration
    maxima = calibrate.maxima(graph, pixels, case.to_float)
    fracs = uniform.shared_fracs(uniform.layer_fracs(maxima, qm, plan.signed), plan)
    counts = calibrate.histograms(graph, pixels, case.to_float, qm, fracs, plan.signed)
    return single.fit_all(plan, counts, qm, fracs)


def evaluate(
    case: Case, graph: Graph, plan: Plan, quantizers: Mapping[str, Quantizer]
) -> dict[str, Any]:
    """Accuracy and paired statistics of one quantized network on the test images."""
    network = FakeQuantized(graph, network_input(case.asked.source.spec), plan.layers)
    logits = network.logits(case.pixels, quantizers)
    return {
        "average_bits": allocate.plan_average(graph, plan),
        "percent1": percent_correct(logits, case.labels),
        "percent5": percent_correct(logits, case.labels, 5),
        "divergence": divergence(case.exact, logits),
        **stats.compare(case.exact, logits, case.labels),
    }


def divergence(exact: np.ndarray, other: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the outputs' probabilities from float's, in nats.

    Args:
        exact, other: logits [N, classes] of the float and the other network.
    """
    answer, reply = (torch.from_numpy(logits).double() for logits in (exact, other))
    return float(distil.divergence_of(reply, answer))


def rows(
    case: Case, schemes: tuple[str, ...], averages: tuple[float, ...], distilled: bool
) -> Iterator[dict[str, Any]]:
    """One row per scheme, average width and kind.

    Args:
        case: the network and its images.
        schemes: names of quantizers.
        averages: stored bits an activation; one that is no integer has no plain row.
        distilled: whether there are rows with distillation, of the plan's distil_steps.
    """
    source = network_input(case.asked.source.spec)
    qm = case.asked.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number for this table, not auto; set QM")
    for scheme in schemes:
        allocator = Allocator.of(_with_scheme(case.asked, scheme))
        for average in averages:
            found = {"scheme": scheme, "asked": average}
            if average == int(average):
                plan = _one_width(allocator.plan, int(average))
                graph = case.asked.loaded.graph
                fitted = plain(case, plan, qm)
                yield {**found, "kind": "plain", **evaluate(case, graph, plan, fitted)}
            for kind, techniques in (("allocated", TECHNIQUES[:-1]), ("refined", TECHNIQUES)):
                if kind == "refined" and not distilled:
                    continue
                plan = replace(allocator.at(average), refine=techniques)
                refined = pipeline.refine(
                    allocator.measured, plan, qm, source, case.calibration, case.to_float
                )  # fmt: skip
                result = evaluate(case, refined.graph, plan, refined.quantizers)
                yield {**found, "kind": kind, **result}


HEADER = (
    f"{'scheme':<8}{'bits':>5}  {'kind':<10}{'NB/n':>7}{'top-1':>8}{'top-5':>8}{'d top-1':>9}"
    f"{'d top-5':>9}  {'95% interval':<16}{'agree':>7}{'KL':>9}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row as text: percentages, points against float, agreement in percent, divergence (nats)."""
    one, five = row["top1"], row.get("top5")
    interval = "" if five is None else f"{five['low']:+.2f}..{five['high']:+.2f}"
    change = "-" if five is None else f"{five['difference']:+.2f}"
    return (
        f"{row['scheme']:<8}{row['asked']:>5g}  {row['kind']:<10}{row['average_bits']:>7.3f}"
        f"{row['percent1']:>8.2f}{row['percent5']:>8.2f}{one['difference']:>+9.2f}{change:>9}"
        f"  {interval:<16}{row['agreement1']['percent']:>7.2f}{row['divergence']:>9.4f}"
    )


def open_case(options: Options) -> Case:
    """The network and its images, as `accuracy` chooses them; UserError where it would refuse."""
    asked = commands.request(options, 1)
    test = accuracy.held_out(asked.source.spec, options.data, asked.images, options.images)
    _, run = accuracy.float_runner(asked.source, asked.loaded)
    exact = [
        run(data.to_float(asked.source.spec, batch)) for batch in calibrate.batches(test.pixels)
    ]
    return Case(asked, test.pixels, test.labels, np.concatenate(exact))


def write_table(options: Options) -> None:
    """Print the table and write OUT/refine_table.json."""
    distilled = options.distil_steps != 0  # here 0 leaves those rows out; a plan has no such number
    case = open_case(replace(options, distil_steps=options.distil_steps or None))
    done = []
    print(HEADER)
    for row in rows(case, options.schemes, options.average, distilled):
        done.append(row)
        print(line(row), flush=True)
    path = options.folder / "refine_table.json"
    write_atomic(path, json.dumps(done, indent=2) + "\n")
    print(f"written: {path}")
