# SPDX-License-Identifier: Apache-2.0
"""Estimates of what a design takes of an FPGA part: DSP, BRAM36, LUT, FF, with their formulas.

LUT and FF are rough: only synthesis knows them.
"""

from dataclasses import dataclass, fields, replace

from nuq.codegen.design.ports import ADAPTER_FF, ADAPTER_LUT, adapters
from nuq.codegen.design.sizes import AP_INT_BITS, Memory, Sizes, factor_bits, line_memories
from nuq.codegen.design.streams import DESCRIPTOR_BITS, streams, tap_bits
from nuq.codegen.design.unit_luts import QM, lut_estimate
from nuq.formats.arithmetic import BLOCK_CODES, LRN_ENTRIES, LRN_FACTOR_BITS, SCALE_BITS, ceil_div
from nuq.formats.hardware import Part

FEATURE_MAPS = "feature maps"  # memories A and B
ULTRA_DEPTH = 1024  # feature maps of so many words go into URAM where there is any
PROCESSES = 14  # of the dataflow region
# Of a process's counters and state machine: some ten counters and comparisons of 12 to 32 bits. A
# guess, until a synthesis report says.
PROCESS_LUT, PROCESS_FF = 300, 400
REGISTERS_LUT, REGISTERS_FF = 700, 900  # of the AXI-Lite port: a multiplexer over 40 words
# Of that port, too: Vitis HLS may keep the counters, 12 words of 64 bits, in block RAM. Vivado has
# room for so few in LUTs, so that no plan counts them.
REGISTERS_BRAM18 = 2
WINDOW_LUT = 60  # of a lane group's place: three additions and five comparisons of some 10 bits


@dataclass(frozen=True)
class Resources:
    """Estimated use."""

    dsp: int
    bram36: int
    uram: int
    lut: int
    ff: int


RESOURCES = tuple(item.name for item in fields(Resources))


def memories(sizes: Sizes, part: Part) -> list[Memory]:
    """The on-chip memories, by the names used in messages and reports."""
    pool = sizes.pool_rows * sizes.pool_width
    array = sizes.array
    pixel, sums = array.pe * sizes.code_bits, array.pixels * array.pe * sizes.acc_bits
    return [
        # a row is one word; both halves are one memory, the half being an address bit
        Memory(
            "weight buffer", 1, 2 * sizes.weight_rows, sizes.row_bits
        ),
        Memory("tap table", 1, 2 * sizes.tap_rows, tap_bits(sizes), bound="lutram"),
        *line_memories(
            sizes.line_blocks, sizes.line_low_bits, sizes.line_high_blocks, sizes.code_bits,
            copies=array.read_ports,  # one for each block of a cycle
        ),
        Memory("partial sums", 1 if sizes.psum_groups > 1 else 0, sizes.psum_groups, sums),
        Memory("pool rows", 1 if pool else 0, max(1, pool), pixel),
        Memory("output row", 1, sizes.pack_width, pixel),
        *(
            memory
            for name, adapter in adapters(array.weight_ports).items()
            for memory in adapter.memories(name)
        ),
        # two neighbouring points a cycle, the even and the odd ones apart; a copy per wide unit
        Memory(
            "normalisation factors", 2 if sizes.lrn else 0, ceil_div(LRN_ENTRIES, 2),
            LRN_FACTOR_BITS, copies=array.wide_units,
        ),
        *_feature_maps(sizes, part),
    ]  # fmt: skip


def _feature_maps(sizes: Sizes, part: Part) -> list[Memory]:
    """Memories A and B, in URAM where the part has enough of it."""
    chosen, free = [], part.room("uram")
    for name, words in zip("AB", sizes.chip_words, strict=True):
        bound = "uram" if words >= ULTRA_DEPTH else ""
        memory = Memory(f"{FEATURE_MAPS} {name}", 1, words, 64, bound=bound)
        memory = memory if memory.uram <= free else replace(memory, bound="")
        free -= memory.uram
        chosen.append(memory)
    return chosen


