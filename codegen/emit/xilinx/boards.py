# SPDX-License-Identifier: Apache-2.0
"""Boards and processing systems that a block design can be made
for (boards.toml, processors.toml).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.errors import UserError

FOLDER = Path(__file__).parent
PORT_WIDTH = 64  # bits of a bus word, docs/formats.md section 1
FIRST_GP = 2  # HP0 is the slave port GP2 of a Zynq UltraScale+ (PG201)


@dataclass(frozen=True)
class Board:
    """One board: its FPGA part, its board file in Vivado, who provides that, its processor."""

    name: str
    part: str
    board_part: str
    files: str
    processor: str


@dataclass(frozen=True)
class Port:
    """A DRAM port of the processing system and the masters behind it.

    Attributes:
        name, clock: interface and clock pin of the processing system's cell.
        masters: bundles of the accelerator, in the order of the interconnect's slave ports.
        interconnect: name of the interconnect's cell.
        segments, unused: patterns of address segments to map and to exclude.
        settings: properties of the processing system that this port needs.
    """

    name: str
    clock: str
    masters: tuple[str, ...]
    interconnect: str
    segments: str
    unused: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]


def _table(name: str) -> dict[str, dict[str, Any]]:
    with (FOLDER / name).open("rb") as file:
        return tomllib.load(file)


def load_boards() -> dict[str, Board]:
    """All boards by name."""
    return {name: Board(name=name, **entry) for name, entry in _table("boards.toml").items()}


def find_board(name: str) -> Board:
    """The board called `name`; UserError lists all boards.

    >>> find_board("pynq-z2").part
    'XC7Z020'
    """
    boards = load_boards()
    if name.lower() not in boards:
        raise UserError(
            f"BOARD must be one of {', '.join(boards)}, not {name!r}; "
            "others can be added to codegen/emit/xilinx/boards.toml"
        )
    return boards[name.lower()]


def processor(board: Board) -> dict[str, Any]:
    """The board's processing system, a table of processors.toml."""
    return _table("processors.toml")[board.processor]


def distribute(masters: Sequence[str], system: dict[str, Any]) -> list[Port]:
    """Give each master a DRAM port, in turn, so that no port has two while another has none.

    >>> system = processor(find_board("zcu104"))
    >>> [(port.name, *port.masters) for port in distribute(["a", "b", "c", "d", "e"], system)][:2]
    [('S_AXI_HP0_FPD', 'a', 'e'), ('S_AXI_HP1_FPD', 'b')]
    """
    numbers = system["ports"]
    ports = []
    for place, number in enumerate(numbers):
        behind = tuple(masters[place :: len(numbers)])
        if not behind:
            break
        names = {"gp": number + FIRST_GP, "width": PORT_WIDTH}
        ports.append(
            Port(
                name=system["port"].format(number),
                clock=system["port_clock"].format(number),
                masters=behind,
                interconnect=f"memory_{number}",
                segments=system["segments"].format(number, **names),
                unused=tuple(item.format(number, **names) for item in system["unused"]),
                settings=tuple(
                    (key.format(number, **names), value.format(number, **names))
                    for key, value in system["port_settings"]
                ),
            )
        )
    return ports
