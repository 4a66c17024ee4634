# SPDX-License-Identifier: Apache-2.0
"""Processing systems in a block design (processors.toml), and which DRAM port each master gets."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from formats.hardware import find_part

TABLES = Path(__file__).with_name("processors.toml")
PORT_WIDTH = 64  # bits of a bus word, docs/formats.md section 1
FIRST_GP = 2  # HP0 is the slave port GP2 of a Zynq UltraScale+ (PG201)


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


def processor(part: str) -> dict[str, Any]:
    """The processing system of a part, a table of processors.toml."""
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return cast("dict[str, Any]", tables[find_part(part).processor])


def distribute(masters: Sequence[str], system: dict[str, Any]) -> list[Port]:
    """Give each master a DRAM port, in turn, so that no port has two while another has none.

    >>> system = processor("XCZU7EV")
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
