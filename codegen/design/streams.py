# SPDX-License-Identifier: Apache-2.0
"""The streams between the engine's processes (hls_templates/engine/engine.hpp): depth and width.

run_hls.tcl asks for shift registers, of which a LUT holds a bit 32 deep (UG474, SRLC32E). Sizes
that vary with a design are those of its exact types.
"""

from dataclasses import dataclass

from nuq.codegen.design.sizes import Sizes
from nuq.formats.arithmetic import BLOCK_CODES, SCALE_BITS, ceil_div, unsigned_bits
from nuq.formats.packing import WORD_BITS

# Depths as in engine.hpp.
JOBS, WORDS, BLOCKS, SUMS, PIXELS, PLAIN = 16, 64, 128, 16, 64, 2
# What every process has counted.
COUNTS = (
    "n_load", "n_read", "n_fetched", "n_unpack", "n_compute", "n_finish", "n_pool", "n_pack",
    "n_write", "n_stored",
)  # fmt: skip
COUNT_BITS = 32
# What control sends, a descriptor for each process (work.hpp), and the bits of all.
DESCRIPTORS = (
    "to_load", "to_reads", "to_unpack", "to_rows", "to_taps", "to_compute", "to_finish", "to_pool",
    "to_pack", "to_writes",
)  # fmt: skip
DESCRIPTOR_BITS = 5000
HANDSHAKE_LUT = 6  # of a stream: full, empty, and who may go on


@dataclass(frozen=True)
class Stream:
    """One stream: elements that it holds, bits of each."""

    name: str
    depth: int
    bits: int

    @property
    def lut(self) -> int:
        """LUTs of its shift registers, and of its counter: an adder and two comparisons of it."""
        counter = unsigned_bits(self.depth)
        return self.bits * ceil_div(self.depth, 32) + 2 * counter + HANDSHAKE_LUT


def tap_bits(sizes: Sizes) -> int:
    """Width of the taps of one cycle: WINDOW times a distance in pixels and entries; flags."""
    place = 2 * (unsigned_bits(max(sizes.map_height, sizes.map_width)) + 2) + entry_bits(sizes) + 1
    return sizes.array.window * place + unsigned_bits(sizes.weight_rows) + 3


def entry_bits(sizes: Sizes) -> int:
    """Width of a place in the line buffer, or as far before it."""
    return unsigned_bits(2 * sizes.line_blocks) + 1


def streams(sizes: Sizes) -> list[Stream]:
    """All of them."""
    array = sizes.array
    pixel, sums = array.pe * sizes.code_bits, array.pe * sizes.acc_bits
    entry, side = entry_bits(sizes), unsigned_bits(max(sizes.map_height, sizes.map_width)) + 1
    tokens = {
        "pack_tiles": 64, "write_tiles": 64, "reads": 98, "unpacks": 18, "lines": entry + 1,
        "rows": entry + 2 * side + 37, "writes": 50,
    }  # fmt: skip
    return [
        *(Stream(name, JOBS, bits) for name, bits in tokens.items()),
        *(Stream(name, PLAIN, DESCRIPTOR_BITS // len(DESCRIPTORS)) for name in DESCRIPTORS),
        *(Stream(name, PLAIN, COUNT_BITS) for name in COUNTS),
        Stream("read_passes", PLAIN, 99),
        Stream("tap_passes", PLAIN, 13),
        *(Stream(name, PLAIN, WORD_BITS) for name in ("centroids", "finish_tables")),
        Stream("taps", PLAIN, tap_bits(sizes)),
        Stream("weight_rows", PLAIN, sizes.row_bits),
        Stream("biases", PLAIN, sums),
        *([Stream("scales", PLAIN, array.pe * SCALE_BITS)] if sizes.scales else []),
        Stream("words_in", WORDS, WORD_BITS),
        Stream("words_out", WORDS, WORD_BITS),
        Stream("blocks", BLOCKS, BLOCK_CODES * sizes.code_bits),
        Stream("sums", SUMS, array.pixels * sums),
        Stream("raw", PLAIN, sums),
        Stream("codes", PIXELS, pixel),
        Stream("pooled", PIXELS, pixel),
    ]
