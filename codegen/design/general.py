# SPDX-License-Identifier: Apache-2.0
"""A general engine for a part: what fits of the widths, depths and operators that networks ask for.

No network is looked at. As many multipliers as fit come first, then the operators that need
multipliers of their own (average pools, normalisations), then memory for feature maps.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from nuq.codegen.design.array import Array
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.resources import RESOURCES, shortage
from nuq.codegen.design.search import Axes, Operands, points, smallest
from nuq.codegen.design.sizes import Sizes
from nuq.formats.arithmetic import BLOCK_CODES, ceil_log2
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part

PAIR_BITS = 8  # of weights that share a multiplier
WEIGHT_WIDTHS = (4, 8, 14)  # others are stored at the next of these
STORED_BITS, INPUT_BITS = 8, 12  # of a stored code, of a code of the network's input
ACTIVATION_BITS = 12
UNITS = 4  # QK/QE units at most
NARROW_ROWS = 3 * BLOCK_CODES  # PE that a normalisation takes
DEPTHWISE = 3  # rows and columns of a depthwise kernel whose lanes are channels
# Depths and counts for maps of up to 256 x 256 pixels and layers as those of AlexNet, VGG-16 and
# SqueezeNet.
MAP, CHANNELS, PASSES, KERNEL, STRIDE = 256, 8192, 1 << 14, 16, 8
PLACES = 2  # of the pixels of a row that is enlarged to MAP columns: twice as many rows
DEPTHS = {
    "batch": 16, "weight_rows": 256, "tap_rows": 1024, "line_blocks": 4096,
    "line_high_blocks": 2048, "psum_groups": 1024, "pool_rows": 3, "pool_width": 224,
    "pack_width": 224,
}  # fmt: skip
# Levels of KNQ and entries of weight codebooks: multiplexers in every lane, so as many as fit.
TABLES = [(64, 256), (32, 256), (32, 64), (32, 16), (16, 16)]
SHALLOW = {**DEPTHS, "line_blocks": 2048, "line_high_blocks": 1024, "psum_groups": 256,
           "pool_width": 128, "pack_width": 128}  # fmt: skip
CHIP_STEP = 512  # words of a memory for feature maps


def general_engine(part: Part, axes: Axes) -> Engine:
    """The engine with the most multipliers that fits a part's limit; UserError where none does.

    Args:
        part: to fit.
        axes: what is set of the array.
    """
    least = smallest(axes, part, PAIR_BITS)
    least.check_ports(part)
    arrays = sorted(_arrays(part, axes), key=_rank, reverse=True)
    for array in arrays:
        for depths, tables in product((DEPTHS, SHALLOW), TABLES):
            sizes = plain_sizes(array, depths, *tables)
            if shortage(sizes, part) is None:
                return Engine(part, _deepened(_extended(sizes, part), part))
    last = arrays[-1] if arrays else replace(least, qk_units=1, factor_units=1)
    reason = shortage(plain_sizes(last, SHALLOW, *TABLES[-1]), part)
    if reason is None:  # there are no arrays, though the smallest one fits
        widths = ", ".join(map(str, WEIGHT_WIDTHS))
        raise UserError(
            f"WEIGHT_PORTS must divide the words of a row of weights of {widths} bits, on {least}; "
            "use fewer ports, or leave SIMD, PE and PIXELS out"
        )
    raise UserError(f"a general engine must fit {part.limit:.0%} of {part.name}: {reason}")


def _arrays(part: Part, axes: Axes) -> Iterator[Array]:
    """Arrays whose rows of weights divide by their ports, with each number of QK/QE units."""
    operands = Operands(max(WEIGHT_WIDTHS), ACTIVATION_BITS + 1, PAIR_BITS)
    for array in points(part, operands, axes):
        rows = [
            array.row_words(bits, paired) for bits, paired in product(WEIGHT_WIDTHS, (False, True))
        ]
        if all(words % array.weight_ports == 0 for words in rows):
            for units in (n for n in range(1, UNITS + 1) if array.pe % n == 0):
                yield replace(array, qk_units=units, factor_units=units)


def _rank(array: Array) -> tuple[int, ...]:
    """More multipliers, room for a normalisation, few pixels of a row, more ports, more PE.

    Two products a multiplier only where they are asked for: their tables of lanes leave less room.
    """
    return (
        array.multipliers, array.pe >= NARROW_ROWS, -array.pixels, array.weight_ports,
        -array.shared, array.pe, array.qk_units,
    )  # fmt: skip


def plain_sizes(array: Array, depths: dict[str, Any], levels: int, entries: int) -> Sizes:
    """The sizes of an engine for convolutions, adds and max pools."""
    value_bits = ACTIVATION_BITS + 1
    tree_bits = max(WEIGHT_WIDTHS) + value_bits + ceil_log2(array.simd)
    return Sizes(
        array=array,
        **depths,
        weight_bits=max(WEIGHT_WIDTHS),
        value_bits=value_bits,
        tree_bits=tree_bits,
        acc_bits=tree_bits + 14,
        quant_bits=ACTIVATION_BITS + 2,
        quant_signed=True,
        code_bits=INPUT_BITS,
        gear_bits=128,
        line_low_bits=STORED_BITS,
        knq_levels=levels,
        enq_bits=STORED_BITS,
        decoders=2,
        wide_bits=tree_bits + 18,
        operations=True,
        lrn=False,
        lrn_reach=0,
        averages=False,
        products=False,
        scales=True,
        map_height=MAP,
        map_width=MAP,
        kernel=KERNEL,
        stride=STRIDE,
        pad_entries=depths["line_blocks"],
        pass_blocks=2 * CHANNELS // BLOCK_CODES,
        planes=CHANNELS // BLOCK_CODES,
        channels=CHANNELS,
        passes=PASSES,
        in_widths=tuple(range(1, INPUT_BITS + 1)),
        out_widths=tuple(range(1, STORED_BITS + 1)),
        weight_widths=WEIGHT_WIDTHS,
        table_entries=entries,
        plain_weights=True,
        row_bytes=PLACES * MAP * STORED_BITS,
    )


def _extended(sizes: Sizes, part: Part) -> Sizes:
    """With average pools, products and normalisations, where they fit, in as many units as have
    room; then with lanes that are channels."""
    pe = sizes.array.pe
    for extra in ({"averages": True}, {"products": True}, {"lrn": True, "lrn_reach": 2}):
        if "lrn" in extra and pe < NARROW_ROWS:
            continue
        for units in range(sizes.array.wide_units, 0, -1):
            if pe % units:
                continue
            wider = replace(sizes, **extra, array=replace(sizes.array, factor_units=units))
            if shortage(wider, part) is None:
                sizes = wider
                break
    channels = replace(sizes, array=replace(sizes.array, kernel_rows=DEPTHWISE))
    fits = pe >= DEPTHWISE * BLOCK_CODES and shortage(channels, part) is None
    return channels if fits else sizes


def _deepened(sizes: Sizes, part: Part) -> Sizes:
    """With what block RAM is left for feature maps, a third of it in memory A."""
    best = sizes
    step = 0
    while True:
        step += 1
        words = (step * CHIP_STEP, 2 * step * CHIP_STEP)
        deeper = replace(sizes, chip_words=words)
        if shortage(deeper, part) is not None:
            return best
        best = deeper


def summary(engine: Engine) -> str:
    """What an engine takes and has, in lines."""
    sizes, part, used = engine.sizes, engine.part, engine.resources
    array = sizes.array
    parts = ", ".join(
        f"{getattr(used, name):,}/{getattr(part, name):,} {name.upper()}"
        for name in RESOURCES
        if getattr(part, name)
    )
    width = 2 * sizes.lrn_reach + 1
    operators = [
        ("convolutions, fully connected layers, max pools", True),
        ("adds and other layers without weights", sizes.operations),
        ("weights scaled by channel", sizes.scales),
        ("average pools", sizes.averages),
        ("products of maps", sizes.products),
        (f"normalisations{f' over {width} channels' if sizes.lrn else ''}", sizes.lrn),
        (
            f"depthwise kernels of {max(array.kernel_rows, DEPTHWISE)} rows, a channel a lane",
            bool(array.kernel_rows),
        ),
    ]
    missing = [text for text, there in operators if not there]
    lines = [
        f"{part.name}: {array.simd}x{array.pe}x{array.pixels} products a cycle of "
        f"{array.multipliers} multipliers, {array.weight_ports} "
        f"weight port(s), {array.qk_units} QK units, {part.clock_mhz:g} MHz",
        f"estimated: {parts}",
        f"codes: {_widths(sizes.out_widths)} bits stored, {_widths(sizes.in_widths)} read; "
        f"KNQ of {sizes.knq_levels} levels{', ENQ' if sizes.enq_bits else ''}",
        f"weights: {_widths(sizes.weight_widths)} bits, codebooks of {sizes.table_entries} entries",
        f"layers: {', '.join(text for text, there in operators if there)}"
        f"{'; not: ' if missing else ''}{', '.join(missing)}",
        f"maps: up to {sizes.map_height}x{sizes.map_width}, {sizes.channels} channels; line buffer "
        f"{sizes.line_blocks} blocks; on chip {sizes.chip_words[0]} + {sizes.chip_words[1]} words",
    ]
    return "\n".join(lines)


def _widths(widths: tuple[int, ...]) -> str:
    """Widths in words.

    >>> _widths((1, 2, 3)), _widths((4, 8, 14))
    ('1 to 3', '4, 8, 14')
    """
    if widths == tuple(range(widths[0], widths[-1] + 1)) and len(widths) > 2:
        return f"{widths[0]} to {widths[-1]}"
    return ", ".join(map(str, widths))