def estimate(sizes: Sizes, part: Part) -> Resources:
    """Estimate a design.

    DSP: one block per multiplier where the operands fit it, else ceil x ceil of them; of some
    QK/QE units also those of the factor that an average pool, a normalisation or a product asks for
    (accumulator by the widest of them; other units multiply by weight scales in LUTs).
    Products choose both operands, and correct the second one, in LUTs. Sizes that
    are products come ready-made in the layer table, so that the control needs none; squares,
    interpolation and the words of copy_out are bound to LUTs.
    BRAM36: half the RAMB18 of all memories, rounded up.
    LUT: what joins the products (`product_luts`), an adder
    per accumulator; CE and CK per SIMD lane and input, QE and QK per QK unit: the formula fitted to
    synthesized units (unit_luts.py, docs/units.md); requantize: a barrel shifter of log2
    levels of acc_bits muxes; gearboxes: two barrel shifters of gear_bits; codebooks and widths of
    weights: `weight_luts`; memories in LUT RAM; streams; the adapters of the
    memory ports, the registers, the control of every process.
    FF: two operand and one sum register per multiplier, the decoder's and encoder's tables, twice
    the weight row (collecting and reading), descriptors, adapters, registers, control.
    """
    array, used = sizes.array, memories(sizes, part)
    lanes = array.pixels * array.pe
    dsp = array.multipliers * multiplier_blocks(sizes.weight_bits, sizes.value_bits, part)
    if factor_bits(sizes) > SCALE_BITS + 1:
        dsp += array.wide_units * multiplier_blocks(sizes.acc_bits, factor_bits(sizes), part)
    ports = len(adapters(array.weight_ports))
    levels = sizes.knq_levels
    lut = (
        product_luts(sizes)
        + lanes * sizes.acc_bits
        + conversion_luts(sizes)
        + array.qk_units * 6 * sizes.acc_bits
        + 2 * 5 * sizes.gear_bits
        + sum(memory.lut for memory in used)
        + square_luts(sizes)
        + scale_luts(sizes)
        + (array.wide_units * 3 * sizes.value_bits if sizes.products else 0)
        + weight_luts(sizes)
        + sum(stream.lut for stream in streams(sizes))
        + array.read_ports * WINDOW_LUT
        + operand_luts(sizes)
        + ports * ADAPTER_LUT
        + REGISTERS_LUT
        + PROCESSES * PROCESS_LUT
    )
    tables = levels * (sizes.value_bits + sizes.quant_bits) if levels > 1 else 0
    ff = (
        array.multipliers * (sizes.packed_bits + array.shared * sizes.tree_bits)
        + 2 * sizes.row_bits
        + lanes * sizes.acc_bits * 2
        + (array.pe * SCALE_BITS if sizes.scales else 0)
        + tables
        + DESCRIPTOR_BITS
        + ports * ADAPTER_FF
        + REGISTERS_FF
        + PROCESSES * PROCESS_FF
    )
    bram36 = ceil_div(sum(memory.bram18 for memory in used), 2)
    return Resources(dsp, bram36, sum(memory.uram for memory in used), lut, ff)


def product_luts(sizes: Sizes) -> int:
    """LUTs that join the products of a cycle; docs/units.md compares it with synthesized stages.

    One product a multiplier: the DSP blocks' own adders are the tree's first level, SIMD/2 - 1 more
    adders are LUTs, some two bits narrower than the last. Two: an adder for either half of the
    double product, which no DSP block absorbs, a LUT that counts its sign bit; in front of it the
    choice between one weight and two, a LUT for each stored bit but one; and once for all
    pixels an adder that makes the upper weight ready.
    """
    array = sizes.array
    trees = array.multipliers // array.simd
    joining = trees * join_luts(
        array.simd, sizes.value_bits, sizes.tree_bits, array.pair_bits, array.pair_shift
    )
    if not array.pair_bits:
        return joining
    ready = sizes.packed_bits - 1 + array.pair_bits
    return joining + array.multipliers // array.pixels * ready


def operand_luts(sizes: Sizes) -> int:
    """LUTs that choose the values of multipliers whose lanes may be channels: two bits a LUT.

    A sum's third source, the lane beside it, is a sixth input of its adder's LUTs.
    """
    array = sizes.array
    return array.kernel_rows * array.pe // array.shared * ceil_div(sizes.value_bits, 2)


