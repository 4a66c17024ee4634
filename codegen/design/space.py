# SPDX-License-Identifier: Apache-2.0
"""The points of the design space and a lower bound of each one's time.

A point is what a user can set: SIMD, PE, pixels, weight ports, where feature maps live. What the
planner chooses by itself (buffer depths, chunks, QK units, batch, lane packing) is no axis here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from codegen.design import planner
from codegen.design.jobs import make_jobs
from codegen.design.layers import INPUT
from codegen.design.network import Network
from codegen.design.numbers import ceil_div, signed_bits
from codegen.design.parts import Part
from codegen.design.planner import FEATURE_MAP_PORTS, MAX_PIXELS, WEIGHT_ROWS
from codegen.design.resources import multiplier_blocks
from codegen.design.rows import OP_CONV, WEIGHT_PORTS, Row, base_row, kernel_taps, tiles
from formats.packing import BLOCK_CODES, WORD_BITS, WORD_BYTES

MAX_LANES = 128  # of SIMD and of PE: beyond, nothing fans out to so many multipliers


@dataclass(frozen=True, order=True)
class Point:
    """One design.

    Attributes:
        simd, pe: input and output channels a cycle, multiples of 8.
        pixels: output pixels a cycle.
        weight_ports: memory ports that weights come through.
        fm: "auto", "chip" or "ddr": where feature maps live.
    """

    simd: int
    pe: int
    pixels: int = 1
    weight_ports: int = 1
    fm: str = "auto"

    @property
    def multipliers(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.simd * self.pe * self.pixels

    def __str__(self) -> str:
        return (
            f"SIMD={self.simd} PE={self.pe} PIXELS={self.pixels} WEIGHT_PORTS={self.weight_ports}"
        )


@dataclass(frozen=True)
class Fixed:
    """What the user has set; None leaves an axis free."""

    simd: int | None = None
    pe: int | None = None
    pixels: int | None = None
    weight_ports: int | None = None
    fm: str | None = None

    def check(self, part: Part) -> None:
        """UserError where a value is none that an engine on this part can have."""
        planner.check_array(self.simd, self.pe, self.pixels)
        if self.weight_ports is not None:
            planner.check_ports(part, self.weight_ports)


def points(part: Part, weight_bits: int, value_bits: int, fixed: Fixed) -> Iterator[Point]:
    """Every point whose multipliers and weight buffer the part could hold.

    Args:
        part: the FPGA.
        weight_bits, value_bits: operand widths of a multiplier.
        fixed: axes that the user has set.
    """
    most = part.dsp // multiplier_blocks(weight_bits, value_bits, part)
    lanes = range(BLOCK_CODES, MAX_LANES + 1, BLOCK_CODES)
    ports = [ports for ports in WEIGHT_PORTS if ports + FEATURE_MAP_PORTS <= part.ports]
    for simd in [fixed.simd] if fixed.simd else lanes:
        for pe in [fixed.pe] if fixed.pe else lanes:
            # a row of weights is read at once: each of its words is a BRAM36 at least
            if simd * pe * weight_bits // WORD_BITS > part.bram36:
                continue
            for pixels in [fixed.pixels] if fixed.pixels else range(1, MAX_PIXELS + 1):
                if simd * pe * pixels > most:
                    break
                for weight_ports in [fixed.weight_ports] if fixed.weight_ports else ports:
                    yield Point(simd, pe, pixels, weight_ports, fixed.fm or "auto")


class Bound:
    """Lower bounds of the time of points, without planning them.

    Attributes:
        jobs: the layers, for the narrowest engine.
        weight_bits, value_bits: operand widths of a multiplier.
    """

    def __init__(self, network: Network, part: Part, images: int) -> None:
        self.network, self.part, self.images = network, part, images
        self._rows: dict[tuple[int, int], list[Row]] = {}
        self.jobs, _ = make_jobs(network, BLOCK_CODES, BLOCK_CODES, WEIGHT_ROWS[0])
        layers = [job.layer for job in self.jobs]
        self.weight_bits = max([item.weight_bits for item in layers if item.weighted], default=2)
        sources = [source for job in self.jobs for source in job.sources]
        self.value_bits = max(signed_bits(*source.value_range) for source in sources)

    def rows(self, simd: int, pe: int) -> list[Row]:
        """The layers as an engine of these lanes sees them, before chunks."""
        key = (simd, pe)
        if key not in self._rows:
            jobs, _ = make_jobs(self.network, simd, pe, WEIGHT_ROWS[0])
            self._rows[key] = [base_row(job, simd, pe) for job in jobs]
        return self._rows[key]

    def seconds(self, point: Point) -> float:
        """No design at `point` is faster: multipliers and weights of each layer, whichever is more.

        Chunks, first rows and the other processes only add to it. Points whose lanes suit no
        layout of the network (a normalisation needs PE of 24) have no rows: UserError.
        """
        clock = self.part.clock_mhz * 1e6
        total = 0.0
        for job, row in zip(self.jobs, self.rows(point.simd, point.pe), strict=True):
            if row["op"] != OP_CONV:
                continue
            # the first layer's taps may be laid out in several ways, none of which saves products
            least = job.layer.in_shape[0] // job.layer.groups * prod(job.layer.kernel)
            items = kernel_taps(row) * row["blocks"]
            if job.layer.source == INPUT:
                items = min(items, ceil_div(least, BLOCK_CODES))
            steps = ceil_div(items, point.simd // BLOCK_CODES) * tiles(row)
            pixels = row["conv_height"] * ceil_div(row["conv_width"], point.pixels)
            words = steps * row["row_words"]  # of one port; row_words is for one, too
            compute = steps * pixels * self.images / clock
            load = words / point.weight_ports / clock
            traffic = words * WORD_BYTES / (self.part.ddr_gbs * 1e9)
            total += max(compute, load, traffic)
        return total
