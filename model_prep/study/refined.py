# SPDX-License-Identifier: Apache-2.0
"""Refined networks for sections 9 and 10: the same widths, weights and tables moved.

Refinement sees the calibration images without their labels.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from formats.build import write_atomic
from formats.errors import UserError
from formats.images import percent_correct
from formats.options import Options
from formats.quantizer import Quantizer
from model_prep.allocate import budget
from model_prep.allocate.cache import Choice
from model_prep.footprint import average_bits
from model_prep.graph import Graph
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import AUTO, TECHNIQUES, Plan
from model_prep.quantize.refine import pipeline
from model_prep.quantize.sharing import share
from model_prep.stages import Subject
from model_prep.stats import compare
from model_prep.study.context import Study
from model_prep.study.results import Store

SCHEMES = ("knq", "enq", "uniform")
NAMES = {
    "knq": "KNQ, refined",
    "enq": "ENQ, rounded, refined",
    "uniform": "uniform, refined",
    "best": "KNQ, refined, widths by expected loss",
}
_WIDTHS = (3, 4)
_AVERAGES = (3.0, 3.25, 4.0)  # bits of an activation where every layer has a width of its own


class Refiner:
    """Refines a study's network; what does not depend on widths is measured once."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def plan(self, scheme: str, bits: int) -> Plan:
        """One width for all layers, refined by all techniques; ENQ rounds, as the others do."""
        own = {"rule": "nearest"} if scheme == "knq" else {}
        own = {"variant": "round"} if scheme == "enq" else own
        plan = self.study.subject.plan.each(
            lambda one: {"options": own, "scheme": scheme, "bits": bits}
            if one.scheme else {}
        )  # fmt: skip
        return share(self.study.graph, replace(plan, refine=TECHNIQUES))

    @cached_property
    def measured(self) -> pipeline.Measured:
        """Channel scales and weighted histograms, the same for all schemes."""
        study = self.study
        pixels = study.calibration.pixels
        return pipeline.measure(study.graph, self.plan("knq", 3), study.qm, pixels, study.to_float)

    def allocated(self, scheme: str, bits: float) -> Plan:
        """A scheme at `bits` bits on average, widths by expected loss, without labels."""
        plan = self.plan(scheme, int(bits))
        losses = budget.expected_losses(plan, self.measured)
        return budget.for_average(plan, self.study.graph, losses, bits)

    def score(self, plan: Plan) -> dict[str, Any]:
        """Of the refined network: see `rate`."""
        study = self.study
        refined = pipeline.refine(
            self.measured, plan, study.subject.input, study.calibration.pixels, study.to_float
        )
        return self.rate(plan, refined.graph, refined.quantizers)

    def plain(self, plan: Plan) -> dict[str, Any]:
        """Scores of the scheme's own fit to plain histograms, F per layer."""
        formats = self.study.calibration.formats(self.study.qm, self.study.fitting)
        return self.rate(plan, self.study.graph, formats.fit(plan))

    def rate(self, plan: Plan, graph: Graph, quantizers: Mapping[str, Quantizer]) -> dict[str, Any]:
        """NB, accuracy in percent, comparison with float (`stats.compare`), and `Study.rate`."""
        study = self.study
        network = FakeQuantized(graph, study.subject.input, plan.layers)
        choice = Choice(dict(quantizers))
        outputs, exact = study.outputs(choice, network), study.float_logits
        labels = study.test.labels
        return {
            "nb": study.nb(choice), "average_bits": average_bits(graph, plan),
            "percent1": percent_correct(outputs, labels),
            "percent5": percent_correct(outputs, labels, 5),
            "divergence": divergence(exact, outputs), "rate": study.rate(outputs),
            **compare(exact, outputs, labels),
        }  # fmt: skip


def divergence(exact: np.ndarray, other: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the outputs' probabilities from float's, in nats.

    Args:
        exact, other: logits [N, classes] of the float and the other network.
    """
    answer, reply = (F.log_softmax(torch.from_numpy(one).double(), 1) for one in (exact, other))
    return float(F.kl_div(reply, answer, reduction="batchmean", log_target=True))


def refined(study: Study) -> dict[str, dict[str, Any]]:
    """Scores with NB, by "scheme bits" and, for widths by expected loss, "best bits"."""
    refiner = Refiner(study)
    names = [f"{scheme} {bits}" for scheme in study.pick(SCHEMES, ()) for bits in _WIDTHS]
    names += [f"best {bits:g}" for bits in study.pick(_AVERAGES, _AVERAGES[:1])]
    found = {}
    for name in tqdm(names, desc="refinement", unit="network", disable=None, leave=False):
        scheme, bits = name.split()

        def run(scheme: str = scheme, bits: float = float(bits)) -> dict[str, Any]:
            own = scheme == "best"
            score = refiner.score(
                refiner.allocated("knq", bits) if own else refiner.plan(scheme, int(bits))
            )
            return {"nb": score["nb"], **score["rate"]}

        found[name] = study.store.remember(f"refined {name}", run)
    return found


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


def rows(
    study: Study, schemes: Sequence[str], averages: Sequence[float], distilled: bool
) -> Iterator[dict[str, Any]]:
    """One row a scheme, average width and kind: plain, allocated, refined.

    "plain" has one width for all layers and the scheme's own fit; "allocated" spends the same NB by
    expected loss, with the techniques that need no learning; "refined" adds distillation.

    Args:
        study: the network and its images.
        schemes: names of quantizers.
        averages: stored bits an activation; one that is no integer has no plain row.
        distilled: whether there are rows with distillation.
    """
    refiner = Refiner(study)
    kinds = {"allocated": TECHNIQUES[:-1], "refined": TECHNIQUES}
    for scheme in schemes:
        for average in averages:
            start = {"scheme": scheme, "asked": average}
            if average == int(average):
                plain = refiner.plain(refiner.plan(scheme, int(average)))
                yield {**start, "kind": "plain", **plain}
            for kind, techniques in kinds.items():
                if kind == "allocated" or distilled:
                    plan = replace(refiner.allocated(scheme, average), refine=techniques)
                    yield {**start, "kind": kind, **refiner.score(plan)}


def write_table(subject: Subject, options: Options) -> None:
    """The command `refinement`: print the table and write OUT/refine_table.json.

    Raises:
        UserError: images without labels, or a width of y that is to be searched.
    """
    test, qm = subject.images.held_out(options.images), subject.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number for this table, not auto; set QM")
    study = Study(subject, test, Store(options.folder / "study" / "study.json", "", {}), qm)
    done = []
    print(HEADER)
    for row in rows(study, options.schemes, options.average, options.distil_steps != 0):
        del row["rate"]
        done.append(row)
        print(line(row), flush=True)
    path = options.folder / "refine_table.json"
    write_atomic(path, json.dumps(done, indent=2) + "\n")
    print(f"written: {path}")
