# SPDX-License-Identifier: Apache-2.0
"""Shows that units are right: on every input against the integer reference, and by proof.

The reference is docs/formats.md 2.2 and 2.4. Three ways to run the same stimuli: the Verilog
through Yosys' C++ simulation ("cxxrtl": Yosys and a C++ compiler), the Verilog through Icarus
Verilog ("icarus"), and the C++ unit of conversion_units.hpp ("cpp").
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuq.codegen.units.render import ENVIRONMENT, Unit, model_cpp, verilog, write_headers
from nuq.codegen.units.synthesis import find_yosys, run_yosys
from nuq.codegen.units.tables import Tables
from nuq.formats.build import find_compiler, find_headers
from nuq.formats.errors import UserError

MAX_PORT_BITS = 64  # of the simulators' values
PROVED = "SAT proof finished - no model found: SUCCESS!"


def all_inputs(unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Every input of a unit and what it must give.

    Each entry of the tables is run on all 2^qm values (encoders) or 2^bits codes (decoders). With
    several lanes, lane i sees the inputs rotated by i, so lanes differ and each sees them all.

    Returns:
        stimuli: uint64 [N][2], layer index and packed data.
        expected: uint64 [N], packed results.
    """
    stimuli, expected = [], []
    for entry in unit.tables.entries:
        quantizer = entry.quantizer
        inputs = np.arange(1 << (quantizer.qm if unit.encodes else quantizer.bits))
        results = (quantizer.encode if unit.encodes else quantizer.decode)(inputs)
        data, result = (
            sum(np.roll(items, -lane).astype(np.uint64) << np.uint64(lane * width)
                for lane in range(unit.lanes))
            for items, width in zip((inputs, results), unit.widths, strict=True)
        )  # fmt: skip
        stimuli.append(np.stack([np.full_like(data, entry.index), data], axis=1))
        expected.append(result)
    return np.concatenate(stimuli), np.concatenate(expected)


def compare(units: Sequence[Unit], engine: str) -> tuple[int, list[str]]:
    """Run all inputs of all units.

    Args:
        units: with different names.
        engine: "cxxrtl", "icarus" or "cpp".

    Returns:
        inputs: how many.
        mismatches: of each unit that differs from the reference, the first as a sentence.
    """
    for unit in units:
        width = unit.lanes * max(unit.widths)
        if width > MAX_PORT_BITS:
            raise UserError(f"unit {unit.name}: ports must have at most {MAX_PORT_BITS} bits to be "
                            f"simulated, not {width}; use fewer lanes")  # fmt: skip
    pairs = [all_inputs(unit) for unit in units]
    stimuli = np.concatenate(
        [np.insert(inputs, 0, place, axis=1) for place, (inputs, _) in enumerate(pairs)]
    )
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        results = _simulate(units, stimuli, engine, Path(name))
    if results.size != len(stimuli):
        raise UserError(f"simulator {engine} must give {len(stimuli)} results, not {results.size}")
    mismatches = []
    start = 0
    for unit, (inputs, expected) in zip(units, pairs, strict=True):
        actual = results[start : start + len(inputs)]
        start += len(inputs)
        for at in np.flatnonzero(actual != expected)[:1]:
            layer, data = inputs[at]
            mismatches.append(f"{unit.name}: layer {layer}, input {data} must give {expected[at]}, "
                              f"not {actual[at]}")  # fmt: skip
    return len(stimuli), mismatches


