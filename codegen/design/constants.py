# SPDX-License-Identifier: Apache-2.0
"""Types and constants of struct Network (network.hpp): every width and bound of the generated C++.

Exact types are ap_int of the proved width; fast types are the smallest native integers that hold
it.
"""

from dataclasses import dataclass

from nuq.codegen.design.cost import SUM_DISTANCE
from nuq.codegen.design.ports import READ_AHEAD, WRITE_AHEAD
from nuq.codegen.design.sizes import Sizes, factor_bits, gear_bits
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div, signed_bits
from nuq.formats.packing import WORD_BITS, WORD_BYTES


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


def types(sizes: Sizes) -> list[CType]:
    """The typedefs of struct Network.

    A product of native operands is computed in 32 bits, so values widen to 64 bits where a product
    of a weight and a value needs more.
    """
    array = sizes.array
    wide_product = sizes.weight_bits + sizes.value_bits > 32
    value_fast = 64 if wide_product else max(16, native_bits(sizes.value_bits))
    in_gear = 2 * WORD_BITS  # holds the widest block
    # whole words leave at once, so that no more than two are ever held
    out_gear = min(2 * WORD_BITS, max(gear_bits(width) for width in sizes.out_widths))
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
        CType("operand_t", max(2, array.pair_shift + array.pair_bits), True, 32),
        CType("wide_t", sizes.wide_bits, True, 64),
        CType("in_gear_t", in_gear, False, 128),
        CType("out_gear_t", out_gear, False, max(128, out_gear)),
        *counters(sizes),
    ]


def counters(sizes: Sizes) -> list[CType]:
    """Types of counters and places, as wide as this engine needs them."""
    array = sizes.array
    beyond = sizes.kernel + sizes.stride * array.pixels  # of a map that a window reaches
    reach = 2 * sizes.line_blocks + sizes.pad_entries
    return [
        CType("y_t", signed_bits(-sizes.map_height, sizes.map_height + beyond), True, 32),
        CType("x_t", signed_bits(-sizes.map_width, sizes.map_width + beyond), True, 32),
        CType("entry_t", signed_bits(-reach, reach), True, 32),
        CType("block_t", signed_bits(-1, sizes.pass_blocks + array.blocks), True, 32),
        CType("plane_t", signed_bits(-1, sizes.planes + array.planes), True, 32),
        CType("channel_t", signed_bits(-BLOCK_CODES, sizes.channels + array.pe), True, 32),
    ]


