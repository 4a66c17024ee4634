# SPDX-License-Identifier: Apache-2.0
"""The FPGA parts of design/parts/*.toml: what a design may use, how fast memory and clock are.

One file a part, each figure with its source; a part may also be a file of the user's own
(docs/parts.md).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from formats.errors import UserError

PARTS = Path(__file__).with_name("parts")
DEFAULT_PART = "XC7Z020"
MAX_CLOCK_MHZ = 1000
SOURCES = ("fabric", "multiplier", "ports", "ddr", "clock", "contiguous")


@dataclass(frozen=True)
class Part:
    """One FPGA part; the fields of its file.

    Attributes:
        name, device: short name, and the vendor's full name with package and speed grade.
        dsp, bram36, uram, lut, ff: blocks available.
        multiplier: signed operand widths (larger, smaller) of one DSP block.
        clock_mhz: planned clock of the engine.
        ports, port_bits: ports from the fabric to the processor's DRAM, and their width.
        ddr_type, ddr_bits: the DRAM; ddr_gbs: its peak bandwidth, 10^9 bytes a second.
        contiguous_mb: contiguous memory under PYNQ, 10^6 bytes; 0 where unknown.
        boards: boards with this part.
        sources: where the figures come from, by SOURCES.
        reserved: whether what a design had better leave free is already taken off the figures.
    """

    name: str
    device: str
    dsp: int
    bram36: int
    uram: int
    lut: int
    ff: int
    multiplier: tuple[int, int]
    clock_mhz: float
    ports: int
    port_bits: int
    ddr_type: str
    ddr_bits: int
    ddr_gbs: float
    contiguous_mb: int
    boards: tuple[str, ...]
    sources: dict[str, str]
    reserved: bool = False

    @property
    def source(self) -> str:
        """Where the fabric's and the DRAM's figures come from, in one line."""
        return f"{self.sources['fabric']}; {self.sources['ddr']}"


_COUNTS = ("dsp", "bram36", "lut", "ff", "ports", "port_bits", "ddr_bits")  # at least 1
_OTHERS = ("uram", "contiguous_mb")  # at least 0
_TEXTS = ("name", "device", "ddr_type")
_RATES = ("clock_mhz", "ddr_gbs")
_LISTS = ("multiplier", "boards")
_FIELDS = (*_COUNTS, *_OTHERS, *_TEXTS, *_RATES, *_LISTS, "source")


def read_part(path: Path) -> Part:
    """The part of a file; UserError names the file and the field where one is wrong."""
    try:
        with path.open("rb") as file:
            entry = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} must be a readable TOML file ({error}); see docs/parts.md"
        ) from None
    for name in sorted(set(_FIELDS) ^ set(entry)):
        what = "be there" if name in _FIELDS else "not be there"
        raise UserError(f"{path}: {name} must {what}; see docs/parts.md")
    for name in _FIELDS:
        if not _valid(name, entry[name]):
            raise UserError(f"{path}: {name} must be {_wanted(name)}, not {entry[name]!r}")
    sources = entry.pop("source")
    entry.update(multiplier=tuple(entry["multiplier"]), boards=tuple(entry["boards"]))
    return Part(**entry, sources=sources)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _valid(name: str, value: Any) -> bool:
    """Whether a field has the right type and range."""
    if name in _COUNTS or name in _OTHERS:
        return _is_count(value, 1 if name in _COUNTS else 0)
    if name in _TEXTS:
        return isinstance(value, str) and bool(value)
    if name in _RATES:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and 0 < value < float("inf")
    if name == "boards":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name == "multiplier":
        pair = isinstance(value, list) and len(value) == 2
        return pair and all(_is_count(item, 2) for item in value) and value[0] >= value[1]
    texts = isinstance(value, dict) and set(value) == set(SOURCES)
    return texts and all(isinstance(text, str) and text for text in value.values())


def _wanted(name: str) -> str:
    """What a field must be, in words."""
    if name in _COUNTS or name in _OTHERS:
        return f"an integer of at least {1 if name in _COUNTS else 0}"
    return {
        "boards": "a list of names",
        "multiplier": "two widths, the larger first",
        "source": f"a table of texts for {', '.join(SOURCES)}",
    }.get(name, "a text" if name in _TEXTS else "a positive number")


def load_parts() -> dict[str, Part]:
    """All known parts by name, the one with the fewest DSP blocks first."""
    parts = [read_part(path) for path in PARTS.glob("*.toml")]
    return {part.name: part for part in sorted(parts, key=lambda part: (part.dsp, part.name))}


def find_part(name: str) -> Part:
    """The part called `name`, in any case, or that of the file `name`.toml; UserError lists all.

    >>> find_part("xc7z020").dsp
    220
    """
    if name.lower().endswith(".toml"):
        return read_part(Path(name))
    parts = load_parts()
    if name.upper() not in parts:
        raise UserError(
            f"PART must be one of {', '.join(parts)} or a TOML file, not {name!r}; "
            "docs/parts.md says how to add one"
        )
    return parts[name.upper()]


def clocked(part: Part, clock_mhz: float | None) -> Part:
    """The part with another clock than its typical one, where one is given."""
    if clock_mhz is None:
        return part
    if not 1 <= clock_mhz <= MAX_CLOCK_MHZ:
        raise UserError(f"CLOCK must be 1..{MAX_CLOCK_MHZ} MHz, not {clock_mhz:g}")
    return replace(part, clock_mhz=clock_mhz)
