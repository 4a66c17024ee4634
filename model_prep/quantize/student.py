# SPDX-License-Identifier: Apache-2.0
"""`Student`: the quantized network with gradients, for fine-tuning and distillation.

Forward, activations have the values that the integer model gives them, and so have weights and
biases where they are rounded. Backward, rounding counts as the identity (straight-through
estimator, Bengio et al. 2013) up to half a step beyond the outer values of the grid or table, and
as a constant beyond, where it saturates (as PACT, Choi et al. 2018, at both ends).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import largest_frac, lowest
from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import activations, run
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize.behind import encoder
from nuq.model_prep.quantize.calibrate import CANDIDATES
from nuq.model_prep.quantize.fake_quant import quantized_input
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.quantizers import CHANNEL, SCHEMES

_HALF = torch.tensor(0.5)
_EXACT_BITS = 24  # of a bias at most, so that float32 holds it


class _Grid(torch.autograd.Function):
    """Signed multiples of a step: round to nearest, clip; no gradient where it clips."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, step: torch.Tensor, top: int) -> torch.Tensor:
        scaled = values / step
        ctx.save_for_backward(scaled.abs() <= top + 0.5)
        return scaled.round_().clamp_(-top, top).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class _Staircase(torch.autograd.Function):
    """Requantize, encode, decode; gradients to the activations and to the table's latent."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, latent: torch.Tensor | None, table: "_Table", unit: float
    ) -> torch.Tensor:
        quantizer = table.quantizer
        y = torch.add(_HALF, x, alpha=2.0**quantizer.encoded_frac).floor_()
        inside = (y >= table.lowest) & (y <= table.highest)
        index = y.sub_(quantizer.y_min).clamp_(0, len(table.codes) - 1).to(torch.int32)
        ctx.save_for_backward(inside, index)
        ctx.table, ctx.unit = table, unit
        return table.values[index]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inside, index = ctx.saved_tensors
        to_latent = None
        if ctx.needs_input_grad[1]:
            codes = ctx.table.codes
            sums = torch.bincount(
                _in_memory_order(index), _in_memory_order(grads[0]), minlength=len(codes)
            )
            to_latent = torch.zeros(1 << ctx.table.quantizer.bits)
            to_latent = to_latent.index_add_(0, codes, sums.to(torch.float32)) * ctx.unit
        to_x = grads[0] * inside
        if ctx.table.slopes is not None:
            to_x = to_x * ctx.table.slopes[index]
        return to_x, to_latent, None, None


def _in_memory_order(x: torch.Tensor) -> torch.Tensor:
    """All values in one row, maps with the channels last: that is how distillation holds them."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


