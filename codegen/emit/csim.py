# SPDX-License-Identifier: Apache-2.0
"""Compiles the generated C++ with g++ and runs its test bench: the open-source C-simulation.

Headers ap_int.h and hls_stream.h come from Vitis HLS (XILINX_HLS) or from the PyPI package hls4ml,
whose folder is found without importing it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.errors import UserError
from codegen.files import sha256_file, write_atomic

TYPES = ("fast", "exact")
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
}
MESSAGE_LINES = 40
SANITIZE = (
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
# ap_private sign-extends by shifting negative numbers left, which g++ defines as C++20 does.
SANITIZE_TYPES = {"fast": (), "exact": ("-fno-sanitize=shift-base",)}


@dataclass(frozen=True)
class Settings:
    """What to simulate.

    Attributes:
        build: build/NET, with hls/, params/, golden/ and report.json.
        types: "fast" (native integers) or "exact" (ap_int everywhere).
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


def find_compiler() -> str:
    """Path of the C++ compiler: CXX, else g++ on the PATH."""
    name = os.environ.get("CXX") or "g++"
    found = shutil.which(name)
    if found is None:
        raise UserError(
            f"the C++ compiler {name} must exist on the PATH ({os.environ.get('PATH', '')}); "
            "install g++ or set CXX to a C++14 compiler"
        )
    return found


def find_headers() -> Path:
    """Folder of ap_int.h and hls_stream.h."""
    tried = []
    if os.environ.get("XILINX_HLS"):
        tried.append(Path(os.environ["XILINX_HLS"]) / "include")
    spec = importlib.util.find_spec("hls4ml")
    for place in (spec.submodule_search_locations or []) if spec else []:
        tried.append(Path(place) / "templates" / "vivado" / "ap_types")
    for folder in tried:
        if (folder / "ap_int.h").is_file() and (folder / "hls_stream.h").is_file():
            return folder
    where = ", ".join(str(folder) for folder in tried) or "XILINX_HLS and the package hls4ml"
    raise UserError(
        f"ap_int.h and hls_stream.h must exist, none in {where}; "
        "`pip install hls4ml` or set XILINX_HLS to a Vitis HLS installation"
    )


def compile_bench(settings: Settings) -> Path:
    """Compile hls/*.cpp; return the program. Does nothing where sources and flags are unchanged."""
    sources = sorted((settings.build / "hls").glob("*.cpp"))
    headers = sorted((settings.build / "hls").glob("*.hpp"))
    if not sources:
        raise UserError(
            f"{settings.build / 'hls'} must hold generated sources; "
            "run `python -m codegen generate` first"
        )
    compiler = find_compiler()
    flags = [*FLAGS, *AP_TYPES[settings.types]]
    if settings.sanitize:
        flags += [*SANITIZE, *SANITIZE_TYPES[settings.types]]
    command = [compiler, *flags, "-isystem", str(find_headers())]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in [*sources, *headers]:
        digest.update(f"{path.name} {sha256_file(path)}".encode())
    settings.folder.mkdir(exist_ok=True)
    program = settings.folder / f"csim_{settings.types}{'_sanitize' if settings.sanitize else ''}"
    stamp = program.with_suffix(".sha256")
    if program.is_file() and stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return program
    new = program.with_suffix(".new")
    result = subprocess.run(
        [*command, *map(str, sources), "-o", str(new)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        new.unlink(missing_ok=True)
        print("\n".join(result.stderr.splitlines()[:MESSAGE_LINES]), file=sys.stderr)
        raise UserError(f"{compiler} must compile {settings.build / 'hls'}; its messages are above")
    new.replace(program)
    write_atomic(stamp, digest.hexdigest())
    return program


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
