# SPDX-License-Identifier: Apache-2.0
"""Runs a Graph in float32 with torch, layer by layer.

Tensors are [images, channels, rows, columns].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from model_prep.graph import INPUT, Average, Graph, Layer, Lrn, Pool


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory where numpy allows it."""
    return torch.from_numpy(np.ascontiguousarray(array))


def convolve(
    layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The layer's convolution with bias, before its ReLU.

    Args:
        layer: gives strides, pads and the like.
        x: float32 [N, C, H, W].
        weight, bias: used instead of the layer's own.

    Returns:
        float32 [N, *layer.conv_shape].
    """
    top, left, bottom, right = layer.pads
    if (top, left) == (bottom, right):
        padding = (top, left)
    else:
        x = F.pad(x, (left, right, top, bottom))
        padding = (0, 0)
    if layer.groups == 1 and not any(layer.pads) and x.shape[2:] == weight.shape[2:]:
        # A library convolution would first reorder hundreds of megabytes for one output pixel.
        flat = F.linear(x.flatten(1), weight.flatten(1), bias)
        return flat[:, :, None, None]
    return F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def max_pool(pool: Pool, x: torch.Tensor) -> torch.Tensor:
    """Max pool of float32 [N, C, H, W]; padding never wins.

    Rows, then columns, by whole-tensor maxima: several times as fast on one thread as the library's
    pool, which visits the window of every output on its own.
    """
    top, left, bottom, right = pool.pads
    if any(pool.pads):
        x = F.pad(x, (left, right, top, bottom), value=float("-inf"))
    if x.requires_grad:  # the library's pool gives the whole gradient to one of equal values
        return F.max_pool2d(x, pool.kernel, pool.stride)
    for dim, kernel, stride in zip((2, 3), pool.kernel, pool.stride, strict=True):
        span = x.shape[dim] - kernel + 1
        taps = [
            x.narrow(dim, tap, span)[(slice(None),) * dim + (slice(None, None, stride),)]
            for tap in range(kernel)
        ]
        x = taps[0] if kernel == 1 else torch.maximum(taps[0], taps[1])
        for tap in taps[2:]:
            torch.maximum(x, tap, out=x)
    return x.contiguous()


def average_pool(average: Average, x: torch.Tensor) -> torch.Tensor:
    """Average pool: the sum over the window, 0 outside the map, divided by the element count."""
    counts = tensor_of(average.counts(x.shape[2], x.shape[3])).to(x.dtype)
    top, left, bottom, right = average.pads
    if any(average.pads):
        x = F.pad(x, (left, right, top, bottom))
    return F.avg_pool2d(x, average.kernel, average.stride, divisor_override=1) / counts


def normalise(lrn: Lrn, x: torch.Tensor) -> torch.Tensor:
    """Local response normalisation over channels, see `Lrn`."""
    channels = x.shape[1]
    squares = F.pad(x * x, (0, 0, 0, 0, (lrn.size - 1) // 2, lrn.size // 2))
    total = squares[:, :channels].clone()
    for offset in range(1, lrn.size):
        total += squares[:, offset : offset + channels]
    return x * (lrn.k + lrn.alpha / lrn.size * total) ** -lrn.beta


def activate(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The layer's ReLU with its upper limit, or x itself."""
    if not layer.relu:
        return x
    return F.relu(x) if layer.clip_max is None else x.clamp(0.0, layer.clip_max)


def operate(layer: Layer, sources: Sequence[torch.Tensor]) -> torch.Tensor:
    """What the layer computes from its inputs, before its ReLU and its max pool."""
    if layer.kind == "add":
        return sources[0] + sources[1]
    if layer.average:
        return average_pool(layer.average, sources[0])
    if layer.lrn:
        return normalise(layer.lrn, sources[0])
    if not layer.has_weights:
        return sources[0]
    return convolve(layer, sources[0], tensor_of(layer.weight), tensor_of(layer.bias))


class Tensors:
    """The tensors of a run by layer name: joins concats, drops what no later layer reads."""

    def __init__(self, graph: Graph, x: torch.Tensor) -> None:
        self._graph = graph
        self._tensors = {INPUT: x}
        self._last_use = {
            part: index
            for index, layer in enumerate(graph.layers)
            for name in layer.inputs
            for part in graph.parts_of(name)
        }

    def sources(self, layer: Layer) -> list[torch.Tensor]:
        """The layer's inputs; concats are joined along the channels."""
        found = []
        for name in layer.inputs:
            parts = [self._tensors[part] for part in self._graph.parts_of(name)]
            found.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return found

    def store(self, index: int, layer: Layer, stored: torch.Tensor) -> None:
        """Keep the output of layer number `index` and drop inputs that it was the last to read."""
        self._tensors[layer.name] = stored
        for name in layer.inputs:
            for part in self._graph.parts_of(name):
                if self._last_use[part] == index:
                    self._tensors.pop(part, None)


def run_layers(graph: Graph, x: torch.Tensor) -> Iterator[tuple[Layer, torch.Tensor, torch.Tensor]]:
    """Run the graph on x; yield (layer, output before the pool, stored output), ReLU applied.

    A tensor is dropped after the last layer that reads it. The output before the pool of a
    standalone max pool is its input.
    """
    tensors = Tensors(graph, x)
    for index, layer in enumerate(graph.layers):
        with torch.inference_mode():
            out = activate(layer, operate(layer, tensors.sources(layer)))
            stored = max_pool(layer.pool, out) if layer.pool else out
        tensors.store(index, layer, stored)
        yield layer, out, stored


def forward(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """The network's output, [images, classes]."""
    stored = x
    for _, _, out in run_layers(graph, x):
        stored = out
    return stored.flatten(1)
