# SPDX-License-Identifier: Apache-2.0
"""Compiles a network's C-simulation as a shared library: the "bitstream" of the emulated board.

Runs on a PC with a C++14 compiler. ap_int.h comes from Vitis HLS (XILINX_HLS) or from the PyPI
package hls4ml, found without importing it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from board.design import sha256_file
from board.errors import UserError

WRAPPER = Path(__file__).parents[1] / "hls_templates" / "sim" / "emulator.cpp"
FLAGS = ("-std=c++14", "-O3", "-march=native", "-fPIC", "-fvisibility=hidden", "-shared",
         "-DCSIM_FAST", "-w")  # fmt: skip
LIBRARY = "emulator.bit"
MESSAGE_LINES = 20


def compile_fabric(build: Path) -> Path:
    """Compile build/hls into build/emulator/emulator.bit; nothing to do where it is current."""
    source = build / "hls" / "accelerator.cpp"
    if not source.is_file():
        raise UserError(f"{source} must exist; run `make codegen` first")
    name = os.environ.get("CXX") or "g++"
    compiler = shutil.which(name)
    if compiler is None:
        raise UserError(f"the C++ compiler {name} must exist on the PATH; install g++ or set CXX")
    folder = build / "emulator"
    folder.mkdir(exist_ok=True)
    command = [compiler, *FLAGS, "-isystem", str(_find_headers()), "-I", str(build / "hls")]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in [WRAPPER, source, *sorted((build / "hls").glob("*.hpp"))]:
        digest.update(f"{path.name} {sha256_file(path)}".encode())
    library, stamp = folder / LIBRARY, folder / f"{LIBRARY}.sha256"
    if library.is_file() and stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return library
    new = folder / f".{LIBRARY}.new"
    command += ["-o", str(new), str(WRAPPER), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        new.unlink(missing_ok=True)
        lines = "; ".join(result.stderr.splitlines()[:MESSAGE_LINES])
        raise UserError(f"{name} must compile {source}: {lines}")
    new.replace(library)
    stamp.write_text(digest.hexdigest())
    return library


def _find_headers() -> Path:
    """Folder of ap_int.h."""
    tried = []
    if os.environ.get("XILINX_HLS"):
        tried.append(Path(os.environ["XILINX_HLS"]) / "include")
    spec = importlib.util.find_spec("hls4ml")
    for place in (spec.submodule_search_locations or []) if spec else []:
        tried.append(Path(place) / "templates" / "vivado" / "ap_types")
    for folder in tried:
        if (folder / "ap_int.h").is_file():
            return folder
    raise UserError(
        "ap_int.h must exist in the package hls4ml or in XILINX_HLS; `pip install hls4ml`"
    )
