# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic of docs/formats.md section 2: its constants, widths, windows and rounding.

Every constant of the contract stands here or in `formats.quantizer`, once; the C++ side has its
own in hls_templates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np

from nuq.formats.schema import Limits

BLOCK_CODES = 8  # channels of a pixel block; parts of a concat fill whole blocks
MAX_ACC_BITS = 53  # |acc| < 2^52, and the rounding term of a shift up to 53 is at most 2^52
MAX_SHIFT = 53  # of a requantization to the right
MAX_PRODUCT_BITS = 62  # of what is requantized
MAX_FRAC = 40  # finer steps than 2^-40 only help weights that are zero for every purpose
RECIPROCAL_BITS = 24  # fraction bits of an average pool's 1/n
MAX_COUNT = 64  # elements of an average window whose divisor depends on its place
LRN_STEPS = 32  # table points of a normalisation per octave
LRN_ENTRIES = 32 * LRN_STEPS + 1
LRN_FACTOR_BITS = 16  # of a normalisation's factor, which is positive
MAX_LRN_FRAC = 24  # fraction bits of a factor
SCALE_BITS = 8  # of an output channel's weight scale, 1..255
MAX_LRN_SIZE = 17  # channels: one block of neighbours to either side
SQUARES_BITS = 36  # a sum of squares is below 2^36, the last point of the table
MAX_INDEX_BITS = 8  # of an index into a weight codebook
MAX_UPSCALE = 16  # places, down and across, that a pixel is stored at
ENTRY_BITS = 14  # of a codebook's signed entries: the papers' width of a weight

