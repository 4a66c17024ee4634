# SPDX-License-Identifier: Apache-2.0
"""The FPGA parts of parts.toml: what a design may use, and how fast memory and clock are.

Imports the standard library only.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from codegen.errors import UserError

PARTS_FILE = Path(__file__).with_name("parts.toml")
DEFAULT_PART = "XC7Z020"


@dataclass(frozen=True)
class Part:
    """One FPGA part.

    Attributes:
        name, device: short name, and the vendor's full name with package and speed grade.
        dsp, bram36, uram, lut, ff: blocks available.
        ddr_gbs: peak DRAM bandwidth, 10^9 bytes a second.
        clock_mhz: planned clock of the engine.
        multiplier: signed operand widths (larger, smaller) of one DSP block.
        source: where the figures come from.
    """

    name: str
    device: str
    dsp: int
    bram36: int
    uram: int
    lut: int
    ff: int
    ddr_gbs: float
    clock_mhz: float
    multiplier: tuple[int, int]
    source: str


def load_parts() -> dict[str, Part]:
    """All known parts by name, in the file's order."""
    with PARTS_FILE.open("rb") as file:
        table = tomllib.load(file)
    return {
        name: Part(name=name, **{**entry, "multiplier": tuple(entry["multiplier"])})
        for name, entry in table.items()
    }


def find_part(name: str) -> Part:
    """The part called `name`, in any case; UserError lists all parts.

    >>> find_part("xc7z020").dsp
    220
    """
    parts = load_parts()
    if name.upper() not in parts:
        raise UserError(
            f"PART must be one of {', '.join(parts)}, not {name!r}; "
            "others can be added to codegen/parts.toml"
        )
    return parts[name.upper()]
