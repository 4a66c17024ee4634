# SPDX-License-Identifier: Apache-2.0
"""Compiles the generated C++ with g++ and runs its test bench: the open-source C-simulation.

Headers ap_int.h and hls_stream.h come from Vitis HLS (XILINX_HLS) or from the PyPI package hls4ml,
whose folder is found without importing it.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.build import compile_cpp
from formats.errors import UserError

FLAGS = (
    "-std=c++14",
    "-O3",
    "-march=native",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused-label",
)
# ap_private's constructors clear spare bits before any bit is set, which g++ reports in whoever
# uses them. Fast mode keeps ap_uint only for gearboxes of more than 128 bits.
AP_TYPES = {
    "fast": ("-DCSIM_FAST", "-Wno-maybe-uninitialized"),
    "exact": ("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    "threads": ("-DCSIM_FAST", "-DCSIM_THREADS", "-pthread", "-Wno-maybe-uninitialized"),
}
TYPES = tuple(AP_TYPES)
SANITIZE = (
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
# ap_private sign-extends by shifting negative numbers left, which g++ defines as C++20 does.
SANITIZE_TYPES = {"fast": (), "exact": ("-fno-sanitize=shift-base",), "threads": ()}


@dataclass(frozen=True)
class Settings:
    """What to simulate.

    Attributes:
        build: build/NET, with hls/, params/, golden/ and report.json.
        types: "fast" (native integers), "exact" (ap_int everywhere), or "threads" (native integers,
            a thread a process, streams no deeper than the hardware's).
        first_layers: run only so many layers; 0 for all.
        sanitize: compile with the address and undefined behaviour sanitizers.
    """

    build: Path
    types: str = "fast"
    first_layers: int = 0
    sanitize: bool = False

    @property
    def folder(self) -> Path:
        """Where binaries and results go."""
        return self.build / "csim"


def compile_bench(settings: Settings) -> Path:
    """Compile hls/*.cpp; return the program. Does nothing where sources and flags are unchanged."""
    sources = sorted((settings.build / "hls").glob("*.cpp"))
    if not sources:
        raise UserError(
            f"{settings.build / 'hls'} must hold generated sources; run `nuq codegen` first"
        )
    flags = [*FLAGS, *AP_TYPES[settings.types]]
    if settings.sanitize:
        flags += [*SANITIZE, *SANITIZE_TYPES[settings.types]]
    program = settings.folder / f"csim_{settings.types}{'_sanitize' if settings.sanitize else ''}"
    return compile_cpp(flags, sources, sorted((settings.build / "hls").glob("*.hpp")), program)


def run_bench(settings: Settings, program: Path, images: int) -> int:
    """Run the test bench, its output going straight through; return its exit status."""
    for name in ("csim.json", "logits.bin"):
        (settings.folder / name).unlink(missing_ok=True)
    command = [
        str(program),
        str(settings.build / "params"),
        str(settings.build / "golden"),
        str(settings.folder),
        str(images),
    ]
    if settings.first_layers:
        command.append(str(settings.first_layers))
    return subprocess.run(command, check=False).returncode


def read_result(settings: Settings) -> dict[str, Any] | None:
    """csim.json of the last run, or None where it stopped before writing it."""
    path = settings.folder / "csim.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result
