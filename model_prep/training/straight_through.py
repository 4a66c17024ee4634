# SPDX-License-Identifier: Apache-2.0
"""The quantized network with gradients: what `FakeQuantized` computes, trainable.

Forward, every weight, bias and activation has the value that the integer model gives it; backward,
rounding counts as the identity within its range (straight-through). For the fine-tuning of paper
002, section 5.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from formats.arithmetic import largest_frac
from formats.quantizer import Quantizer, thresholds
from model_prep import run
from model_prep.graph import INPUT, Graph, Layer
from model_prep.quantize.manifest import InputFormat
from model_prep.quantize.plan import LayerPlan

_FINER = 4  # candidates for the F of weights: the one that clips nothing, and finer ones


class _Grid(torch.autograd.Function):
    """Signed fixed point: round to nearest, clip; no gradient where it clips."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, frac: int, top: int) -> torch.Tensor:
        scaled = values * 2.0**frac
        ctx.save_for_backward(scaled.abs() <= top + 0.5)
        return scaled.round_().clamp_(-top, top).mul_(2.0**-frac)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class _Table(torch.autograd.Function):
    """Requantize, encode, decode; gradients to the activations and to the decoded values."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, values: torch.Tensor, bounds: torch.Tensor, low: float,
        high: float, frac: int,
    ) -> torch.Tensor:  # fmt: skip
        """Args: float32 x, decoded values [K], thresholds [K - 1] of y, range of y, F."""
        y = x.mul(2.0**frac).add_(0.5).floor_().clamp_(low, high)
        codes = torch.bucketize(y, bounds, right=True, out_int32=True)
        # What saturates gets no gradient: half a step beyond the outer values.
        first, last = float(values[0]), float(values[-1])
        margins = (bounds[[0, -1]].double() * 2.0**-frac).tolist() if len(bounds) else [first, last]
        ctx.save_for_backward(codes, (x >= 2 * first - margins[0]) & (x <= 2 * last - margins[1]))
        ctx.entries = len(values)
        return values[codes.long()]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        codes, inside = ctx.saved_tensors
        sums = None
        if ctx.needs_input_grad[1]:
            flat = codes.flatten()
            sums = torch.bincount(flat, grads[0].flatten(), minlength=ctx.entries)
            sums = sums.to(grads[0].dtype)
        return grads[0] * inside, sums, None, None, None, None


class _Even(torch.autograd.Function):
    """Uniform and ENQ codes: every y through a table; no gradient where y saturates."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, table: torch.Tensor, quantizer: Quantizer) -> Any:
        y = x.mul(2.0**quantizer.frac).add_(0.5).floor_()
        ctx.save_for_backward((y >= quantizer.y_min) & (y <= quantizer.y_max))
        y = y.clamp_(quantizer.y_min, quantizer.y_max).to(torch.int32)
        return table[y.sub_(quantizer.y_min)]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


