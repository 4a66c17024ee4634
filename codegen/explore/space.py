# SPDX-License-Identifier: Apache-2.0
"""The points of the design space and a lower bound of each one's time.

A point is what a user can set: SIMD, PE, pixels, weight ports, where feature maps live. What the
planner chooses by itself (buffer depths, chunks, QK units, batch, lane packing) is no axis here.
Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.jobs import make_jobs
from codegen.network import Network
from codegen.numbers import ceil_div, signed_bits
from codegen.packing import BLOCK_CODES
from codegen.parts import Part
from codegen.planner import WEIGHT_ROWS
from codegen.resources import multiplier_blocks
from codegen.table import OP_CONV, Row, base_row, kernel_taps, tiles

PIXELS = tuple(range(1, 9))
WEIGHT_PORTS = (1, 2, 3, 4)
FEATURE_MAPS = ("auto",)
MAX_LANES = 128  # of SIMD and of PE: beyond, nothing fans out to so many multipliers
FEATURE_MAP_PORTS = 2  # one for reading, one for writing


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

    def allows(self, point: Point) -> bool:
        """Whether a point agrees with it."""
        return all(
            wanted is None or wanted == getattr(point, name) for name, wanted in vars(self).items()
        )


def points(part: Part, weight_bits: int, value_bits: int, limit: float) -> Iterator[Point]:
    """Every point whose multipliers fit `limit` (a fraction) of the part's DSP blocks.

    Args:
        part: the FPGA.
        weight_bits, value_bits: operand widths of a multiplier.
        limit: fraction of each resource that may be used.
    """
    blocks = multiplier_blocks(weight_bits, value_bits, part)
    most = int(part.dsp * limit) // blocks
    lanes = range(BLOCK_CODES, MAX_LANES + 1, BLOCK_CODES)
    ports = [ports for ports in WEIGHT_PORTS if ports + FEATURE_MAP_PORTS <= part_ports(part)]
    for simd in lanes:
        for pe in lanes:
            for pixels in PIXELS:
                if simd * pe * pixels > most:
                    break
                for weight_ports in ports:
                    for fm in FEATURE_MAPS:
                        yield Point(simd, pe, pixels, weight_ports, fm)


def part_ports(part: Part) -> int:
    """Memory ports between fabric and DRAM controller."""
    return int(getattr(part, "ports", 3))


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
            self._rows[key] = [base_row(job, self.weight_bits, simd, pe) for job in jobs]
        return self._rows[key]

    def seconds(self, point: Point) -> float:
        """No design at `point` is faster: multipliers and weights of each layer, whichever is more.

        Chunks, first rows and the other processes only add to it. Points whose lanes suit no
        layout of the network (a normalisation needs PE of 24) have no rows: UserError.
        """
        clock = self.part.clock_mhz * 1e6
        total = 0.0
        for row in self.rows(point.simd, point.pe):
            if row["op"] != OP_CONV:
                continue
            items = kernel_taps(row) * row["blocks"]
            steps = ceil_div(items, point.simd // BLOCK_CODES) * tiles(row)
            pixels = row["conv_height"] * ceil_div(row["conv_width"], point.pixels)
            total += steps * pixels * self.images / clock
        return total
