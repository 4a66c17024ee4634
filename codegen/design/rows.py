# SPDX-License-Identifier: Apache-2.0
"""Row: a layer as the engine runs it, one row of the generated layer table.

The planner, the cost model and the renderer read the same numbers. Every field is written down
once, here: struct LayerDesc of the generated C++ (layer_desc.hpp) and the table in docs/formats.md,
section 5, come from these fields.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from operator import attrgetter
from typing import Any

import numpy as np

from nuq.codegen.design.array import Array
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.packing import WORD_BYTES

RAW_ROW_WORDS = 512  # of raw pixels that are written at a time
C_TYPE, NUMPY_TYPE = "int32_t", "<i4"  # of every field


class Operation(IntEnum):
    """What a layer computes: a convolution, or channel by channel what the names say."""

    CONV = 0
    SUM = 1  # of its window: add, average pool, max pool alone
    LRN = 2
    PRODUCT = 3  # of two inputs


class Place(IntEnum):
    """Where a map is: DRAM, a memory on chip, or DRAM with a copy on chip for later tiles."""

    DDR = 0
    CHIP = 1
    CACHE = 2


class Scheme(IntEnum):
    """How codes are made and read: codes are numbers themselves, ENQ, or KNQ."""

    UNIFORM = 0
    ENQ = 1
    KNQ = 2


def column(meaning: str, unit: str = "", *, cost: bool = True) -> Any:
    """A field of Row, 0 where nothing sets it; `cost`: cycles or traffic can depend on it."""
    return field(default=0, metadata={"meaning": meaning, "unit": unit, "cost": cost})


@dataclass(frozen=True)
class Row:
    """One layer; blocks and planes are 8 channels, words 64 bits, addresses count words."""

    in_addr: int = column(
        "place of the input in an image's arena: image n begins at word n * `map_words`; on chip: "
        "5.2", "words", cost=False,
    )  # fmt: skip
    out_addr: int = column("place of the output, likewise", "words", cost=False)
    in_bits: int = column("T of the input", "bits")
    in_signed: int = column("1: codes of the input are two's complement, as the network's input is")
    in_height: int = column("height of the (lane-packed) input", "rows")
    in_width: int = column("its width", "pixels")
    rows_used: int = column("input rows that any window reaches: those that are read", "rows")
    in_plane_words: int = column("size of an input plane", "words")
    blocks: int = column("channels that one convolution group reads", "blocks")
    chunks: int = column("chunks of input channels, section 4", "chunks")
    chunk_blocks: int = column(
        "size of a chunk; of an operation without weights: line buffer entries a pixel, its blocks "
        "filled up to a multiple of G, for each source", "blocks",
    )  # fmt: skip
    kernel_h: int = column("height of the (lane-packed) kernel", "taps")
    kernel_w: int = column("its width", "taps")
    stride_h: int = column("step between windows, down", "rows")
    stride_w: int = column("step between windows, across", "pixels")
    dilation_h: int = column("step between taps, down", "rows")
    dilation_w: int = column("step between taps, across", "pixels")
    pad_top: int = column("rows of zeros above the input", "rows")
    pad_left: int = column("columns of zeros left of it", "pixels")
    conv_height: int = column("height of the convolution's output", "rows")
    conv_width: int = column("its width", "pixels")
    ring_rows: int = column("input rows that the line buffer holds", "rows")
    prefetch_next: int = column(
        "1: during an image's last output row, the first rows of the next image are taken in, and "
        "after the last image those of the next pass of a convolution"
    )
    resident: int = column(
        "1: `ring_rows` holds the inputs of a whole batch; the first pass reads them, the others "
        "read nothing"
    )
    conv_groups: int = column(
        "groups of the convolution; of interleaved tiles, one for each place down, which all read "
        "the same channels", "groups",
    )  # fmt: skip
    depthwise: int = column(
        "1: lanes are channels: a tile is a plane, and its kernel's columns share the tile's lanes"
    )
    lead: int = column("of such a layer: columns' steps before an output row's first pixel",
                       "groups")  # fmt: skip
    tiles_per_group: int = column("tiles of PE output channels in a group", "tiles")
    group_out_planes: int = column("stored output channels of a group", "planes")
    out_channels: int = column("stored output channels", "channels")
    pool_h: int = column("height of the max pool's window, 1 where there is none", "rows")
    pool_w: int = column("its width, likewise", "pixels")
    pool_stride_h: int = column("step between its windows, down; 1 where there is none", "rows")
    pool_stride_w: int = column("step between its windows, across; likewise", "pixels")
    pool_pad_top: int = column("rows of padding above the pool's map", "rows")
    pool_pad_left: int = column("columns of padding left of it", "pixels")
    out_height: int = column("height of the output, before its pixels are enlarged", "rows")
    out_width: int = column("its width, likewise", "pixels")
    places_h: int = column(
        "places, down, at which a tile stores each of its pixels; 1 where none is enlarged",
        "places",
    )
    places_w: int = column("and across", "places")
    apart: int = column(
        "1: every place has an output plane of the tile to itself (depth to space); 0: one plane "
        "is stored at all places (nearest neighbour)"
    )
    interleave: int = column(
        "tiles, one for each place down, whose rows lie between each other in a plane; else 1",
        "tiles",
    )
    out_bits: int = column("T of the output", "bits")
    out_plane_words: int = column("size of an output plane", "words")
    weight_addr: int = column("place in every section of weights.bin", "words", cost=False)
    weight_bits: int = column("W: width of a stored weight or index", "bits")
    weight_table: int = column("entries of the codebook, 0 for none", "entries")
    paired: int = column("1: two output channels share a multiplier")
    row_words: int = column("size of a row of weights, from each port", "words")
    scaled: int = column("1: accumulators are multiplied by their channel's weight scale")
    bias_shift: int = column("left shift of the biases, section 2.3", "bits", cost=False)
    requant_shift: int = column("right shift of the accumulator, section 2.3", "bits", cost=False)
    y_max: int = column("upper limit of y: 2^qm - 1, or 2^(qm-1) - 1 where signed", cost=False)
    in_scheme: int = column("decoder: 0 the code itself, 1 ENQ, 2 KNQ")
    in_shift: int = column("ENQ: left shift of a code", "bits", cost=False)
    in_half: int = column("ENQ: added to the value of codes other than 0", cost=False)
    out_scheme: int = column("encoder: 0 none, 1 ENQ, 2 KNQ")
    out_shift: int = column("ENQ: right shift of y", "bits", cost=False)
    out_half: int = column("ENQ: added before that shift", cost=False)
    raw: int = column("1 for the last layer: accumulators are stored")
    op: int = column(
        "0 convolution, 1 sum of the window channel by channel (add, avgpool, maxpool), 2 LRN, "
        "3 product of two inputs"
    )
    out_signed: int = column("1: y, and codes other than KNQ's, are two's complement")
    y_min: int = column("lower limit of y", cost=False)
    sources: int = column("inputs: 2 for an add or a product, else 1", "maps")
    in_align: int = column("left shift of the decoded values", "bits")
    in2_align: int = column("the same of the second input", "bits")
    in2_repeat: int = column("1: the second input is one pixel, for every pixel of the first")
    in2_addr: int = column("the second input: as `in_addr`", "words", cost=False)
    in2_bits: int = column("as `in_bits`", "bits")
    in2_plane_words: int = column("as `in_plane_words`", "words")
    in2_signed: int = column("as `in_signed`")
    in2_scheme: int = column("as `in_scheme`")
    in2_shift: int = column("as `in_shift`", "bits", cost=False)
    in2_half: int = column("as `in_half`", cost=False)
    reciprocal: int = column("R of an average pool, 0 for none")
    exclude_pad: int = column(
        "1: R depends on the pixel, by the elements of its window inside the map"
    )
    lrn_size: int = column("window of the normalisation, section 2.8", "channels")
    in_chip: int = column("place: 0 DRAM, 1 on chip, 2 DRAM with a copy on chip")
    in2_chip: int = column("place of the second input: 0 or 1")
    out_chip: int = column("place of the output: 0 or 1")
    chip_swap: int = column("0: the layer reads memory A and writes B; 1: it reads B and writes A")
    cache_addr: int = column("place of the copy where `in_chip` is 2", "words")
    map_words: int = column("size of an image's arena in DRAM", "words", cost=False)
    chip_words: int = column("words from image to image in the memory on chip that is read",
                             cost=False)  # fmt: skip
    out_words: int = column("words from image to image of the output, wherever it is", cost=False)
    # what follows are products of the fields above, so that the engine need not multiply
    columns: int = column("groups of PIXELS pixels in an output row", "groups", cost=False)
    first_rows: int = column("input rows that the first output row needs", "rows", cost=False)
    row_entries: int = column("line buffer entries of an input row", "entries", cost=False)
    ring_entries: int = column("and of all its rows", "entries", cost=False)
    image_entries: int = column(
        "entries from an image's first row to the next one's, modulo `ring_entries`", "entries",
        cost=False,
    )  # fmt: skip
    finish_steps: int = column("cycles in which the QK units finish a pixel of a tile", "cycles",
                               cost=False)  # fmt: skip
    stride_entries: int = column("entries from output row to output row", "entries", cost=False)
    pixel_entries: int = column("and from pixel to pixel", "entries", cost=False)
    top_entries: int = column("entries of the padding above", "entries", cost=False)
    left_entries: int = column("and of that on the left", "entries", cost=False)
    tap_row_entries: int = column("entries from tap to tap, down", "entries", cost=False)
    tap_column_entries: int = column("and across", "entries", cost=False)
    in_row_bytes: int = column("size of an input row of a plane", "bytes", cost=False)
    in2_row_bytes: int = column("the same of the second input", "bytes", cost=False)
    out_row_bytes: int = column(
        "size of an output row of a plane at all of its places, from it to the tile's next one",
        "bytes", cost=False,
    )  # fmt: skip
    part_words: int = column(
        "where tiles are interleaved, what one of them writes of that; of raw pixels that are "
        "written a row at a time, a row; else 0", "words", cost=False,
    )  # fmt: skip
    tile_planes: int = column("output planes of a tile", "planes", cost=False)
    last_planes: int = column("and of a group's last tile", "planes", cost=False)
    last_blocks: int = column("channel blocks of the last chunk", "blocks", cost=False)
    chunk_words: int = column("input words from chunk to chunk, or tile to tile of an operation",
                              "words", cost=False)  # fmt: skip
    chunk2_words: int = column("the same of the second input", "words", cost=False)
    group_words: int = column("input words of a group", "words", cost=False)
    tile_words: int = column("output words from tile to tile", "words", cost=False)
    last_tile_words: int = column("and of a group's last tile", "words", cost=False)
    rows_words: int = column("words of a whole chunk's rows of weights, from each port", "words",
                             cost=False)  # fmt: skip
    last_words: int = column("and of the last chunk's", "words", cost=False)
    layer_tiles: int = column("tiles of the layer", "tiles", cost=False)
    layer_passes: int = column("its passes: the chunks of every tile", "passes", cost=False)
    reach: int = column("input rows that the first window reaches", "rows", cost=False)
    write_rows: int = column(
        "output rows of a plane, before they are enlarged; of raw ones pixels, where `part_words` "
        "does not say rows", "rows", cost=False,
    )  # fmt: skip
    layer_words: int = column("words of the layer in every section of weights.bin", "words",
                              cost=False)  # fmt: skip

    @property
    def values(self) -> tuple[int, ...]:
        """All fields, in the order of LayerDesc."""
        return _values(self)

    @property
    def is_conv(self) -> bool:
        """Whether the layer has weights."""
        return self.op == Operation.CONV

    @property
    def kernel_taps(self) -> int:
        """Taps of the kernel."""
        return self.kernel_h * self.kernel_w

    @property
    def tiles(self) -> int:
        """Tiles of PE output channels."""
        return self.conv_groups * self.tiles_per_group

    @property
    def passes(self) -> int:
        """Passes of the engine: chunks of every tile."""
        return self.tiles * self.chunks

    @property
    def pooled(self) -> bool:
        """Whether there is a max pool that does something."""
        return max(self.pool_h, self.pool_w, self.pool_stride_h, self.pool_stride_w) > 1

    @property
    def places(self) -> int:
        """Places at which a tile stores each of its pixels."""
        return max(1, self.places_h * self.places_w)

    @property
    def row_bytes(self) -> int:
        """Bytes from a tile's output row of a plane to its next one."""
        return self.out_width * self.out_bits * self.places * max(1, self.interleave)

    @property
    def raw_words(self) -> int:
        """Words of a row of raw pixels, where they follow each other and a short burst holds them.

        A burst a pixel would wait for the DRAM longer than it writes.
        """
        words = self.out_width * self.out_channels
        return words if self.raw and self.tiles == 1 and words <= RAW_ROW_WORDS else 0

    @property
    def code_bits(self) -> int:
        """Width of the codes that the layer reads, of the wider input of two."""
        return max(self.in_bits, self.in2_bits)

    @property
    def in2_width(self) -> int:
        """Columns that are read of the second input."""
        return 1 if self.in2_repeat else self.in_width

    @property
    def line_entries(self) -> int:
        """Entries of the line buffer that the layer uses."""
        return self.ring_rows * self.in_width * self.chunk_blocks

    @property
    def output_place(self) -> str:
        """Where the output is: "ddr", or on-chip memory "A" or "B"."""
        return "BA"[self.chip_swap] if self.out_chip else "ddr"

    @property
    def output_words(self) -> int:
        """64-bit words of the layer's output for one image."""
        if self.raw:
            return self.out_height * self.out_width * self.out_channels
        groups = self.conv_groups // max(1, self.interleave)
        return groups * self.group_out_planes * self.out_plane_words

    @property
    def chunk_sizes(self) -> list[int]:
        """Blocks of each chunk of a convolution.

        >>> Row(blocks=8, chunks=3, chunk_blocks=3).chunk_sizes
        [3, 3, 2]
        """
        size = self.chunk_blocks
        return [min(size, self.blocks - chunk * size) for chunk in range(self.chunks)]

    @property
    def rows_needed(self) -> np.ndarray:
        """int64 [conv_height]: rows of an image, from its first, that each output row needs."""
        oy = np.arange(self.conv_height, dtype=np.int64)
        last = oy * self.stride_h - self.pad_top + (self.kernel_h - 1) * self.dilation_h
        return np.clip(last + 1, 0, self.rows_used)

    def ring(self, prefetch: bool) -> int:
        """Line buffer rows: a step's window and the rows taken in meanwhile for the next step.

        >>> row = Row(conv_height=4, stride_h=1, pad_top=1, kernel_h=3, dilation_h=1, rows_used=4)
        >>> row.ring(prefetch=False), row.ring(prefetch=True)
        (4, 4)
        """
        needed = self.rows_needed
        first = np.arange(self.conv_height, dtype=np.int64) * self.stride_h - self.pad_top
        first = np.clip(first, 0, self.rows_used)
        end = self.rows_used + (int(needed[0]) if prefetch else 0)
        return int((np.append(needed[1:], end) - first).max())

    def steps(self, blocks: int, array: Array) -> int:
        """Cycles of the multipliers for one group of pixels in a pass of so many blocks.

        Only a convolution's pieces of SIMD channels go across taps.

        >>> row = Row(kernel_h=3, kernel_w=3, sources=1)
        >>> row.steps(8, Array(24)), replace(row, op=Operation.SUM).steps(8, Array(24))
        (24, 27)
        """
        channels = blocks * BLOCK_CODES
        if self.depthwise:
            return self.stride_w
        if self.is_conv:
            return array.steps(self.kernel_taps, channels)
        return self.kernel_taps * self.sources * array.steps(1, channels)

    @property
    def has_factor(self) -> bool:
        """Whether sums have the wide factor of an average pool, a normalisation or a product."""
        wide = self.op in (Operation.LRN, Operation.PRODUCT)
        return bool(wide or self.reciprocal or self.exclude_pad)

    def pixel_steps(self, array: Array) -> int:
        """Cycles in which the QK units finish a pixel's lanes.

        >>> array = Array(8, 24, qk_units=8, factor_units=2)
        >>> Row().pixel_steps(array), Row(op=Operation.SUM, reciprocal=9).pixel_steps(array)
        (3, 12)
        """
        if self.raw:
            return 1
        if self.depthwise:
            return ceil_div(BLOCK_CODES, max(1, array.qk_units))
        return array.pe // max(1, array.wide_units if self.has_factor else array.qk_units)

    def pixel_groups(self, array: Array) -> int:
        """Groups of neighbouring pixels of one image."""
        return self.conv_height * self.groups(array)

    def groups(self, array: Array) -> int:
        """Groups of neighbouring pixels of an output row; where lanes are channels, its pixels and
        the columns in front of the first one.

        >>> Row(conv_width=14).groups(Array(pixels=3))
        5
        >>> Row(conv_width=14, depthwise=1, lead=1).groups(Array(pixels=3))
        15
        """
        return self.conv_width + self.lead if self.depthwise else array.groups(self.conv_width)

    def with_products(self, array: Array) -> "Row":
        """The row with the fields that are products of others, for an engine of this size."""
        planes = self.planes(array)
        margin = self.margin(array)
        row_entries, chunks = self.in_width * self.chunk_blocks, self.chunk_sizes
        step = self.chunk_blocks if self.is_conv else planes
        ring = self.ring_rows * row_entries
        parts = self.interleave > 1  # of rows: back to the first plane, one row further down
        part_words = self.row_bytes // self.interleave // WORD_BYTES if parts else self.raw_words
        return replace(
            self,
            columns=self.groups(array),
            first_rows=int(self.rows_needed[0]),
            row_entries=row_entries,
            ring_entries=ring,
            image_entries=self.rows_used * row_entries % ring,
            finish_steps=self.pixel_steps(array),
            stride_entries=self.stride_h * row_entries,
            pixel_entries=self.stride_w * self.chunk_blocks,
            top_entries=self.pad_top * row_entries,
            left_entries=self.pad_left * self.chunk_blocks,
            tap_row_entries=self.dilation_h * row_entries,
            tap_column_entries=self.dilation_w * self.chunk_blocks,
            in_row_bytes=self.in_width * self.in_bits,
            in2_row_bytes=self.in2_width * self.in2_bits,
            out_row_bytes=self.row_bytes,
            part_words=part_words,
            tile_planes=planes,
            last_planes=(self.group_out_planes - 1) % planes + 1,
            last_blocks=chunks[-1] if self.is_conv else 0,
            chunk_words=step * self.in_plane_words,
            chunk2_words=step * self.in2_plane_words,
            group_words=(0 if parts else self.blocks if self.is_conv else -margin // 2)
            * self.in_plane_words,
            tile_words=(planes * BLOCK_CODES if self.raw else planes * self.out_plane_words),
            last_tile_words=part_words - (self.tiles_per_group - 1) * planes * self.out_plane_words
            if parts
            else (self.group_out_planes - 1) % planes * self.out_plane_words + self.out_plane_words,
            rows_words=self.steps(chunks[0], array) * self.row_words if self.is_conv else 0,
            last_words=self.steps(chunks[-1], array) * self.row_words if self.is_conv else 0,
            layer_tiles=self.tiles,
            layer_passes=self.passes,
            reach=(self.kernel_h - 1) * self.dilation_h + 1 - self.pad_top,
            write_rows=self.out_height * (self.out_width if self.raw and not part_words else 1),
            layer_words=self.weight_words(array),
        )

    def planes(self, array: Array) -> int:
        """Output planes that a tile writes."""
        if self.depthwise:
            return 1
        planes = tile_planes(self.op, array, bool(self.paired))
        return planes // self.places if self.apart else planes

    def margin(self, array: Array) -> int:
        """Planes that a tile of an operation reads beyond those that it writes."""
        return 0 if self.is_conv else array.planes - self.planes(array)

    def weight_words(self, array: Array) -> int:
        """64-bit words of the layer in each port's section of weights.bin."""
        if not self.is_conv:
            return 0
        rows = sum(self.steps(blocks, array) for blocks in self.chunk_sizes)
        return self.weight_table + self.tiles * (self.head_words(array) + rows * self.row_words)

    def head_words(self, array: Array) -> int:
        """64-bit words, from each port, of a tile's biases and weight scales."""
        return array.bias_words + (array.scale_words if self.scaled else 0)

    def cut(self, array: Array, weight_rows: int, line_blocks: int) -> "Row | None":
        """The row with equal chunks of input channels that fit both buffers; None where none can.

        Chunks of an operation are multiples of the array's blocks a cycle.
        """
        ring = self.ring(prefetch=False)
        if not self.is_conv:
            filled = ceil_div(self.blocks, array.blocks) * array.blocks * self.sources
            row = replace(self, ring_rows=ring, chunks=1, chunk_blocks=filled)
            return row if row.line_entries <= line_blocks else None
        lines = line_blocks // (ring * self.in_width)
        most = lines if self.depthwise else weight_rows * array.blocks // self.kernel_taps
        most = min(most, lines)
        if most < 1:
            return None
        size = ceil_div(self.blocks, ceil_div(self.blocks, most))
        return replace(self, ring_rows=ring, chunks=ceil_div(self.blocks, size), chunk_blocks=size)


FIELDS = tuple(item.name for item in fields(Row))
_values: Callable[[Row], tuple[int, ...]] = attrgetter(*FIELDS)
ENUMS = {"OP": Operation, "PLACE": Place, "SCHEME": Scheme}  # by the prefix of their C++ names


def describe(name: str) -> str:
    """Meaning of a field, and what it counts.

    >>> describe("in_bits"), describe("raw")
    ('T of the input (bits)', '1 for the last layer: accumulators are stored')
    """
    told = next(item.metadata for item in fields(Row) if item.name == name)
    return told["meaning"] + (f" ({told['unit']})" if told["unit"] else "")


def tile_planes(op: int, array: Array, paired: bool = False) -> int:
    """Output planes that a tile writes; a normalisation needs one on either side for neighbours.

    >>> tile_planes(Operation.SUM, Array(8, 24)), tile_planes(Operation.LRN, Array(8, 24))
    (3, 1)
    """
    if op == Operation.CONV:
        return array.tile(paired) // BLOCK_CODES
    return array.planes - (2 if op == Operation.LRN else 0)
