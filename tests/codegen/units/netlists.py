# SPDX-License-Identifier: Apache-2.0
"""Runs one clock of a mapped Yosys netlist (LUT, CARRY4, MUXF, FDRE, FDSE) on many states at once.

A net is an array of bool, an element a state.
"""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from nuq.codegen.units.recurrences import Recurrence


def differences(
    module: Mapping[str, Any], loop: Recurrence, steps: Sequence[Sequence[int]]
) -> list[str]:
    """Registers that behind a step hold something else than the C++, with the first such step.

    Args:
        module: of Yosys' JSON.
        loop: what it was made of.
        steps: as traces.steps gives them.
    """
    signals = [*loop.state, *loop.given]
    before = {item.name: [step[at] for step in steps] for at, item in enumerate(signals)}
    after = clock(module, before)
    found = []
    for at, item in enumerate(loop.state):
        expected = [step[len(signals) + at] for step in steps]
        wrong = [k for k, value in enumerate(expected) if after[item.name][k] != value]
        if wrong:
            first = wrong[0]
            found.append(
                f"{item.name}: {len(wrong)} steps differ, number {first} gives "
                f"{after[item.name][first]} instead of {expected[first]}"
            )
    return found


def clock(module: Mapping[str, Any], values: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """What registers hold behind a clock edge.

    Args:
        module: of Yosys' JSON.
        values: of every register, by name, an item a state.

    Returns:
        the same of all registers that the netlist has.
    """
    number = len(next(iter(values.values())))
    nets: dict[Any, np.ndarray] = {"0": np.zeros(number, bool), "1": np.ones(number, bool),
                                   "x": np.zeros(number, bool)}  # fmt: skip
    for port in module["ports"].values():
        nets.update({bit: nets["0"] for bit in port["bits"] if port["direction"] == "input"})
    for name, numbers in values.items():
        for place, bit in enumerate(module["netnames"][name]["bits"]):
            if isinstance(bit, int):
                nets[bit] = np.array([n >> place & 1 for n in numbers], bool)
    cells = {k: c for k, c in module["cells"].items() if not c["type"].startswith("$")}
    flops = [cell for cell in cells.values() if cell["type"].startswith("FD")]
    logic = {k: c for k, c in cells.items() if not c["type"].startswith(("FD", "GND", "VCC"))}
    drives = {bit: k for k, c in logic.items() for p, bits in c["connections"].items()
              if c["port_directions"][p] == "output" for bit in bits}  # fmt: skip
    order = TopologicalSorter({
        k: {drives[b] for p, bits in c["connections"].items() for b in bits
            if c["port_directions"][p] == "input" and b in drives and b not in nets}
        for k, c in logic.items()
    }).static_order()  # fmt: skip
    for name in order:
        evaluate(logic[name], nets)
    after = {}
    for cell in flops:
        ports = {p: nets[bits[0]] for p, bits in cell["connections"].items() if p not in "CQ"}
        held = nets[cell["connections"]["Q"][0]]
        value = np.where(ports["CE"], ports["D"], held)
        force = ports["R"] if "R" in ports else ports["S"]
        after[cell["connections"]["Q"][0]] = np.where(force, "S" in ports, value)
    result = {}
    for name in values:
        bits = [after[b] if b in after else nets[b] for b in module["netnames"][name]["bits"]]
        result[name] = [sum(int(bit[k]) << i for i, bit in enumerate(bits)) for k in range(number)]
    return result


def evaluate(cell: Mapping[str, Any], nets: dict[Any, np.ndarray]) -> None:
    """The outputs of a cell."""
    kind, ports = cell["type"], cell["connections"]
    if kind.startswith("LUT"):
        address = sum(nets[ports[f"I{i}"][0]].astype(int) << i for i in range(int(kind[3])))
        table = np.array([c == "1" for c in reversed(cell["parameters"]["INIT"])], bool)
        nets[ports["O"][0]] = table[address]
    elif kind == "INV":
        nets[ports["O"][0]] = ~nets[ports["I"][0]]
    elif kind.startswith("MUXF"):
        low, high, select = (nets[ports[p][0]] for p in ("I0", "I1", "S"))
        nets[ports["O"][0]] = np.where(select, high, low)
    elif kind == "CARRY4":
        carry = nets[ports["CI"][0]] | nets[ports["CYINIT"][0]]
        for i in range(4):
            chosen = nets[ports["S"][i]]
            if "O" in ports:
                nets[ports["O"][i]] = chosen ^ carry
            carry = np.where(chosen, carry, nets[ports["DI"][i]])
            if "CO" in ports:
                nets[ports["CO"][i]] = carry
    else:
        raise ValueError(f"a cell must be known, not {kind}")
