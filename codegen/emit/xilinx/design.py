# SPDX-License-Identifier: Apache-2.0
"""What the vendor's scripts need of a generated design, read from build/NET, and the block design.

Interfaces are those of the INTERFACE pragmas in accelerator.cpp, which Vitis HLS reads, too; clock,
part and ID are report.json's.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from codegen.emit.render import render
from codegen.emit.report_model import Report, read_report
from codegen.emit.xilinx.processors import distribute, processor
from formats.build import sources_digest
from formats.errors import UserError
from formats.hardware import Board, find_part

TEMPLATE = "block_design.tcl.j2"
SYSTEM = "accelerator_system"  # name of the block design
CELL = "accelerator_0"  # the accelerator in it, as board/ expects
DEFAULT_CONTROL = "control"
PRAGMA = re.compile(r"^\s*#pragma\s+HLS\s+INTERFACE\s+(?P<rest>[^/\n]*)", re.IGNORECASE | re.M)
OPTION = re.compile(r"(\w+)\s*=\s*(\S+)")


@dataclass(frozen=True)
class Design:
    """A generated accelerator.

    Attributes:
        build: build/NET.
        network, design_id, part: of report.json.
        device, clock_mhz: the part's full name and the planned clock.
        masters: m_axi bundles in the order of the pragmas.
        control: the s_axilite bundle.
        sources_sha256: over the C++ that Vitis HLS synthesizes.
        report: report.json.
    """

    build: Path
    network: str
    design_id: str
    part: str
    device: str
    clock_mhz: float
    masters: tuple[str, ...]
    control: str
    sources_sha256: str
    report: Report

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.report.layers)


def read_interfaces(text: str, name: str = "accelerator.cpp") -> tuple[tuple[str, ...], str]:
    """Bundles of m_axi and of s_axilite in the INTERFACE pragmas of a C++ text.

    >>> read_interfaces("#pragma HLS INTERFACE m_axi port = a bundle = g0\\n"
    ...                 "#pragma HLS INTERFACE mode=s_axilite port=return\\n")
    (('g0',), 'control')
    """
    masters: list[str] = []
    controls: set[str] = set()
    for match in PRAGMA.finditer(text):
        words = match["rest"].split()
        options = dict(OPTION.findall(match["rest"]))
        mode = options.get("mode", words[0] if words else "")
        if mode == "m_axi":
            bundle = options.get("bundle")
            if bundle is None:
                raise UserError(f"{name}: every m_axi port must name its bundle; generate again")
            if bundle not in masters:
                masters.append(bundle)
        elif mode == "s_axilite":
            controls.add(options.get("bundle", DEFAULT_CONTROL))
    if not masters or len(controls) != 1:
        raise UserError(
            f"{name} must have m_axi ports and one s_axilite bundle, not {len(masters)} and "
            f"{len(controls)}; generate again"
        )
    return tuple(masters), controls.pop()


def read_design(build: Path) -> Design:
    """The design in build/NET, after `make codegen`."""
    report = read_report(build)
    source = build / "hls" / "accelerator.cpp"
    if not source.is_file():
        raise UserError(f"{source} must exist; run `make codegen` first")
    masters, control = read_interfaces(source.read_text(encoding="utf-8"), str(source))
    return Design(
        build=build,
        network=report.network,
        design_id=report.design_id,
        part=report.part,
        device=find_part(report.part).device,
        clock_mhz=report.performance.clock_mhz,
        masters=masters,
        control=control,
        sources_sha256=sources_digest(build / "hls"),
        report=report,
    )


def block_design(design: Design, board: Board) -> str:
    """The Vivado script of a design on a board; UserError where the parts differ."""
    if design.part != board.part:
        raise UserError(
            f"{board.name} has the part {board.part}, but {design.build} was generated for "
            f"{design.part}; run again with PART={board.part.lower()}"
        )
    system = processor(board.part)
    context = {
        "design": design,
        "board": board,
        "system": system,
        "ports": distribute(design.masters, system),
        "name": SYSTEM,
        "cell": CELL,
    }
    return render(TEMPLATE, context)
