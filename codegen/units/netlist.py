# SPDX-License-Identifier: Apache-2.0
"""The generic gate library, and what a Yosys netlist takes: its cells and its longest path.

Areas are transistor counts over the 4 of a NAND2. Delays are by logical effort (Sutherland,
Sproull, Harris): a gate with an inverter's drive takes its load plus its parasitic delay, its
inputs are a load of its effort, and loads beyond four are driven through inverters.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from nuq.formats.errors import UserError

CONSTANTS = ("ZERO", "ONE", "GND", "VCC")  # cells that are no level
# Registers, those of a DSP block included, and what is no cell; memories count as logic, from
# address to data.
NO_LOGIC = ("FD", "DSP48", "$_DFF", "$_SDFF", "$scopeinfo")
# LUTs that a distributed memory takes (UG474, UG574).
LUT_RAM = {"RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4,
           "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8, "RAM32M16": 8,
           "RAM64M8": 8}  # fmt: skip
FO4 = 5.0  # delay of an inverter that drives four inverters, in units of an inverter's own effort


@dataclass(frozen=True)
class Gate:
    """One cell."""

    name: str
    function: str  # for ABC; the output is Y
    inputs: int
    transistors: int  # of its usual static CMOS circuit
    effort: float  # logical effort of the worst input
    parasitic: float  # delay without load, in inverter efforts
    phase: str = "INV"  # of input to output, for ABC

    @property
    def area(self) -> float:
        """NAND2 equivalents."""
        return self.transistors / 4


GATES = {
    gate.name: gate
    for gate in (
        Gate("ZERO", "CONST0", 0, 0, 0, 0),
        Gate("ONE", "CONST1", 0, 0, 0, 0),
        Gate("INV", "!A", 1, 2, 1, 1),
        Gate("BUF", "A", 1, 4, 1, 2, "NONINV"),
        Gate("NAND2", "!(A*B)", 2, 4, 4 / 3, 2),
        Gate("NAND3", "!(A*B*C)", 3, 6, 5 / 3, 3),
        Gate("NAND4", "!(A*B*C*D)", 4, 8, 2, 4),
        Gate("NOR2", "!(A+B)", 2, 4, 5 / 3, 2),
        Gate("NOR3", "!(A+B+C)", 3, 6, 7 / 3, 3),
        Gate("AND2", "A*B", 2, 6, 4 / 3, 3, "NONINV"),
        Gate("OR2", "A+B", 2, 6, 5 / 3, 3, "NONINV"),
        Gate("AOI21", "!((A*B)+C)", 3, 6, 2, 7 / 3),
        Gate("OAI21", "!((A+B)*C)", 3, 6, 2, 7 / 3),
        Gate("AOI22", "!((A*B)+(C*D))", 4, 8, 2, 4),
        Gate("OAI22", "!((A+B)*(C+D))", 4, 8, 2, 4),
        Gate("XOR2", "(A*!B)+(!A*B)", 2, 10, 4, 4, "UNKNOWN"),
        Gate("XNOR2", "(A*B)+(!A*!B)", 2, 10, 4, 4, "UNKNOWN"),
        Gate("MUX2", "(S*B)+(!S*A)", 3, 12, 2, 5, "UNKNOWN"),
    )
}


def genlib() -> str:
    """The generic gates for ABC, in genlib format with unit delays."""
    lines = [
        f"GATE {gate.name} {gate.area} Y={gate.function};"
        + (f" PIN * {gate.phase} 1 999 1 0 1 0" if gate.inputs else "")
        for gate in GATES.values()
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Cost:
    """What a module takes; `area` and `delay` are 0 for the FPGA targets, LUTs for the gates."""

    lut: int  # lookup tables of any size, those used as memory included
    carry: int  # carry blocks (CARRY4, CARRY8)
    mux: int  # wide multiplexers (MUXF7, MUXF8)
    ff: int  # flip-flops
    area: float  # NAND2 equivalents
    levels: int  # cells on the longest path, each counting one
    delay: float  # of the longest path in FO4 (an inverter that drives four), by logical effort
    dsp: int = 0  # DSP blocks


def measure(module: Mapping[str, Any], target: str) -> Cost:
    """Count the cells of a module in Yosys' JSON netlist and find its longest path."""
    counts = Counter(cell["type"] for cell in module["cells"].values())

    def total(*prefixes: str) -> int:
        return sum(number for kind, number in counts.items() if kind.startswith(prefixes))

    levels, delay = longest_path(module)
    if target == "gates":
        area = sum(GATES[kind].area * number for kind, number in counts.items() if kind in GATES)
        return Cost(0, 0, 0, total("$_DFF", "$_SDFF"), area, levels, round(delay, 2))
    memories = sum(LUT_RAM.get(kind, 0) * number for kind, number in counts.items())
    return Cost(
        lut=total("LUT") + memories, carry=total("CARRY"), mux=total("MUXF"), ff=total("FD"),
        area=0.0, levels=levels, delay=0.0, dsp=total("DSP48"),
    )  # fmt: skip


def stage_delay(gate: Gate, load: float) -> float:
    """Delay of a gate of unit size in inverter efforts; large loads are driven by inverters.

    Args:
        gate: the gate.
        load: input capacitance that it drives, in unit inverters.

    >>> stage_delay(GATES["INV"], 4), stage_delay(GATES["INV"], 16), stage_delay(GATES["INV"], 64)
    (5, 10.0, 15.0)
    """
    if load <= 4:
        return gate.parasitic + load
    stages = math.ceil(math.log(load / 4, 4) - 1e-9)
    return gate.parasitic + 4 + stages * FO4


def longest_path(module: Mapping[str, Any]) -> tuple[int, float]:
    """Cells on the longest path of a mapped module, and its delay in FO4 (0 for an FPGA's cells).

    It ends at flip-flops and ports. UserError where the logic has a loop.
    """
    cells = {
        name: cell
        for name, cell in module["cells"].items()
        if not cell["type"].startswith(NO_LOGIC)
    }
    gates = {name: GATES.get(cell["type"]) for name, cell in cells.items()}
    outputs = {name: _nets(cell, "output") for name, cell in cells.items()}
    inputs = {name: _nets(cell, "input") for name, cell in cells.items()}
    driver = {net: name for name, nets in outputs.items() for net in nets}
    load: defaultdict[int, float] = defaultdict(float)
    for name, gate in gates.items():
        for net in inputs[name]:
            load[net] += gate.effort if gate else 0
    sources = {
        name: {driver[net] for net in nets if net in driver} for name, nets in inputs.items()
    }
    levels: dict[str, int] = {}
    delays: dict[str, float] = {}
    try:
        for name in TopologicalSorter(sources).static_order():
            gate, own = gates[name], 0.0
            if gate and gate.inputs:
                own = stage_delay(gate, max([1.0, *(load[net] for net in outputs[name])]))
            step = 0 if cells[name]["type"] in CONSTANTS else 1
            levels[name] = step + max((levels[source] for source in sources[name]), default=0)
            delays[name] = own + max((delays[source] for source in sources[name]), default=0.0)
    except CycleError:
        raise UserError("a conversion unit must have no combinational loop") from None
    return max(levels.values(), default=0), max(delays.values(), default=0.0) / FO4


def _nets(cell: Mapping[str, Any], direction: str) -> list[int]:
    """Nets at the outputs or inputs of a cell, constants left out; a gate's output is Y."""
    directions = cell.get("port_directions", {})
    return [
        bit
        for port, bits in cell["connections"].items()
        if directions.get(port, "output" if port == "Y" else "input") == direction
        for bit in bits
        if isinstance(bit, int)
    ]
