# SPDX-License-Identifier: Apache-2.0
"""Types and constants of struct Network (network.hpp): every width and bound of the generated C++.

Exact types are ap_int of the proved width; fast types are the smallest native integers that hold
it.
"""

import hashlib
import json
from dataclasses import dataclass

from codegen.design.array import Array
from codegen.design.design import Design
from codegen.design.ports import READ_AHEAD, WRITE_AHEAD
from codegen.design.rows import Row, Scheme
from codegen.design.sizes import gear_bits
from formats.arithmetic import BLOCK_CODES, ceil_div, signed_bits
from formats.packing import WORD_BITS, WORD_BYTES, touched_words


def native_bits(bits: int) -> int:
    """Width of the smallest native C++ integer of at least `bits` bits.

    >>> [native_bits(n) for n in (1, 8, 9, 17, 33)]
    [8, 8, 16, 32, 64]
    """
    for width in (8, 16, 32, 64):
        if bits <= width:
            return width
    raise ValueError(f"width must be at most 64 bits, not {bits}")


@dataclass(frozen=True)
class CType:
    """One integer type of the generated C++."""

    name: str
    bits: int  # exact width
    signed: bool
    fast_bits: int  # of the native type; 128 is unsigned __int128, above it ap_uint stays

    @property
    def exact_typedef(self) -> str:
        """The typedef for synthesis and for the exact C-simulation."""
        return f"typedef {'ap_int' if self.signed else 'ap_uint'}<{self.bits}> {self.name};"

    @property
    def fast_typedef(self) -> str:
        """The typedef for the fast C-simulation."""
        if self.fast_bits > 128:
            return self.exact_typedef
        if self.fast_bits == 128:
            return f"typedef unsigned __int128 {self.name};"
        return f"typedef {'' if self.signed else 'u'}int{self.fast_bits}_t {self.name};"


@dataclass(frozen=True)
class Constant:
    """One `static const` member."""

    type: str
    name: str
    value: str  # as C++ text
    comment: str


def types(design: Design) -> list[CType]:
    """The typedefs of struct Network.

    A product of native operands is computed in 32 bits, so values widen to 64 bits where a product
    of a weight and a value needs more.
    """
    sizes = design.sizes
    wide_product = sizes.weight_bits + sizes.value_bits > 32
    value_fast = 64 if wide_product else max(16, native_bits(sizes.value_bits))
    in_gear = 2 * WORD_BITS  # holds the widest block
    out_gear = max(gear_bits(width) for width in sizes.out_widths)
    high_bits = max(1, sizes.code_bits - sizes.line_low_bits)
    quant_fast = max(16, native_bits(sizes.quant_bits))
    return [
        CType("bus_t", WORD_BITS, False, 64),
        CType("weight_t", sizes.weight_bits, True, max(16, native_bits(sizes.weight_bits))),
        CType("code_t", sizes.code_bits, False, native_bits(sizes.code_bits)),
        CType("low_t", sizes.line_low_bits, False, native_bits(sizes.line_low_bits)),
        CType("high_t", high_bits, False, native_bits(high_bits)),
        CType("value_t", sizes.value_bits, True, value_fast),
        CType("quant_t", sizes.quant_bits, sizes.quant_signed, quant_fast),
        CType("tree_t", sizes.tree_bits, True, max(32, native_bits(sizes.tree_bits))),
        CType("acc_t", sizes.acc_bits, True, max(32, native_bits(sizes.acc_bits))),
        CType("wide_t", sizes.wide_bits, True, 64),
        CType("in_gear_t", in_gear, False, 128),
        CType("out_gear_t", out_gear, False, max(128, out_gear)),
        *counters(design),
    ]


def counters(design: Design) -> list[CType]:
    """Types of counters and places, as wide as this design needs them."""
    rows, sizes = design.rows, design.sizes
    height = max(max(row.in_height, row.conv_height, row.out_height) for row in rows)
    width = max(max(row.in_width, row.conv_width, row.out_width) for row in rows)
    kernel = max(max(row.kernel_h * row.dilation_h, row.kernel_w * row.dilation_w) for row in rows)
    blocks = max(row.blocks * row.sources for row in rows) + design.array.blocks
    planes = max(row.group_out_planes for row in rows)
    channels = max(max(row.out_channels, row.blocks * BLOCK_CODES) for row in rows)
    reach = 2 * sizes.line_blocks + max(row.top_entries + row.left_entries for row in rows)
    stride = max(max(row.stride_h, row.stride_w) for row in rows) * design.array.pixels
    return [
        CType("y_t", signed_bits(-height, height + kernel + stride), True, 32),
        CType("x_t", signed_bits(-width, width + kernel + stride), True, 32),
        CType("entry_t", signed_bits(-reach, reach), True, 32),
        CType("block_t", signed_bits(-1, blocks), True, 32),
        CType("plane_t", signed_bits(-1, planes + design.array.planes), True, 32),
        CType("channel_t", signed_bits(-BLOCK_CODES, channels + design.array.pe), True, 32),
    ]


