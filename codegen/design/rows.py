# SPDX-License-Identifier: Apache-2.0
"""The layer table: one row of int32 fields per layer, in the order of LayerDesc (layer.hpp).

A row is a plain dict, so the planner, the cost model and the renderer read the same numbers. Which
field means what is defined in docs/formats.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen.design.lanes import Conv, rows_used
from codegen.design.layers import SCHEMES, Layer, Quantizer, Storage, planes_of
from codegen.design.numbers import ceil_div
from formats.errors import UserError
from formats.packing import BLOCK_CODES, WORD_BITS, plane_words

Row = dict[str, int]

_COLUMNS = """
    in_addr out_addr in_bits in_signed in_height in_width rows_used in_plane_words
    blocks chunks chunk_blocks
    kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left
    conv_height conv_width ring_rows prefetch_next resident
    conv_groups tiles_per_group group_out_planes out_channels
    pool_h pool_w pool_stride_h pool_stride_w pool_pad_top pool_pad_left
    out_height out_width out_bits out_plane_words
    weight_addr weight_bits weight_table row_words bias_shift requant_shift y_max
    in_scheme in_shift in_half in_table out_scheme out_shift out_half out_table
    raw
    op out_signed y_min
    sources in_align in2_align in2_addr in2_bits in2_plane_words
    in2_signed in2_scheme in2_shift in2_half in2_table
    reciprocal exclude_pad lrn_size lrn_table
    in_chip in2_chip out_chip chip_swap cache_addr
"""
FIELDS = tuple(_COLUMNS.split())


PLACE_DDR, PLACE_CHIP, PLACE_CACHE = range(3)  # enum Place
WEIGHT_PORTS = (1, 2, 3, 4, 6)  # what may be asked for
OP_CONV, OP_SUM, OP_LRN = range(3)  # enum Operation in layer.hpp
OPERATIONS = {"conv": OP_CONV, "fc": OP_CONV, "lrn": OP_LRN}  # all others: OP_SUM


@dataclass(frozen=True)
class Source:
    """How the codes of a feature map are to be read.

    Attributes:
        bits: T of the codes.
        quantizer: None for the network's input.
        table: row of the KNQ tables, 0 where there is none.
    """

    bits: int
    quantizer: Quantizer | None
    table: int

    @property
    def signed(self) -> bool:
        """Whether codes are two's complement."""
        return self.quantizer is None or self.quantizer.signed

    @property
    def value_range(self) -> tuple[int, int]:
        """Smallest and largest decoded value."""
        if self.quantizer is None:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return self.quantizer.min_value, self.quantizer.max_value


@dataclass(frozen=True)
class Job:
    """One layer as the engine runs it, before it is cut into chunks.

    Attributes:
        layer: the layer of the network.
        conv: the convolution after lane packing and group merging, or the operation's windows.
        weight: int16 weights of that convolution, [O, channels/groups, KH, KW].
        sources: one for each input.
        out_table: row of the KNQ tables, 0 where there is none.
        lrn_table: row of the normalisation factors, 0 where there is none.
        storage: how its weights are stored.
    """

    layer: Layer
    conv: Conv
    weight: np.ndarray
    sources: tuple[Source, ...]
    out_table: int
    lrn_table: int
    storage: Storage


def kernel_taps(row: Row) -> int:
    """Taps of the kernel.

    >>> kernel_taps({"kernel_h": 3, "kernel_w": 5})
    15
    """
    return row["kernel_h"] * row["kernel_w"]


