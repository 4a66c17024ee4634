# SPDX-License-Identifier: Apache-2.0
"""FPGA parts and boards: one TOML file each under parts/ and boards/, every figure with its source.

A part is the silicon: what a design may use. A board brings DRAM and Vivado's board file. A part
may also be a file of the user's own (docs/parts.md).
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from nuq.formats.clocks import make_clock
from nuq.formats.errors import UserError, meant

FOLDER = Path(__file__).parent
DEFAULT_PART = "XC7Z020"
MAX_CLOCK_MHZ = 1000
LIMIT = 0.9
DRAM_EFFICIENCY = (
    0.75  # of its peak: "approximately 75%" of the Zynq-7000's controller, UG585 22.3.2
)
PROCESSORS = ("zynq-7000", "zynq-ultrascale")
SOURCES = ("fabric", "multiplier", "ports", "clock")
OTHER_SOURCES = ("ddr", "clock_max")


def _rule(text: str, holds: Callable[[Any], bool], **more: Any) -> Any:
    """A field of a file: what it must be, in words and as a test; optional with a default."""
    return field(metadata={"must be": text, "holds": holds}, **more)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _count(least: int, **more: Any) -> Any:
    return _rule(f"an integer of at least {least}", lambda v: _is_count(v, least), **more)


def _text() -> Any:
    return _rule("a text", lambda v: isinstance(v, str) and bool(v))


def _rate(**more: Any) -> Any:
    def holds(value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and 0 < value < float("inf")

    return _rule("a positive number", holds, **more)


def _is_plls(value: Any) -> bool:
    named = isinstance(value, dict) and bool(value)
    return named and all(
        isinstance(mhz, (int, float)) and not isinstance(mhz, bool) and 0 < mhz < 10_000
        for mhz in value.values()
    )


def _plls(**more: Any) -> Any:
    return _rule("a table of PLLs and their MHz", _is_plls, **more)


def _is_source(value: Any) -> bool:
    named = isinstance(value, dict) and set(SOURCES) <= set(value) <= {*SOURCES, *OTHER_SOURCES}
    return named and all(isinstance(text, str) and text for text in value.values())


def _is_multiplier(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return pair and all(_is_count(item, 2) for item in value) and value[0] >= value[1]


@dataclass(frozen=True)
class Part:
    """One FPGA part."""

    name: str = _text()
    device: str = _text()  # the vendor's full name with package and speed grade
    processor: str = _rule(f"one of {', '.join(PROCESSORS)}", lambda v: v in PROCESSORS)
    dsp: int = _count(1)  # this and the next four: blocks available
    bram36: int = _count(1)
    uram: int = _count(0)
    lut: int = _count(1)
    ff: int = _count(1)
    # signed operand widths (larger, smaller) of one DSP block
    multiplier: tuple[int, int] = _rule("two widths, the larger first", _is_multiplier)
    clock_mhz: float = _rate()  # planned, of the engine
    ports: int = _count(1)  # from the fabric to the processor's DRAM
    # where the figures come from, by SOURCES and OTHER_SOURCES
    source: dict[str, str] = _rule(f"a table of texts for {', '.join(SOURCES)}", _is_source)
    # that no block RAM can exceed; left out in a file, that of no part at all
    clock_max_mhz: float = _rate(default=MAX_CLOCK_MHZ)
    # peak bandwidth of the DRAM, 10^9 bytes a second; left out in a file, it is that of the slowest
    # board with the part
    ddr_gbs: float = _rate(default=0.0)
    # PLLs that clocks are made of; left out in a file, those of the same board, and a clock is what
    # was asked for where there is none
    plls: dict[str, float] = _plls(default_factory=dict)
    # of each resource, what a design may take: placement and routing need the rest; never in a file
    limit: float = LIMIT

    def room(self, resource: str) -> int:
        """Blocks of a resource that a design may take.

        >>> find_part("XC7Z020").room("bram36")
        126
        """
        return int(getattr(self, resource) * self.limit + 1e-9)

    @property
    def sustained_gbs(self) -> float:
        """Bandwidth of the DRAM that a design can count on, 10^9 bytes a second."""
        return DRAM_EFFICIENCY * self.ddr_gbs

    def seconds(self, cycles: float, moved: float) -> float:
        """Time of so many cycles, or of so many bytes between chip and DRAM if that is longer."""
        return max(cycles / (self.clock_mhz * 1e6), moved / (self.sustained_gbs * 1e9))


@dataclass(frozen=True)
class Board:
    """One board; its name is that of its file."""

    name: str
    part: str = _text()
    ddr_gbs: float = _rate()  # peak bandwidth of the processor's DRAM, 10^9 bytes a second
    ddr_source: str = _text()  # where that comes from
    board_part: str = _text()  # pattern of the board file's name in Vivado; the newest is taken
    files: str = _text()  # who provides that board file
    plls: dict[str, float] = _plls()  # MHz of the PLLs that fabric clocks are made of, by name
    plls_source: str = _text()  # where those come from
    # contiguous memory under PYNQ, 2^20 bytes; 0 where unknown: the driver asks the kernel
    contiguous_mib: int = _count(1, default=0)


Kind = TypeVar("Kind", Part, Board)


def _read(kind: type[Kind], path: Path, **given: Any) -> Kind:
    """The part or board of a file; UserError names the file and the field where one is wrong."""
    import tomllib  # not in Python 3.10 of boards, which read no such file

    try:
        with path.open("rb") as file:
            entry = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} must be a readable TOML file ({error}); see docs/parts.md"
        ) from None
    rules = {item.name: item for item in fields(kind) if "holds" in item.metadata}
    needed = {
        name
        for name, item in rules.items()
        if item.default is MISSING and item.default_factory is MISSING
    }
    for name in sorted(needed - set(entry)) + sorted(set(entry) - set(rules)):
        what = "be there" if name in rules else "not be there"
        raise UserError(f"{path}: {name} must {what}; see docs/parts.md")
    for name, value in entry.items():
        if not rules[name].metadata["holds"](value):
            wanted = rules[name].metadata["must be"]
            raise UserError(f"{path}: {name} must be {wanted}, not {value!r}")
    return kind(**given, **entry)


def read_part(path: Path) -> Part:
    """The part of a file, with the DRAM of its boards where it names none."""
    part = _read(Part, path)
    larger, smaller = part.multiplier
    part = replace(part, multiplier=(larger, smaller))
    boards = [board for board in load_boards().values() if board.part == part.name]
    if not boards and not part.ddr_gbs:
        raise UserError(f"{path}: ddr_gbs must be there, because no board has the part {part.name}")
    if not boards:
        return part
    slowest = min(boards, key=lambda board: board.ddr_gbs)
    if not part.plls:
        source = {**part.source, "plls": slowest.plls_source}
        part = replace(part, plls=slowest.plls, source=source)
    if not part.ddr_gbs:
        source = {**part.source, "ddr": slowest.ddr_source}
        part = replace(part, ddr_gbs=slowest.ddr_gbs, source=source)
    return part


def load_parts() -> dict[str, Part]:
    """All parts by name, the one with the fewest DSP blocks first."""
    parts = [read_part(path) for path in (FOLDER / "parts").glob("*.toml")]
    return {part.name: part for part in sorted(parts, key=lambda part: (part.dsp, part.name))}


@cache
def load_boards() -> dict[str, Board]:
    """All boards by name."""
    boards = [_read(Board, path, name=path.stem) for path in (FOLDER / "boards").glob("*.toml")]
    return {board.name: board for board in sorted(boards, key=lambda board: board.name)}


def find_part(name: str) -> Part:
    """The part called `name`, in any case, or that of the file `name`.toml; UserError lists all.

    >>> find_part("xc7z020").dsp
    220
    """
    if name.lower().endswith(".toml"):
        return read_part(Path(name))
    return _called(name, name.upper(), load_parts(), "PART", " or a TOML file")


def find_board(name: str) -> Board:
    """The board called `name`, in any case; UserError lists all.

    >>> find_board("pynq-z2").part
    'XC7Z020'
    """
    return _called(name, name.lower(), load_boards(), "BOARD")


def _called(name: str, key: str, table: dict[str, Kind], option: str, more: str = "") -> Kind:
    if key not in table:
        raise UserError(
            f"{option} must be one of {', '.join(table)}{more}, not {name!r}{meant(name, table)}; "
            "docs/parts.md says how to add one"
        )
    return table[key]


def clocked(part: Part, clock_mhz: float | None) -> Part:
    """The part with the clock that its board makes of the one asked for, else of its typical one.

    >>> clocked(find_part("XC7Z020"), 145).clock_mhz
    144.444444
    """
    wanted = part.clock_mhz if clock_mhz is None else clock_mhz
    if not 1 <= wanted <= part.clock_max_mhz:
        raise UserError(
            f"CLOCK must be 1..{part.clock_max_mhz:g} MHz, what block RAM of {part.name} can do, "
            f"not {wanted:g}; its planned clock is {part.clock_mhz:g} MHz"
        )
    return replace(part, clock_mhz=make_clock(part.plls, wanted).mhz if part.plls else wanted)