Count = Annotated[int, Limits(minimum=0)]  # with keywords of JSON schema, see formats.schema
Size = Annotated[int, Limits(minimum=1)]
Pair = tuple[Size, Size]
Shape = tuple[Size, Size, Size]
Pads = tuple[Count, Count, Count, Count]
Number = TypeVar("Number", int, np.ndarray)


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up.

    >>> [ceil_div(a, 8) for a in (0, 1, 8, 9)]
    [0, 1, 1, 2]
    """
    return -(-a // b)


def ceil_log2(n: int) -> int:
    """Smallest k with 2^k >= n.

    >>> [ceil_log2(n) for n in (1, 2, 3, 8, 9)]
    [0, 1, 2, 3, 4]
    """
    return (n - 1).bit_length()


def signed_bits(low: int, high: int) -> int:
    """Width of the smallest two's complement type that holds low..high.

    >>> [signed_bits(*r) for r in ((0, 0), (0, 1), (-1, 0), (-8, 7), (-8, 8), (0, 4095))]
    [1, 2, 1, 4, 5, 13]
    """
    return max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + 1


def unsigned_bits(high: int) -> int:
    """Width of the smallest unsigned type that holds 0..high, at least 1.

    >>> [unsigned_bits(n) for n in (0, 1, 7, 8)]
    [1, 1, 3, 4]
    """
    return max(1, high.bit_length())


def half_step(shift: int) -> int:
    """Half of 2^shift, rounded down: what rounding adds, and ENQ `mid` and `round`.

    >>> half_step(0), half_step(1), half_step(7)
    (0, 1, 64)
    """
    return (1 << shift) >> 1


def lowest(bits: int, signed: bool) -> int:
    """The smallest integer of so many bits.

    >>> lowest(8, False), lowest(8, True)
    (0, -128)
    """
    return -(1 << (bits - 1)) if signed else 0


def largest_frac(largest: float, top: int, most: int = MAX_FRAC) -> int:
    """The largest F, at most `most`, with round(largest * 2^F) <= top.

    >>> largest_frac(1.0, 8191), largest_frac(0.9999, 8191), largest_frac(3000.0, 8191)
    (12, 13, 1)
    """
    if largest == 0:
        return min(most, 0)
    frac = min(most, math.frexp(top / largest)[1])
    while round(largest * 2.0**frac) > top:
        frac -= 1
    return frac


def to_fixed(values: np.ndarray, bits: int, most: int = MAX_FRAC) -> tuple[np.ndarray, int]:
    """Signed fixed point with the largest F that fits the largest magnitude.

    Rounds to nearest, ties to even. The range is symmetric: -2^(bits-1) is not used.

    Returns:
        (int64 array, F).

    >>> to_fixed(np.array([0.5, -1.0, 0.0625]), 4)
    (array([ 2, -4,  0]), 2)
    """
    frac = largest_frac(float(np.abs(values).max(initial=0)), (1 << (bits - 1)) - 1, most)
    return at_frac(values, bits, frac), frac


def at_frac(values: np.ndarray, bits: int, frac: int) -> np.ndarray:
    """Signed fixed point with a given F (int64): to nearest, ties to even, saturating.

    >>> at_frac(np.array([0.5, -1.0, 0.0625]), 3, 2)
    array([ 2, -3,  0])
    """
    top = (1 << (bits - 1)) - 1
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**frac)
    return np.clip(scaled, -top, top).astype(np.int64)


def requantize(acc: Any, shift: int, low: int, high: int) -> Any:
    """y of docs/formats.md 2.3 of accumulators, an int64 array of numpy or tensor of torch.

    >>> requantize(np.array([-3, -2, 3, 99]), 2, -8, 7).tolist()
    [-1, 0, 1, 7]
    """
    if shift > 0:
        acc = (acc + half_step(shift)) >> shift
    else:
        acc = acc << -shift
    return acc.clip(low, high)


def accumulator_bits(weight: np.ndarray, bias: np.ndarray, bias_shift: int, magnitude: int) -> int:
    """Signed width of a convolution's accumulator that no input can overflow (2.3).

    Args:
        weight: integers [out, ...] of 16 bits or less.
        bias: integers [out], used as b << bias_shift.
        magnitude: largest magnitude of an input value.

    >>> accumulator_bits(np.array([[3, -4]]), np.array([1]), 2, 15)
    8
    """
    rows = np.abs(weight.reshape(len(weight), -1), dtype=np.int32, casting="unsafe")
    sums = rows.sum(axis=1, dtype=np.int64).tolist()
    biases = np.abs(bias.astype(np.int64)).tolist()
    worst = max(
        total * magnitude + (one << bias_shift) for total, one in zip(sums, biases, strict=True)
    )
    return 1 + worst.bit_length()


@dataclass(frozen=True)
class Window:
    """A window that slides over a map: a max pool, fused or all there is of a layer.

    Padding never wins a maximum.
    """

    kernel: Pair  # rows, columns
    stride: Pair
    pads: Pads = (0, 0, 0, 0)  # top, left, bottom, right in pixels

    def out_size(self, height: int, width: int) -> Pair:
        """Rows and columns of window positions on a padded map, floor mode.

        >>> Window((3, 3), (2, 2)).out_size(55, 55)
        (27, 27)
        >>> Window((3, 3), (2, 2), (0, 0, 1, 1)).out_size(13, 13)
        (6, 6)
        """
        top, left, bottom, right = self.pads
        return (
            (height + top + bottom - self.kernel[0]) // self.stride[0] + 1,
            (width + left + right - self.kernel[1]) // self.stride[1] + 1,
        )

    @property
    def trivial(self) -> bool:
        """Whether every window is one element inside the map: a copy."""
        return self.kernel == self.stride == (1, 1) and not any(self.pads)

    @property
    def size(self) -> int:
        """Elements of a window."""
        return self.kernel[0] * self.kernel[1]

    def counts(self, height: int, width: int) -> np.ndarray:
        """The elements of a window inside the map, at every position: int64 [rows, columns].

        >>> Window((2, 2), (2, 2), (1, 1, 0, 0)).counts(3, 3).tolist()
        [[1, 2], [2, 4]]
        """
        inside = []
        for axis, size in enumerate((height, width)):
            positions = np.arange(self.out_size(height, width)[axis])
            start = positions * self.stride[axis] - self.pads[axis]
            end = np.minimum(start + self.kernel[axis], size)
            inside.append(end - np.maximum(start, 0))
        return np.outer(inside[0], inside[1])


def dilated(kernel: Pair, dilation: Pair) -> Pair:
    """Rows and columns that a dilated kernel reaches over.

    >>> dilated((3, 1), (2, 2))
    (5, 1)
    """
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


@dataclass(frozen=True)
class Average(Window):
    """An average pool; what lies outside the map counts as 0."""

    count_include_pad: bool = False  # whether the divisor counts window elements outside the map

    def divisors(self, height: int, width: int) -> np.ndarray:
        """What the sum at every output position is divided by, int64 [rows, columns]."""
        if self.count_include_pad:
            return np.full(self.out_size(height, width), self.size, np.int64)
        return self.counts(height, width)


@dataclass(frozen=True)
class Upscale:
    """Every pixel of a map becomes factor[0] x factor[1] pixels of what is stored.

    They are copies of it (nearest neighbour), or, where `shuffle`, one group of its channels each
    (depth to space): channel c of the pixel at (dy, dx) is channel (dy*factor[1] + dx)*C + c.
    """

    factor: Annotated[
        tuple[Annotated[int, Limits(minimum=1, maximum=MAX_UPSCALE)], ...],
        {"minItems": 2, "maxItems": 2},
    ]
    shuffle: bool

    def shape(self, before: Sequence[int]) -> tuple[int, int, int]:
        """(channels, rows, columns) behind it.

        >>> Upscale((2, 2), True).shape((12, 5, 7)), Upscale((2, 1), False).shape((12, 5, 7))
        ((3, 10, 14), (12, 10, 7))
        """
        (channels, height, width), (rows, columns) = before, self.factor
        channels = channels // (rows * columns) if self.shuffle else channels
        return channels, rows * height, columns * width


def reciprocal(n: Number) -> Number:
    """R of docs/formats.md 2.7: 1/n in fixed point, of an integer or of an array of them.

    >>> reciprocal(1), reciprocal(9)
    (16777216, 1864135)
    """
    return ((1 << RECIPROCAL_BITS) + n // 2) // n


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation over channels, as ONNX and docs/formats.md (2.8) define it.

    A value v of channel c becomes v * (k + alpha / size * q)^-beta, q the sum of squares over
    channels c - floor((size-1)/2) to c + floor(size/2).
    """

    size: Annotated[int, Limits(minimum=1, maximum=255)]
    alpha: Annotated[float, Limits(minimum=0)]
    beta: Annotated[float, Limits(minimum=0)]
    k: Annotated[float, Limits(exclusiveMinimum=0)]


