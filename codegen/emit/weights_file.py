# SPDX-License-Identifier: Apache-2.0
"""params/weights.bin: biases and weights in the order in which the engine consumes them.

Layer, tile of PE output channels (PE/2 where a stage of pairs has one weight a multiplier), chunk
of input channels; a layer's first pass brings its codebook, a tile's first chunk PE biases (int32,
two a word) and, where the layer has any, PE weight scales (a byte each), then come rows of
tile*SIMD fields of the layer's own width. Word j of all this goes to section j % ports
(docs/formats.md).
"""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nuq.codegen.design.array import Array
from nuq.codegen.design.design import Design
from nuq.codegen.design.rows import Row
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.network import Layer
from nuq.formats.packing import WORD_BYTES, pack_fields


def pass_words(layer: Layer, row: Row, array: Array) -> Iterator[np.ndarray]:
    """The words of one layer (uint64 [n, ports]), pass by pass; none without weights."""
    if not layer.has_weights:
        return
    out_group, table = layer.conv_shape[0] // layer.groups, layer.stored.table
    pe, ports, paired = array.tile(bool(row.paired)), array.weight_ports, bool(row.paired)
    if table is not None:
        yield table_words(table, ports)
        fields = field_table(table)
    if row.depthwise:
        for first in range(0, row.out_channels, BLOCK_CODES):
            rows = channel_rows(layer, first, array, paired)
            if table is not None:
                rows = fields[rows.view(np.uint16)]
            head = tile_head(layer, row, array, first, min(BLOCK_CODES, row.out_channels - first))
            data = np.concatenate([head, pack_fields(rows, row.weight_bits)])
            yield data.reshape(-1, ports)
        return
    for group in range(layer.groups):
        for tile in range(row.tiles_per_group):
            first = group * out_group + tile * pe
            lanes = min(pe, (group + 1) * out_group - first)
            head = tile_head(layer, row, array, first, lanes)
            for chunk, blocks in enumerate(row.chunk_sizes):
                start = chunk * row.chunk_blocks * BLOCK_CODES
                part = layer.weight[first : first + lanes, start : start + blocks * BLOCK_CODES]
                rows = order_rows(part, blocks, array, paired)
                if table is not None:
                    rows = fields[rows.view(np.uint16)]
                data = pack_fields(rows, row.weight_bits)
                if chunk == 0:
                    data = np.concatenate([head, data])
                yield data.reshape(-1, ports)


def tile_head(layer: Layer, row: Row, array: Array, first: int, lanes: int) -> np.ndarray:
    """Biases of `lanes` output channels from `first` on, then their weight scales: uint64 words.

    Where lanes are channels, biases repeat every 8 lanes.
    """
    bias = np.zeros(2 * array.weight_ports * array.bias_words, dtype="<i4")
    for start in range(0, array.pe if row.depthwise else 1, BLOCK_CODES):
        bias[start : start + lanes] = layer.bias[first : first + lanes]
    if not row.scaled or layer.weight_scale is None:
        return bias.view("<u8")
    scale = np.zeros(WORD_BYTES * array.weight_ports * array.scale_words, dtype=np.uint8)
    scale[:lanes] = layer.weight_scale[first : first + lanes]
    return np.concatenate([bias.view("<u8"), scale.view("<u8")])


def table_words(table: np.ndarray, ports: int) -> np.ndarray:
    """A codebook, uint64 [entries, ports]: an entry's low 16 bits from the first port, else 0.

    >>> table_words(np.array([-1, 5]), 2).tolist()
    [[65535, 0], [5, 0]]
    """
    words = np.zeros((table.size, ports), dtype="<u8")
    words[:, 0] = table & 0xFFFF
    return words


def field_table(table: np.ndarray) -> np.ndarray:
    """What is stored for a weight w of a codebook: uint8 [2^16], at w mod 2^16.

    A weight 0 that the codebook lacks stands for an output channel that is never stored: index 0.
    """
    fields = np.zeros(1 << 16, dtype=np.uint8)
    fields[table & 0xFFFF] = np.arange(table.size)
    return fields


