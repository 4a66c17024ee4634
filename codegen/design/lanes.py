# SPDX-License-Identifier: Apache-2.0
"""First-layer lane packing: rewrites a convolution with few input channels so that they fill lanes.

Per axis, taps of the kernel become channels: none, `stride` of them (space-to-depth) or all. The
host gathers the input accordingly; weights change with it and the result never does.
"""

from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from codegen.design.array import Array
from formats.arithmetic import BLOCK_CODES, ceil_div
from formats.network import Layer
from formats.packing import Gather, touched_words


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


def pack_shape(layer: Layer, rows: Axis, columns: Axis) -> Layer:
    """The convolution that remains after packing; its weights are still those of `layer`."""
    return replace(
        layer,
        in_shape=(layer.in_shape[0] * rows.taps * columns.taps, rows.size, columns.size),
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        pads=(rows.engine_pad, columns.engine_pad, *layer.pads[2:]),
    )


def pack_lanes(layer: Layer, rows: Axis, columns: Axis) -> tuple[Layer, Gather]:
    """The packed convolution, and the host's side of the packing."""
    packed = pack_shape(layer, rows, columns)
    gather = Gather(
        shape=layer.in_shape,
        packed_shape=packed.in_shape,
        taps=(rows.taps, columns.taps),
        steps=(rows.step, columns.step),
        pads=(rows.pad, columns.pad),
    )
    return replace(packed, weight=pack_weight(layer.weight, rows, columns)), gather


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


def rows_used(layer: Layer) -> int:
    """Rows of one image that the windows reach."""
    reach = (
        (layer.conv_shape[1] - 1) * layer.stride[0] + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    )
    return min(layer.in_shape[1], reach - layer.pads[0])


def packing_cost(layer: Layer, bits: int, array: Array) -> tuple[int, int]:
    """(cycles that bound a packed convolution, words read), for one image."""
    (channels, _, width), (out_channels, conv_height, conv_width) = layer.in_shape, layer.conv_shape
    blocks = ceil_div(channels, BLOCK_CODES)
    steps = ceil_div(prod(layer.kernel) * blocks, array.blocks)
    rows = rows_used(layer)
    arriving = rows * width * blocks
    compute = conv_height * array.groups(conv_width) * steps
    read = int(touched_words(rows, width, bits).sum()) * blocks
    return ceil_div(out_channels, array.pe) * max(compute, arriving, read), read


def choose(
    layer: Layer, bits: int, array: Array, max_taps: int, compact: bool = False
) -> tuple[Axis, Axis]:
    """The cheapest packing (rows, columns) whose kernel has at most `max_taps` taps.

    With `compact`, that of the smallest packed input. A group's channels have to stay together, so
    grouped convolutions are not packed.
    """

    def axes(axis: int) -> list[Axis]:
        return axis_options(
            layer.in_shape[1 + axis], layer.kernel[axis], layer.stride[axis],
            layer.dilation[axis], layer.pads[axis], layer.conv_shape[1 + axis],
        )  # fmt: skip

    options = list(product(axes(0), axes(1)))
    if layer.groups > 1:
        return options[0]

    def rank(pair: tuple[Axis, Axis]) -> tuple[int, ...]:
        packed = pack_shape(layer, *pair)
        cost = packing_cost(packed, bits, array)
        channels, height, width = packed.in_shape
        size = ceil_div(channels, BLOCK_CODES) * height * width
        return (size, *cost) if compact else cost

    fitting = [pair for pair in options if pair[0].kernel * pair[1].kernel <= max_taps]
    return min(fitting or options, key=rank)
