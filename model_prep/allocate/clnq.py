# SPDX-License-Identifier: Apache-2.0
"""CLNQ: uniform codes of a width per layer, the baseline of papers 000/001 (001, tables II, III).

The papers search "exhaustively" for the smallest width of each layer that keeps the accuracy; all
combinations of 13 layers are out of reach, so layers are searched one after another, the largest
map first, until nothing shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from formats.errors import UserError
from formats.quantizer import WIDTHS, Quantizer
from model_prep.allocate.single import fit_all
from model_prep.quantize.plan import Plan


class Scores(Protocol):
    """What a search needs of `fake_quant.Evaluator`."""

    def score(self, quantizers: Mapping[str, Quantizer]) -> tuple[float, float]:
        """(score, output SQNR in dB) of a choice of quantizers."""


def as_uniform(plan: Plan, bits: int) -> Plan:
    """The plan with every quantized layer in uniform codes of `bits` bits."""
    layers = [
        replace(
            layer, scheme="uniform", bits=bits, rule=None, variant=None, density=None, levels=None
        )
        if layer.scheme
        else layer
        for layer in plan.layers
    ]
    return replace(plan, layers=tuple(layers))


def with_width(plan: Plan, owner: str, bits: int) -> Plan:
    """The plan with the layers that share `owner`'s quantizer at `bits` bits."""
    layers = [
        replace(layer, bits=bits) if layer.scheme and layer.owner == owner else layer
        for layer in plan.layers
    ]
    return replace(plan, layers=tuple(layers))


def search(
    plan: Plan, counts: Mapping[str, np.ndarray], qm: int, fracs: Mapping[str, int],
    evaluator: Scores, goal: float, elements: Mapping[str, int],
) -> Plan:  # fmt: skip
    """Uniform widths per layer, each the smallest that keeps the score at `goal`.

    Every width from the smallest up is tried for a layer, with the others as found so far; rounds
    over all layers repeat while a width falls.

    Args:
        plan: any; schemes and widths are replaced, what is shared stays shared.
        counts, qm, fracs: as for `single.fit_all`.
        evaluator: scores a choice of quantizers.
        goal: least score.
        elements: stored values by layer name, which decide the order.

    Raises:
        UserError: not even qm bits everywhere reach the goal.
    """
    plan = as_uniform(plan, qm)

    def score(trial: Plan) -> float:
        return evaluator.score(fit_all(trial, counts, qm, fracs))[0]

    best = score(plan)
    if best < goal:
        raise UserError(
            f"the widths must reach a score of {goal:.2f}, not {best:.2f} at QM={qm} bits "
            "everywhere; raise DELTA or QM"
        )
    widths = {layer.owner: qm for layer in plan.layers if layer.scheme}
    sizes = {
        owner: sum(elements[layer.name] for layer in plan.layers
                   if layer.scheme and layer.owner == owner)
        for owner in widths
    }  # fmt: skip
    shrinking = True
    while shrinking:
        shrinking = False
        for owner in sorted(widths, key=lambda name: -sizes[name]):
            for bits in range(WIDTHS["uniform"][0], widths[owner]):
                trial = with_width(plan, owner, bits)
                if score(trial) >= goal:
                    plan, widths[owner], shrinking = trial, bits, True
                    break
    return plan
