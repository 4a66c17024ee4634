# SPDX-License-Identifier: Apache-2.0
"""The compute stages as Verilog, and what their multipliers and adder trees take of an FPGA.

A module is SIMD multipliers of one pixel, the trees behind them and the accumulators: of one output
channel ("single", mac_array.hpp) or of two that share the multipliers ("pairs", pair_array.hpp with
weight_row.hpp). Operands and products are registered as in a DSP block, and so is every level of a
tree. stage_checks.py shows that they are right.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nuq.codegen.design.resources import join_luts
from nuq.codegen.units.render import ENVIRONMENT
from nuq.codegen.units.synthesis import synthesize
from nuq.formats.hardware import find_part

# Targets of a synthesis: the DSP block, and a part with it.
FAMILIES = {"xc7": ("DSP48E1", "XC7Z020"), "xcup": ("DSP48E2", "XCZU7EV")}
ACC_BITS = 32  # of the measured accumulators
SIMD = (8, 24)  # measured
WEIGHT_BITS = 8


@dataclass(frozen=True)
class Level:
    """A level of an adder tree: neighbours of `count` items of `width` bits are added."""

    place: int  # from the multipliers
    count: int
    width: int

    @property
    def sums_bits(self) -> int:
        """Bits of all sums together; an odd last item passes, extended."""
        return (self.count + 1) // 2 * (self.width + 1)


@dataclass(frozen=True)
class Stage:
    """One stage to render; all operands are signed."""

    simd: int  # multipliers, at least 2
    weight_bits: int
    value_bits: int
    # of weights of which two share a multiplier, as in Array; 0: each has its own
    pair_bits: int = 0
    pair_shift: int = 0
    acc_bits: int = ACC_BITS

    @property
    def kind(self) -> str:
        """The stage's name in STAGE."""
        return "pairs" if self.pair_bits else "single"

    @property
    def name(self) -> str:
        """Name of the Verilog module."""
        shift = f"_{self.pair_shift}" if self.pair_bits else ""
        return f"{self.kind}{shift}_{self.simd}x{self.weight_bits}x{self.value_bits}"

    @property
    def lanes(self) -> int:
        """Output channels."""
        return 2 if self.pair_bits else 1

    @property
    def packed_bits(self) -> int:
        """Bits that are stored for the larger operand of a multiplier."""
        return max(2 * self.pair_bits, self.weight_bits)

    @property
    def operand_bits(self) -> int:
        """Width of a multiplier's larger operand."""
        return self.pair_shift + self.pair_bits if self.pair_bits else self.weight_bits

    @property
    def product_bits(self) -> int:
        """Width of a product, simple or double."""
        return self.operand_bits + self.value_bits

    @property
    def upper_bits(self) -> int:
        """Width of the upper half of a double product."""
        return self.product_bits - self.pair_shift

    @property
    def depth(self) -> int:
        """Levels of an adder tree."""
        return (self.simd - 1).bit_length()

    @property
    def latency(self) -> int:
        """Clock edges from a step's operands to its accumulators."""
        before, behind = (3, 2) if self.pair_bits else (2, 0)
        return before + self.depth + behind + 1

    def levels(self, width: int) -> list[Level]:
        """The levels of a tree over one item of `width` bits a multiplier.

        >>> [(level.count, level.width) for level in Stage(24, 8, 10).levels(18)]
        [(24, 18), (12, 19), (6, 20), (3, 21), (2, 22)]
        """
        return [Level(i, -(-self.simd >> i), width + i) for i in range(self.depth)]


def verilog(stage: Stage) -> str:
    """The stage's Verilog file."""
    template = ENVIRONMENT.get_template(f"rtl/stage_{stage.kind}.v.j2")
    return template.render(stage=stage).lstrip("\n")


def full_pairs(simd: int, weight_bits: int, value_bits: int, port: int) -> Stage:
    """Pairs that fill the larger operand of a multiplier, as the planner places them."""
    return Stage(simd, weight_bits, value_bits, weight_bits, port - weight_bits)


def measured_stages() -> list[tuple[str, Stage]]:
    """(target, stage) of every row of the table: 8-bit weights, the widest values of a pair."""
    rows = []
    for target, (_, name) in FAMILIES.items():
        port = find_part(name).multiplier[0]
        for simd in SIMD:
            value = port - 2 * WEIGHT_BITS + 1
            rows.append((target, full_pairs(simd, WEIGHT_BITS, value, port)))
            rows.append((target, Stage(simd, WEIGHT_BITS, value)))
    return rows


def estimated_luts(stage: Stage) -> int:
    """LUTs of a stage by the planner's formula, an adder a bit of each accumulator."""
    tree_bits = stage.weight_bits + stage.value_bits + stage.depth
    pairs = (stage.pair_bits, stage.pair_shift)
    luts = join_luts(stage.simd, stage.value_bits, tree_bits, *pairs)
    luts += stage.simd * (stage.packed_bits - 1) if stage.pair_bits else 0  # one weight or two
    return luts + stage.lanes * stage.acc_bits


def measure_stages(cache: Path, progress: Callable[[int], object]) -> list[dict[str, Any]]:
    """Rows of units.json: each stage, synthesized, with the formula's LUTs."""
    rows = measured_stages()
    costs = {
        target: synthesize({stage.name: verilog(stage) for family, stage in rows
                            if family == target}, target, cache, progress, dsp=True)
        for target in FAMILIES
    }  # fmt: skip
    return [
        {
            "target": target, "block": FAMILIES[target][0], "stage": stage.kind, "simd": stage.simd,
            "weight_bits": stage.weight_bits, "value_bits": stage.value_bits,
            "estimate": estimated_luts(stage), **asdict(costs[target][stage.name]),
        }
        for target, stage in rows
    ]  # fmt: skip
