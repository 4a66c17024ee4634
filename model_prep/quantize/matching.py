# SPDX-License-Identifier: Apache-2.0
"""A network from a file that is quantized, rescaled so that the engine's codes are the file's.

A uniform code of the engine stands for code * 2^-F, one of the file for code * step. A convolution
whose outputs are multiplied by 2^-F / step, and whose readers' weights are divided by it, is the
same network, and its codes have the file's steps exactly.
"""

import math
from dataclasses import replace

import numpy as np

from nuq.formats.activation import RELU, Activation
from nuq.model_prep.graph import INPUT, Codes, Graph, Layer
from nuq.model_prep.quantize.codes import is_power
from nuq.model_prep.quantize.refine.equalise import rescale, scalable
from nuq.model_prep.quantize.sharing import forced


def matched(graph: Graph, input_codes: Codes | None = None) -> Graph:
    """The same function with steps of 2^-F where a layer's can be; other layers have no codes.

    Only convolutions whose readers all have weights can be rescaled, pools between them or not;
    layers that share a quantizer must have the same codes. With codes of the input it is that of an
    input times their `factor`.
    """
    if input_codes is None and all(layer.codes is None for layer in graph.layers):
        return graph
    codes = _common(graph)
    factors: dict[str, float] = {}
    for layer in graph.layers:
        if layer.kind in ("maxpool", "avgpool"):
            factors[layer.name] = factors.get(graph.parts_of(layer.inputs[0])[0], 1.0)
        else:
            factors[layer.name] = factor(codes[layer.name])
    scales = {
        layer.name: np.full(layer.conv_shape[0], factors[layer.name])
        for layer in graph.layers
        if layer.has_weights and codes[layer.name] is not None
    }
    scales[INPUT] = np.full(graph.in_shape[0], factor(input_codes))
    done = rescale(graph, scales)
    done.layers = [_scaled(layer, codes[layer.name], factors[layer.name]) for layer in done.layers]
    return done


def _common(graph: Graph) -> dict[str, Codes | None]:
    """The codes that each layer can have, by name; max pools hand on those that they read."""
    good, sets = scalable(graph, alike=True), forced(graph)
    wanted: dict[str, set[Codes | None]] = {}
    for layer in graph.stored:
        own = layer.codes
        able = own and (is_power(own.step) or (layer.has_weights and layer.name in good))
        if layer.kind == "avgpool":  # which has the factor of what it reads
            able = None
        if layer.kind != "maxpool":
            wanted.setdefault(sets.find(layer.name), set()).add(own if able else None)
    found: dict[str, Codes | None] = {}
    for layer in graph.layers:
        choices = wanted.get(sets.find(layer.name), {None})
        if layer.kind == "maxpool":
            found[layer.name] = found.get(graph.parts_of(layer.inputs[0])[0])
        else:
            found[layer.name] = next(iter(choices)) if len(choices) == 1 else None
    return found


def factor(codes: Codes | None) -> float:
    """What makes the step the nearest power of two.

    >>> factor(Codes(0.125, 0, 255)), factor(Codes(0.5625, 0, 255)) * 0.5625
    (1.0, 0.5)
    """
    return 1.0 if codes is None else float(2.0 ** round(math.log2(codes.step)) / codes.step)


def power_step(codes: Codes | None) -> Codes | None:
    """The same codes behind their `factor`."""
    return codes and replace(codes, step=2.0 ** round(math.log2(codes.step)))


def _scaled(layer: Layer, codes: Codes | None, by: float) -> Layer:
    limit = _limit(layer)
    if limit is not None:
        layer = replace(layer, activation=Activation("relu", {"limit": limit * by}))
    return replace(layer, codes=power_step(codes))


def _limit(layer: Layer) -> float | None:
    """The upper limit of a layer's ReLU."""
    rectifies = layer.activation is not None and layer.activation.rectifies
    return layer.activation.parameters.get("limit") if layer.activation and rectifies else None


def without_codes(graph: Graph) -> None:
    """Forget the file's codes, and the limits that are their ends, for other weights."""
    for layer in graph.layers:
        if layer.codes is not None:
            ends, limit = layer.codes.high * layer.codes.step, _limit(layer)
            if limit is not None and math.isclose(limit, ends, rel_tol=1e-6):
                layer.activation = RELU
            layer.codes = None