def base_row(job: Job, simd: int, pe: int, ports: int = 1) -> Row:
    """All fields that do not depend on chunks and addresses; those are 0.

    UserError where the words of a row of weights do not divide by the weight ports.
    """
    conv, layer, quantizer = job.conv, job.layer, job.layer.quantizer
    pool, source = layer.pool, job.sources[0]
    _, out_height, out_width = layer.out_shape
    out_bits = quantizer.bits if quantizer else 0
    per_group = conv.out_channels // conv.groups
    row: Row = dict.fromkeys(FIELDS, 0)
    row.update(
        in_bits=source.bits,
        in_signed=int(source.signed),
        in_height=conv.height,
        in_width=conv.width,
        rows_used=rows_used(conv),
        in_plane_words=plane_words(conv.height, conv.width, source.bits),
        blocks=ceil_div(conv.channels // conv.groups, BLOCK_CODES),
        conv_groups=conv.groups,
        kernel_h=conv.kernel[0],
        kernel_w=conv.kernel[1],
        stride_h=conv.stride[0],
        stride_w=conv.stride[1],
        dilation_h=conv.dilation[0],
        dilation_w=conv.dilation[1],
        pad_top=conv.pads[0],
        pad_left=conv.pads[1],
        conv_height=conv.conv_height,
        conv_width=conv.conv_width,
        tiles_per_group=ceil_div(per_group, pe),
        group_out_planes=ceil_div(per_group, BLOCK_CODES),
        out_channels=conv.out_channels,
        pool_h=pool.kernel[0] if pool else 1,
        pool_w=pool.kernel[1] if pool else 1,
        pool_stride_h=pool.stride[0] if pool else 1,
        pool_stride_w=pool.stride[1] if pool else 1,
        pool_pad_top=pool.pads[0] if pool else 0,
        pool_pad_left=pool.pads[1] if pool else 0,
        out_height=out_height,
        out_width=out_width,
        out_bits=out_bits,
        out_plane_words=plane_words(out_height, out_width, out_bits) if quantizer else 0,
        bias_shift=layer.bias_shift,
        requant_shift=layer.requant_shift,
        raw=int(quantizer is None),
        op=OPERATIONS.get(layer.kind, OP_SUM),
        sources=len(job.sources),
    )
    row.update(_decoder("in", source))
    row.update(_weights(job, simd, pe, ports) if layer.weighted else _operation(job, simd, pe))
    if quantizer:
        row.update(
            y_min=layer.y_min,
            y_max=quantizer.y_max,
            out_signed=int(quantizer.signed),
            out_scheme=SCHEMES.index(quantizer.scheme),
            out_shift=quantizer.shift,
            out_half=quantizer.encode_half,
            out_table=job.out_table,
        )
    return row


def _decoder(prefix: str, source: Source) -> Row:
    """Fields of the decoder of one input."""
    quantizer = source.quantizer
    if quantizer is None:
        return {}
    return {
        f"{prefix}_scheme": SCHEMES.index(quantizer.scheme),
        f"{prefix}_shift": quantizer.shift,
        f"{prefix}_half": quantizer.decode_half,
        f"{prefix}_table": source.table,
    }


def _weights(job: Job, simd: int, pe: int, ports: int) -> Row:
    """Fields that say how the weights are stored."""
    bits, table = job.storage.bits, job.storage.table
    words = simd * pe * bits // WORD_BITS
    if words % ports:
        fitting = ", ".join(str(q) for q in WEIGHT_PORTS if words % q == 0)
        raise UserError(
            f"WEIGHT_PORTS must divide the {words} words of a row of layer {job.layer.name} "
            f"({simd}x{pe} weights of {bits} bits), not {ports}; use one of {fitting}"
        )
    return {
        "weight_bits": bits,
        "weight_table": 0 if table is None else table.size,
        "row_words": words // ports,
    }


def _operation(job: Job, simd: int, pe: int) -> Row:
    """Fields of a layer without weights: channel by channel, planes instead of groups."""
    layer, conv = job.layer, job.conv
    planes = planes_of(conv.channels)
    step = tile_planes(OPERATIONS.get(layer.kind, OP_SUM), pe)
    if step < 1:
        raise UserError(
            f"PE must be at least 24 for the normalisation {layer.name}, not {pe}; use a larger PE"
        )
    row: Row = {
        "blocks": min(planes, step) + pe // BLOCK_CODES - step,
        "tiles_per_group": ceil_div(planes, step),
        "in_align": layer.in_aligns[0],
        "reciprocal": layer.reciprocal if layer.quantizer else 0,
        "exclude_pad": int(layer.exclude_pad),
        "lrn_size": layer.lrn.size if layer.lrn else 0,
        "lrn_table": job.lrn_table,
    }
    if len(job.sources) > 1:
        second = job.sources[1]
        row.update(
            in2_align=layer.in_aligns[1],
            in2_bits=second.bits,
            in2_signed=int(second.signed),
            in2_plane_words=plane_words(conv.height, conv.width, second.bits),
            **_decoder("in2", second),
        )
    return row


def tile_planes(op: int, pe: int) -> int:
    """Output planes that a tile writes; a normalisation needs one on either side for neighbours.

    >>> tile_planes(OP_SUM, 24), tile_planes(OP_LRN, 24)
    (3, 1)
    """
    return pe // BLOCK_CODES - (2 if op == OP_LRN else 0)


def set_chunks(row: Row, simd: int, weight_rows: int, line_blocks: int) -> bool:
    """Cut the input channels into equal chunks that fit both buffers; False where none can.

    Args:
        row: `chunks`, `chunk_blocks` and `ring_rows` (without prefetch) are set.
        weight_rows, line_blocks: capacity of the weight buffer and of the line buffer.
    """
    bank = simd // BLOCK_CODES
    row["ring_rows"] = ring_rows(row, prefetch=False)
    row["prefetch_next"] = row["resident"] = 0
    if row["op"] != OP_CONV:
        row["chunk_blocks"] = ceil_div(row["blocks"], bank) * bank * row["sources"]
        row["chunks"] = 1
        return line_entries(row) <= line_blocks
    most = min(
        weight_rows * bank // kernel_taps(row), line_blocks // (row["ring_rows"] * row["in_width"])
    )
    if most < 1:
        return False
    row["chunk_blocks"] = ceil_div(row["blocks"], ceil_div(row["blocks"], most))
    row["chunks"] = ceil_div(row["blocks"], row["chunk_blocks"])
    return True


def steps(row: Row, blocks: int, simd: int) -> int:
    """Cycles of the multiplier array for one group of pixels in a pass of so many blocks.

    A convolution's list of (tap, block) is cut into pieces of SIMD channels wherever taps end; an
    operation fills up each tap.

    >>> row = dict(op=OP_CONV, kernel_h=3, kernel_w=3, sources=1)
    >>> steps(row, 8, 24), steps(row, 1, 24), steps({**row, "op": OP_SUM}, 8, 24)
    (24, 3, 27)
    """
    bank = simd // BLOCK_CODES
    if row["op"] == OP_CONV:
        return ceil_div(kernel_taps(row) * blocks, bank)
    return kernel_taps(row) * row["sources"] * ceil_div(blocks, bank)


def chunk_sizes(row: Row) -> list[int]:
    """Blocks of each chunk of a convolution.

    >>> chunk_sizes(dict(blocks=8, chunks=3, chunk_blocks=3))
    [3, 3, 2]
    """
    size = row["chunk_blocks"]
    return [min(size, row["blocks"] - chunk * size) for chunk in range(row["chunks"])]


def rows_needed(row: Row) -> np.ndarray:
    """int64 [conv_height]: input rows of an image, from its first, that each output row needs."""
    oy = np.arange(row["conv_height"], dtype=np.int64)
    last = oy * row["stride_h"] - row["pad_top"] + (row["kernel_h"] - 1) * row["dilation_h"]
    return np.clip(last + 1, 0, row["rows_used"])


def ring_rows(row: Row, prefetch: bool) -> int:
    """Line buffer rows: a step's window and the rows taken in meanwhile for the next step.

    >>> row = dict(conv_height=4, stride_h=1, pad_top=1, kernel_h=3, dilation_h=1, rows_used=4)
    >>> ring_rows(row, prefetch=False), ring_rows(row, prefetch=True)
    (4, 4)
    """
    needed = rows_needed(row)
    first = np.arange(row["conv_height"], dtype=np.int64) * row["stride_h"] - row["pad_top"]
    first = np.clip(first, 0, row["rows_used"])
    end = row["rows_used"] + (int(needed[0]) if prefetch else 0)
    return int((np.append(needed[1:], end) - first).max())


def line_entries(row: Row) -> int:
    """Entries of the line buffer that the layer uses."""
    return row["ring_rows"] * row["in_width"] * row["chunk_blocks"]


def tiles(row: Row) -> int:
    """Tiles of PE output channels."""
    return row["conv_groups"] * row["tiles_per_group"]


def bias_words(pe: int, ports: int) -> int:
    """64-bit words that every port brings of a tile's PE biases of 32 bits.

    >>> bias_words(24, 1), bias_words(8, 3)
    (12, 2)
    """
    return ceil_div(pe // 2, ports)


def weight_words(row: Row, simd: int, pe: int, ports: int = 1) -> int:
    """64-bit words of the layer in each port's section of weights.bin."""
    if row["op"] != OP_CONV:
        return 0
    rows = sum(steps(row, blocks, simd) for blocks in chunk_sizes(row))
    return row["weight_table"] + tiles(row) * (bias_words(pe, ports) + rows * row["row_words"])


def output_words(row: Row) -> int:
    """64-bit words of the layer's output for one image."""
    if row["raw"]:
        return row["out_height"] * row["out_width"] * row["out_channels"]
    return row["conv_groups"] * row["group_out_planes"] * row["out_plane_words"]