def order_rows(weight: np.ndarray, blocks: int, array: Array, paired: bool = False) -> np.ndarray:
    """Weights [lanes, channels, KH, KW] of one pass as [rows, SIMD, tile], zero-filled.

    The list of (kernel row, kernel column, block of 8 channels), block fastest, is cut into rows of
    SIMD/8 items; only its end is filled up. Where two output channels share a multiplier, a row is
    [2, SIMD, PE/2]: first the channels of the lower half of the tile.

    >>> rows = order_rows(np.array([5, 6]).reshape(2, 1, 1, 1), 1, Array(8, 8))
    >>> rows.shape, rows[0, 0].tolist()
    ((1, 8, 8), [5, 6, 0, 0, 0, 0, 0, 0])
    >>> order_rows(np.arange(36).reshape(1, 2, 3, 6), 1, Array(24, 8))[0, ::8, 0].tolist()
    [0, 1, 2]
    """
    lanes, channels, kernel_h, kernel_w = weight.shape
    simd, pe = array.simd, array.tile(paired)
    items = kernel_h * kernel_w * blocks * BLOCK_CODES
    rows = np.zeros((ceil_div(items, simd) * simd, pe), dtype=weight.dtype)
    taps = rows[:items].reshape(kernel_h, kernel_w, blocks * BLOCK_CODES, pe)
    taps[:, :, :channels, :lanes] = weight.transpose(2, 3, 1, 0)
    return _halved(rows, array, paired)


def _halved(rows: np.ndarray, array: Array, paired: bool) -> np.ndarray:
    """Fields [rows * SIMD, tile] as they are stored, by row and, of pairs, by half of the tile."""
    halves = array.shared if paired else 1
    parts = rows.reshape(-1, array.simd, halves, array.tile(paired) // halves)
    return parts.swapaxes(1, 2) if halves > 1 else parts.reshape(-1, array.simd, parts.shape[-1])


def channel_rows(layer: Layer, first: int, array: Array, paired: bool = False) -> np.ndarray:
    """Rows of a depthwise convolution's 8 channels from `first` on, as order_rows gives them.

    Row r is of the input columns r, r + stride, ...; its SIMD direction are kernel rows. Lane
    8 g + c is of channel c in the output pixel that g more steps complete.
    """
    weight = layer.weight[first : first + BLOCK_CODES, 0]
    lanes, kernel_h, kernel_w = weight.shape
    stride, dilation = layer.stride[1], layer.dilation[1]
    length = ceil_div((kernel_w - 1) * dilation + 1, stride)
    rows = np.zeros((stride, array.simd, array.tile(paired)), dtype=weight.dtype)
    for tap in range(kernel_w):
        age, column = divmod(tap * dilation, stride)
        start = (length - 1 - age) * BLOCK_CODES
        rows[column, :kernel_h, start : start + lanes] = weight[:, :, tap].T
    return _halved(rows.reshape(-1, array.tile(paired)), array, paired)


def write_weights(design: Design, path: Path) -> list[int]:
    """Write weights.bin; return the CRC-32 of each layer's bytes."""
    if not design.weight_words:
        path.write_bytes(b"")
        return [0] * len(design.rows)
    checks: list[int] = []
    shape = (design.array.weight_ports, design.weight_words // design.array.weight_ports)
    sections = np.memmap(path, dtype="<u8", mode="w+", shape=shape)
    start, quiet = 0, not sys.stderr.isatty()
    with tqdm(
        total=sections.nbytes, desc="weights", unit="B", unit_scale=True, disable=quiet
    ) as progress:
        for layer, row in zip(design.layers, design.rows, strict=True):
            end = start
            for words in pass_words(layer, row, design.array):
                sections[:, end : end + len(words)] = words.T
                end += len(words)
                progress.update(words.nbytes)
            crc = 0
            for section in sections:
                crc = zlib.crc32(section[start:end], crc)
            checks.append(crc)
            start = end
    sections.flush()
    return checks
