# SPDX-License-Identifier: Apache-2.0
"""Widths for an average number of stored bits, by expected loss (label-free).

The weighted error of a layer's best table is, to second order, twice its part of the expected
Kullback-Leibler divergence (`sensitivity`); bits go where they lower it most per stored bit (greedy
on the convex hull, as in rate-distortion theory).
"""

from collections.abc import Mapping

from formats.errors import UserError
from model_prep.graph import Graph
from model_prep.quantize.plan import Plan
from model_prep.quantize.quantizers import SCHEMES
from model_prep.quantize.refine import pipeline, tables

WIDTH_RANGE = (2, 8)

Losses = Mapping[str, Mapping[int, float]]  # by owner of a quantizer and by width


def losses(plan: Plan, measured: pipeline.Measured) -> Losses:
    """Weighted error of every quantizer at every width.

    Args:
        plan: schemes; its widths are not looked at.
        measured: by `pipeline.measure`, weighted histograms among it.
    """
    qm = measured.qm
    free = tables.free_owners(plan, pipeline.free_layers(measured.exact, plan))
    table: dict[str, dict[int, float]] = {}
    for owner, (layer, *_) in plan.by_owner.items():
        low, high = SCHEMES[str(layer.scheme)].widths(qm)
        weights, frac = measured.weights[owner], measured.fracs[owner]
        table[owner] = {}
        for bits in range(max(WIDTH_RANGE[0], low), min(WIDTH_RANGE[1], high, qm) + 1):
            one, factor = tables.fit_one(layer, weights, bits, qm, frac, owner in free)
            table[owner][bits] = tables.weighted_error(one, weights, qm, frac, factor)
    return table


def allocate(plan: Plan, graph: Graph, table: Losses, average: float) -> Plan:
    """The plan with the widths of least total loss at `average` bits or less.

    Args:
        plan: which layers share; its widths are not looked at.
        graph: gives the sizes.
        table: by `losses`.
        average: NB divided by the number of stored activations.

    Raises:
        UserError: the smallest widths take more.
    """
    sharing = plan.by_owner
    sizes = {owner: sum(graph.elements[one.name] for one in sharing[owner]) for owner in table}
    bits = {owner: min(by_width) for owner, by_width in table.items()}
    used = sum(bits[owner] * sizes[owner] for owner in bits)
    budget = average * sum(sizes.values())
    if used > budget:
        least = used / sum(sizes.values())
        raise UserError(f"the average width must be {least:.2f} bits or more, not {average}")
    while True:
        best: tuple[float, str, int] | None = None
        for owner, by_width in table.items():
            for width in range(bits[owner] + 1, max(by_width) + 1):
                cost = (width - bits[owner]) * sizes[owner]
                if used + cost > budget:
                    break
                gain = (by_width[bits[owner]] - by_width[width]) / cost
                if gain > 0 and (best is None or gain > best[0]):
                    best = gain, owner, width
        if best is None:
            return plan.each(lambda layer: {"bits": bits[layer.owner]} if layer.scheme else {})
        _, owner, width = best
        used += (width - bits[owner]) * sizes[owner]
        bits[owner] = width
