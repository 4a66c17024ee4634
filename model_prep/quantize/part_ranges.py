# SPDX-License-Identifier: Apache-2.0
"""Parts of a concatenation brought to one range, so that the table they share suits each of them.

A ReLU and a max pool commute with positive factors: a part's outputs are multiplied by a power of
two and the weights that read them divided by it, which is the same network and no arithmetic of the
engine. So each part has an F of its own, in effect (docs/plan.md).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from nuq.model_prep import run
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.plan import LAYER, Plan
from nuq.model_prep.quantize.refine.equalise import rescale, scalable, scales
from nuq.model_prep.quantize.sharing import forced, is_copy

IMAGES = 8  # that ranges are measured on
_LEAST = 2  # a smaller power of two is left alone: what a table of a few bits holds anyway
_MOST = 16
_ROUNDS = 4  # a pool that is a part has the range of what it reads, which may be scaled, too


def balanced(graph: Graph, plan: Plan, x: torch.Tensor) -> tuple[Graph, dict[str, np.ndarray]]:
    """(the same function, factors float64 [C] of the layers whose outputs are scaled, by name).

    A plan with one F for the network, the papers' way, or with an F for one of the parts is about
    the values as they are: those stay.

    Args:
        graph: the float network.
        plan: how its layers are to be quantized.
        x: some inputs, float32 [N, C, H, W].
    """
    done: dict[str, np.ndarray] = {}
    sets = _open_sets(graph, plan)
    for _ in range(_ROUNDS if sets else 0):
        found = _factors(graph, sets, _rms(graph, x))
        if not found:
            break
        more = {name: np.full(len(graph.layer(name).bias), by) for name, by in found.items()}
        graph = rescale(graph, more)
        done.update((name, one * done.get(name, 1.0)) for name, one in more.items())
    return graph, done


def _open_sets(graph: Graph, plan: Plan) -> list[list[str]]:
    """Layers that must share a quantizer, where there are two and more and F is to be chosen."""
    if plan.frac_mode != LAYER or plan.frac is not None:
        return []
    owners = forced(graph)
    sets: dict[str, list[str]] = {}
    for layer in graph.stored:
        if not is_copy(layer):
            sets.setdefault(owners.find(layer.name), []).append(layer.name)
    given = {one.name for one in plan.layers if one.frac is not None}
    given.update(layer.name for layer in graph.layers if layer.codes is not None)
    return [names for names in sets.values() if len(names) > 1 and given.isdisjoint(names)]


def _rms(graph: Graph, x: torch.Tensor) -> dict[str, float]:
    """Root mean square of a layer's stored values that are not 0; 0 where all are."""
    found = {}
    for layer, stored in run.run_float(graph, x):
        alive = stored[stored != 0].double()
        found[layer.name] = float(alive.square().mean().sqrt()) if len(alive) else 0.0
    return found


def _factors(graph: Graph, sets: Iterable[list[str]], rms: Mapping[str, float]) -> dict[str, float]:
    """Powers of two by layer name that bring a set's parts to the largest range that must stay."""
    scaled = scalable(graph, alike=True)
    free = {
        layer.name for layer in graph.layers
        if layer.has_weights and layer.name in scaled and scales(layer.activation)
    }  # fmt: skip
    found: dict[str, float] = {}
    for names in sets:
        own = [name for name in names if name in free]
        stay = [rms[name] for name in names if name not in own and rms[name] > 0]
        goal = max(stay or [rms[name] for name in names])
        for name in own:
            power = round(float(np.log2(goal / rms[name]))) if goal and rms[name] else 0
            if abs(power) >= _LEAST:
                found[name] = 2.0 ** max(-_MOST, min(_MOST, power))
    return found
