# SPDX-License-Identifier: Apache-2.0
"""First-layer lane packing: rewrites a convolution with few input channels so that they fill lanes.

Per axis, taps of the kernel become channels: none, `stride` of them (space-to-depth) or all. The
host gathers the input accordingly; weights change with it and the result never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from codegen.design.numbers import ceil_div
from formats.packing import BLOCK_CODES, Gather, touched_words


@dataclass(frozen=True)
class Conv:
    """A convolution as the engine sees it; sizes in pixels, pads are (top, left)."""

    channels: int
    height: int
    width: int
    out_channels: int
    conv_height: int
    conv_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int]
    groups: int = 1


@dataclass(frozen=True)
class Axis:
    """One axis of a packing.

    Attributes:
        taps, step, pad: packed[d][y] = code[y*step + d - pad] for 0 <= d < taps.
        kernel, stride, engine_pad, size: of the convolution that remains on this axis.
    """

    taps: int
    step: int
    pad: int
    kernel: int
    stride: int
    engine_pad: int
    size: int


def axis_options(
    size: int, kernel: int, stride: int, dilation: int, pad: int, out: int
) -> list[Axis]:
    """The ways to pack one axis, plain first.

    >>> [(a.taps, a.step, a.kernel, a.size) for a in axis_options(224, 11, 4, 1, 2, 55)]
    [(1, 1, 11, 224), (4, 4, 3, 57), (11, 4, 1, 55)]
    """
    options = [Axis(1, 1, 0, kernel, stride, pad, size)]
    if dilation > 1:
        return options  # the taps of a dilated kernel are not neighbours
    for taps in dict.fromkeys((stride, kernel)):
        if 1 < taps <= kernel:
            rest = ceil_div(kernel - taps, stride) + 1
            options.append(Axis(taps, stride, pad, rest, 1, 0, out + rest - 1))
    return options


def apply(conv: Conv, rows: Axis, columns: Axis) -> Conv:
    """The convolution that remains after packing."""
    return Conv(
        channels=conv.channels * rows.taps * columns.taps,
        height=rows.size,
        width=columns.size,
        out_channels=conv.out_channels,
        conv_height=conv.conv_height,
        conv_width=conv.conv_width,
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        dilation=conv.dilation,
        pads=(rows.engine_pad, columns.engine_pad),
        groups=conv.groups,
    )


def make_gather(conv: Conv, rows: Axis, columns: Axis) -> Gather:
    """The host's side of a packing."""
    packed = (conv.channels * rows.taps * columns.taps, rows.size, columns.size)
    return Gather(
        shape=(conv.channels, conv.height, conv.width),
        packed_shape=packed,
        taps=(rows.taps, columns.taps),
        steps=(rows.step, columns.step),
        pads=(rows.pad, columns.pad),
    )


def pack_weight(weight: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """Weights [O, C, KH, KW] become [O, TY*TX*C, KH', KW'], 0 beyond the kernel."""
    out, channels, kernel_h, kernel_w = weight.shape
    packed = np.zeros(
        (out, rows.taps, columns.taps, channels, rows.kernel, columns.kernel), dtype=weight.dtype
    )
    for qy, dy in product(range(rows.kernel), range(rows.taps)):
        for qx, dx in product(range(columns.kernel), range(columns.taps)):
            ky, kx = qy * rows.step + dy, qx * columns.step + dx
            if ky < kernel_h and kx < kernel_w:
                packed[:, dy, dx, :, qy, qx] = weight[:, :, ky, kx]
    return packed.reshape(out, -1, rows.kernel, columns.kernel)


def rows_used(conv: Conv) -> int:
    """Rows of one image that the convolution reads."""
    reach = (conv.conv_height - 1) * conv.stride[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1
    return min(conv.height, reach - conv.pads[0])


def packing_cost(conv: Conv, bits: int, simd: int, pe: int, pixels: int) -> tuple[int, int]:
    """(cycles that bound the layer, words read) of a candidate, for one image."""
    blocks = ceil_div(conv.channels, BLOCK_CODES)
    steps = ceil_div(conv.kernel[0] * conv.kernel[1] * blocks * BLOCK_CODES, simd)
    rows = rows_used(conv)
    arriving = rows * conv.width * blocks
    compute = conv.conv_height * ceil_div(conv.conv_width, pixels) * steps
    read = int(touched_words(rows, conv.width, bits).sum()) * blocks
    tiles = ceil_div(conv.out_channels, pe)
    return tiles * max(compute, arriving, read), read


def packed_size(conv: Conv) -> int:
    """Codes of a candidate's input, in whole channel blocks."""
    return ceil_div(conv.channels, BLOCK_CODES) * conv.height * conv.width


def choose(
    conv: Conv,
    bits: int,
    simd: int,
    pe: int,
    max_taps: int,
    compact: bool = False,
    pixels: int = 1,
) -> tuple[Axis, Axis]:
    """The cheapest packing (rows, columns) whose kernel has at most `max_taps` taps.

    With `compact`, that of the smallest packed input.

    >>> alexnet = Conv(3, 224, 224, 64, 55, 55, (11, 11), (4, 4), (1, 1), (2, 2))
    >>> rows, columns = choose(alexnet, 10, 8, 24, 512)
    >>> (rows.taps, columns.taps), apply(alexnet, rows, columns).kernel
    ((11, 4), (1, 3))
    """
    options = list(
        product(
            axis_options(
                conv.height,
                conv.kernel[0],
                conv.stride[0],
                conv.dilation[0],
                conv.pads[0],
                conv.conv_height,
            ),
            axis_options(
                conv.width,
                conv.kernel[1],
                conv.stride[1],
                conv.dilation[1],
                conv.pads[1],
                conv.conv_width,
            ),
        )
    )
    if conv.groups > 1:
        return options[0]  # a group's channels would have to stay together
    fitting = [pair for pair in options if pair[0].kernel * pair[1].kernel <= max_taps]

    def rank(pair: tuple[Axis, Axis]) -> tuple[int, ...]:
        packed = apply(conv, *pair)
        cost = packing_cost(packed, bits, simd, pe, pixels)
        return (packed_size(packed), *cost) if compact else cost

    return min(fitting or options, key=rank)