def bounds(sizes: Sizes) -> dict[str, tuple[int, str]]:
    """The integer constants, name to (value, comment), without DESIGN_ID."""
    array = sizes.array
    row_bytes = max(sizes.map_width * sizes.code_bits, sizes.row_bytes)
    map_words = max(array.pe, ceil_div(row_bytes, WORD_BYTES) + 1)
    widths = sizes.weight_widths
    row_words = max(array.row_words(bits, bits <= array.pair_bits) for bits in widths)
    return {
        "SIMD": (array.simd, "input channels a cycle"),
        "PE": (array.pe, "output channels a cycle"),
        "PIXELS": (array.pixels, "pixels a cycle"),
        "G": (array.blocks, "channel blocks a cycle"),
        "KERNEL_ROWS": (array.kernel_rows, "of a depthwise kernel a cycle, 0 where lanes are none"),
        "WINDOW": (array.window, "blocks a cycle of a group's first pixel"),
        "WEIGHT_BITS": (sizes.weight_bits, "W"),
        "SHARED": (array.shared, "output channels that share a multiplier at most"),
        "PAIR_BITS": (array.pair_bits, "largest W of weights that do"),
        "PAIR_SHIFT": (array.pair_shift, "of the upper weight"),
        "PACKED_BITS": (sizes.packed_bits, "of a weight, or of two, in the weight buffer"),
        "VALUE_BITS": (sizes.value_bits, "of a decoded activation, sign included"),
        "TREE_BITS": (sizes.tree_bits, "of a sum of SIMD products"),
        "ACC_BITS": (sizes.acc_bits, "that no input can overflow"),
        "CODE_BITS": (sizes.code_bits, "largest T"),
        "WEIGHT_ROWS": (sizes.weight_rows, "rows of one side of the weight buffer"),
        "TAP_ROWS": (sizes.tap_rows, "rows of one side of the tap table"),
        "WEIGHT_PORTS": (array.weight_ports, "memory ports for weights"),
        "READ_AHEAD": (READ_AHEAD, "rows whose bursts are asked for ahead, a power of two"),
        "WRITE_AHEAD": (WRITE_AHEAD, "rows whose bursts may be under way"),
        "WEIGHT_WIDTHS": (len(sizes.weight_widths), "widths at which weights are stored"),
        "ROW_WORDS": (row_words, "words of a row of weights"),
        "BIAS_WORDS": (array.bias_words, "bus words of a tile's biases, from each port"),
        "SCALE_WORDS": (array.scale_words, "of their weight scales, likewise"),
        "TABLE_ENTRIES": (max(1, sizes.table_entries), "entries of the largest codebook"),
        "LINE_BLOCKS": (sizes.line_blocks, "entries of a line buffer copy"),
        "LINE_LOW_BITS": (sizes.line_low_bits, "bits of a code that every entry holds"),
        "LINE_HIGH_BLOCKS": (sizes.line_high_blocks, "entries that hold a code's other bits"),
        "SUM_DISTANCE": (SUM_DISTANCE, "steps from writing a sum that waits to reading it"),
        "PSUM_GROUPS": (sizes.psum_groups, "groups of pixels that wait for their next chunk"),
        "QK_UNITS": (array.qk_units, "requantizers and encoders"),
        "FACTOR_UNITS": (array.wide_units, "of them, those with a wide factor"),
        "KNQ_LEVELS": (sizes.knq_levels, "codes of the largest table"),
        "POOL_ROWS": (max(1, sizes.pool_rows), "rows of a pool window"),
        "POOL_WIDTH": (max(1, sizes.pool_width), "columns of its map"),
        "PACK_WIDTH": (sizes.pack_width, "columns of the widest output"),
        "PACK_PLANES": (array.planes, "output planes of a tile"),
        "MAX_IMAGES": (sizes.batch, "images a call"),
        "MAX_HEIGHT": (sizes.map_height, "rows of a map"),
        "MAX_WIDTH": (sizes.map_width, "columns of a map"),
        "MAX_BLOCKS": (sizes.pass_blocks, "channel blocks of a pass's inputs"),
        "MAX_ROW_WORDS": (map_words, "bus words of a row"),
        "MAX_ROW_STEPS": (
            max(array.groups(sizes.map_width) * sizes.weight_rows, sizes.line_blocks),
            "cycles of an output row",
        ),
        "MAX_PASSES": (sizes.passes, "passes of a layer"),
        "FACTOR_BITS": (max(2, factor_bits(sizes)), "of what a sum is multiplied by"),
        "LRN_REACH": (sizes.lrn_reach, "channels to either side in a normalisation"),
        "IN_WIDTHS": (len(sizes.in_widths), "widths T that are read"),
        "OUT_WIDTHS": (len(sizes.out_widths), "widths T that are written"),
        "CHIP_A_WORDS": (sizes.chip_words[0], "bus words of on-chip memory A"),
        "CHIP_B_WORDS": (sizes.chip_words[1], "bus words of on-chip memory B"),
    }


def constants(sizes: Sizes, engine_id: int) -> list[Constant]:
    """The `static const` members of struct Network."""
    flags = {
        "HAS_ENQ": (sizes.enq_bits > 0, "whether QE and CE exist"),
        "HAS_KNQ": (sizes.knq_levels > 1, "whether QK and CK exist"),
        "HAS_OPS": (sizes.operations, "whether layers without weights can run"),
        "HAS_LRN": (sizes.lrn, "whether normalisations can"),
        "HAS_CODEBOOK": (sizes.table_entries > 0, "whether weight codebooks exist"),
        "HAS_AVERAGE": (sizes.averages, "whether average pools can run"),
        "HAS_PRODUCT": (sizes.products, "whether two inputs can be multiplied"),
        "HAS_SCALE": (sizes.scales, "whether output channels can have a weight scale"),
    }
    return [
        Constant("uint32_t", "DESIGN_ID", f"0x{engine_id:08x}u", "of all that is rendered"),
        *(Constant("bool", key, str(on).lower(), text) for key, (on, text) in flags.items()),
        *(Constant("int32_t", key, str(n), text) for key, (n, text) in bounds(sizes).items()),
    ]
