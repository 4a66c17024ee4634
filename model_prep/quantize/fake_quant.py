# SPDX-License-Identifier: Apache-2.0
"""The fast float32 mode for searches: float convolutions, activations quantized in between.

Close to the integer model, not equal to it (float32 sums round); the result of a search is always
computed again by `model_prep.quantize.reference`. SQNR as in paper 002.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.calibrate import batches, to_integers
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.quantizers import WeightFormat
from nuq.model_prep.run import decoded, encoded, operate, outputs, run

Quantizers = Mapping[str, Quantizer]


def quantized_input(source: InputFormat, pixels: np.ndarray) -> torch.Tensor:
    """The network's input, float32 [N, C, H, W], from uint8 [N, C, H, W]."""
    return torch.from_numpy(source.encode(pixels)).to(torch.float32) * 2.0**-source.frac


class FakeQuantized:
    """A network whose weights, biases and input are quantized, in float32.

    Activations are quantized by the quantizers given to `run`, so one object serves a search.
    `stored` says how weights are stored, by name of the layers that have them.
    """

    def __init__(self, graph: Graph, source: InputFormat, plans: Sequence[LayerPlan]) -> None:
        self.graph = graph
        self.source = source
        self.stored: dict[str, WeightFormat] = {}
        self._parameters: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer, plan in zip(graph.layers, plans, strict=True):
            if layer.has_weights:
                stored = plan.fit_weights(layer.weight)
                self.stored[layer.name] = stored
                bias, frac = stored.fixed_bias(layer.bias, plan.bias_bits)
                self._parameters[layer.name] = (
                    floats(stored.values), floats(stored.scaled(bias), frac)
                )  # fmt: skip

    def start(self, pixels: np.ndarray) -> torch.Tensor:
        """See `quantized_input`."""
        return quantized_input(self.source, pixels)

    def raw(
        self, layer: Layer, inputs: list[torch.Tensor], weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the layer encodes, its max pool done.

        `weight` is used instead of the layer's own.
        """
        parameters = self._parameters.get(layer.name)
        if parameters is not None and weight is not None:
            parameters = weight, parameters[1]
        return encoded(layer, operate(layer, inputs, parameters))

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
            return quantize(layer, raw, quantizers.get(layer.name))

        return run(self.graph, self.start(pixels), stored)

    def logits(self, pixels: np.ndarray, quantizers: Quantizers) -> np.ndarray:
        """The network's outputs, float32 [N, outputs]."""

        def logits(batch: np.ndarray) -> np.ndarray:
            found: np.ndarray = outputs(self.graph, self.run(batch, quantizers)).numpy()
            return found

        return np.concatenate(list(ordered(logits, batches(pixels))))


def floats(values: np.ndarray, frac: int = 0) -> torch.Tensor:
    """float32 of values, or of fixed-point integers."""
    return torch.from_numpy((values * 2.0**-frac).astype(np.float32))


def integers(out: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """`to_integers` for a quantizer."""
    return to_integers(out, quantizer.qm, quantizer.encoded_frac, quantizer.y_signed)


def values(y: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """What the codes of integers y (int32) stand for, float32: a table of 2^qm values."""
    if quantizer.scheme == "uniform":
        return y.to(torch.float32).mul_(2.0**-quantizer.frac)
    table = torch.from_numpy(quantizer.values_table)
    if quantizer.y_min:
        y = y - quantizer.y_min
    # several times as fast as table[y]
    return torch.index_select(table, 0, y.flatten()).view(y.shape)


def quantize(layer: Layer, out: torch.Tensor, quantizer: Quantizer | None) -> torch.Tensor:
    """What the layer stores of `out`, which it encodes: quantized and dequantized.

    Without a quantizer, or with one that does not hold the layer's activation, that comes behind.
    """
    if quantizer is not None:
        out = values(integers(out, quantizer), quantizer)
        if quantizer.y_frac is not None:
            return out
    return decoded(layer, out)
