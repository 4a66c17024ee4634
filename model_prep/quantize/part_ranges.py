# SPDX-License-Identifier: Apache-2.0
"""Parts of a concatenation brought to one range, so that the table they share suits each of them.

A part's outputs are multiplied by a power of two and the weights that read them divided by it,
which is the same network and no arithmetic of the engine. So each part has an F of its own, in
effect (docs/plan.md).
"""

import math

import numpy as np
import torch

from nuq.model_prep import run
from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.quantize.channel_scale import own_steps
from nuq.model_prep.quantize.plan import LAYER, Plan
from nuq.model_prep.quantize.refine.equalise import channel_scales, readers, rescale, scales
from nuq.model_prep.quantize.sharing import forced, is_copy

IMAGES = 32  # that ranges are measured on
_BATCH = 8  # of them
_LEAST = 2  # a smaller power of two is left alone: what a table of a few bits holds anyway
_MOST = 12
_TOP = 127  # of quantized weights


def balanced(graph: Graph, plan: Plan, x: torch.Tensor) -> tuple[Graph, dict[str, np.ndarray]]:
    """(the same function, factors float64 [C] of the layers whose outputs are scaled, by name).

    A plan with one F for the network, the papers' way, or with an F for one of the parts is about
    the values as they are: those stay.

    Args:
        graph: the float network.
        plan: how its layers are to be quantized.
        x: some inputs, float32 [N, C, H, W].
    """
    sets = _open_sets(graph, plan)
    free = {
        layer.name for names in sets for layer in map(graph.layer, names) if _free(graph, layer)
    }
    if not free:
        return graph, {}
    found, rms = dict[str, float](), _rms(graph, x)
    for names in sets:
        own = [name for name in names if name in free and rms[name] > 0]
        stay = [rms[name] for name in names if name not in free and rms[name] > 0]
        goal = max(stay or [rms[name] for name in names])
        for name in own:
            power = math.floor(math.log2(goal / rms[name])) if goal else 0  # none beyond it
            if abs(power) >= _LEAST:
                found[name] = 2.0 ** max(-_MOST, min(_MOST, power))
    done = {name: np.full(len(graph.layer(name).bias), by) for name, by in found.items()}
    if not done:
        return graph, {}
    for layer in filter(is_copy, graph.layers):
        handed_on = channel_scales(graph, done, layer.inputs[0])
        if (handed_on != 1).any():
            done[layer.name] = handed_on
    return rescale(graph, done), done


def _open_sets(graph: Graph, plan: Plan) -> list[list[str]]:
    """Layers that must share a quantizer, where there are two and more and F is to be chosen."""
    if plan.frac_mode != LAYER or plan.frac is not None:
        return []
    owners, sets = forced(graph), dict[str, list[str]]()
    for layer in graph.stored:
        if not is_copy(layer):
            sets.setdefault(owners.find(layer.name), []).append(layer.name)
    given = {one.name for one in plan.layers if one.frac is not None}
    given.update(layer.name for layer in graph.layers if layer.codes is not None)
    return [names for names in sets.values() if len(names) > 1 and given.isdisjoint(names)]


def _free(graph: Graph, layer: Layer) -> bool:
    """Whether a layer's outputs may be scaled: it and all that reads it have weights."""
    return (
        layer.has_weights
        and scales(layer.activation)
        and (layer.upscale is None or not layer.upscale.shuffle)
        and _held_by_weights(graph, layer)
    )


def _held_by_weights(graph: Graph, layer: Layer) -> bool:
    """Whether the weights of all that reads a layer, itself or a copy of it, can hold a factor.

    A pool would hand the scale on to what has an F, a limit or a table of its own. Weights that a
    file has in 8 bits stay multiples of its steps.
    """
    return all(
        own_steps(one.weight, _TOP) is None
        if one.has_weights
        else is_copy(one) and scales(one.activation) and _held_by_weights(graph, one)
        for one in readers(graph, layer.name)
    )


def _rms(graph: Graph, x: torch.Tensor) -> dict[str, float]:
    """Root mean square of a layer's stored values that are not 0; 0 where all are."""
    squares, counts = dict.fromkeys((one.name for one in graph.layers), 0.0), dict[str, int]()
    for part in x.split(_BATCH):
        for layer, stored in run.run_float(graph, part):
            squares[layer.name] += float(stored.double().square().sum())
            counts[layer.name] = counts.get(layer.name, 0) + int((stored != 0).sum())
    return {name: float(np.sqrt(squares[name] / max(1, counts[name]))) for name in squares}
