# SPDX-License-Identifier: Apache-2.0
"""Parts of a concatenation brought to one range, so that the table they share suits each of them.

A part's outputs are multiplied by a power of two and the weights that read them divided by it,
which is the same network and no arithmetic of the engine. So each part has an F of its own, in
effect (docs/plan.md).
"""

import math
from collections.abc import Set

import numpy as np

from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.calibrate import ToFloat, batches
from nuq.model_prep.quantize.channel_scale import own_steps
from nuq.model_prep.quantize.plan import LAYER, Plan
from nuq.model_prep.quantize.refine import equalise
from nuq.model_prep.quantize.sharing import forced, is_copy

IMAGES = 32  # that ranges are measured on
_LEAST = 2  # a smaller power of two is left alone: what a table of a few bits holds anyway
_MOST = 12
_TOP = 127  # of quantized weights


def balanced(
    graph: Graph, plan: Plan, pixels: np.ndarray, to_float: ToFloat
) -> tuple[Graph, dict[str, np.ndarray]]:
    """(the same function, factors float64 [C] of the layers whose outputs are scaled, by name).

    A plan with one F for the network, the papers' way, or with an F for one of the parts is about
    the values as they are: those stay.

    Args:
        graph: the float network.
        plan: how its layers are to be quantized.
        pixels: calibration images, uint8 [N, C, H, W], of which the first IMAGES count.
        to_float: from pixels to network inputs.
    """
    sets = _open_sets(graph, plan)
    shared = {name for names in sets for name in names}
    free = _free(graph, shared)
    if not free:
        return graph, {}
    energy = equalise.alive_energy(graph, shared, map(to_float, batches(pixels[:IMAGES])))
    rms = {
        name: math.sqrt(sums.sum() / max(1, many.sum())) for name, (sums, many) in energy.items()
    }
    found: dict[str, np.ndarray] = {}
    for names in sets:
        own = [name for name in names if name in free and rms[name] > 0]
        stay = [rms[name] for name in names if name not in free and rms[name] > 0]
        goal = max(stay or [rms[name] for name in names])
        for name in own:
            power = math.floor(math.log2(goal / rms[name]))  # none beyond it
            if abs(power) >= _LEAST:
                by = 2.0 ** max(-_MOST, min(_MOST, power))
                found[name] = np.full(len(graph.layer(name).bias), by)
    if not found:
        return graph, {}
    for layer in filter(is_copy, graph.layers):
        handed_on = equalise.channel_scales(graph, found, layer.inputs[0])
        if (handed_on != 1).any():
            found[layer.name] = handed_on
    return equalise.rescale(graph, found), found


def _open_sets(graph: Graph, plan: Plan) -> list[list[str]]:
    """Layers that must share a quantizer, where there are two and more and F is to be chosen."""
    if plan.frac_mode != LAYER or plan.frac is not None:
        return []
    sets = forced(graph).groups(layer.name for layer in graph.stored if not is_copy(layer))
    given = {one.name for one in plan.layers if one.frac is not None}
    given.update(layer.name for layer in graph.layers if layer.codes is not None)
    return [names for names in sets if len(names) > 1 and given.isdisjoint(names)]


def _free(graph: Graph, names: Set[str]) -> set[str]:
    """Layers whose outputs may be scaled: they and all that reads them have weights."""
    return {
        name for name in names & equalise.scalable(graph)
        if graph.layer(name).has_weights and _held_by_weights(graph, name)
    }  # fmt: skip


def _held_by_weights(graph: Graph, name: str) -> bool:
    """Whether the weights of all that reads a layer, itself or a copy of it, can hold a factor.

    A pool would hand the scale on to what has an F, a limit or a table of its own. Weights that a
    file has in 8 bits stay multiples of its steps.
    """
    return all(
        own_steps(one.weight, _TOP) is None
        if one.has_weights
        else is_copy(one) and _held_by_weights(graph, one.name)
        for one in equalise.readers(graph, name)
    )
