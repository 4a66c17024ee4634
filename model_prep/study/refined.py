# SPDX-License-Identifier: Apache-2.0
"""Refined networks for sections 9 and 10: the same widths, weights and tables moved.

Refinement sees the calibration images without their labels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from tqdm import tqdm

from model_prep.allocate.cache import Choice
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import Plan
from model_prep.quantize.refine import TECHNIQUES, allocate, pipeline
from model_prep.study.context import Study

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
        plan = self.study.plan(scheme, bits)
        if scheme == "enq":
            layers = (one if one.scheme is None else replace(one, variant="round") for one in
                      plan.layers)  # fmt: skip
            plan = replace(plan, layers=tuple(layers))
        return replace(plan, refine=TECHNIQUES)

    @cached_property
    def measured(self) -> pipeline.Measured:
        """Channel scales and weighted histograms."""
        study = self.study
        pixels = study.subject.calibration.pixels
        return pipeline.measure(
            study.graph, self.plan("knq", _WIDTHS[0]), study.qm, pixels, study.to_float
        )

    def allocated(self, bits: float) -> Plan:
        """KNQ at `bits` bits on average, widths by expected loss, without labels."""
        plan = self.plan("knq", _WIDTHS[0])
        free = pipeline.free_layers(self.measured.exact, plan)
        losses = allocate.losses(
            plan, self.measured.weights, self.study.qm, self.measured.fracs, free
        )
        return allocate.allocate(plan, self.study.graph, losses, bits)

    def score(self, plan: Plan) -> dict[str, Any]:
        """`Study.rate` of the refined network, and its NB."""
        study = self.study
        refined = pipeline.refine(
            self.measured, plan, study.qm, study.subject.source,
            study.subject.calibration.pixels, study.to_float,
        )  # fmt: skip
        network = FakeQuantized(refined.graph, study.subject.source, plan.layers)
        choice = Choice(dict(refined.quantizers))
        return {"nb": study.nb(choice), **study.rate(study.outputs(choice, network))}


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
            return refiner.score(
                refiner.allocated(bits) if own else refiner.plan(scheme, int(bits))
            )

        found[name] = study.store.remember(f"refined {name}", run)
    return found
