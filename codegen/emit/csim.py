# SPDX-License-Identifier: Apache-2.0
"""Compiles the generated C++ with g++ and runs its test bench: the open-source C-simulation.

Headers ap_int.h and hls_stream.h come from Vitis HLS (XILINX_HLS) or from the PyPI package hls4ml,
whose folder is found without importing it.
"""

import subprocess
from pathlib import Path

from codegen.emit.report_model import Csim
from formats.build import compile_cpp
from formats.errors import UserError
from formats.options import Options

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
SANITIZE = (
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
# ap_private sign-extends by shifting negative numbers left, which g++ defines as C++20 does.
SANITIZE_TYPES = {"fast": (), "exact": ("-fno-sanitize=shift-base",), "threads": ()}


def compile_bench(options: Options) -> Path:
    """Compile hls/*.cpp; return the program. Does nothing where sources and flags are unchanged."""
    sources = sorted((options.folder / "hls").glob("*.cpp"))
    if not sources:
        raise UserError(
            f"{options.folder / 'hls'} must hold generated sources; run `nuq codegen` first"
        )
    flags = [*FLAGS, *AP_TYPES[options.csim_types]]
    if options.sanitize:
        flags += [*SANITIZE, *SANITIZE_TYPES[options.csim_types]]
    program = (
        options.folder
        / "csim"
        / f"csim_{options.csim_types}{'_sanitize' if options.sanitize else ''}"
    )
    return compile_cpp(flags, sources, sorted((options.folder / "hls").glob("*.hpp")), program)


def run_bench(options: Options, program: Path, images: int) -> int:
    """Run the test bench, its output going straight through; return its exit status."""
    for name in ("csim.json", "logits.bin"):
        (options.folder / "csim" / name).unlink(missing_ok=True)
    command = [
        str(program),
        str(options.folder / "params"),
        str(options.folder / "golden"),
        str(options.folder / "csim"),
        str(images),
    ]
    if options.first_layers:
        command.append(str(options.first_layers))
    return subprocess.run(command, check=False).returncode


def read_result(options: Options) -> Csim | None:
    """csim.json of the last run, or None where it stopped before writing it."""
    path = options.folder / "csim" / "csim.json"
    if not path.is_file():
        return None
    return Csim.model_validate_json(path.read_text())