def bounds(design: Design) -> dict[str, tuple[int, str]]:
    """The integer constants, name to (value, comment), without DESIGN_ID."""
    rows, sizes, array = design.rows, design.sizes, design.array
    row_words = array.row_words(max(sizes.weight_widths))
    pass_blocks = max(row.blocks * row.sources for row in rows)

    def most(*names: str) -> int:
        return max(getattr(row, name) for row in rows for name in names)

    return {
        "SIMD": (array.simd, "input channels a cycle"),
        "PE": (array.pe, "output channels a cycle"),
        "PIXELS": (array.pixels, "pixels a cycle"),
        "G": (array.blocks, "channel blocks a cycle"),
        "WEIGHT_BITS": (sizes.weight_bits, "W"),
        "VALUE_BITS": (sizes.value_bits, "of a decoded activation, sign included"),
        "TREE_BITS": (sizes.tree_bits, "of a sum of SIMD products"),
        "ACC_BITS": (sizes.acc_bits, "that no input can overflow"),
        "CODE_BITS": (sizes.code_bits, "largest T"),
        "WEIGHT_ROWS": (sizes.weight_rows, "rows of one side of the weight buffer"),
        "WEIGHT_PORTS": (array.weight_ports, "memory ports for weights"),
        "READ_AHEAD": (READ_AHEAD, "rows whose bursts are asked for ahead, a power of two"),
        "WRITE_AHEAD": (WRITE_AHEAD, "rows whose bursts may be under way"),
        "WEIGHT_WIDTHS": (len(sizes.weight_widths), "widths at which weights are stored"),
        "ROW_WORDS": (row_words, "bus words a row of weights at most"),
        "BIAS_WORDS": (array.bias_words, "bus words of a tile's biases, from each port"),
        "TABLE_ENTRIES": (max(1, sizes.table_entries), "entries of the largest codebook"),
        "LINE_BLOCKS": (sizes.line_blocks, "entries of a line buffer copy"),
        "LINE_LOW_BITS": (sizes.line_low_bits, "bits of a code that every entry holds"),
        "LINE_HIGH_BLOCKS": (sizes.line_high_blocks, "entries that hold a code's other bits"),
        "PSUM_GROUPS": (sizes.psum_groups, "groups of pixels that wait for their next chunk"),
        "QK_UNITS": (array.qk_units, "requantizers and encoders"),
        "KNQ_TABLES": (max(1, sizes.knq_tables), "centroid tables"),
        "KNQ_LEVELS": (sizes.knq_levels, "codes of the largest table"),
        "POOL_ROWS": (max(1, sizes.pool_rows), "rows of a pool window"),
        "POOL_WIDTH": (max(1, sizes.pool_width), "columns of its map"),
        "PACK_WIDTH": (sizes.pack_width, "columns of the widest output"),
        "PACK_PLANES": (array.planes, "output planes of a tile"),
        "MAX_IMAGES": (design.batch, "images a call"),
        "MAX_HEIGHT": (most("in_height", "conv_height", "out_height"), "rows of a map"),
        "MAX_WIDTH": (most("in_width", "conv_width", "out_width"), "columns of a map"),
        "MAX_BLOCKS": (pass_blocks, "channel blocks of a pass's inputs"),
        "MAX_ROW_WORDS": (max(_row_words(row, array.pe) for row in rows), "bus words of a row"),
        "MAX_ROW_STEPS": (max(_row_steps(row, array) for row in rows), "cycles of an output row"),
        "MAX_PASSES": (most("passes"), "passes of a layer"),
        "LRN_REACH": (sizes.lrn_reach, "channels to either side in a normalisation"),
        "IN_WIDTHS": (len(sizes.in_widths), "widths T that are read"),
        "OUT_WIDTHS": (len(sizes.out_widths), "widths T that are written"),
        "WEIGHT_WORDS": (design.weight_words, "bus words of weights.bin, a section for each port"),
        "ARENA_WORDS": (design.arena.words, "bus words of one image's feature maps"),
        "CHIP_A_WORDS": (sizes.chip_words[0] // design.batch, "bus words of an image in memory A"),
        "CHIP_B_WORDS": (sizes.chip_words[1] // design.batch, "bus words of an image in memory B"),
        "INPUT_ADDR": (design.arena.address["input"], "word address of the input"),
        "INPUT_WORDS": (design.input_words, "bus words of one packed input"),
    }


def design_id(design: Design) -> str:
    """Eight hexadecimal digits that change with the network and with the design."""
    text = json.dumps(
        [
            design.network.manifest_sha256,
            design.part.name,
            {name: value for name, (value, _) in bounds(design).items()},
            [row.values for row in design.rows],
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def constants(design: Design) -> list[Constant]:
    """The `static const` members of struct Network."""
    schemes = {row.out_scheme for row in design.rows if not row.raw}
    operations = any(not row.is_conv for row in design.rows)
    flags = {
        "HAS_ENQ": (Scheme.ENQ in schemes, "whether QE and CE exist"),
        "HAS_KNQ": (Scheme.KNQ in schemes, "whether QK and CK exist"),
        "HAS_OPS": (operations, "whether layers without weights exist"),
        "HAS_LRN": (design.sizes.lrn_tables > 0, "whether a normalisation exists"),
        "HAS_CODEBOOK": (design.sizes.table_entries > 0, "whether weight codebooks exist"),
        "HAS_AVERAGE": (design.sizes.averages, "whether an average pool exists"),
    }
    return [
        Constant("uint32_t", "DESIGN_ID", f"0x{design_id(design)}u", "network and plan"),
        *(Constant("bool", key, str(on).lower(), text) for key, (on, text) in flags.items()),
        *(Constant("int32_t", key, str(n), text) for key, (n, text) in bounds(design).items()),
    ]


def _row_words(row: Row, pe: int) -> int:
    read = int(touched_words(row.rows_used, row.in_width, row.in_bits).max())
    written = pe if row.raw else ceil_div(row.out_width * row.out_bits, WORD_BYTES) + 1
    return max(read, written)


def _row_steps(row: Row, array: Array) -> int:
    """Cycles of an output row at most."""
    work = array.groups(row.conv_width) * row.steps(row.blocks, array)
    return max(work, row.line_entries)
