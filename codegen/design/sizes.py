# SPDX-License-Identifier: Apache-2.0
"""Sizes: the widths and depths that a cut network needs of the engine, and its line buffer.

Block RAM follows the geometries of a RAMB18 with a port to write and one to read (UG473, UG573):
512x36, 1024x18, 2048x9, 4096x4, 8192x2, 16384x1. Two 512x36 are a RAMB36 with ports of 72 bits.
LUT RAM with such ports: 4 LUTs hold 32 words of 6 bits or 64 of 3 (UG474, RAM32M and RAM64M).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nuq.codegen.design.array import Array
from nuq.codegen.design.lowering import Lowered
from nuq.codegen.design.rows import Operation, Row
from nuq.formats.arithmetic import (
    BLOCK_CODES,
    LRN_FACTOR_BITS,
    MAX_ACC_BITS,
    MAX_PRODUCT_BITS,
    RECIPROCAL_BITS,
    SCALE_BITS,
    ceil_div,
    ceil_log2,
    signed_bits,
    unsigned_bits,
)
from nuq.formats.network import Layer
from nuq.formats.packing import WORD_BITS, WORD_BYTES
from nuq.formats.quantizer import Quantizer

RAMB18 = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
LUTRAM_DEPTH = 64  # memories up to this depth go into LUTs
AP_INT_BITS = 1024  # of an ap_uint at most (UG1399)


@dataclass(frozen=True)
class Memory:
    """One on-chip memory: `banks` memories of depth x width, `copies` of each."""

    name: str
    banks: int
    depth: int
    width: int
    copies: int = 1
    bound: str = ""  # "uram" or "lutram" where a pragma says so; else by its depth

    @property
    def impl(self) -> str:
        """Where it is, by the names of Vitis HLS."""
        return self.bound or ("bram" if self.depth > LUTRAM_DEPTH else "lutram")

    @property
    def uram(self) -> int:
        """URAM288 blocks, 4096x72 each (UG573)."""
        if self.impl != "uram":
            return 0
        return self.banks * self.copies * ceil_div(self.depth, 4096) * ceil_div(self.width, 72)

    @property
    def bram18(self) -> int:
        """RAMB18 blocks; 0 where the memory is none of them."""
        if self.impl != "bram":
            return 0
        one = min(ceil_div(self.depth, d) * ceil_div(self.width, w) for d, w in RAMB18)
        return self.banks * self.copies * one

    @property
    def lut(self) -> int:
        """LUTs of a memory in LUT RAM; beyond 64 words a multiplexer a bit, 4 inputs a LUT."""
        if self.impl != "lutram":
            return 0
        if self.depth <= 32:
            one = 4 * ceil_div(self.width, 6)
        else:
            parts = ceil_div(self.depth, 64)
            one = parts * 4 * ceil_div(self.width, 3)
            one += self.width * ceil_div(parts, 4) if parts > 1 else 0
        return self.banks * self.copies * one


@dataclass(frozen=True)
class Sizes:
    """Everything that the rendered C++ and its resources depend on; names as in network.hpp.

    Widths come from formats and shapes, so that a network which is quantized again has the same.
    """

    array: Array
    batch: int  # images a call of the accelerator at most
    weight_rows: int
    tap_rows: int  # of one side of the tap table: those of a pass
    weight_bits: int
    value_bits: int
    tree_bits: int
    acc_bits: int
    quant_bits: int
    code_bits: int
    gear_bits: int
    line_blocks: int
    line_low_bits: int
    line_high_blocks: int
    psum_groups: int
    knq_levels: int
    pool_rows: int
    pool_width: int
    pack_width: int
    quant_signed: bool
    enq_bits: int
    decoders: int
    wide_bits: int
    operations: bool  # layers without weights
    lrn: bool
    lrn_reach: int
    averages: bool
    products: bool  # of two inputs
    scales: bool  # accumulators can be multiplied by a weight scale
    map_height: int
    map_width: int
    kernel: int  # rows or columns of a dilated kernel
    stride: int
    pad_entries: int  # of the line buffer, that padding above and on the left would take
    pass_blocks: int  # channel blocks of a pass's inputs
    planes: int  # of a convolution group's output
    channels: int  # that a layer reads or stores
    passes: int
    in_widths: tuple[int, ...]  # T of the feature maps that are read
    out_widths: tuple[int, ...]  # T of those that are written packed; 1 where none is
    weight_widths: tuple[int, ...]  # of stored weights or indices
    table_entries: int
    plain_weights: bool  # some layer's weights are stored without a codebook
    row_bytes: int  # of an output plane, from a tile's row to its next one
    chip_words: tuple[int, int] = (1, 1)  # depths of the memories A and B of feature maps

    @property
    def packed_bits(self) -> int:
        """Bits that are stored for the larger operand of a multiplier."""
        return packed_bits(self.array, self.weight_bits)

    @property
    def lane_bits(self) -> int:
        """Bits of the weights of one input channel in a row: an ap_uint of the weight buffer."""
        return self.array.pe // self.array.shared * self.packed_bits

    @property
    def row_bits(self) -> int:
        """Bits of the weights that a cycle consumes, as the weight buffer holds them."""
        return self.array.simd * self.lane_bits


def packed_bits(array: Array, weight_bits: int) -> int:
    """Bits that are stored for the larger operand of a multiplier: a weight, or two.

    >>> packed_bits(Array(8, 16), 14), packed_bits(Array(8, 16, pair_bits=8, pair_shift=17), 14)
    (14, 16)
    """
    return max(2 * array.pair_bits, weight_bits)


def factor_bits(sizes: Sizes) -> int:
    """Signed width of what a sum is multiplied by before it is requantized; 0 where nothing is."""
    units = {
        RECIPROCAL_BITS + 1: sizes.averages, LRN_FACTOR_BITS: sizes.lrn, SCALE_BITS: sizes.scales
    }  # fmt: skip
    factors = [bits + 1 for bits, there in units.items() if there]
    return max([*factors, sizes.value_bits if sizes.products else 0])


def operand_bits(lowered: Lowered) -> tuple[int, int]:
    """(weight, value) widths of a multiplier's operands."""
    layers = lowered.layers
    sources = [lowered.source(name) for layer in layers for name in layer.inputs]
    return (
        max([layer.weight_bits for layer in layers if layer.has_weights], default=2),
        max(item.value_bits for item in sources),
    )


