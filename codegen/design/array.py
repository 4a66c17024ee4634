# SPDX-License-Identifier: Apache-2.0
"""Array: the multipliers, the ports that feed them, the units behind them: what a user sets."""

from dataclasses import dataclass

from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part
from nuq.formats.packing import WORD_BITS

MODES = ("auto", "chip", "ddr")  # feature maps: on chip as far as that is sensible, all, none
WEIGHT_PORTS = (1, 2, 3, 4, 6)  # what may be asked for
MAX_PIXELS = 8
FEATURE_MAP_PORTS = 1  # fm_in only reads, fm_out only writes: one port's two directions


@dataclass(frozen=True, order=True)
class Array:
    """The engine's size; UserError where an engine cannot have a value."""

    simd: int = 8  # input channels a cycle
    pe: int = 24  # output channels a cycle
    pixels: int = 1  # output pixels of a row a cycle
    weight_ports: int = 1  # memory ports that weights come through
    qk_units: int = 0  # requantizers and encoders, a divisor of `pe`; 0: not yet chosen
    # Of them, those that multiply by the wide factors of average pools and normalisations, whose
    # layers have no others; a divisor of `pe`, 0: all.
    factor_units: int = 0
    fm: str = "auto"  # where feature maps live, one of MODES
    # The compute stage: two output channels share a multiplier in layers whose weights have at most
    # so many bits; the second weight stands so many bits above the first. 0: each has its own.
    pair_bits: int = 0
    pair_shift: int = 0
    # Depthwise convolutions with lanes that are channels: kernel rows that they multiply at once, a
    # block of the line buffer each. 0: they run as grouped convolutions.
    kernel_rows: int = 0

    def __post_init__(self) -> None:
        for name, value in (("SIMD", self.simd), ("PE", self.pe)):
            if value < BLOCK_CODES or value % BLOCK_CODES:
                raise UserError(f"{name} must be a positive multiple of 8, not {value}")
        if self.pair_bits and self.pe % (2 * BLOCK_CODES):
            raise UserError(f"PE must be a multiple of 16 with STAGE=pairs, not {self.pe}")
        if not 0 <= self.kernel_rows <= self.simd:
            raise ValueError(
                f"kernel_rows must be SIMD={self.simd} at most, not {self.kernel_rows}"
            )
        if not 1 <= self.pixels <= MAX_PIXELS:
            raise UserError(f"PIXELS must be 1..{MAX_PIXELS}, not {self.pixels}")
        if self.fm not in MODES:
            raise UserError(f"FM must be one of {', '.join(MODES)}, not {self.fm!r}")
        for units in (self.qk_units, self.factor_units):
            if units and self.pe % units:
                raise ValueError(f"QK_UNITS must divide PE={self.pe}, not {units}")

    def check_ports(self, part: Part) -> None:
        """UserError where the part has too few memory ports."""
        room = part_ports(part)
        if self.weight_ports not in room:
            raise UserError(
                f"WEIGHT_PORTS must be one of {', '.join(map(str, room))} on {part.name}, whose "
                f"{part.ports} memory ports also serve the feature maps, not {self.weight_ports}"
            )

    def __str__(self) -> str:
        pixels = f" PIXELS={self.pixels}" if self.pixels > 1 else ""
        return f"SIMD={self.simd} PE={self.pe}{pixels}{' STAGE=pairs' if self.pair_bits else ''}"

    @property
    def stage(self) -> str:
        """The compute stage, by the name that STAGE has for it."""
        return "pairs" if self.pair_bits else "single"

    @property
    def shared(self) -> int:
        """Output channels that share a multiplier at most."""
        return 2 if self.pair_bits else 1

    @property
    def products(self) -> int:
        """Multiply-accumulates a cycle at most."""
        return self.simd * self.pe * self.pixels

    @property
    def wide_units(self) -> int:
        """QK units that multiply by a wide factor."""
        return self.factor_units or self.qk_units

    @property
    def multipliers(self) -> int:
        """Multipliers of the compute stage."""
        return self.products // self.shared

    def tile(self, paired: bool) -> int:
        """Output channels of a convolution's tile.

        >>> Array(8, 32).tile(False), Array(8, 32, pair_bits=8, pair_shift=17).tile(False)
        (32, 16)
        """
        return self.pe if paired else self.pe // self.shared

    def can_pair(self, weight_bits: int, value_bits: int) -> bool:
        """Whether products of so many bits, both signed, fit beside each other.

        The lower product w1 * y needs weight_bits + value_bits - 1 bits, as w1 is never the most
        negative number of its bits.

        >>> [Array(8, 16, pair_bits=8, pair_shift=17).can_pair(8, bits) for bits in (10, 11)]
        [True, False]
        """
        below = weight_bits + value_bits - 1 <= self.pair_shift
        return bool(self.pair_bits) and weight_bits <= self.pair_bits and below

    @property
    def blocks(self) -> int:
        """Blocks of 8 input channels a cycle: G of the generated C++."""
        return self.simd // BLOCK_CODES

    @property
    def window(self) -> int:
        """Blocks that are read of a pixel's window at once: WINDOW of the generated C++."""
        return max(self.blocks, self.kernel_rows)

    @property
    def read_ports(self) -> int:
        """Blocks of the line buffer that are read at once."""
        return self.window + (self.pixels - 1) * self.blocks

    @property
    def planes(self) -> int:
        """Planes of 8 output channels of a tile."""
        return self.pe // BLOCK_CODES

    @property
    def bias_words(self) -> int:
        """64-bit words that every port brings of a tile's PE biases of 32 bits.

        >>> Array(8, 24).bias_words, Array(8, 8, weight_ports=3).bias_words
        (12, 2)
        """
        return ceil_div(self.pe // 2, self.weight_ports)

    @property
    def scale_words(self) -> int:
        """64-bit words that every port brings of a tile's PE weight scales of 8 bits.

        >>> Array(8, 24).scale_words, Array(8, 24, weight_ports=2).scale_words
        (3, 2)
        """
        return ceil_div(self.planes, self.weight_ports)

    def row_words(self, bits: int, paired: bool = False) -> int:
        """64-bit words of a cycle's weights of so many bits, from all ports."""
        return self.simd * self.tile(paired) * bits // WORD_BITS

    def groups(self, width: int) -> int:
        """Groups of neighbouring pixels in an output row of so many."""
        return ceil_div(width, self.pixels)

    def steps(self, taps: int, channels: int) -> int:
        """Cycles of the multipliers for one group of pixels of a convolution.

        Its list of (tap, block) is cut into pieces of SIMD channels wherever taps end.

        >>> Array(24).steps(9, 64), Array(24).steps(9, 8)
        (24, 3)
        """
        return ceil_div(taps * ceil_div(channels, BLOCK_CODES), self.blocks)

    def efficiency(self, macs: int, cycles: int) -> float:
        """Share of the compute stage's capacity that `macs` multiply-accumulates use."""
        return macs / (self.products * cycles)


def part_ports(part: Part) -> list[int]:
    """Numbers of weight ports that a part has room for."""
    return [ports for ports in WEIGHT_PORTS if ports + FEATURE_MAP_PORTS <= part.ports]
