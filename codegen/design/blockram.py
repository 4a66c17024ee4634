# SPDX-License-Identifier: Apache-2.0
"""On-chip memories: which blocks of the FPGA they take.

Block RAM follows the geometries of a RAMB18 (UG473, UG573): 512x36, 1024x18, 2048x9, 4096x4,
8192x2, 16384x1.
"""

from dataclasses import dataclass

from formats.arithmetic import BLOCK_CODES, ceil_div

RAMB18 = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
LUTRAM_DEPTH = 64  # memories up to this depth go into LUTs


@dataclass(frozen=True)
class Memory:
    """One on-chip memory: `banks` memories of depth x width, `copies` of each."""

    name: str
    banks: int
    depth: int
    width: int
    copies: int = 1
    ultra: bool = False

    @property
    def impl(self) -> str:
        """Where it is, by the names of Vitis HLS."""
        return "uram" if self.ultra else "bram" if self.depth > LUTRAM_DEPTH else "lutram"

    @property
    def uram(self) -> int:
        """URAM288 blocks, 4096x72 each (UG573)."""
        return (
            self.banks * self.copies * ceil_div(self.depth, 4096) * ceil_div(self.width, 72)
            if self.ultra
            else 0
        )

    @property
    def bram18(self) -> int:
        """RAMB18 blocks; 0 where the memory goes into LUTs."""
        if self.depth <= LUTRAM_DEPTH or self.ultra:
            return 0
        one = min(ceil_div(self.depth, d) * ceil_div(self.width, w) for d, w in RAMB18)
        return self.banks * self.copies * one

    @property
    def lut(self) -> int:
        """LUTs of a memory that is not in block RAM: one holds 32 bits of each of two columns."""
        if self.depth > LUTRAM_DEPTH or self.ultra:
            return 0
        return self.banks * self.copies * ceil_div(self.depth, 32) * ceil_div(self.width, 2) * 2


def line_memories(
    blocks: int, low_bits: int, high_blocks: int, code_bits: int, copies: int = 1
) -> list[Memory]:
    """The two parts of the line buffer: the low bits of every code, the others of wide codes."""
    memories = [Memory("line buffer", 1, blocks, BLOCK_CODES * low_bits, copies)]
    if code_bits > low_bits:
        width = BLOCK_CODES * (code_bits - low_bits)
        memories.append(Memory("line buffer, wide codes", 1, high_blocks, width, copies))
    return memories
