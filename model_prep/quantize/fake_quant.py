# SPDX-License-Identifier: Apache-2.0
"""The fast float32 mode for searches: float convolutions, activations quantized in between.

Close to the integer model, not equal to it (float32 sums round); the result of a search is always
computed again by `model_prep.quantize.reference`. SQNR as in paper 002.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from formats.arithmetic import to_fixed
from formats.images import percent_correct
from formats.quantizer import Quantizer
from model_prep.graph import Graph, Layer
from model_prep.quantize.calibrate import ToFloat, batches
from model_prep.quantize.manifest import InputFormat
from model_prep.quantize.plan import LayerPlan
from model_prep.quantize.quantizers.weights import fit_weights
from model_prep.run import finish, float_logits, last, operate, run, run_float

Quantizers = Mapping[str, Quantizer]

_HALF = torch.tensor(0.5)


def sqnr_db(signal: float, noise: float) -> float:
    """Signal-to-quantization-noise ratio of two sums of squares, in dB; inf without noise.

    >>> sqnr_db(1000.0, 1.0), sqnr_db(1.0, 0.0)
    (30.0, inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


class FakeQuantized:
    """A network whose weights, biases and input are quantized, in float32.

    Activations are quantized by the quantizers given to `run`, so one object serves a search.
    """

    def __init__(self, graph: Graph, source: InputFormat, plans: Sequence[LayerPlan]) -> None:
        self.graph = graph
        self.source = source
        self._parameters: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer, plan in zip(graph.layers, plans, strict=True):
            if layer.has_weights:
                stored = fit_weights(plan.weight_scheme, layer.weight, plan.weight_bits, layer.name)
                bias = _floats(*to_fixed(layer.bias, plan.bias_bits))
                self._parameters[layer.name] = (_floats(stored.integers, stored.frac), bias)

    def start(self, pixels: np.ndarray) -> torch.Tensor:
        """The network's quantized input, float32 [N, C, H, W], from uint8 [N, C, H, W]."""
        codes = torch.from_numpy(self.source.encode(pixels))
        return codes.to(torch.float32) * 2.0**-self.source.frac

    def raw(
        self, layer: Layer, inputs: list[torch.Tensor], weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the layer would store without quantization: ReLU and max pool done.

        Args:
            layer: of the graph.
            inputs: the stored values of its inputs, float32 [N, C, H, W] each.
            weight: instead of the layer's own.
        """
        parameters = self._parameters.get(layer.name)
        if parameters is not None and weight is not None:
            parameters = weight, parameters[1]
        return finish(layer, operate(layer, inputs, parameters))

    def run(
        self, pixels: np.ndarray, quantizers: Quantizers,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> Iterator[tuple[Layer, torch.Tensor]]:  # fmt: skip
        """(layer, its stored values float32 [N, C, H, W]) for images uint8 [N, C, H, W].

        `weights` replaces the weights of the layers that it names.
        """
        replaced = weights or {}

        def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
            raw = self.raw(layer, inputs, replaced.get(layer.name))
            return quantize(raw, quantizers.get(layer.name))

        return run(self.graph, self.start(pixels), stored)

    def logits(self, pixels: np.ndarray, quantizers: Quantizers) -> np.ndarray:
        """The last layer's outputs, float32 [N, classes]."""
        parts = [last(self.run(batch, quantizers)).numpy() for batch in batches(pixels)]
        return np.concatenate(parts)

    def layer_sqnr_db(
        self, pixels: np.ndarray, to_float: ToFloat, quantizers: Quantizers,
        exact: Graph | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """SQNR of every layer's stored output against the float network, over all images.

        `exact` is the float network where this one's weights are others.
        """
        signal = {layer.name: 0.0 for layer in self.graph.layers}
        noise = dict(signal)
        for batch in batches(pixels, "SQNR"):
            wanted = run_float(exact or self.graph, to_float(batch))
            for (layer, want), (_, got) in zip(wanted, self.run(batch, quantizers), strict=True):
                signal[layer.name] += float(want.double().square().sum())
                noise[layer.name] += float((want - got).double().square().sum())
        return {name: sqnr_db(signal[name], noise[name]) for name in signal}


def _floats(integers: np.ndarray, frac: int) -> torch.Tensor:
    """float32 values of fixed-point integers."""
    return torch.from_numpy((integers * 2.0**-frac).astype(np.float32))


def integers(out: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """y of docs/formats.md 2.3 (int32) for float activations: round half up, clamp."""
    # One pass for the product, which is exact, and the sum.
    y = torch.add(_HALF, out, alpha=2.0**quantizer.frac)
    if quantizer.signed:
        y = y.floor_()  # else the conversion rounds down, as nothing is negative by then
    return y.clamp_(quantizer.y_min, quantizer.y_max).to(torch.int32)


def values(y: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """What the codes of integers y (int32) stand for, float32: a table of 2^qm values."""
    if quantizer.scheme == "uniform":
        return y.to(torch.float32).mul_(2.0**-quantizer.frac)
    table = torch.from_numpy(quantizer.values_table)
    if quantizer.y_min:
        y = y - quantizer.y_min
    # several times as fast as table[y]
    return torch.index_select(table, 0, y.flatten()).view(y.shape)


def quantize(out: torch.Tensor, quantizer: Quantizer | None) -> torch.Tensor:
    """Quantize and dequantize; without a quantizer, `out` itself."""
    return out if quantizer is None else values(integers(out, quantizer), quantizer)


class Evaluator:
    """Scores a choice of quantizers: top-1 accuracy where labels mean something, else SQNR."""

    def __init__(
        self,
        network: FakeQuantized,
        pixels: np.ndarray,
        labels: np.ndarray | None,
        to_float: ToFloat,
    ) -> None:
        """Run the float network once; `labels` (int [N]) is None where accuracy means nothing."""
        self.network = network
        self.pixels = pixels
        self.labels = labels
        inputs = (to_float(batch) for batch in batches(pixels, "float network"))
        self.float_logits = float_logits(network.graph, inputs)

    @property
    def unit(self) -> str:
        """What scores are measured in."""
        return "dB of output SQNR" if self.labels is None else "% top-1"

    @property
    def float_score(self) -> float:
        """The float network's score: its accuracy, or infinite SQNR."""
        if self.labels is None:
            return math.inf
        return percent_correct(self.float_logits, self.labels)

    def score(self, quantizers: Quantizers) -> tuple[float, float]:
        """(score, output SQNR in dB): greater is better, the second decides between equals."""
        return self.rate(self.network.logits(self.pixels, quantizers))

    def rate(self, logits: np.ndarray) -> tuple[float, float]:
        """(score, output SQNR in dB) of outputs [N, classes] for the images."""
        noise = float(((logits - self.float_logits).astype(np.float64) ** 2).sum())
        sqnr = sqnr_db(float((self.float_logits.astype(np.float64) ** 2).sum()), noise)
        return (sqnr if self.labels is None else percent_correct(logits, self.labels)), sqnr
