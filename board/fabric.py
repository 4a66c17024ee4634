# SPDX-License-Identifier: Apache-2.0
"""Compiles a network's C-simulation as a shared library: the "bitstream" of the emulated board.

Runs on a PC with a C++14 compiler. ap_int.h comes from Vitis HLS (XILINX_HLS) or from the PyPI
package hls4ml, found without importing it.
"""

from __future__ import annotations

from pathlib import Path

from formats.build import compile_cpp
from formats.errors import UserError

WRAPPER = Path(__file__).parents[1] / "hls_templates" / "sim" / "emulator.cpp"
FLAGS = ("-std=c++14", "-O3", "-march=native", "-fPIC", "-fvisibility=hidden", "-shared",
         "-DCSIM_FAST", "-w")  # fmt: skip
LIBRARY = "emulator.bit"


def compile_fabric(build: Path) -> Path:
    """Compile build/hls into build/emulator/emulator.bit; nothing to do where it is current."""
    source = build / "hls" / "accelerator.cpp"
    if not source.is_file():
        raise UserError(f"{source} must exist; run `make codegen` first")
    headers = sorted((build / "hls").glob("*.hpp"))
    flags = [*FLAGS, "-I", str(build / "hls")]
    return compile_cpp(flags, [source, WRAPPER], headers, build / "emulator" / LIBRARY)