def rising(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """The values made strictly increasing integers of low..high, moved as little as that takes.

    >>> rising(np.array([0.2, 3.4, 3.3, 3.0, 9.0]), 0, 7)
    array([0, 3, 4, 5, 7])
    """
    index = np.arange(len(values))
    table = np.maximum.accumulate(np.rint(values).astype(np.int64) - index) + index
    table = np.minimum(table, high - index[::-1])
    return np.maximum(table, low + index)


class Activation:
    """One quantizer with its trainable table (knq), shared by all layers that share it."""

    def __init__(self, quantizer: Quantizer) -> None:
        """Start from a fitted quantizer."""
        self.start = quantizer
        self.latent: torch.Tensor | None = None
        self._gap = 1.0
        if quantizer.scheme == "knq":
            assert quantizer.centroid is not None
            span = int(quantizer.centroid[-1]) - int(quantizer.centroid[0])
            # In mean steps of the table, so that one learning rate suits every layer.
            self._gap = max(1.0, span / max(1, len(quantizer.centroid) - 1))
            latent = torch.from_numpy(quantizer.centroid.astype(np.float32) / self._gap)
            self.latent = latent.requires_grad_()

    def quantizer(self) -> Quantizer:
        """The quantizer as it stands, exact."""
        start = self.start
        if self.latent is None:
            return start
        assert start.centroid is not None and start.rule is not None
        moved = self.latent.detach().double().numpy() * self._gap
        if start.centroid[0] == 0:
            moved[0] = 0  # the many zeros behind a ReLU stay exact
        table = rising(moved, start.y_min, start.y_max).astype(np.int32)
        return replace(start, centroid=table, threshold=thresholds(table, start.rule))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Quantized and decoded float32 activations of any shape."""
        now = self.quantizer()
        if self.latent is None or now.centroid is None or now.threshold is None:
            table = (now.round_trip() * 2.0**-now.frac).astype(np.float32)
            return _Even.apply(x, torch.from_numpy(table), now)  # type: ignore[no-any-return,no-untyped-call]
        exact = torch.from_numpy((now.centroid * 2.0**-now.frac).astype(np.float32))
        scaled = self.latent * (self._gap * 2.0**-now.frac)
        values = scaled + (exact - scaled).detach()
        with torch.no_grad():
            values.copy_(exact)  # the sum above may be off by a rounding
        bounds = torch.from_numpy(now.threshold[1:].astype(np.float32))
        return _Table.apply(  # type: ignore[no-any-return,no-untyped-call]
            x, values, bounds, float(now.y_min), float(now.y_max), now.frac
        )


def best_frac(values: np.ndarray, bits: int) -> int:
    """F of signed `bits`-bit integers with the least squared error, clipping allowed.

    >>> best_frac(np.array([0.25] * 99 + [1.1]), 3)
    2
    """
    top = (1 << (bits - 1)) - 1
    fitting = largest_frac(float(np.abs(values).max(initial=0)), top)
    errors = []
    for frac in range(fitting, fitting + _FINER):
        rounded = np.clip(np.rint(values * 2.0**frac), -top, top) * 2.0**-frac
        errors.append((float(((rounded - values) ** 2).sum()), frac))
    return min(errors)[1]


class StraightThrough:
    """A network in the numbers of the integer model, in float32, with gradients.

    Attributes:
        weights, biases: float32 latents by layer name; shapes as in the layer.
        activations: by layer name; layers that share a quantizer have the same object.
    """

    def __init__(
        self, graph: Graph, source: InputFormat, plans: Sequence[LayerPlan],
        quantizers: Mapping[str, Quantizer],
    ) -> None:  # fmt: skip
        """Start from the float network and its fitted quantizers.

        Args:
            graph: the float network.
            source: its input format.
            plans: widths, one per layer.
            quantizers: by layer name, for all but the last layer.
        """
        self.graph, self.source = graph, source
        self.plans = {plan.name: plan for plan in plans}
        made: dict[str, Activation] = {}
        self.activations: dict[str, Activation] = {}
        for plan in plans[:-1]:
            if plan.owner not in made:
                made[plan.owner] = Activation(quantizers[plan.name])
            self.activations[plan.name] = made[plan.owner]
        self.weights: dict[str, torch.Tensor] = {}
        self.biases: dict[str, torch.Tensor] = {}
        self._fracs: dict[str, int] = {}
        for layer in graph.layers:
            if layer.has_weights:
                self._fracs[layer.name] = best_frac(
                    layer.weight, self.plans[layer.name].weight_bits
                )
                for store, values in ((self.weights, layer.weight), (self.biases, layer.bias)):
                    tensor = torch.from_numpy(np.array(values, np.float32))
                    store[layer.name] = tensor.requires_grad_(not layer.fixed)

    def parameters(self) -> list[torch.Tensor]:
        """All that can be trained: weights, biases, tables."""
        tables = {id(one): one.latent for one in self.activations.values()}
        every = [*self.weights.values(), *self.biases.values(), *tables.values()]
        return [tensor for tensor in every if tensor is not None and tensor.requires_grad]

    def _in_frac(self, layer: Layer) -> int:
        name = self.graph.parts_of(layer.inputs[0])[0]
        return self.source.frac if name == INPUT else self.activations[name].start.frac

    def quantized(self, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's weight and bias as the integer model has them, float32."""
        plan, frac = self.plans[layer.name], self._fracs[layer.name]
        weight = _Grid.apply(self.weights[layer.name], frac, (1 << (plan.weight_bits - 1)) - 1)  # type: ignore[no-untyped-call]
        bias, top = self.biases[layer.name], (1 << (plan.bias_bits - 1)) - 1
        largest = float(bias.detach().abs().max())
        frac = largest_frac(largest, top, self._in_frac(layer) + frac)
        return weight, _Grid.apply(bias, frac, top)  # type: ignore[no-untyped-call]

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """Logits float32 [N, classes] of images uint8 [N, C, H, W]."""
        codes = torch.from_numpy(self.source.encode(pixels))
        x = codes.to(torch.float32) * 2.0**-self.source.frac

        def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
            parameters = self.quantized(layer) if layer.has_weights else None
            out = run.finish(layer, run.operate(layer, inputs, parameters))
            return self.activations[layer.name](out) if layer.name in self.activations else out

        return run.last(run.run(self.graph, x, stored, gradients=True))

    def rounded(self) -> Graph:
        """The graph with the quantized weights and biases: quantizing it changes no value."""
        layers = []
        with torch.no_grad():
            for layer in self.graph.layers:
                if layer.has_weights:
                    weight, bias = (part.numpy().copy() for part in self.quantized(layer))
                    layer = replace(layer, weight=weight, bias=bias)
                layers.append(layer)
        graph = self.graph
        return Graph(graph.name, graph.in_shape, layers, dict(graph.concats))

    def quantizers(self) -> dict[str, Quantizer]:
        """The quantizers as they stand, by layer name; shared ones are one object."""
        exact = {id(one): one.quantizer() for one in self.activations.values()}
        return {name: exact[id(one)] for name, one in self.activations.items()}

    def fixed_plans(self) -> tuple[LayerPlan, ...]:
        """The plan that has every table in it."""
        found = self.quantizers()
        done = []
        for plan in self.plans.values():
            one = found.get(plan.name)
            if one is not None:
                table = None if one.centroid is None else tuple(one.centroid.tolist())
                plan = replace(
                    plan, scheme=one.scheme, bits=one.bits, rule=one.rule, variant=one.variant,
                    frac=one.frac, centroids=table,
                )  # fmt: skip
            done.append(plan)
        return tuple(done)