def join_luts(
    simd: int, value_bits: int, tree_bits: int, pair_bits: int = 0, pair_shift: int = 0
) -> int:
    """LUTs behind SIMD multipliers of one pixel and output channel, or pair of channels.

    >>> join_luts(8, 10, 21), join_luts(8, 10, 21, 8, 17)
    (57, 288)
    """
    if not pair_bits:
        return (simd // 2 - 1) * (tree_bits - 2)
    return simd * (pair_shift + pair_bits + value_bits + 1)


def conversion_luts(sizes: Sizes) -> int:
    """LUTs of all conversion units; a unit exists where some layer's scheme needs it."""
    qm = min(QM[1], max(QM[0], sizes.quant_bits))
    array, luts = sizes.array, 0.0
    decoders = array.pixels * array.simd * sizes.decoders
    decoders += (array.window - array.blocks) * BLOCK_CODES  # of one source only
    if sizes.knq_levels > 1:
        bits = (sizes.knq_levels - 1).bit_length()
        luts += lut_estimate("ck", bits, qm, lanes=decoders)
        luts += lut_estimate("qk", bits, qm, lanes=sizes.array.qk_units)
    if sizes.enq_bits:
        luts += lut_estimate("ce", sizes.enq_bits, qm, lanes=decoders)
        luts += lut_estimate("qe", sizes.enq_bits, qm, lanes=sizes.array.qk_units)
    return round(luts)


def weight_luts(sizes: Sizes) -> int:
    """LUTs between the weight ports and the weight buffer, beyond registers.

    Per lane (SIMD*PE of them): the choice of the width, a multiplexer of as many inputs as there
    are widths, 3 more inputs a LUT; a copy of the codebook in single-port LUT RAM (UG474: a LUT
    holds 32x2 or 64x1 bits; up to 256 words the slice's own multiplexers join them); where some
    layers have a codebook and others none, the choice between them, a LUT a bit.
    """
    lanes, bits, entries = sizes.array.simd * sizes.array.pe, sizes.weight_bits, sizes.table_entries
    widths = sizes.weight_widths
    luts = max(widths) * ceil_div(len(widths) - 1, 3)
    if entries:
        luts += ceil_div(bits, 2) if entries <= 32 else bits * ceil_div(entries, 64)
        luts += bits if sizes.plain_weights else 0
    return lanes * luts


def square_luts(sizes: Sizes) -> int:
    """LUTs of a normalisation's squares and interpolation: an adder for two bits of a factor."""
    if not sizes.lrn:
        return 0
    bits = sizes.value_bits
    squares = (2 * sizes.lrn_reach + 1) * ceil_div(bits, 2) * (bits + 2)
    return sizes.array.wide_units * (squares + ceil_div(LRN_FACTOR_BITS + 1, 2) * (2 * bits + 2))


def scale_luts(sizes: Sizes) -> int:
    """LUTs of the QK/QE units for weight scales.

    The choice of a lane's, 3 more lanes a LUT and bit; and where no wider factor has DSP blocks,
    the multiplication, an adder for two bits of a scale.
    """
    if not sizes.scales:
        return 0
    units = sizes.array.qk_units
    wide = sizes.array.wide_units if factor_bits(sizes) > SCALE_BITS + 1 else 0
    choice = SCALE_BITS * ceil_div(sizes.array.pe // max(1, units) - 1, 3)
    product = ceil_div(SCALE_BITS, 2) * (sizes.acc_bits + 2)
    return units * choice + (units - wide) * product


def multiplier_blocks(a: int, b: int, part: Part) -> int:
    """DSP blocks of a signed multiplier of `a` by `b` bits."""
    large, small = part.multiplier
    return ceil_div(max(a, b), large) * ceil_div(min(a, b), small)


def shortage(sizes: Sizes, part: Part) -> str | None:
    """One clause that says what is short, or None where the design fits."""
    if sizes.lane_bits > AP_INT_BITS:
        return (
            f"weights of PE={sizes.array.pe} output channels take {sizes.lane_bits:,} bits, "
            f"an ap_uint has {AP_INT_BITS:,}"
        )
    used = estimate(sizes, part)
    for name in RESOURCES:
        needed, available = getattr(used, name), part.room(name)
        if needed <= available:
            continue
        text = f"{name.upper()}: needs {needed}, {part.name} has {available}"
        if part.limit < 1:
            text += f" ({part.limit:.0%} of {getattr(part, name)})"
        if name == "bram36":
            largest = max(memories(sizes, part), key=lambda memory: memory.bram18)
            text += f"; largest: {largest.name} {ceil_div(largest.bram18, 2)}"
        return text
    return None
