# SPDX-License-Identifier: Apache-2.0
"""Integer add, average pool and local response normalisation: docs/formats.md 2.6-2.8 in torch.

All of it is int64 arithmetic, but for the sums of an average pool, which float64 holds exactly.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from formats.arithmetic import LRN_STEPS, reciprocal, requantize
from formats.network import Layer


class ExactOperation:
    """One layer without weights: from its inputs' integers to y, before encoding and pooling."""

    dtype = torch.int64

    def __init__(self, layer: Layer) -> None:
        """Prepare the layer's tables; `reference.check_exact` has accepted it."""
        self.layer = layer
        if layer.averaging:
            divisors = layer.averaging.divisors(*layer.in_shape[1:])
            self._reciprocals = torch.from_numpy(reciprocal(divisors).astype(np.int64))
        if layer.lrn:
            self._factors = torch.from_numpy(layer.lrn.table.astype(np.int64))

    def __call__(self, sources: Sequence[torch.Tensor]) -> torch.Tensor:
        """y (int32 [N, C, H, W]), or raw accumulators (int64) for the last layer.

        Args:
            sources: decoded values of every input, int64 [N, C, H, W].
        """
        layer = self.layer
        acc = self._accumulate(sources)
        if layer.y_range is None or layer.requant_shift is None:
            return acc
        if layer.average:
            acc = acc * self._reciprocals
        return requantize(acc, layer.requant_shift, *layer.y_range).to(torch.int32)

    def _accumulate(self, sources: Sequence[torch.Tensor]) -> torch.Tensor:
        """What is requantized; of an average pool its sums."""
        if self.layer.kind == "add":
            one, other = (
                source << align for source, align in zip(sources, self.layer.in_aligns, strict=True)
            )
            return one + other
        if self.layer.average:
            return self._sums(sources[0])
        if self.layer.lrn:
            return torch.stack([self._normalised(image) for image in sources[0]])
        return sources[0]

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the windows, 0 outside the map."""
        average = self.layer.averaging
        if average is None:
            raise TypeError(f"layer {self.layer.name} has no average pool")
        top, left, bottom, right = average.pads
        padded = F.pad(values.to(torch.float64), (left, right, top, bottom))
        sums = F.avg_pool2d(padded, average.kernel, average.stride, divisor_override=1)
        return sums.to(torch.int64)

    def _normalised(self, values: torch.Tensor) -> torch.Tensor:
        """v * g of one image [C, H, W]."""
        size = self.layer.lrn.size if self.layer.lrn else 1
        channels = len(values)
        squares = F.pad(values * values, (0, 0, 0, 0, (size - 1) // 2, size // 2))
        total = squares[:channels].clone()
        for offset in range(1, size):
            total += squares[offset : offset + channels]
        return values * self._factor(total)

    def _factor(self, squares: torch.Tensor) -> torch.Tensor:
        """g of sums of squares, docs/formats.md 2.8."""
        octave = (torch.frexp(squares.to(torch.float64))[1].to(torch.int64) - 6).clamp_(min=0)
        whole = squares >> octave
        index = LRN_STEPS * octave + whole
        rest = squares - (whole << octave)
        first = self._factors[index]
        return first - (((first - self._factors[index + 1]) * rest) >> octave)
