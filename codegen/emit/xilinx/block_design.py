# SPDX-License-Identifier: Apache-2.0
"""The Vivado script of a generated design on a board, and which DRAM port each bus master gets.

Masters are those of the INTERFACE pragmas in accelerator.cpp, which Vitis HLS reads, too; clock,
part and ID are design.json's. processors.toml has the processing systems.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nuq.codegen.emit.render import render
from nuq.formats.build import write_atomic
from nuq.formats.clocks import make_clock
from nuq.formats.design import read_design
from nuq.formats.errors import UserError, call, existing
from nuq.formats.hardware import find_board, find_part

TEMPLATE = "block_design.tcl.j2"
NAMES = {
    "name": "accelerator_system",  # of the block design
    "cell": "accelerator_0",  # the accelerator in it, as board/ expects
}
DEFAULT_CONTROL = "control"
PRAGMA = re.compile(r"^\s*#pragma\s+HLS\s+INTERFACE\s+(?P<rest>[^/\n]*)", re.IGNORECASE | re.M)
OPTION = re.compile(r"(\w+)\s*=\s*(\S+)")
PROCESSORS = Path(__file__).with_name("processors.toml")
PORT_WIDTH = 64  # bits of a bus word, docs/formats.md section 1
FIRST_GP = 2  # HP0 is the slave port GP2 of a Zynq UltraScale+ (PG201)


def parse_interfaces(text: str, name: str = "accelerator.cpp") -> tuple[tuple[str, ...], str]:
    """Bundles of m_axi, in their order, and of s_axilite in the INTERFACE pragmas of a C++ text.

    >>> parse_interfaces("#pragma HLS INTERFACE m_axi port = a bundle = g0\\n"
    ...                  "#pragma HLS INTERFACE mode=s_axilite port=return\\n")
    (('g0',), 'control')
    """
    masters: dict[str, None] = {}
    controls: set[str] = set()
    for match in PRAGMA.finditer(text):
        words = match["rest"].split()
        options = dict(OPTION.findall(match["rest"]))
        mode = options.get("mode", words[0] if words else "")
        if mode == "m_axi":
            if "bundle" not in options:
                raise UserError(f"{name}: every m_axi port must name its bundle; generate again")
            masters[options["bundle"]] = None
        elif mode == "s_axilite":
            controls.add(options.get("bundle", DEFAULT_CONTROL))
    if not masters or len(controls) != 1:
        raise UserError(
            f"{name} must have m_axi ports and one s_axilite bundle, not {len(masters)} and "
            f"{len(controls)}; generate again"
        )
    return tuple(masters), controls.pop()


def read_interfaces(build: Path) -> tuple[tuple[str, ...], str]:
    """`parse_interfaces` of the accelerator in build/NET/hls."""
    source = existing(build / "hls" / "accelerator.cpp", f"run {call('codegen')} first")
    return parse_interfaces(source.read_text(encoding="utf-8"), str(source))


def processor(part: str) -> dict[str, Any]:
    """The processing system of a part, a table of processors.toml."""
    tables: dict[str, Any] = tomllib.loads(PROCESSORS.read_text(encoding="utf-8"))
    system: dict[str, Any] = tables[find_part(part).processor]
    return system


def distribute(masters: Sequence[str], system: dict[str, Any]) -> list[dict[str, Any]]:
    """Give each master a DRAM port, in turn, so that no port has two while another has none.

    A port: `system["port"]` with its numbers filled in, the masters behind it in the order of its
    interconnect's slave ports, that interconnect's name, and the IP that does in its place where
    there is one master ("" for none: a SmartConnect).

    >>> system = processor("XCZU7EV")
    >>> ports = distribute(["a", "b", "c", "d", "e"], system)
    >>> [(port["name"], *port["masters"]) for port in ports][:2]
    [('S_AXI_HP0_FPD', 'a', 'e'), ('S_AXI_HP1_FPD', 'b')]
    """
    numbers = system["numbers"]
    return [
        {
            **_fill(system["port"], n=number, gp=number + FIRST_GP, width=PORT_WIDTH),
            "masters": masters[place :: len(numbers)],
            "interconnect": f"memory_{number}",
            "bridge": system["bridge"] if len(masters[place :: len(numbers)]) == 1 else "",
        }
        for place, number in enumerate(numbers[: len(masters)])
    ]


def _fill(value: Any, **numbers: int) -> Any:
    """The numbers in every text of a table."""
    if isinstance(value, dict):
        return {key: _fill(item, **numbers) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, **numbers) for item in value]
    return value.format(**numbers)


def write_block_design(build: Path, board_name: str) -> Path:
    """Render build/NET/vivado/block_design.tcl; UserError where board and design differ in part."""
    board, design = find_board(board_name), read_design(build)
    masters, control = read_interfaces(build)
    if design.part != board.part:
        raise UserError(
            f"{board.name} has the part {board.part}, but {build} was generated for "
            f"{design.part}; run again with PART={board.part.lower()}"
        )
    clock = make_clock(board.plls, design.clock_mhz)
    if not clock.is_close(design.clock_mhz):
        raise UserError(
            f"{board.name} must make the clock that {build} was planned for, "
            f"{design.clock_mhz:.6g} MHz, but makes {clock.mhz:.6g}; run again with that CLOCK"
        )
    system = processor(board.part)
    context = {
        **NAMES,
        "design": design,
        "device": find_part(board.part).device,
        "control": control,
        "board": board,
        "system": system,
        "clock": clock,
        "ports": distribute(masters, system),
    }
    path = build / "vivado" / "block_design.tcl"
    write_atomic(path, render(TEMPLATE, context))
    return path
