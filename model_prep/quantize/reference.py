# SPDX-License-Identifier: Apache-2.0
"""The bit-exact integer model of docs/formats.md 2, vectorised in torch.

Exact at every width it accepts: all integers stay below 2^53, which float64 holds, and what could
exceed them is refused (`check_exact`); `model_prep.quantize.exact_conv` says how. Layers without
weights are int64 arithmetic, but for the sums of an average pool, which float64 holds exactly.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from nuq.formats.arithmetic import LRN_STEPS, reciprocal, requantize
from nuq.formats.network import Layer, Network
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import check_exact
from nuq.model_prep.quantize.exact_conv import ExactConvolution
from nuq.model_prep.run import enlarge, max_pool, near_squares, run, window_sums


class ExactOperation:
    """One layer without weights: from its inputs' integers to y, before encoding and pooling."""

    dtype = torch.int64

    def __init__(self, layer: Layer) -> None:
        """Prepare the layer's tables; `check_exact` has accepted it."""
        self.layer = layer
        if layer.averaging:
            divisors = layer.averaging.divisors(*layer.in_shape[1:])
            self._reciprocals = torch.from_numpy(reciprocal(divisors).astype(np.int64))
        if layer.lrn:
            self._factors = torch.from_numpy(layer.lrn.table.astype(np.int64))

    def __call__(self, sources: Sequence[torch.Tensor]) -> torch.Tensor:
        """y (int32 [N, C, H, W]), or a head's raw accumulators, of decoded int64 inputs."""
        layer = self.layer
        acc = self._accumulate(sources)
        if layer.y_range is None or layer.requant_shift is None:
            return acc
        if layer.average:
            acc = acc * self._reciprocals
        return requantize(acc, layer.requant_shift, *layer.y_range).to(torch.int32)

    def _accumulate(self, sources: Sequence[torch.Tensor]) -> torch.Tensor:
        """What is requantized; of an average pool its sums."""
        layer = self.layer
        if layer.kind == "add":
            one, other = (
                source << align for source, align in zip(sources, layer.in_aligns, strict=True)
            )
            return one + other
        if layer.kind == "mul":
            return sources[0] * sources[1]
        if layer.averaging:
            return window_sums(layer.averaging, sources[0].to(torch.float64)).to(torch.int64)
        if layer.lrn:  # image by image, as the table of factors is gathered from
            size = layer.lrn.size
            normalised = [image * self._factor(near_squares(image, size)) for image in sources[0]]
            return torch.stack(normalised)
        return sources[0]

    def _factor(self, squares: torch.Tensor) -> torch.Tensor:
        """g of sums of squares, docs/formats.md 2.8."""
        octave = (torch.frexp(squares.to(torch.float64))[1].to(torch.int64) - 6).clamp_(min=0)
        whole = squares >> octave
        index = LRN_STEPS * octave + whole
        rest = squares - (whole << octave)
        first = self._factors[index]
        return first - (((first - self._factors[index + 1]) * rest) >> octave)


class Reference:
    """The integer model of one network; its weights are converted once."""

    def __init__(self, network: Network) -> None:
        """Prepare every layer; UserError names a layer whose integers could not be exact."""
        for layer in network.layers:
            check_exact(layer)
        self.network = network
        self._quantizers = {layer.name: layer.quantizer for layer in network.layers}
        self._steps = {
            layer.name: ExactConvolution(layer) if layer.has_weights else ExactOperation(layer)
            for layer in network.layers
        }

    def run(self, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(layer name, stored codes uint16 [N, C, H, W] after the pool) of input codes int16.

        For a head its raw accumulators, int64.
        """
        for layer, stored in run(
            self.network, torch.from_numpy(codes.astype(np.int16)), self._layer
        ):
            array = stored.numpy()
            yield layer.name, array if layer.quantizer is None else array.view(np.uint16)

    def logits(self, codes: np.ndarray) -> np.ndarray:
        """The raw accumulators of all heads, times their weight scale; int64 [N, outputs]."""
        layers = zip(self.network.layers, self.run(codes), strict=True)
        found = [
            layer.outputs(stored).reshape(len(codes), -1)
            for layer, (_, stored) in layers
            if layer.quantizer is None
        ]
        return np.concatenate(found, axis=1)

    def _layer(self, layer: Layer, codes: list[torch.Tensor]) -> torch.Tensor:
        """Stored codes of one layer, or its raw accumulators."""
        sources = [self._quantizers.get(self.network.parts_of(name)[0]) for name in layer.inputs]
        keys = [one and one.key for one in (sources[0], layer.quantizer)]
        if layer.kind == "maxpool" and keys[0] == keys[1]:
            # decoding and encoding would give the same codes
            return _placed(layer, _pool(layer, codes[0]))
        step = self._steps[layer.name]
        values = [_decode(one, form, step.dtype) for one, form in zip(codes, sources, strict=True)]
        sums = step(values[0]) if isinstance(step, ExactConvolution) else step(values)
        if layer.quantizer is None:
            return sums
        return _placed(layer, _encode(layer.quantizer, _pool(layer, sums)))


def _decode(codes: torch.Tensor, quantizer: Quantizer | None, dtype: torch.dtype) -> torch.Tensor:
    """Integer values of stored codes (int16 that hold uint16), or of input codes (no quantizer)."""
    if quantizer is None:
        return codes.to(dtype)
    index = codes.to(torch.int32)
    if quantizer.bits == 16:
        index &= 0xFFFF
    if quantizer.scheme == "uniform" and not quantizer.signed:
        return index.to(dtype)
    return _looked_up(torch.from_numpy(quantizer.decode_table).to(dtype), index)


def _looked_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """table[index] of int32 indices, several times as fast."""
    return torch.index_select(table, 0, index.flatten()).view(index.shape)


def _pool(layer: Layer, y: torch.Tensor) -> torch.Tensor:
    """The max pool of y, or of codes (int16 that hold uint16); of the same type.

    The engine pools codes; encoding never decreases, so the largest y has the largest code.
    """
    pool = layer.pool
    if pool is None or pool.trivial:
        return y
    kind = y.dtype
    values = y.to(torch.int32) & 0xFFFF if kind == torch.int16 else y
    return max_pool(pool, values).to(kind)


def _placed(layer: Layer, codes: torch.Tensor) -> torch.Tensor:
    """Codes where they are stored."""
    return enlarge(layer.upscale, codes) if layer.upscale else codes


def _encode(quantizer: Quantizer, y: torch.Tensor) -> torch.Tensor:
    """Codes of y (int16 that hold uint16)."""
    if quantizer.y_min:
        y = y - quantizer.y_min
    elif quantizer.scheme == "uniform":
        return y.to(torch.int16)
    return _looked_up(torch.from_numpy(quantizer.encode_table.view(np.int16)), y)
