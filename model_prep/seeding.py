# SPDX-License-Identifier: Apache-2.0
"""Seeded weights for a Graph: normal numbers, scaled layer by layer from data.

Activations then look like a trained network's, without any download.
"""

import math

import numpy as np
import torch

from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.run import finish, float_layer, operate, outputs, run

SEED = 2014
BIAS_SPREAD = 0.1
GAIN_SPREAD = 0.25  # of a depthwise 1x1 convolution, which stands for a normalisation


def reseed(graph: Graph, x: torch.Tensor, seed: int = SEED) -> Graph:
    """Replace all weights in place; every convolution's output before its ReLU has variance 1.

    What is structure stays: layers that are `fixed`, and filters or input columns that are 0
    throughout (channels put in for addressing) in a layer that is not 0 as a whole.

    Args:
        graph: its weights are replaced.
        x: float32 [images, channels, rows, columns] from which the scales come; two or more
            images of real data are best.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)

    def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        if not layer.has_weights or layer.fixed:
            return float_layer(layer, inputs)
        _draw(layer, random)
        out = operate(layer, inputs)
        deviation = float(out.std())
        scale = _coarse(1.0 / deviation) if deviation > 0 else 1.0
        layer.weight *= np.float32(scale)
        layer.bias *= np.float32(scale)
        return finish(layer, out * scale)

    outputs(graph, run(graph, x, stored))
    return graph


def _coarse(scale: float) -> float:
    """`scale` to 10 significant bits, so that last bits of float sums make no other network.

    >>> _coarse(1.0), _coarse(0.3333333333)
    (1.0, 0.33349609375)
    """
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(round(mantissa * 1024) / 1024, exponent)


def _draw(layer: Layer, random: np.random.Generator) -> None:
    """New weights and biases of spread 1 / sqrt(fan-in), 0 where they must stay 0."""
    shape = layer.weight.shape
    out, fan_in = shape[0], int(np.prod(shape[1:]))
    rows = np.any(layer.weight, axis=(1, 2, 3)) | (layer.bias != 0)
    columns = np.any(layer.weight, axis=(0, 2, 3))
    weight = random.standard_normal(shape, dtype=np.float32)
    if fan_in == 1:
        weight = 1 + np.float32(GAIN_SPREAD) * weight
    bias = random.standard_normal(out, dtype=np.float32) * np.float32(BIAS_SPREAD)
    if np.any(layer.weight):
        weight *= rows[:, None, None, None]
        weight *= columns[None, :, None, None]
        bias *= rows
    layer.weight = weight * np.float32(fan_in**-0.5)
    layer.bias = bias
