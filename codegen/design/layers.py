# SPDX-License-Identifier: Apache-2.0
"""Quantizer, Pool, Average, Lrn and Layer: a quantized layer as the code generator sees it.

Value ranges and accumulator widths follow docs/formats.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen.design.numbers import ceil_div, half_step

INPUT = "input"
SCHEMES = ("uniform", "enq", "knq")  # index = Scheme in hls_templates/engine/layer.hpp
WEIGHTED = ("conv", "fc")
KINDS = (*WEIGHTED, "add", "maxpool", "avgpool", "lrn")
RECIPROCAL_BITS = 24  # fraction bits of 1/n, docs/formats.md 2.7
LRN_FACTOR_BITS = 16  # width of a normalisation factor, docs/formats.md 2.8

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Quantizer:
    """How a layer's output is stored (docs/formats.md sections 1.1, 2.2 and 2.4).

    Attributes:
        scheme: "uniform", "enq" or "knq".
        bits: width T of a code.
        qm: width of the integer y before encoding.
        frac: its F.
        variant: "floor", "mid" or "round" for enq, else None.
        rule: "nearest" or "floor" for knq, else None.
        centroid, threshold: int32 [2^bits] for knq, else None.
        signed: whether y, and codes other than knq's, are two's complement.
    """

    scheme: str
    bits: int
    qm: int
    frac: int
    variant: str | None
    rule: str | None
    centroid: np.ndarray | None = None
    threshold: np.ndarray | None = None
    signed: bool = False

    @property
    def y_min(self) -> int:
        """Smallest integer before encoding."""
        return -(1 << (self.qm - 1)) if self.signed else 0

    @property
    def y_max(self) -> int:
        """Largest integer before encoding.

        >>> [Quantizer("uniform", 8, 8, 0, None, None, signed=s).y_max for s in (False, True)]
        [255, 127]
        """
        return (1 << (self.qm - self.signed)) - 1

    @property
    def shift(self) -> int:
        """Bits that ENQ drops."""
        return self.qm - self.bits if self.scheme == "enq" else 0

    @property
    def decode_half(self) -> int:
        """Added to the value of codes other than 0 (enq, mid)."""
        return half_step(self.shift) if self.variant == "mid" else 0

    @property
    def encode_half(self) -> int:
        """Added before the shift (enq, round)."""
        return half_step(self.shift) if self.variant == "round" else 0

    @property
    def max_code(self) -> int:
        """Largest number that a code stands for before it is decoded (not for knq)."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def min_value(self) -> int:
        """Smallest value that a code stands for.

        >>> Quantizer("enq", 3, 12, 0, "mid", None, signed=True).min_value
        -1792
        """
        if self.centroid is not None:
            return int(self.centroid.min())
        if not self.signed:
            return 0
        return (-(1 << (self.bits - 1)) << self.shift) + self.decode_half

    @property
    def max_value(self) -> int:
        """Largest value that a code stands for."""
        if self.centroid is not None:
            return int(self.centroid.max())
        return (self.max_code << self.shift) + (self.decode_half if self.max_code else 0)

    @property
    def magnitude(self) -> int:
        """Largest magnitude of a value."""
        return max(self.max_value, -self.min_value)

    def encode(self, y: int) -> int:
        """Code of one integer y in y_min..y_max, as it is stored: 0..2^bits-1.

        >>> Quantizer("enq", 3, 12, 0, "round", None).encode(4095)
        7
        >>> Quantizer("enq", 3, 12, 0, "floor", None, signed=True).encode(-1)
        7
        """
        if self.threshold is not None:
            return int((y >= self.threshold[1:]).sum())
        number = min((y + self.encode_half) >> self.shift, self.max_code)
        return number & ((1 << self.bits) - 1)

    def same_as(self, other: Quantizer) -> bool:
        """Whether codes of both stand for the same values."""
        if self.centroid is None or other.centroid is None:
            return (self.centroid is None) == (other.centroid is None) and self._key == other._key
        return self._key == other._key and bool(np.array_equal(self.centroid, other.centroid))

    @property
    def _key(self) -> tuple[object, ...]:
        return self.scheme, self.bits, self.qm, self.frac, self.variant, self.signed


@dataclass(frozen=True)
class Pool:
    """Max pool, fused or all there is of a layer; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def trivial(self) -> bool:
        """Whether every window is one element inside the map: a copy."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.pads)


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
    pool: Pool | None
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
    def window(self) -> int:
        """Elements of the average pool's window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def clipped(self) -> bool:
        """Whether a window reaches beyond the map."""
        axes = zip(self.in_shape[1:], self.conv_shape[1:], self.kernel, self.stride, self.pads,
                   strict=False)  # fmt: skip
        return any(
            pad > 0 or (out - 1) * stride - pad + kernel > size
            for size, out, kernel, stride, pad in axes
        )

    @property
    def reciprocal(self) -> int:
        """R of an average pool that divides by the same n everywhere, else 0."""
        if self.kind != "avgpool" or self.exclude_pad:
            return 0
        return ((1 << RECIPROCAL_BITS) + self.window // 2) // self.window

    @property
    def exclude_pad(self) -> bool:
        """Whether the average pool's divisor depends on the window's place."""
        return self.kind == "avgpool" and self.clipped and not self.count_pad

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
