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
    weights, qm, fracs = measured.weights, measured.qm, measured.fracs
    free = tables.free_owners(plan, pipeline.free_layers(measured.exact, plan))
    found: dict[str, dict[int, float]] = {}
    for layer in plan.layers:
        if layer.scheme is None or layer.name != layer.owner:
            continue
        low, high = SCHEMES[layer.scheme].widths()
        lowest, highest = max(WIDTH_RANGE[0], low), min(WIDTH_RANGE[1], high, qm)
        found[layer.name] = {}
        for bits in range(lowest, highest + 1):
            frac = fracs[layer.name]
            one, factor = tables.fit_one(
                layer, weights[layer.name], bits, qm, frac, layer.name in free
            )
            found[layer.name][bits] = tables.weighted_error(
                one, weights[layer.name], qm, frac, factor
            )
    return found


def allocate(plan: Plan, graph: Graph, found: Losses, average: float) -> Plan:
    """The plan with the widths of least total loss at `average` bits or less.

    Args:
        plan: which layers share; its widths are not looked at.
        graph: gives the sizes.
        found: by `losses`.
        average: NB divided by the number of stored activations.

    Raises:
        UserError: the smallest widths take more.
    """
    sizes = dict.fromkeys(found, 0)
    for layer in plan.layers:
        if layer.scheme is not None:
            sizes[layer.owner] += graph.elements[layer.name]
    bits = {owner: min(by_width) for owner, by_width in found.items()}
    used = sum(bits[owner] * sizes[owner] for owner in bits)
    budget = average * sum(sizes.values())
    if used > budget:
        least = used / sum(sizes.values())
        raise UserError(f"the average width must be {least:.2f} bits or more, not {average}")
    while True:
        best: tuple[float, str, int] | None = None
        for owner, by_width in found.items():
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