def acc_bits(layer: Layer, sources: Sequence[Quantizer]) -> int:
    """Signed width of any sum of a layer's products, whatever its weights are."""
    most = max(1 << (item.value_bits - 1) for item in sources)
    if layer.has_weights:
        products = layer.weight.shape[1] * prod(layer.kernel)
        largest = products * most << (layer.weight_bits - 1)
        # biases are short of that, or else the layer says so itself
        return max(layer.acc_bits, min(MAX_ACC_BITS, signed_bits(-largest, largest)))
    return layer.acc_bits


def sizes_of(
    lowered: Lowered,
    rows: Sequence[Row],
    array: Array,
    weight_rows: int,
    batch: int,
    low_bits: int | None = None,
) -> Sizes:
    """The sizes of a network whose rows are cut into chunks.

    `low_bits`: of a code in every entry of the line buffer, None for the cheapest split.
    """  # fmt: skip
    layers = lowered.layers
    stored = [layer.quantizer for layer in layers if layer.quantizer]
    knq = [item for item in stored if item.scheme == "knq"]
    sums = [acc_bits(layer, [lowered.source(name) for name in layer.inputs]) for layer in layers]
    pooled = [row for row in rows if row.pooled]
    waiting = [batch * row.pixel_groups(array) for row in rows if row.chunks > 1]
    windows = [row.steps(array.planes, array) for row in rows if not row.is_conv]
    second = {row.in2_bits for row in rows if row.sources > 1}
    widths = {row.code_bits for row in rows} | {row.out_bits for row in rows} - {0}
    weight_bits, value_bits = operand_bits(lowered)
    low_bits, high_blocks = split_line(rows, max(widths), low_bits)
    # no sum of SIMD full products overflows; an aligned value passes where such a sum does
    sum_bits = weight_bits + value_bits + ceil_log2(array.simd)
    aligned_bits = value_bits + max(shift for layer in layers for shift in layer.in_aligns)
    products = any(row.op == Operation.PRODUCT for row in rows)
    if products:  # of which one lies above the other
        aligned_bits = max(aligned_bits, 2 * value_bits)
    return Sizes(
        array=array,
        batch=batch,
        weight_rows=weight_rows,
        tap_rows=max([weight_rows, *windows]),
        weight_bits=weight_bits,
        value_bits=value_bits,
        tree_bits=max(sum_bits, aligned_bits),
        acc_bits=max([*sums, 2 * value_bits if products else 0]),
        quant_bits=quant_bits(rows, stored),
        quant_signed=any(item.y_signed for item in stored),
        code_bits=max(widths),
        gear_bits=max(gear_bits(width) for width in widths),
        line_blocks=max(row.line_entries for row in rows),
        line_low_bits=low_bits,
        line_high_blocks=high_blocks,
        psum_groups=max(waiting, default=1),
        knq_levels=max((1 << item.bits for item in knq), default=1),
        enq_bits=max((item.bits for item in stored if item.scheme == "enq"), default=0),
        decoders=max(row.sources for row in rows),
        pool_rows=max((row.pool_h for row in pooled), default=0),
        pool_width=max((row.conv_width for row in pooled), default=0),
        pack_width=max(row.out_width for row in rows),
        wide_bits=wide_bits(rows, layers, sums),
        operations=any(not row.is_conv for row in rows),
        lrn=any(row.op == Operation.LRN for row in rows),
        lrn_reach=max(row.lrn_size // 2 for row in rows),
        averages=any(row.reciprocal or row.exclude_pad for row in rows),
        products=products,
        scales=any(row.scaled for row in rows),
        map_height=max(max(row.in_height, row.conv_height, row.out_height) for row in rows),
        map_width=max(max(row.in_width, row.conv_width, row.out_width) for row in rows),
        kernel=max(max(row.kernel_h * row.dilation_h, row.kernel_w * row.dilation_w)
                   for row in rows),
        stride=max(max(row.stride_h, row.stride_w) for row in rows),
        pad_entries=max((row.pad_top * row.in_width + row.pad_left) * row.chunk_blocks
                        for row in rows),
        pass_blocks=max(row.blocks * row.sources for row in rows),
        planes=max(row.group_out_planes for row in rows),
        channels=max(max(row.out_channels, row.blocks * BLOCK_CODES) for row in rows),
        passes=max(row.passes for row in rows),
        in_widths=tuple(sorted({row.in_bits for row in rows} | second)),
        out_widths=tuple(sorted({row.out_bits for row in rows if not row.raw})) or (1,),
        weight_widths=tuple(sorted({row.weight_bits for row in rows if row.is_conv}))
        or (weight_bits,),
        table_entries=max(row.weight_table for row in rows),
        plain_weights=any(row.is_conv and not row.weight_table for row in rows),
        row_bytes=max(max(row.row_bytes, row.raw_words * WORD_BYTES) for row in rows),
    )  # fmt: skip


def quant_bits(rows: Sequence[Row], quantizers: Sequence[Quantizer]) -> int:
    """Width of y and of the threshold that no value reaches, y_max + 1."""
    low, high = min(row.y_min for row in rows), max(row.y_max for row in rows) + 1
    return signed_bits(low, high) if any(q.y_signed for q in quantizers) else unsigned_bits(high)


def wide_bits(rows: Sequence[Row], layers: Sequence[Layer], sums: Sequence[int]) -> int:
    """Width that holds acc + 2^(s-1), acc << -s and y_max without overflow, over all layers.

    acc is the accumulator, of `sums` bits at most, times the factor of an average pool or of a
    normalisation.
    """
    needed = [2]
    for row, layer, bits in zip(rows, layers, sums, strict=True):
        shift, factor = row.requant_shift, layer.product_bits - layer.acc_bits
        needed.append(min(MAX_PRODUCT_BITS, max(bits + factor, shift)) + 1)
        needed.append(layer.product_bits - min(0, shift))
        needed.append(row.y_max.bit_length() + 1)
    return max(needed)


def gear_bits(width: int) -> int:
    """Bits of a gearbox between 64-bit words and blocks of `width` bytes.

    At most 8 - g bytes are left over when a block of `width` bytes joins them, g being what every
    offset is a multiple of. One bit more than a word, so that shifting a word out is defined.

    >>> [gear_bits(width) for width in (1, 3, 8, 10, 16)]
    [72, 80, 72, 128, 128]
    """
    step = 8 if width % 8 == 0 else width & -width
    return max(WORD_BITS + 8, 8 * (8 - step + width))


def line_memories(
    blocks: int, low_bits: int, high_blocks: int, code_bits: int, copies: int = 1
) -> list[Memory]:
    """The two parts of the line buffer: the low bits of every code, the others of wide codes."""
    memories = [Memory("line buffer", 1, blocks, BLOCK_CODES * low_bits, copies)]
    if code_bits > low_bits:
        width = BLOCK_CODES * (code_bits - low_bits)
        memories.append(Memory("line buffer, wide codes", 1, high_blocks, width, copies))
    return memories


def split_line(rows: Sequence[Row], code_bits: int, fixed: int | None = None) -> tuple[int, int]:
    """(low bits, entries of the rest) of the cheapest line buffer, or of one with `fixed` low bits.

    The network's input has the widest codes, but few channels: its upper bits get a shallow memory
    of their own.
    """
    blocks = max(row.line_entries for row in rows)
    options = []
    choices = {code_bits, *(row.code_bits for row in rows)} if fixed is None else {fixed}
    for low in sorted(choices, reverse=True):
        high = max((row.line_entries for row in rows if row.code_bits > low), default=1)
        parts = line_memories(blocks, low, high, code_bits)
        options.append((sum(part.bram18 for part in parts), -low, high))
    _, low, high = min(options)
    return -low, high
