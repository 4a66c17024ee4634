# SPDX-License-Identifier: Apache-2.0
"""The points of the design space and a lower bound of each one's time.

A point is an Array but for its QK units: SIMD, PE, pixels, weight ports, where feature maps live.
What the planner chooses by itself (buffer depths, chunks, QK units, batch, lane packing) is no
axis.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from codegen.design.array import MAX_PIXELS, Array, part_ports
from codegen.design.lowering import lower
from codegen.design.planner import WEIGHT_ROWS
from codegen.design.resources import multiplier_blocks
from codegen.design.rows import Row
from codegen.design.sizes import operand_bits
from formats.arithmetic import BLOCK_CODES, ceil_div
from formats.hardware import Part
from formats.network import Network
from formats.packing import WORD_BYTES
from formats.rules import INPUT

MAX_LANES = 128  # of SIMD and of PE: beyond, nothing fans out to so many multipliers


Axes = Mapping[str, int | str]  # what the user has set of an array, by field; the rest is free


def smallest(axes: Axes) -> Array:
    """The smallest array with these axes; UserError where an engine cannot have a value."""
    return Array(**{"pe": BLOCK_CODES, **axes})  # type: ignore[arg-type]


def points(part: Part, weight_bits: int, value_bits: int, axes: Axes) -> Iterator[Array]:
    """Every array whose multipliers and weight buffer the part could hold.

    Args:
        part: the FPGA.
        weight_bits, value_bits: operand widths of a multiplier.
        axes: what the user has set.
    """
    most = part.dsp // multiplier_blocks(weight_bits, value_bits, part)
    lanes = range(BLOCK_CODES, MAX_LANES + 1, BLOCK_CODES)
    free: dict[str, Sequence[Any]] = {
        "simd": lanes, "pe": lanes, "pixels": range(1, MAX_PIXELS + 1),
        "weight_ports": part_ports(part), "qk_units": (0,), "fm": ("auto",),
    }  # fmt: skip
    values: list[Any] = [[axes[name]] if name in axes else free[name] for name in free]
    for choice in product(*values):
        array = Array(*choice)
        # a row of weights is read at once: each of its words is a BRAM36 at least
        if array.multipliers <= most and array.row_words(weight_bits) <= part.bram36:
            yield array


class Bound:
    """Lower bounds of the time of points, without planning them.

    Attributes:
        weight_bits, value_bits: operand widths of a multiplier.
    """

    def __init__(self, network: Network, part: Part, images: int) -> None:
        self.network, self.part, self.images = network, part, images
        self._rows: dict[tuple[int, int], list[Row]] = {}
        lowered = lower(network, Array(BLOCK_CODES, BLOCK_CODES), WEIGHT_ROWS[0])
        self.weight_bits, self.value_bits = operand_bits(lowered)

    def rows(self, simd: int, pe: int) -> list[Row]:
        """The layers as an engine of these lanes sees them, before chunks."""
        if (simd, pe) not in self._rows:
            lowered = lower(self.network, Array(simd, pe), WEIGHT_ROWS[0])
            self._rows[simd, pe] = lowered.rows()
        return self._rows[simd, pe]

    def seconds(self, array: Array) -> float:
        """No design is faster: multipliers and weights of each layer, whichever takes longer.

        Chunks, first rows and the other processes only add to it. Arrays whose lanes suit no
        layout of the network (a normalisation needs PE of 24) have no rows: UserError.
        """
        clock = self.part.clock_mhz * 1e6
        total = 0.0
        for layer, row in zip(self.network.layers, self.rows(array.simd, array.pe), strict=True):
            if not row.is_conv:
                continue
            # the first layer's taps may be laid out in several ways, none of which saves products
            least = layer.in_shape[0] // layer.groups * prod(layer.kernel)
            items = row.kernel_taps * row.blocks
            if layer.source == INPUT:
                items = min(items, ceil_div(least, BLOCK_CODES))
            steps = ceil_div(items, array.blocks) * row.tiles
            pixels = row.conv_height * array.groups(row.conv_width)
            words = steps * row.row_words  # of one port; row_words is for one, too
            compute = steps * pixels * self.images / clock
            load = words / array.weight_ports / clock
            traffic = words * WORD_BYTES / (self.part.ddr_gbs * 1e9)
            total += max(compute, load, traffic)
        return total
