# SPDX-License-Identifier: Apache-2.0
"""Integer convolutions that are exact in floating point, and fast: the engine room of `reference`.

Every weight, value, product and partial sum is an integer times one power of two, and a bound on
all of them, in any order of summation, is known. float64 holds integers to 2^53, float32 to 2^24; a
layer takes float32 where its bound allows it. Library convolutions may use transforms that round,
so these are matrix products of our own.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.network import Layer

_BLOCK_BYTES = 1 << 20  # of accumulators in work at once, so that they stay in the caches
_MINIMAL_BLOCK_BYTES = 1 << 22  # of transformed values and sums
_SHIFTED_FROM = 16  # input channels from which products on shifted rows beat gathered windows
_MINIMAL_FROM = 128  # input channels from which minimal filtering's transforms pay
# The transforms of minimal filtering at most quadruple a bound, their sums have nine terms, and
# the filter transform has two binary places.
_MINIMAL_GROWTH = 4 * 9 * 4


class ExactConvolution:
    """One layer's convolution, bias, weight scale, shift and clamp; weights converted once.

    Weights and bias are multiplied by their channel's scale and by 2^-shift, which is exact; with
    the rounding term added to the bias, requantizing is a clamp and a conversion to integers, which
    drops the fraction.
    """

    def __init__(self, layer: Layer) -> None:
        """Choose a route; the layer's acc_bits and shift must be within `reference.check_exact`."""
        self.layer = layer
        self.limits = layer.y_range
        shift = layer.requant_shift or 0
        half = 1 << (shift - 1) if shift > 0 else 0
        bound = (1 << (layer.product_bits - 1)) + half
        self.dtype = torch.float32 if bound <= 1 << 24 else torch.float64
        scale = 2.0**-shift
        bias, integers = layer.bias.astype(np.int64) << layer.bias_shift, layer.weight
        if layer.weight_scale is not None and layer.quantizer is not None:
            factor = layer.weight_scale.astype(np.int64)
            bias, integers = bias * factor, integers * factor[:, None, None, None]
        self.bias = (torch.from_numpy(bias + half).to(torch.float64) * scale).to(self.dtype)
        weight = torch.from_numpy(integers).to(self.dtype) * scale
        wide = weight.shape[1] >= _SHIFTED_FROM
        if layer.conv_shape[1:] == (1, 1) and not any(layer.pads) and layer.groups == 1:
            self.weight, self._convolve = weight.flatten(1), None
        elif (
            weight.shape[1] >= _MINIMAL_FROM
            and layer.kernel == (3, 3) and layer.stride == layer.dilation == (1, 1)
            and layer.groups == 1 and bound * _MINIMAL_GROWTH <= 1 << 53
        ):  # fmt: skip
            self.weight, self._convolve = _filter_transform(weight.double()), self._minimal
            self.dtype = torch.float64
            self.bias = self.bias.double()
        elif wide and layer.stride == (1, 1):
            # [kernel rows, out, kernel columns * in / groups]: one matrix per kernel row
            self.weight = weight.permute(2, 0, 3, 1).flatten(2).contiguous()
            self._convolve = self._shifted
        else:
            self.weight, self._convolve = weight.flatten(1), self._gathered

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Requantized integers y (int32 [N, C, H, W]), or raw accumulators (int64).

        `values` are decoded, integers of type `self.dtype`.
        """
        layer = self.layer
        kind = torch.int64 if layer.quantizer is None else torch.int32
        out = torch.empty((len(values), *layer.conv_shape), dtype=kind)
        if self._convolve is None:
            (rows, columns), (down, right) = layer.kernel, layer.dilation
            window = values[
                :, :, : (rows - 1) * down + 1 : down, : (columns - 1) * right + 1 : right
            ]
            product = torch.addmm(self.bias, window.flatten(1), self.weight.T)
            self._finish(product, out.view(len(values), -1))
            return out
        top, left, bottom, right = layer.pads
        for image, result in zip(values, out, strict=True):
            padded = F.pad(image, (left, right, top, bottom)) if any(layer.pads) else image
            self._convolve(padded, result)
        return out

    def _finish(self, sums: torch.Tensor, out: torch.Tensor) -> None:
        """Clamp to the range of y and round down; raw sums as they are."""
        if self.limits is not None:
            sums.clamp_(*self.limits)
            if self.limits[0] < 0:
                sums.floor_()  # the conversion to integers rounds towards 0
        out.copy_(sums)

    def _row_blocks(self) -> Iterator[tuple[int, int]]:
        """(first, last) output rows of blocks whose accumulators fit _BLOCK_BYTES."""
        channels, height, width = self.layer.conv_shape
        per_row = channels // self.layer.groups * width * self.bias.element_size()
        step = max(1, _BLOCK_BYTES // per_row)
        for first in range(0, height, step):
            yield first, min(first + step, height)

    def _groups(self, padded: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
        """(input channels, slice of the output channels) of each convolution group."""
        groups = self.layer.groups
        out_group = self.layer.conv_shape[0] // groups
        for group, source in enumerate(padded.chunk(groups)):
            yield source, slice(group * out_group, (group + 1) * out_group)

    def _shifted(self, padded: torch.Tensor, out: torch.Tensor) -> None:
        """Stride 1: copies shifted along the rows, then one matrix product per kernel row."""
        layer, width = self.layer, self.layer.conv_shape[2]
        (rows, columns), (down, right) = layer.kernel, layer.dilation
        for source, target in self._groups(padded):
            for first, last in self._row_blocks():
                high, size = last - first + (rows - 1) * down, (last - first) * width
                block = source[:, first : first + high]
                copies = [block[:, :, x * right : x * right + width] for x in range(columns)]
                stacked = torch.stack(copies).view(columns * len(source), high * width)
                # A copy even where size is 1: the products are added in place.
                sums = (
                    self.bias[target, None]
                    .expand(-1, size)
                    .clone(memory_format=torch.contiguous_format)
                )
                for y in range(rows):
                    start = y * down * width
                    sums.addmm_(self.weight[y, target], stacked[:, start : start + size])
                self._finish(sums.view(-1, last - first, width), out[target, first:last])

    def _gathered(self, padded: torch.Tensor, out: torch.Tensor) -> None:
        """Any stride: the windows of a block of rows become columns of one matrix product."""
        layer, width = self.layer, self.layer.conv_shape[2]
        reach = (layer.kernel[0] - 1) * layer.dilation[0] + 1
        for source, target in self._groups(padded):
            for first, last in self._row_blocks():
                rows = source[None, :, first * layer.stride[0] :][
                    :, :, : (last - 1 - first) * layer.stride[0] + reach
                ]
                windows = F.unfold(rows, layer.kernel, layer.dilation, 0, layer.stride)[0]
                sums = torch.addmm(self.bias[target, None], self.weight[target], windows)
                self._finish(sums.view(-1, last - first, width), out[target, first:last])

    def _minimal(self, padded: torch.Tensor, out: torch.Tensor) -> None:
        """3x3, stride 1: Winograd's minimal filtering, 16 products for each 2x2 outputs, not 36.

        Lavin and Gray 2015 (arXiv 1509.09308), F(2x2, 3x3). Its only fractions are 1/2 and 1/4, so
        it is exact in binary: see _MINIMAL_GROWTH.
        """
        channels, height, width = self.layer.conv_shape
        down, across = (height + 1) // 2, (width + 1) // 2
        padded = F.pad(padded, (0, 2 * across - width, 0, 2 * down - height))
        whole = torch.empty((channels, 2 * down, 2 * across), dtype=out.dtype)
        per_row = 16 * (channels + len(padded)) * across * 8
        budget = max(_MINIMAL_BLOCK_BYTES, self.weight.numel() * 8)
        step = max(1, budget // per_row)
        bias = self.bias[:, None, None]
        for first in range(0, down, step):
            last = min(first + step, down)
            tiles = _input_transform(padded[:, 2 * first : 2 * last + 2], last - first, across)
            sums = torch.bmm(self.weight, tiles).view(4, 4, channels, last - first, across)
            block = whole[:, 2 * first : 2 * last]
            for y, rows in enumerate(_fold(sums)):
                for x, values in enumerate(_fold(rows)):
                    self._finish(values.add_(bias), block[:, y::2, x::2])
        out.copy_(whole[:, :height, :width])


def _filter_transform(weight: torch.Tensor) -> torch.Tensor:
    """G g G^T of 3x3 filters [out, in, 3, 3], as float64 [16, out, in]."""
    matrix = torch.tensor(
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64
    )
    transformed = torch.einsum("ia,ocab,jb->ijoc", matrix, weight, matrix)
    return transformed.reshape(16, *weight.shape[:2]).contiguous()


def _input_transform(rows: torch.Tensor, down: int, across: int) -> torch.Tensor:
    """B^T d B of the overlapping 4x4 tiles of [C, 2 down + 2, 2 across + 2]: [16, C, tiles]."""
    tiles = torch.empty((4, 4, len(rows), down, across), dtype=rows.dtype)
    d = [rows[:, y : y + 2 * down : 2] for y in range(4)]
    for y, part in enumerate((d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3])):
        e = [part[:, :, x : x + 2 * across : 2] for x in range(4)]
        torch.sub(e[0], e[2], out=tiles[y, 0])
        torch.add(e[1], e[2], out=tiles[y, 1])
        torch.sub(e[2], e[1], out=tiles[y, 2])
        torch.sub(e[1], e[3], out=tiles[y, 3])
    return tiles.view(16, len(rows), down * across)


def _fold(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A^T along the first axis of [4, ...]: its even and odd outputs."""
    even = sums[1] + sums[2]
    odd = sums[1] - sums[2]
    return even.add_(sums[0]), odd.sub_(sums[3])
