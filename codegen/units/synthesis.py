# SPDX-License-Identifier: Apache-2.0
"""Runs Yosys, and synthesizes modules with it for what they cost.

The PyPI package pyosys comes first, because requirements.txt pins its version and figures depend on
it; a `yosys` on the PATH is second. Neither is needed until something here is called.

Targets: "xc7" and "xcup" (synth_xilinx for 7-series and UltraScale+) and "gates", a small generic
CMOS library whose areas are transistor counts in NAND2 equivalents. Modules that share a Yosys run
are kept apart in it. Results are cached by content.
"""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from nuq.codegen.units.netlist import Cost, genlib, measure
from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError

# Runs in a process of its own: a Yosys error ends the process that it happens in.
PYOSYS = (
    "import sys; from pyosys import libyosys as ys; "
    "ys.run_pass('script ' + sys.argv[1], ys.Design())"
)
# Modules a run: reading the vendor's cells takes seconds, so they share it; the gates need nothing
# read, and alone their mapping cannot depend on what else is in the run.
BATCH = {"xc7": 16, "xcup": 16, "gates": 1}
TARGETS = tuple(BATCH)


@cache
def find_yosys() -> tuple[list[str], Path]:
    """How to run a script file (its name is appended), and the folder of cells and headers."""
    spec = importlib.util.find_spec("pyosys")
    if spec and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        return [sys.executable, "-c", PYOSYS], folder / "share"
    program = shutil.which("yosys")
    if program:
        return [program, "-QT", "-s"], Path(program).resolve().parents[1] / "share" / "yosys"
    raise UserError(
        "Yosys must be installed to synthesize the conversion units: neither the Python package "
        "pyosys nor a program yosys on the PATH was found; `pip install pyosys` (or Debian: "
        "apt-get install yosys yosys-dev)"
    )


def run_yosys(commands: Iterable[str], folder: Path) -> None:
    """Run commands in a folder; UserError, with the last words of Yosys, where it fails."""
    (folder / "script.ys").write_text("\n".join(commands) + "\n")
    done = subprocess.run(
        [*find_yosys()[0], "script.ys"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        last = errors[-1] if errors else f"status {done.returncode}"
        raise UserError(f"Yosys must accept its script, but ended with {last}")


@cache
def yosys_version() -> str:
    """Name and version of the Yosys in use, as it signs its files."""
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        run_yosys(["write_json empty.json"], Path(name))
        creator = json.loads((Path(name) / "empty.json").read_text())["creator"]
    return " ".join(str(creator).split()[:2])


def synthesize(modules: Mapping[str, str], target: str, cache_file: Path,
               progress: Callable[[int], object] = lambda n: None,
               dsp: bool = False) -> dict[str, Cost]:  # fmt: skip
    """Measure modules.

    Args:
        modules: Verilog by the name of the top module, with all modules that it uses.
        target: one of TARGETS.
        cache_file: JSON of measured costs by content, looked up first and extended after every
            run; a missing or damaged file is an empty cache.
        progress: called with the number of modules done.
        dsp: whether multipliers may become DSP blocks; conversion units have none.
    """
    try:
        costs = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        costs = {}
    keys = {}
    for top, verilog in modules.items():
        text = "\0".join([yosys_version(), target, genlib(), top, verilog, *["dsp"] * dsp])
        keys[top] = hashlib.sha256(text.encode()).hexdigest()
    waiting = [top for top, key in keys.items() if key not in costs]
    progress(len(modules) - len(waiting))
    for start in range(0, len(waiting), BATCH[target]):
        batch = waiting[start : start + BATCH[target]]
        for top, cost in _run({top: modules[top] for top in batch}, target, dsp).items():
            costs[keys[top]] = asdict(cost)
        write_atomic(cache_file, json.dumps(costs, indent=0, sort_keys=True) + "\n")
        progress(len(batch))
    return {top: Cost(**costs[key]) for top, key in keys.items()}


def _run(modules: Mapping[str, str], target: str, dsp: bool = False) -> dict[str, Cost]:
    """One Yosys run over some modules; each is flattened within and kept apart from the others."""
    apart = f"setattr -mod -set keep_hierarchy 1 {' '.join(modules)}"
    commands = [f"read_verilog design{index}.v" for index in range(len(modules))]
    if target == "gates":
        commands += ["hierarchy -check", "proc", apart, "flatten", "synth -noabc",
                     "abc -genlib gates.genlib", "opt_clean"]  # fmt: skip
    else:
        options = f"-noiopad -noclkbuf -nobram -nosrl{'' if dsp else ' -nodsp'}"
        # the vendor's cells and an automatic top are what `begin` would add
        cells = ["read_verilog -lib -specify +/xilinx/cells_sim.v"]
        cells += ["read_verilog -lib dsp.v"] if dsp and target == "xcup" else []
        commands += [*cells, "hierarchy -check", apart,
                     f"synth_xilinx -family {target} {options} -flatten -run prepare:"]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        folder = Path(name)
        for index, verilog in enumerate(modules.values()):
            (folder / f"design{index}.v").write_text(verilog)
        (folder / "gates.genlib").write_text(genlib())
        if dsp:
            (folder / "dsp.v").write_text(_cell("DSP48E2"))
        run_yosys([*commands, "write_json netlist.json"], folder)
        netlist = json.loads((folder / "netlist.json").read_text())
    return {top: measure(netlist["modules"][top], target) for top in modules}


def _cell(name: str) -> str:
    """One of the vendor's cells that cells_sim.v lacks: all of cells_xtra.v takes 30 s to read."""
    text = (find_yosys()[1] / "xilinx" / "cells_xtra.v").read_text(encoding="utf-8")
    if not (found := re.search(rf"^module {name} ?\(.*?^endmodule\n", text, re.M | re.S)):
        raise UserError(f"Yosys must come with the cell {name} in xilinx/cells_xtra.v")
    return found[0]
