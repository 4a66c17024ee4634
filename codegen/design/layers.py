# SPDX-License-Identifier: Apache-2.0
"""Storage, Lrn and Layer: a quantized layer as the code generator sees it.

Value ranges and accumulator widths follow docs/formats.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from formats.arithmetic import (
    LRN_FACTOR_BITS,
    RECIPROCAL_BITS,
    Average,
    Shape,
    Window,
    ceil_div,
    reciprocal,
)
from formats.quantizer import Quantizer

INPUT = "input"
WEIGHTED = ("conv", "fc")
KINDS = (*WEIGHTED, "add", "maxpool", "avgpool", "lrn")


@dataclass(frozen=True)
class Storage:
    """How a layer's weights are stored: `bits` each, as integers or as indices into `table`.

    Attributes:
        scheme: the quantizer's name, for reports.
        table: int32 [2^bits], strictly increasing, or None.
    """

    bits: int
    scheme: str = "uniform"
    table: np.ndarray | None = None


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation over `size` channels; int32 table of factors."""

    size: int
    table_frac: int
    table: np.ndarray


@dataclass(frozen=True)
class Layer:
    """One fused layer: a convolution or an operation without weights, encoder, max pool.

    Attributes:
        inputs: feature maps that it reads: layers, concats or INPUT; two for "add".
        in_shape, conv_shape, out_shape: (C, H, W) of the input, before and after the max pool.
        kernel, stride, dilation, pads: of the convolution or the average pool.
        in_aligns: left shift of each input's values (add).
        count_pad: avgpool: whether the divisor counts elements outside the map.
        acc_bits: width of the accumulator that no input can overflow.
        weight_bits: width of the weights that are multiplied.
        storage: None: integers of weight_bits.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    in_shape: Shape
    conv_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    macs: int
    pool: Window | None
    weight_bits: int
    bias_shift: int
    acc_bits: int
    requant_shift: int
    quantizer: Quantizer | None
    out_frac: int
    sqnr_db: float | None
    weight: np.ndarray
    bias: np.ndarray
    relu: bool = True
    in_aligns: tuple[int, ...] = (0,)
    count_pad: bool = False
    lrn: Lrn | None = None
    storage: Storage | None = None

    @property
    def stored(self) -> Storage:
        """How its weights are stored."""
        return self.storage or Storage(self.weight_bits)

    @property
    def source(self) -> str:
        """The first feature map that it reads."""
        return self.inputs[0]

    @property
    def weighted(self) -> bool:
        """Whether it is a convolution."""
        return self.kind in WEIGHTED

    @property
    def averaging(self) -> Average:
        """The window of an average pool."""
        return Average(self.kernel, self.stride, self.pads, self.count_pad)

    @property
    def reciprocal(self) -> int:
        """R of an average pool that divides by the same n everywhere, else 0."""
        if self.kind != "avgpool" or self.exclude_pad:
            return 0
        return int(reciprocal(self.averaging.size))

    @property
    def exclude_pad(self) -> bool:
        """Whether the average pool's divisor depends on the window's place."""
        return (
            self.kind == "avgpool"
            and not self.count_pad
            and self.averaging.clipped(*self.in_shape[1:])
        )

    @property
    def y_min(self) -> int:
        """Lower limit of the requantized integer: a ReLU ends at 0 even where codes are signed."""
        if self.quantizer is None or (self.relu and self.kind in (*WEIGHTED, "add")):
            return 0
        return self.quantizer.y_min

    @property
    def product_bits(self) -> int:
        """Signed width of what is requantized: the accumulator, times a factor where there is one.

        R <= 2^24 takes 25 bits, a normalisation factor 16; both are positive.
        """
        if self.quantizer is None:
            return self.acc_bits
        if self.kind == "avgpool":
            most = 1 << RECIPROCAL_BITS if self.exclude_pad else self.reciprocal
            return self.acc_bits + most.bit_length()
        return self.acc_bits + (LRN_FACTOR_BITS if self.kind == "lrn" else 0)


def planes_of(channels: int) -> int:
    """Planes of 8 channels."""
    return ceil_div(channels, 8)
