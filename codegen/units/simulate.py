# SPDX-License-Identifier: Apache-2.0
"""Runs units on every input and compares with the integer reference (docs/formats.md 2.2, 2.4).

Three ways to run the same stimuli: the Verilog through Yosys' C++ simulation ("cxxrtl": Yosys and a
C++ compiler), the Verilog through Icarus Verilog ("icarus"), and the C++ unit of
conversion_units.hpp ("cpp").
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codegen.units.render import MAX_PORT_BITS, Unit, environment, model_cpp, verilog, write_headers
from codegen.units.yosys import cxxrtl_flags, run_yosys
from formats.build import find_compiler, find_headers
from formats.errors import UserError

ENGINES = ("cxxrtl", "icarus", "cpp")


@dataclass(frozen=True)
class Mismatch:
    """The first input on which a unit differs from the reference."""

    unit: str
    layer: str
    data: int
    expected: int
    found: int

    def __str__(self) -> str:
        return (f"{self.unit}: layer {self.layer}, input {self.data} must give {self.expected}, "
                f"not {self.found}")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Result of a comparison: inputs compared, and the first mismatch of each unit."""

    inputs: int
    mismatches: tuple[Mismatch, ...]


def all_inputs(unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Every input of a unit and what it must give.

    Each entry of the tables is run on all 2^qm values (encoders) or 2^bits codes (decoders). With
    several lanes, lane i sees the inputs rotated by i, so lanes differ and each sees them all.

    Returns:
        stimuli: uint64 [N][2], layer index and packed data.
        expected: uint64 [N], packed results.
    """
    layers, data, expected = [], [], []
    for entry in unit.tables.entries:
        quantizer = entry.quantizer
        inputs = np.arange(1 << (quantizer.qm if unit.encodes else quantizer.bits))
        results = (quantizer.encode if unit.encodes else quantizer.decode)(inputs)
        layers.append(np.full(inputs.size, entry.index, np.uint64))
        data.append(_pack(inputs, unit.lanes, unit.in_width))
        expected.append(_pack(results, unit.lanes, unit.out_width))
    stimuli = np.stack([np.concatenate(layers), np.concatenate(data)], axis=1)
    return stimuli, np.concatenate(expected)


def compare(units: list[Unit], engine: str) -> Outcome:
    """Run all inputs of all units; names of the units must differ.

    Args:
        units: up to 64 port bits each.
        engine: one of ENGINES.
    """
    if engine not in ENGINES:
        raise UserError(f"simulator must be one of {', '.join(ENGINES)}, not {engine}")
    for unit in units:
        width = unit.lanes * max(unit.in_width, unit.out_width)
        if width > MAX_PORT_BITS:
            raise UserError(f"unit {unit.name}: ports must have at most {MAX_PORT_BITS} bits to be "
                            f"simulated, not {width}; use fewer lanes")  # fmt: skip
    pairs = [all_inputs(unit) for unit in units]
    stimuli = np.concatenate([
        np.concatenate([np.full((len(inputs), 1), i, np.uint64), inputs], axis=1)
        for i, (inputs, _) in enumerate(pairs)
    ])  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        runner = {"cxxrtl": _run_cxxrtl, "icarus": _run_icarus, "cpp": _run_cpp}[engine]
        results = runner(units, stimuli, Path(name))
    if results.size != len(stimuli):
        raise UserError(f"simulator {engine} must give {len(stimuli)} results, not {results.size}")
    mismatches = []
    start = 0
    for unit, (inputs, expected) in zip(units, pairs, strict=True):
        found = results[start : start + len(inputs)]
        start += len(inputs)
        wrong = np.flatnonzero(found != expected)
        if wrong.size:
            at = int(wrong[0])
            mismatches.append(Mismatch(unit.name, str(inputs[at, 0]), int(inputs[at, 1]),
                                       int(expected[at]), int(found[at])))  # fmt: skip
    return Outcome(len(stimuli), tuple(mismatches))


def _pack(items: np.ndarray, lanes: int, width: int) -> np.ndarray:
    """uint64 [N]: lane i of word n is items[n + i], in bits i*width and up."""
    words = np.zeros(items.size, np.uint64)
    for lane in range(lanes):
        words |= np.roll(items, -lane).astype(np.uint64) << np.uint64(lane * width)
    return words


def _bench_context(units: list[Unit]) -> dict[str, Any]:
    return {
        "layer_bits": max(unit.tables.layer_bits for unit in units),
        "data_bits": max(unit.lanes * unit.in_width for unit in units),
        "units": [
            {"name": unit.name, "index": index, "register": unit.register,
             "layer_bits": unit.tables.layer_bits, "in_bits": unit.lanes * unit.in_width,
             "out_bits": unit.lanes * unit.out_width,
             "in_name": "value" if unit.encodes else "code"}
            for index, unit in enumerate(units)
        ],
    }  # fmt: skip


def _write_verilog(units: list[Unit], folder: Path, timed: bool) -> list[str]:
    """Write the units and their bench; return the file names."""
    for unit in units:
        (folder / f"{unit.name}.v").write_text(verilog(unit))
    template = environment().get_template("rtl/bench.v.j2")
    (folder / "bench.v").write_text(template.render(timed=timed, **_bench_context(units)))
    return [*(f"{unit.name}.v" for unit in units), "bench.v"]


def _run_cxxrtl(units: list[Unit], stimuli: np.ndarray, folder: Path) -> np.ndarray:
    flags = cxxrtl_flags()
    files = _write_verilog(units, folder, timed=False)
    script = [*(f"read_verilog {file}" for file in files), "hierarchy -check -top bench", "proc",
              "flatten", "opt_clean", "write_cxxrtl bench_rtl.cpp"]  # fmt: skip
    run_yosys("\n".join(script) + "\n", folder)
    return _run_program(units, stimuli, folder, True, flags)


def _run_cpp(units: list[Unit], stimuli: np.ndarray, folder: Path) -> np.ndarray:
    flags = ["-isystem", str(find_headers()), "-Wno-unknown-pragmas"]
    write_headers(folder)
    for unit in units:
        (folder / f"{unit.name}.cpp").write_text(model_cpp(unit))
    return _run_program(units, stimuli, folder, False, flags)


def _run_program(units: list[Unit], stimuli: np.ndarray, folder: Path, rtl: bool,
                 flags: list[str]) -> np.ndarray:  # fmt: skip
    """Compile bench.cpp, run it on the stimuli, read its results."""
    template = environment().get_template("rtl/bench.cpp.j2")
    (folder / "bench.cpp").write_text(template.render(rtl=rtl, **_bench_context(units)))
    (folder / "stimuli.bin").write_bytes(stimuli.astype("<u8").tobytes())
    _tool([find_compiler(), "-std=c++14", "-O1", *flags, "bench.cpp", "-o", "bench"], folder)
    _tool(["./bench"], folder)
    return np.frombuffer((folder / "results.bin").read_bytes(), dtype="<u8")


def _run_icarus(units: list[Unit], stimuli: np.ndarray, folder: Path) -> np.ndarray:
    if shutil.which("iverilog") is None:
        raise UserError("Icarus Verilog must be on the PATH, but iverilog was not found; "
                        "`apt-get install iverilog`, or use the simulator cxxrtl")  # fmt: skip
    files = _write_verilog(units, folder, timed=True)
    np.savetxt(folder / "stimuli.txt", stimuli, fmt="%d")
    _tool(["iverilog", "-g2005", "-s", "stimuli", "-o", "bench", *files], folder)
    _tool(["vvp", "bench"], folder)
    words = (folder / "results.txt").read_text().split()
    # a result with unknown bits prints as x, which no expected value equals
    unknown = (1 << MAX_PORT_BITS) - 1
    return np.array([int(word) if word.isdecimal() else unknown for word in words], np.uint64)


def _tool(command: list[str], folder: Path) -> None:
    """Run a program in a folder; UserError with its first words where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise UserError(
            f"{Path(command[0]).name} must accept the rendered unit, but ended with status "
            f"{done.returncode}: {lines[0] if lines else 'no message'}"
        )