def scale_channels(raw: np.ndarray, scale: np.ndarray | Sequence[int]) -> np.ndarray:
    """Accumulators [N, C, ...] times the weight scale [C] of their channels, int64.

    >>> scale_channels(np.ones((1, 2), np.int64), (3, 4)).tolist()
    [[3, 4]]
    """
    factors = np.asarray(scale, np.int64)
    return np.asarray(raw * factors.reshape(-1, *[1] * (raw.ndim - 2)))


def lrn_points() -> np.ndarray:
    """The sums of squares that the table's entries stand for, int64 [LRN_ENTRIES].

    >>> lrn_points()[[0, 63, 64, 65, 96, 1024]].tolist() == [0, 63, 64, 66, 128, 1 << 36]
    True
    """
    index = np.arange(LRN_ENTRIES)
    exponent = np.where(index < 2 * LRN_STEPS, 0, index // LRN_STEPS - 1)
    return (index - LRN_STEPS * exponent) << exponent


def lrn_table(lrn: Lrn, in_frac: int) -> tuple[np.ndarray, int]:
    """(int32 [LRN_ENTRIES], table_frac) for inputs with `in_frac` fractional bits.

    >>> entries, frac = lrn_table(Lrn(5, 1e-4, 0.75, 1.0), 4)
    >>> frac, int(entries[0])
    (15, 32768)
    """
    squares = lrn_points().astype(np.float64) * 2.0 ** (-2 * in_frac)
    factors = (lrn.k + lrn.alpha / lrn.size * squares) ** -lrn.beta
    frac = largest_frac(float(factors.max()), (1 << LRN_FACTOR_BITS) - 1, MAX_LRN_FRAC)
    return np.rint(factors * 2.0**frac).astype(np.int32), frac