class _Table:
    """A quantizer as tensors, and the y between which gradients pass.

    Through an activation in its codebook they pass as through the function itself.
    """

    def __init__(self, quantizer: Quantizer, activation: Activation | None = None) -> None:
        self.quantizer = quantizer
        self.values = torch.from_numpy(quantizer.values_table)  # float32 [2^qm], left of every y
        self.codes = torch.from_numpy(quantizer.encode_table.astype(np.int64))  # of every y
        outer = np.sort(quantizer.decode_table).astype(np.int64)
        first, last = outer[1] - outer[0], outer[-1] - outer[-2]
        low, high = int(outer[0] - (first + 1) // 2), int(outer[-1] + (last + 1) // 2)
        self.slopes: torch.Tensor | None = None  # float32 [2^qm]
        self.lowest, self.highest = max(low, quantizer.y_min), min(high, quantizer.y_max)
        if activation is not None:
            self.lowest, self.highest = quantizer.y_min, quantizer.y_max
            y = np.arange(self.lowest, self.highest + 1) * 2.0**-quantizer.encoded_frac
            exact = activations.values(activation, y) * 2.0**quantizer.frac
            passes = (exact >= low) & (exact <= high)
            self.slopes = torch.from_numpy(
                np.where(passes, activations.slopes(activation, y), 0).astype(np.float32)
            )


def rising(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """The values made strictly increasing integers of low..high, moved as little as that takes.

    >>> rising(np.array([0.2, 3.4, 3.3, 3.0, 9.0]), 0, 7)
    array([0, 3, 4, 5, 7])
    """
    index = np.arange(len(values))
    table = np.maximum.accumulate(np.rint(values).astype(np.int64) - index) + index
    table = np.minimum(table, high - index[::-1])
    return np.maximum(table, low + index)


class Coder:
    """One quantizer, shared by all layers that share it; the table of a knq one is trainable."""

    def __init__(
        self, quantizer: Quantizer, activation: Activation | None = None,
        same_table: "Coder | None" = None,
    ) -> None:  # fmt: skip
        """`activation` is the one in its codebook; `same_table` codes what another layer makes."""
        self.start = quantizer  # as it was fitted
        self._activation = activation
        # float32 [2^bits], a knq table in its mean steps, so that one learning rate suits all
        self.latent: torch.Tensor | None = None
        self._made = torch.empty(0), _Table(quantizer, activation)  # a latent and its table
        self._step = 1.0
        if same_table is not None:
            self.latent, self._step = same_table.latent, same_table._step
        elif quantizer.centroid is not None:
            span = int(quantizer.centroid.max()) - int(quantizer.centroid.min())
            self._step = max(1.0, span / max(1, len(quantizer.centroid) - 1))
            latent = torch.from_numpy(quantizer.centroid.astype(np.float32) / self._step)
            self.latent = latent.requires_grad_()

    def _current(self) -> _Table:
        """The table of the latent as it stands."""
        origin, table = self._made
        if self.latent is not None and not torch.equal(self.latent, origin):
            origin = self.latent.detach().clone()
            moved = self._moved(origin.double().numpy() * self._step)
            table = _Table(moved, self._activation)
            self._made = origin, table  # in one go: workers share the coder
        return table

    def _moved(self, centroid: np.ndarray) -> Quantizer:
        start = self.start
        assert start.centroid is not None and start.rule is not None
        low = lowest(start.qm, start.signed)
        high = low + (1 << start.qm) - 1
        if not activations.rises(self._activation):  # codes keep their places
            table = np.clip(np.rint(centroid), low, high).astype(np.int32)
            return replace(start, centroid=table)
        if start.centroid[0] == 0:
            centroid[0] = 0  # the many zeros behind a ReLU stay exact
        return encoder(
            rising(centroid, low, high), start.qm, start.frac, start.signed, start.rule,
            self._activation, start.encoded_frac,
        )  # fmt: skip

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer as it stands, exact."""
        return self._current().quantizer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Quantized and decoded float32 activations of any shape."""
        unit = self._step * 2.0**-self.start.frac
        return _Staircase.apply(x, self.latent, self._current(), unit)  # type: ignore[no-any-return,no-untyped-call]


def best_frac(values: np.ndarray, bits: int) -> int:
    """F of signed `bits`-bit integers with the least squared error, clipping allowed.

    >>> best_frac(np.array([0.25] * 99 + [1.1]), 3)
    2
    """
    top = (1 << (bits - 1)) - 1
    fitting = largest_frac(float(np.abs(values).max(initial=0)), top)

    def error(frac: int) -> float:
        rounded = np.clip(np.rint(values * 2.0**frac), -top, top) * 2.0**-frac
        return float(((rounded - values) ** 2).sum())

    return min(range(fitting, fitting + CANDIDATES), key=error)


def _convolve(
    layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """`run.convolve`; 1x1 as one matrix product of maps that have the channels last."""
    plain = layer.groups == 1 and set(layer.stride) == {1} and not any(layer.pads)
    if plain and weight.shape[2:] == (1, 1):
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return run.convolve(layer, x, weight, bias)


def _listed(table: np.ndarray | None) -> tuple[int, ...] | None:
    return None if table is None else tuple(table.tolist())


class Student:
    """A network in the numbers of the integer model, in float32, with gradients."""

    def __init__(
        self, graph: Graph, source: InputFormat, plans: Sequence[LayerPlan],
        quantizers: Mapping[str, Quantizer], rounded: bool = True,
    ) -> None:  # fmt: skip
        """Start from the float network and its quantizers; layers without one stay float.

        `rounded` says whether weights and biases are rounded to their widths, and convolutions sum
        as those of `FakeQuantized` do, to the last bit.
        """
        self.graph, self.source, self._rounded = graph, source, rounded
        self.plans = {plan.name: plan for plan in plans}
        shared: dict[tuple[str, object], Coder] = {}
        tables: dict[str, Coder] = {}
        self.coders: dict[str, Coder] = {}  # layers that share have the same object
        for plan in plans:
            if plan.name in quantizers:
                quantizer = quantizers[plan.name]
                key = plan.owner, quantizer.key if plan.activation or quantizer.y_frac else None
                if key not in shared:
                    shared[key] = Coder(quantizer, plan.activation, tables.get(plan.owner))
                self.coders[plan.name] = tables[plan.owner] = shared[key]
        self.weights: dict[str, torch.Tensor] = {}  # float32 latents by layer name
        self.biases: dict[str, torch.Tensor] = {}
        self._fracs: dict[str, int] = {}
        self._scales: dict[str, np.ndarray] = {}  # m of each output channel, where weights have it
        for layer in graph.layers:
            if layer.has_weights:
                if rounded:
                    self._start(layer)
                for store, values in ((self.weights, layer.weight), (self.biases, layer.bias)):
                    tensor = torch.from_numpy(np.array(values, np.float32))
                    store[layer.name] = tensor.requires_grad_(not layer.fixed)

    def _start(self, layer: Layer) -> None:
        """The grid of a layer's weights."""
        plan = self.plans[layer.name]
        if plan.weight_scale == CHANNEL:
            stored = plan.fit_weights(layer.weight)
            assert stored.scale is not None
            self._fracs[layer.name], self._scales[layer.name] = stored.frac, stored.scale
        else:
            self._fracs[layer.name] = best_frac(layer.weight, plan.weight_bits)

    def teacher(self) -> "Student":
        """The float network that this one started from, which computes in the same way."""
        return Student(self.graph, self.source, list(self.plans.values()), {}, rounded=False)

    def parameters(self) -> list[torch.Tensor]:
        """All that can be trained: weights, biases, tables."""
        tables = list({id(one.latent): one.latent for one in self.coders.values()}.values())
        every = [*self.weights.values(), *self.biases.values(), *tables]
        return [tensor for tensor in every if tensor is not None and tensor.requires_grad]

    def inputs(self, pixels: np.ndarray) -> torch.Tensor:
        """See `fake_quant.quantized_input`."""
        return quantized_input(self.source, pixels)

    def __call__(
        self, x: torch.Tensor, observe: Callable[[Layer, torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Logits float32 [N, classes] of `inputs`.

        `observe` is shown every layer's activations, before its max pool and quantization.
        """

        def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
            if layer.has_weights:
                convolve = run.convolve if self._rounded else _convolve
                out = convolve(layer, inputs[0], *self.quantized(layer))
            else:
                out = run.operate(layer, inputs)
            coder = self.coders.get(layer.name)
            coded = coder is not None and layer.coded is not None
            if not coded:
                out = run.activate(layer, out)
            if observe is not None:
                observe(layer, run.decoded(layer, out) if coded else out)
            out = run.placed(layer, out)
            return out if coder is None or self._copies(layer) else coder(out)

        return run.outputs(self.graph, run.run(self.graph, x, stored, gradients=True))

    def _copies(self, layer: Layer) -> bool:
        """Whether a max pool only picks values that are quantized alike already."""
        source = self.coders.get(self.graph.parts_of(layer.inputs[0])[0])
        return layer.kind == "maxpool" and source is self.coders.get(layer.name)

    def _in_frac(self, layer: Layer) -> int:
        name = self.graph.parts_of(layer.inputs[0])[0]
        return self.source.frac if name == INPUT else self.coders[name].start.frac

    def quantized(self, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's weight and bias as the student runs with them, float32."""
        weight, bias = self.weights[layer.name], self.biases[layer.name]
        if not self._rounded:
            return weight, bias
        plan, frac = self.plans[layer.name], self._fracs[layer.name]
        scale = torch.from_numpy(self._scales.get(layer.name, np.ones(1)).astype(np.float32))
        step = scale.reshape(-1, *[1] * (weight.dim() - 1)) * 2.0**-frac
        weight = _Grid.apply(weight, step, (1 << (plan.weight_bits - 1)) - 1)  # type: ignore[no-untyped-call]
        top = (1 << (min(plan.bias_bits, _EXACT_BITS) - 1)) - 1
        largest = float((bias.detach() / scale).abs().max())
        frac = largest_frac(largest, top, self._in_frac(layer) + frac)
        return weight, _Grid.apply(bias, scale * 2.0**-frac, top)  # type: ignore[no-untyped-call]

    def trained(self) -> Graph:
        """The graph with the weights and biases that the student runs with."""
        layers = []
        with torch.no_grad():
            for layer in self.graph.layers:
                if layer.has_weights:
                    weight, bias = (part.numpy().copy() for part in self.quantized(layer))
                    layer = replace(layer, weight=weight, bias=bias)
                layers.append(layer)
        graph = self.graph
        return Graph(graph.name, graph.in_shape, layers, dict(graph.concats), graph.heads)

    def quantizers(self) -> dict[str, Quantizer]:
        """The quantizers as they stand, by layer name; shared ones are one object."""
        return {name: one.quantizer for name, one in self.coders.items()}

    def fixed_plans(self) -> tuple[LayerPlan, ...]:
        """The plan that has every table in it."""
        done = []
        for plan in self.plans.values():
            if plan.name in self._scales:
                plan = replace(plan, weight_scales=tuple(self._scales[plan.name].tolist()))
            if plan.name in self.coders:
                one = self.coders[plan.name].quantizer
                table = _listed(one.centroid)
                options = {key: getattr(one, key) for key in SCHEMES[one.scheme].options}
                plan = replace(
                    plan,
                    scheme=one.scheme,
                    bits=one.bits,
                    options=options,
                    frac=one.frac,
                    centroids=table,
                    y_frac=one.y_frac,
                    thresholds=_listed(one.threshold) if one.y_frac is not None else None,
                )
            done.append(plan)
        return tuple(done)
