# SPDX-License-Identifier: Apache-2.0
"""The bit-exact integer model of docs/formats.md 2, vectorised in torch.

Exact at every width it accepts: all integers stay below 2^53, which float64 holds, and what could
exceed them is refused (`check_exact`); `model_prep.quantize.exact_conv` says how.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from formats.network import Layer, Network
from formats.quantizer import Quantizer
from formats.rules import check_exact
from model_prep.quantize.exact_conv import ExactConvolution
from model_prep.quantize.exact_ops import ExactOperation
from model_prep.run import run


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
        """Run all layers.

        Args:
            codes: int16 [N, C, H, W], the network's input codes.

        Yields:
            (layer name, stored codes uint16 [N, C, H, W] after the pool); for the last layer its
            raw accumulators, int64.
        """
        for layer, stored in run(
            self.network, torch.from_numpy(codes.astype(np.int16)), self._layer
        ):
            array = stored.numpy()
            yield layer.name, array if layer.quantizer is None else array.view(np.uint16)

    def _layer(self, layer: Layer, codes: list[torch.Tensor]) -> torch.Tensor:
        """Stored codes of one layer, or its raw accumulators."""
        sources = [self._quantizers.get(self.network.parts_of(name)[0]) for name in layer.inputs]
        keys = [one and one.key for one in (sources[0], layer.quantizer)]
        if layer.kind == "maxpool" and keys[0] == keys[1]:
            return _pool(layer, codes[0])  # decoding and encoding would give the same codes
        step = self._steps[layer.name]
        values = [_decode(one, form, step.dtype) for one, form in zip(codes, sources, strict=True)]
        sums = step(values[0]) if isinstance(step, ExactConvolution) else step(values)
        if layer.quantizer is None:
            return sums
        return _encode(layer.quantizer, _pool(layer, sums))


def _decode(codes: torch.Tensor, quantizer: Quantizer | None, dtype: torch.dtype) -> torch.Tensor:
    """Integer values of stored codes (int16 that hold uint16), or of input codes (no quantizer)."""
    if quantizer is None:
        return codes.to(dtype)
    index = codes.to(torch.int32)
    if quantizer.bits == 16:
        index &= 0xFFFF
    if quantizer.scheme == "uniform" and not quantizer.signed:
        return index.to(dtype)
    return torch.from_numpy(quantizer.decode_table).to(dtype)[index]


def _pool(layer: Layer, y: torch.Tensor) -> torch.Tensor:
    """The max pool of y, or of codes (int16 that hold uint16); of the same type.

    The engine pools codes; encoding never decreases, so the largest y has the largest code.
    """
    pool = layer.pool
    if pool is None or (pool.kernel == pool.stride == (1, 1) and not any(pool.pads)):
        return y
    kind = y.dtype
    values = y.to(torch.int32) & 0xFFFF if kind == torch.int16 else y
    top, left, bottom, right = pool.pads
    if any(pool.pads):
        values = F.pad(values, (left, right, top, bottom), value=0)  # y >= 0: 0 never wins
    pooled = F.max_pool2d(values.to(torch.float32), pool.kernel, pool.stride)
    return pooled.to(torch.int32).to(kind)


def _encode(quantizer: Quantizer, y: torch.Tensor) -> torch.Tensor:
    """Codes of y (int16 that hold uint16)."""
    if quantizer.signed:
        y = y - quantizer.y_min
    elif quantizer.scheme == "uniform":
        return y.to(torch.int16)
    return torch.from_numpy(quantizer.encode_table.view(np.int16))[y]
