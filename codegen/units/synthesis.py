# SPDX-License-Identifier: Apache-2.0
"""Synthesizes modules with Yosys and measures them: LUT, carry, FF, gates, logic levels.

Targets: "xc7" and "xcup" (synth_xilinx for 7-series and UltraScale+) and "gates", a small generic
CMOS library whose areas are transistor counts in NAND2 equivalents. Modules that share a Yosys run
are kept apart in it. Results are cached by content.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codegen.units.netlist import GATES, longest_path
from codegen.units.yosys import run_yosys, yosys_version
from formats.build import write_atomic
from formats.errors import UserError

TARGETS = ("xc7", "xcup", "gates")
# Modules a run: reading the vendor's cells takes seconds, so they share it; the gates need nothing
# read, and alone their mapping cannot depend on what else is in the run.
BATCH = {"xc7": 12, "xcup": 12, "gates": 1}


@dataclass(frozen=True)
class Design:
    """One module to measure.

    Attributes:
        top: name of its Verilog module; modules of one run must have different names.
        verilog: its source, with all modules it uses.
    """

    top: str
    verilog: str


@dataclass(frozen=True)
class Cost:
    """What a module takes.

    Attributes:
        lut: lookup tables of any size, those used as memory included; 0 for gates.
        carry, mux: carry blocks (CARRY4, CARRY8) and wide multiplexers (MUXF7, MUXF8).
        ff: flip-flops.
        area: NAND2 equivalents; 0 for the FPGA targets.
        levels: cells on the longest path, each counting one.
        delay: of the longest path in FO4 (the delay of an inverter that drives four), by logical
            effort; 0 for the FPGA targets.
    """

    lut: int
    carry: int
    mux: int
    ff: int
    area: float
    levels: int
    delay: float


def genlib() -> str:
    """The generic gates for ABC, in genlib format with unit delays."""
    lines = [
        f"GATE {gate.name} {gate.area} Y={gate.function};"
        + (f" PIN * {gate.phase} 1 999 1 0 1 0" if gate.inputs else "")
        for gate in GATES.values()
    ]
    return "\n".join(lines) + "\n"


class Cache:
    """Measured costs by content, in one JSON file; a missing or damaged file is an empty cache."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.items: dict[str, dict[str, Any]] = {}
        if path and path.is_file():
            try:
                self.items = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self.items = {}

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path:
            write_atomic(self.path, json.dumps(self.items, indent=0, sort_keys=True) + "\n")


def synthesize(designs: Iterable[Design], target: str, cache: Cache | None = None,
               progress: Callable[[int], object] = lambda n: None) -> dict[str, Cost]:  # fmt: skip
    """Measure modules; the result is keyed by module name.

    Args:
        designs: with different module names.
        target: one of TARGETS.
        cache: looked up first, extended and saved after every run.
        progress: called with the number of modules done.
    """
    if target not in TARGETS:
        raise UserError(f"synthesis target must be one of {', '.join(TARGETS)}, not {target}")
    cache = cache or Cache(None)
    costs: dict[str, Cost] = {}
    waiting = []
    for design in designs:
        key = _key(design, target)
        if key in cache.items:
            costs[design.top] = Cost(**cache.items[key])
            progress(1)
        else:
            waiting.append((key, design))
    size = BATCH[target]
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        found = _run([design for _, design in batch], target)
        for key, design in batch:
            costs[design.top] = found[design.top]
            cache.items[key] = asdict(found[design.top])
        cache.save()
        progress(len(batch))
    return costs


def _key(design: Design, target: str) -> str:
    text = "\0".join([yosys_version(), target, genlib(), design.top, design.verilog])
    return hashlib.sha256(text.encode()).hexdigest()


def _run(designs: list[Design], target: str) -> dict[str, Cost]:
    """One Yosys run over some modules."""
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        folder = Path(name)
        for index, design in enumerate(designs):
            (folder / f"design{index}.v").write_text(design.verilog)
        (folder / "gates.genlib").write_text(genlib())
        run_yosys(_script(designs, target), folder)
        netlist = json.loads((folder / "netlist.json").read_text())
    return {design.top: measure(netlist["modules"][design.top], target) for design in designs}


def _script(designs: list[Design], target: str) -> str:
    """Each module is flattened within and kept apart from the others."""
    tops = " ".join(design.top for design in designs)
    reads = [f"read_verilog design{index}.v" for index in range(len(designs))]
    if target == "gates":
        middle = ["hierarchy -check", "proc", f"setattr -mod -set keep_hierarchy 1 {tops}",
                  "flatten", "synth -noabc", "abc -genlib gates.genlib", "opt_clean"]  # fmt: skip
    else:
        options = "-noiopad -noclkbuf -nobram -nodsp -nosrl"
        # the vendor's cells and an automatic top are what `begin` would add
        middle = [
            "read_verilog -lib -specify +/xilinx/cells_sim.v",
            "read_verilog -lib +/xilinx/cells_xtra.v",
            "hierarchy -check",
            f"setattr -mod -set keep_hierarchy 1 {tops}",
            f"synth_xilinx -family {target} {options} -flatten -run prepare:",
        ]
    return "\n".join([*reads, *middle, "write_json netlist.json"]) + "\n"


def measure(module: Mapping[str, Any], target: str) -> Cost:
    """Count the cells of a module in Yosys' JSON netlist and find its longest path."""
    counts: dict[str, int] = {}
    for cell in module["cells"].values():
        counts[cell["type"]] = counts.get(cell["type"], 0) + 1

    def total(*prefixes: str) -> int:
        return sum(number for kind, number in counts.items() if kind.startswith(prefixes))

    path = longest_path(module)
    if target == "gates":
        area = sum(GATES[kind].area * number for kind, number in counts.items() if kind in GATES)
        return Cost(0, 0, 0, total("$_DFF", "$_SDFF"), area, path.levels, round(path.fo4, 2))
    memories = sum(LUT_RAM.get(kind, 0) * number for kind, number in counts.items())
    return Cost(
        lut=total("LUT") + memories, carry=total("CARRY"), mux=total("MUXF"), ff=total("FD"),
        area=0.0, levels=path.levels, delay=0.0,
    )  # fmt: skip


# LUTs that a distributed memory takes (UG474, UG574).
LUT_RAM = {"RAM32X1S": 1, "RAM32X1D": 2, "RAM64X1S": 1, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4,
           "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8, "RAM32M16": 8,
           "RAM64M8": 8}  # fmt: skip
