# SPDX-License-Identifier: Apache-2.0
"""The generic gate library, and the longest path of a Yosys netlist.

Areas are transistor counts over the 4 of a NAND2. Delays are by logical effort (Sutherland,
Sproull, Harris): a gate with an inverter's drive takes its load plus its parasitic delay, its
inputs are a load of its effort, and loads beyond four are driven through inverters.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from formats.errors import UserError

CONSTANTS = ("ZERO", "ONE", "GND", "VCC")  # cells that are no level
FO4 = 5.0  # delay of an inverter that drives four inverters, in units of an inverter's own effort


@dataclass(frozen=True)
class Gate:
    """One cell.

    Attributes:
        name, function: for ABC; the output is Y.
        inputs: number of inputs.
        transistors: of its usual static CMOS circuit.
        effort: logical effort of the worst input.
        parasitic: delay without load, in inverter efforts.
        phase: of input to output, for ABC.
    """

    name: str
    function: str
    inputs: int
    transistors: int
    effort: float
    parasitic: float
    phase: str = "INV"

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


@dataclass(frozen=True)
class Path:
    """The longest path: cells on it, and its delay in FO4 (0 where cells are not of GATES)."""

    levels: int
    fo4: float


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


def longest_path(module: Mapping[str, Any]) -> Path:
    """Longest path of a mapped module in Yosys' JSON netlist; it ends at flip-flops and ports.

    Raises:
        UserError: the logic has a loop.
    """
    cells = {name: cell for name, cell in module["cells"].items() if _combinational(cell)}
    driver: dict[int, str] = {}
    load: defaultdict[int, float] = defaultdict(float)
    for name, cell in cells.items():
        for net in _nets(cell, outputs=True):
            driver[net] = name
        gate = GATES.get(cell["type"])
        for net in _nets(cell, outputs=False):
            load[net] += gate.effort if gate else 0
    graph = {
        name: {driver[net] for net in _nets(cell, outputs=False) if net in driver}
        for name, cell in cells.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:
        raise UserError("a conversion unit must have no combinational loop") from None
    levels: dict[str, int] = {}
    delays: dict[str, float] = {}
    for name in order:
        cell = cells[name]
        gate = GATES.get(cell["type"])
        own = 0.0
        if gate and gate.inputs:
            own = stage_delay(gate, max(1.0, *(load[n] for n in _nets(cell, outputs=True)), 0.0))
        step = 0 if cell["type"] in CONSTANTS else 1
        levels[name] = step + max((levels[source] for source in graph[name]), default=0)
        delays[name] = own + max((delays[source] for source in graph[name]), default=0.0)
    return Path(max(levels.values(), default=0), max(delays.values(), default=0.0) / FO4)


def _combinational(cell: Mapping[str, Any]) -> bool:
    """False for flip-flops and what is no cell; memories count as logic, from address to data."""
    kind = cell["type"]
    return not kind.startswith(("FD", "$_DFF", "$_SDFF", "$scopeinfo"))


def _nets(cell: Mapping[str, Any], outputs: bool) -> Iterable[int]:
    """Nets at the outputs or inputs of a cell, constants left out."""
    directions = cell.get("port_directions", {})
    for port, bits in cell["connections"].items():
        is_output = directions.get(port, "output" if port == "Y" else "input") == "output"
        if is_output == outputs:
            yield from (bit for bit in bits if isinstance(bit, int))
