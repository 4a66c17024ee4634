# SPDX-License-Identifier: Apache-2.0
"""Static timing analysis of a mapped Yosys netlist: the longest path from register to register.

Delays are those of codegen/hls_check/delays.py: one a cell arc, one for every net that leaves a
slice. Inside of a slice nets are free: from a LUT to the carry block, wide multiplexer or flip-flop
behind it, from one carry block to the next one, from a multiplexer or a sum to its flip-flop.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from nuq.codegen.hls_check.delays import Delays
from nuq.formats.errors import UserError

Bit = int | str  # a net, or a constant
IGNORED = ("$scopeinfo", "BUFG", "GND", "VCC", "INBUF", "IBUF", "OBUF")
REGISTERS = {"FD": "Q", "SRL": "Q Q31 Q15"}  # cells that a path begins and ends at, their outputs
LUT_PAIR = 5  # inputs of a LUT that gives two outputs
SAME_SLICE = ("LUT", "MUXF", "CARRY", "INV")  # whose output a flip-flop takes without a net


@dataclass(frozen=True)
class Arc:
    """From an input net of a cell to an output net."""

    source: int
    target: int
    delay: float  # net included
    cell: str


@dataclass(frozen=True)
class Path:
    """The longest path."""

    nanoseconds: float
    cells: tuple[str, ...]  # types, from the first register to the last
    start: str  # names of nets
    end: str

    def __str__(self) -> str:
        runs: list[list[Any]] = []
        for cell in self.cells:
            if runs and runs[-1][0] == cell:
                runs[-1][1] += 1
            else:
                runs.append([cell, 1])
        return " ".join(cell if count == 1 else f"{count}x{cell}" for cell, count in runs)


class Netlist:
    """A flat module of Yosys' JSON, as mapped by synth_xilinx."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.cells = {
            name: cell
            for name, cell in module["cells"].items()
            if not cell["type"].startswith(IGNORED)
        }
        self.driver: dict[int, str] = {}  # type of the cell that drives a net
        self.lut_inputs: dict[int, frozenset[int]] = {}  # of the LUT that drives a net
        self.names: dict[int, str] = {}
        for name, net in module.get("netnames", {}).items():
            for index, bit in enumerate(net["bits"]):
                known = self.names.get(bit) if isinstance(bit, int) else ""
                label = f"{name}[{index}]" if len(net["bits"]) > 1 else name
                if isinstance(bit, int) and (known is None or len(label) < len(known)):
                    self.names[bit] = label
        for cell in self.cells.values():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "output":
                    self.driver.update({bit: cell["type"] for bit in bits if isinstance(bit, int)})
            if cell["type"].startswith(("LUT", "INV")):
                ports = cell["connections"]
                inputs = {bits[0] for port, bits in ports.items() if port != "O"}
                self.lut_inputs[ports["O"][0]] = frozenset(b for b in inputs if isinstance(b, int))

    def longest(self, delays: Delays, net: float | None = None) -> Path:
        """The longest path that begins and ends at a register (flip-flop, SRL, LUT RAM).

        Args:
            delays: of the family.
            net: ns between slices; None for the family's.

        Raises:
            UserError: an unknown cell, or a combinational loop.
        """
        wire = delays.net if net is None else net
        arrival: dict[int, float] = {}
        before: dict[int, Arc] = {}
        first: dict[int, str] = {}
        into: dict[int, list[Arc]] = {}
        for cell in self.cells.values():
            for bit, delay in self._starts(cell, delays):
                arrival[bit] = delay
                first[bit] = cell["type"]
            for arc in self._arcs(cell, delays, wire):
                into.setdefault(arc.target, []).append(arc)
        sources = {bit: {arc.source for arc in arcs} for bit, arcs in into.items()}
        try:
            order = list(TopologicalSorter(sources).static_order())
        except CycleError:
            raise UserError("a recurrence must have no combinational loop") from None
        for bit in order:
            for arc in into.get(bit, []):
                if arc.source in arrival and bit not in first:
                    at = arrival[arc.source] + arc.delay
                    if at > arrival.get(bit, -1.0):
                        arrival[bit], before[bit] = at, arc
        best = Path(0.0, (), "", "")
        for cell in self.cells.values():
            for bit, setup, port in self._ends(cell, delays, wire):
                if bit in arrival and arrival[bit] + setup > best.nanoseconds:
                    best = self._path(bit, arrival[bit] + setup, before, first, (cell, port))
        return best

    def _path(
        self,
        bit: int,
        nanoseconds: float,
        before: Mapping[int, Arc],
        first: Mapping[int, str],
        end: tuple[Mapping[str, Any], str],
    ) -> Path:
        """The way back from an input of a register."""
        cell, port = end
        cells = [f"{cell['type']}.{port}"]
        while bit in before:
            cells.append(before[bit].cell)
            bit = before[bit].source
        output = next((b for p, bits in cell["connections"].items() for b in bits
                       if cell["port_directions"][p] == "output"), -1)  # fmt: skip
        names = [self.names.get(place, "?") for place in (bit, output)]
        return Path(round(nanoseconds, 3), (first[bit], *reversed(cells)), *names)

    @staticmethod
    def _starts(cell: Mapping[str, Any], delays: Delays) -> Iterator[tuple[int, float]]:
        """Nets at which a path begins, and when."""
        kind, ports = cell["type"], cell["connections"]
        for start, outputs in REGISTERS.items():
            if kind.startswith(start):
                for port in outputs.split():
                    late = delays.clock_to_q if start == "FD" else delays.srl
                    yield from ((bit, late) for bit in ports.get(port, []) if isinstance(bit, int))

    def _ends(
        self, cell: Mapping[str, Any], delays: Delays, wire: float
    ) -> Iterator[tuple[int, float, str]]:
        """Nets at which a path ends, with net and setup."""
        kind = cell["type"]
        if not kind.startswith(("FD", "SRL", "RAM")):
            return
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] != "input" or port in ("C", "CLK", "WCLK"):
                continue
            for bit in bits:
                if not isinstance(bit, int):
                    continue
                if kind.startswith("FD") and port == "D":
                    inside = self.driver.get(bit, "").startswith(SAME_SLICE)
                    yield bit, delays.setup + (0.0 if inside else wire), port
                elif port in ("R", "S", "CLR", "PRE"):
                    yield bit, delays.setup_reset + wire, port
                else:
                    yield bit, delays.setup_enable + wire, port

    def _arcs(self, cell: Mapping[str, Any], delays: Delays, wire: float) -> Iterator[Arc]:
        """The arcs through a cell."""
        kind, ports = cell["type"], cell["connections"]
        if kind.startswith(("LUT", "INV")):
            for port, bits in ports.items():
                if port != "O" and isinstance(bits[0], int):
                    yield Arc(bits[0], ports["O"][0], wire + delays.lut, kind)
        elif kind.startswith("MUXF"):
            for port in ("I0", "I1", "S"):
                bit = ports[port][0]
                near = port != "S" and self.driver.get(bit, "").startswith(("LUT", "MUXF"))
                cost = delays.mux_select if port == "S" else delays.mux
                if isinstance(bit, int):
                    yield Arc(bit, ports["O"][0], (0.0 if near else wire) + cost, kind)
        elif kind.startswith("CARRY"):
            yield from self._carry(kind, ports, delays, wire)
        elif kind.startswith("RAM"):
            yield from self._memory(cell, delays, wire)
        elif not kind.startswith(tuple(REGISTERS)):
            raise UserError(
                f"a recurrence must be mapped to cells with known delays, not to {kind}"
            )

    def _carry(
        self, kind: str, ports: Mapping[str, list[Bit]], delays: Delays, wire: float
    ) -> Iterator[Arc]:
        """Arcs of CARRY4 or CARRY8; Yosys takes the former for UltraScale+, too."""
        block = int(kind.removeprefix("CARRY"))
        for i, j in itertools.combinations_with_replacement(range(block), 2):
            for port in ("S", "DI"):
                bit = ports[port][i]
                if not isinstance(bit, int):
                    continue
                late = self._into_carry(port, bit, ports["S"][i], delays, wire)
                yield from targets(kind, ports, "CO", j, bit, late + delays.carry_in)
                if port == "S" or j > i:
                    yield from targets(kind, ports, "O", j, bit, late + delays.carry_sum)
        for port in ("CI", "CYINIT", "CI_TOP"):
            bit = ports.get(port, ["x"])[0]
            if not isinstance(bit, int):
                continue
            chained = port == "CI" and self.driver.get(bit, "").startswith("CARRY")
            over, out = (
                (delays.carry, delays.carry_out)
                if chained
                else (wire + delays.carry_start, wire + delays.carry_start)
            )
            for j in range(block):
                yield from targets(kind, ports, "CO", j, bit, over)
                yield from targets(kind, ports, "O", j, bit, out)

    def _into_carry(self, port: str, bit: int, chosen: Bit, delays: Delays, wire: float) -> float:
        """From a net to a carry block's S or DI.

        S is output O6 of the LUT in front of it, which a net without a LUT passes through. DI is
        its O5, where both have no more than five inputs together, or comes from outside.
        """
        inputs = self.lut_inputs.get(bit)
        if port == "S":
            return wire + delays.lut if inputs is None else 0.0
        if inputs is None:
            return wire
        own = self.lut_inputs.get(chosen, frozenset()) if isinstance(chosen, int) else frozenset()
        return 0.0 if len(inputs | own) <= LUT_PAIR else wire

    @staticmethod
    def _memory(cell: Mapping[str, Any], delays: Delays, wire: float) -> Iterator[Arc]:
        """Asynchronous reads of LUT RAM, from every address to every output of its letter."""
        directions = cell["port_directions"]
        for port, bits in cell["connections"].items():
            if directions[port] != "output":
                continue
            letter = {"DPO": "DPRA", "SPO": "A", "O": "A"}.get(port, f"ADDR{port[-1]}")
            for name, address in cell["connections"].items():
                if name.startswith(letter) and directions[name] == "input":
                    yield from (
                        Arc(source, target, wire + delays.lut, cell["type"])
                        for source in address if isinstance(source, int)
                        for target in bits if isinstance(target, int)
                    )  # fmt: skip


def targets(
    kind: str, ports: Mapping[str, list[Bit]], port: str, place: int, source: int, delay: float
) -> Iterator[Arc]:
    """The arc to an output of a carry block, where it is a net."""
    bit = ports.get(port, ["x"] * 8)[place]
    if isinstance(bit, int):
        yield Arc(source, bit, delay, kind)