def _simulate(units: Sequence[Unit], stimuli: np.ndarray, engine: str, folder: Path) -> np.ndarray:
    """Results (uint64) of stimuli [N][3]: place of the unit, layer index, data."""

    def bench(name: str) -> None:
        text = ENVIRONMENT.get_template(f"rtl/{name}.j2").render(units=units, rtl=engine != "cpp")
        (folder / name).write_text(text)

    suffix, source = ("cpp", model_cpp) if engine == "cpp" else ("v", verilog)
    files = [f"{unit.name}.{suffix}" for unit in units]
    for unit, file in zip(units, files, strict=True):
        (folder / file).write_text(source(unit))
    if engine == "icarus":
        if shutil.which("iverilog") is None:
            raise UserError("Icarus Verilog must be on the PATH, but iverilog was not found; "
                            "`apt-get install iverilog`, or use the simulator cxxrtl")  # fmt: skip
        bench("bench.v")
        np.savetxt(folder / "stimuli.txt", stimuli, fmt="%d")
        command = ["iverilog", "-g2005", "-s", "stimuli", "-o", "bench", *files, "bench.v"]
        run_tool(command, folder)
        run_tool(["vvp", "bench"], folder)
        words = (folder / "results.txt").read_text().split()
        # a result with unknown bits prints as x, which no expected value equals
        unknown = (1 << MAX_PORT_BITS) - 1
        return np.array([int(word) if word.isdecimal() else unknown for word in words], np.uint64)
    if engine == "cxxrtl":
        flags = translate([unit.name for unit in units], files, folder)
    else:
        flags = ["-isystem", str(find_headers()), "-Wno-unknown-pragmas"]
        write_headers(folder)
    bench("bench.cpp")
    (folder / "stimuli.bin").write_bytes(stimuli.astype("<u8").tobytes())
    run_tool([find_compiler(), "-std=c++14", "-Og", *flags, "bench.cpp", "-o", "bench"], folder)
    run_tool(["./bench"], folder)
    return np.frombuffer((folder / "results.bin").read_bytes(), dtype="<u8")


def translate(names: Sequence[str], files: Sequence[str], folder: Path) -> list[str]:
    """Translate modules to bench_rtl.cpp, a class each; return the compiler flags it needs."""
    headers = sorted((find_yosys()[1] / "include").rglob("cxxrtl.h"))
    if not headers:
        raise UserError(
            "Yosys must come with its CXXRTL headers to simulate the conversion units; "
            "`pip install pyosys` (or Debian: apt-get install yosys-dev)"
        )
    run_yosys(
        [*(f"read_verilog {file}" for file in files), "hierarchy -check", "proc",
         f"setattr -mod -set keep_hierarchy 1 {' '.join(names)}", "flatten",
         "delete A:keep_hierarchy %n", "opt_clean",
         "write_cxxrtl -nohierarchy -g0 bench_rtl.cpp"], folder,
    )  # fmt: skip
    return [f"-I{headers[0].parent}", f"-I{headers[0].parents[1]}"]


def run_tool(command: list[str], folder: Path) -> None:
    """Run a program in a folder; UserError with its first words where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise UserError(
            f"{Path(command[0]).name} must accept the rendered unit, but ended with status "
            f"{done.returncode}: {lines[0] if lines else 'no message'}"
        )


def shapes_equal(tables: Tables, lanes: bool = False) -> bool:
    """True where Yosys' SAT solver proves that QK's comparators and binary search never differ.

    Unlike a simulation a proof needs no list of inputs.

    Args:
        tables: KNQ tables.
        lanes: prove it for the lanes alone with *any* thresholds of these widths that do not fall,
            instead of the whole units with these tables.
    """
    files = {f"{kind}.v": verilog(Unit(kind, tables)) for kind in ("qk", "qk_tree")}
    files["same.v"] = ENVIRONMENT.get_template("rtl/same.v.j2").render(tables=tables, lanes=lanes)
    script = [
        *(f"read_verilog {file}" for file in files),
        "hierarchy -check -top same", "proc", "flatten", "opt", "memory_map", "opt",
        # tables may give anything at other layer indices; `known` leaves those out
        "setundef -zero", "opt", "techmap", "opt", "abc -g AND", "opt_clean",
        "tee -o proof.txt sat -prove differs 0 same",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        run_yosys(script, folder)
        return PROVED in (folder / "proof.txt").read_text()
