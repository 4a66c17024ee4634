# SPDX-License-Identifier: Apache-2.0
"""`Student`: a network with quantized activations that gradients can pass, and its float teacher.

Forward values equal `quantize.fake_quant`; backward takes the staircase of a quantizer for the
identity up to its largest value (straight-through estimator, Bengio et al. 2013; clipped as in
PACT, Choi et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from formats.quantizer import Quantizer, thresholds
from model_prep import run
from model_prep.graph import Graph, Layer
from model_prep.quantize.manifest import InputFormat
from model_prep.quantize.plan import Plan

Parameters = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass
class State:
    """What refinement changes.

    Attributes:
        graph: the float network that the weights started from; its channels may be rescaled.
        plan: with every width fixed.
        qm: width of a decoded activation.
        quantizers: by layer name; layers that share one have the same object.
        weights: (weight, bias), float32, by layer name.
    """

    graph: Graph
    plan: Plan
    qm: int
    quantizers: dict[str, Quantizer]
    weights: Parameters

    def refined_graph(self) -> Graph:
        """The graph with the refined weights and biases."""
        layers = []
        for layer in self.graph.layers:
            weight, bias = self.weights.get(layer.name, (None, None))
            if weight is not None and bias is not None:
                layer = replace(
                    layer, weight=weight.detach().contiguous().numpy().astype(np.float32),
                    bias=bias.detach().numpy().astype(np.float32),
                )  # fmt: skip
            layers.append(layer)
        return Graph(self.graph.name, self.graph.in_shape, layers, dict(self.graph.concats))


def own_weights(graph: Graph) -> Parameters:
    """(weight, bias) of every layer that has them, as tensors of their own."""
    return {
        layer.name: (torch.from_numpy(layer.weight.copy()), torch.from_numpy(layer.bias.copy()))
        for layer in graph.layers
        if layer.has_weights
    }


def _in_memory_order(x: torch.Tensor) -> torch.Tensor:
    """All values in one row, maps with the channels last: that is how the student holds them."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


def convolve(
    layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """`run.convolve`; 1x1 as one matrix product of maps that have the channels last."""
    plain = layer.groups == 1 and set(layer.stride) == {1} and not any(layer.pads)
    if plain and weight.shape[2:] == (1, 1):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return run.convolve(layer, x, weight, bias)


class _Table(torch.autograd.Function):
    """Quantize-dequantize through tables of 2^qm codes and 2^bits values."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, levels: torch.Tensor, table: Table
    ) -> torch.Tensor:
        quantizer = table.quantizer
        y = torch.add(table.half, x, alpha=2.0**quantizer.frac)
        if quantizer.signed:
            y = y.floor_().sub_(quantizer.y_min)
        y = y.clamp_(0, (1 << quantizer.qm) - 1).to(torch.int32)  # truncation: y >= 0 here
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(y)
            ctx.table, ctx.size = table, len(levels)
        return levels[table.codes][y]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        to_levels = None
        if ctx.needs_input_grad[1]:
            per_value = torch.bincount(
                _in_memory_order(y), _in_memory_order(grad), minlength=len(ctx.table.codes)
            )
            to_levels = torch.zeros(ctx.size).index_add_(
                0, ctx.table.codes, per_value.to(torch.float32)
            )
        return grad * (y <= ctx.table.last), to_levels, None


class Table:
    """One quantizer's tables as tensors.

    Attributes:
        quantizer: the quantizer.
        levels: float32 [2^bits], what codes stand for.
        codes: int64 [2^qm], the code of every y from the smallest up.
        last: the y, counted from the smallest, up to which gradients pass.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.levels = torch.from_numpy(quantizer.decode_table * 2.0**-quantizer.frac).float()
        self.codes = torch.from_numpy(quantizer.encode_table.astype(np.int64))
        values = np.sort(quantizer.decode_table)
        margin = (values[-1] - values[-2] + 1) // 2
        self.last = min(int(values[-1] + margin) - quantizer.y_min, len(self.codes) - 1)
        self.half = torch.tensor(0.5)

    def __call__(self, x: torch.Tensor, levels: torch.Tensor | None = None) -> torch.Tensor:
        """x (float32) after encoding and decoding; gradients reach `levels` where given."""
        return _Table.apply(x, self.levels if levels is None else levels, self)


def with_levels(quantizer: Quantizer, levels: np.ndarray) -> Quantizer:
    """The knq quantizer whose centroids are the integers nearest to `levels`, kept increasing."""
    centroid = np.rint(np.asarray(levels, np.float64) * 2.0**quantizer.frac).astype(np.int64)
    low, high = quantizer.y_min, quantizer.y_max
    size = len(centroid)
    steps = np.arange(size)
    centroid = np.maximum.accumulate(centroid - steps) + steps  # strictly increasing
    centroid = np.clip(centroid, low + steps, high - (size - 1) + steps).astype(np.int32)
    rule = quantizer.rule or "nearest"
    return replace(quantizer, centroid=centroid, threshold=thresholds(centroid, rule))


class Student:
    """Runs a state; `levels` and the weights may require gradients."""

    def __init__(self, state: State, source: InputFormat) -> None:
        self.state = state
        self.source = source
        self.weights = dict(state.weights)
        self.set_quantizers(state.quantizers)

    def set_quantizers(self, quantizers: Mapping[str, Quantizer]) -> None:
        """Replace the quantizers; those that are shared share their table."""
        known: dict[int, Table] = {}
        self.quantizers = dict(quantizers)
        self.tables = {
            name: known.setdefault(id(one), Table(one)) for name, one in quantizers.items()
        }

    def inputs(self, pixels: np.ndarray) -> torch.Tensor:
        """Network inputs (float32, channels last) of pixels (uint8 [N, C, H, W])."""
        codes = torch.from_numpy(self.source.encode(pixels))
        x = codes.to(torch.float32) * 2.0**-self.source.frac
        return x.contiguous(memory_format=torch.channels_last)

    def run(
        self, x: torch.Tensor, levels: Mapping[str, torch.Tensor] | None = None,
        quantized: bool = True,
    ) -> Iterator[tuple[Layer, torch.Tensor, torch.Tensor]]:  # fmt: skip
        """Yield (layer, result before ReLU and pool, stored values).

        Args:
            x: network inputs.
            levels: by owner's name, used instead of the quantizers' own.
            quantized: False: a float network with these weights.
        """
        graph, owners = self.state.graph, {one.name: one.owner for one in self.state.plan.layers}
        seen: dict[str, torch.Tensor] = {}

        def operation(layer: Layer, sources: list[torch.Tensor]) -> torch.Tensor:
            if layer.has_weights:
                out = convolve(layer, sources[0], *self.weights[layer.name])
            else:
                out = run.operate(layer, sources)
            seen[layer.name] = out
            stored = run.finish(layer, out)
            table = self.tables.get(layer.name) if quantized else None
            if table is not None and not self.copies(layer):
                own = None if levels is None else levels.get(owners[layer.name])
                stored = table(stored, own)
            return stored

        for layer, stored in run.run(graph, x, operation, gradients=True):
            yield layer, seen.pop(layer.name), stored

    def logits(self, x: torch.Tensor, quantized: bool = True) -> torch.Tensor:
        """The network's output [N, classes]."""
        stored = x
        for _, _, out in self.run(x, quantized=quantized):
            stored = out
        return stored.flatten(1)

    def copies(self, layer: Layer) -> bool:
        """Whether a max pool only picks values that are quantized alike already."""
        source = self.quantizers.get(self.state.graph.parts_of(layer.inputs[0])[0])
        return layer.kind == "maxpool" and source is self.quantizers.get(layer.name)
