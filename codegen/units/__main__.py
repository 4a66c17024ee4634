# SPDX-License-Identifier: Apache-2.0
"""`python -m codegen.units --build build/NET`: render, simulate, prove, synthesize, report.

Bad input ends with one sentence on stderr and exit status 2; a unit that differs from the reference
with 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from codegen.cli import Parser
from codegen.design.unit_luts import MODEL
from codegen.units.cost import model_json
from codegen.units.make import CACHE, Settings, make
from codegen.units.simulate import ENGINES
from codegen.units.sweep import RECORDED, SWEEPS, Sweep, points, run_sweep, to_json
from codegen.units.synthesis import TARGETS, Cache
from codegen.units.yosys import yosys_version
from formats.build import write_atomic
from formats.errors import UserError, run_cli


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit status."""
    options = make_parser().parse_args(arguments)
    engines = tuple(name for name in options.simulators.split(",") if name)
    for name in engines:
        if name not in ENGINES:
            raise UserError(f"--simulators must name some of {', '.join(ENGINES)}, not {name}")
    if not options.lanes.isdecimal() or not 1 <= int(options.lanes) <= 1024:
        raise UserError(f"--lanes must be a whole number from 1 to 1024, not {options.lanes}")
    if options.record:
        record(SWEEPS[options.sweep], options.build.parent)
    return make(
        Settings(options.build, options.sweep, engines, int(options.lanes), options.register)
    )


def record(sweep: Sweep, folder: Path) -> None:
    """Measure a sweep and keep it with the source: sweep.json, and the formula fitted to it."""
    cache = Cache(folder / CACHE)
    targets = len(sweep.targets)
    with tqdm(total=targets * sum(1 for _ in points(sweep)), desc="sweep", unit="module",
              disable=not sys.stderr.isatty()) as bar:  # fmt: skip
        found = run_sweep(sweep, cache, bar.update)
    write_atomic(RECORDED, to_json(found, yosys_version()))
    write_atomic(MODEL, model_json(found["xc7"], yosys_version()))
    print(f"{RECORDED} and {MODEL} hold {len(found['xc7'])} points a target")


def make_parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = Parser(
        prog="python -m codegen.units",
        description="conversion units QE, CE, QK, CK as Verilog, checked and measured",
    )
    parser.add_argument("--build", type=Path, required=True, help="build/NET, quantized before")
    parser.add_argument(
        "--sweep", choices=tuple(SWEEPS), default="small",
        help="points measured for the cost table; full takes hours (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--simulators", default="cxxrtl,cpp",
        help=f"how to run all inputs, from {', '.join(ENGINES)} (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--lanes", default="1", help="values a rendered unit converts at once")
    parser.add_argument("--register", action="store_true", help="register the results (latency 1)")
    parser.add_argument(
        "--record", action="store_true",
        help="keep this sweep as codegen/units/sweep.json and fit lut_model.json to it",
    )  # fmt: skip
    parser.epilog = f"Synthesis targets: {', '.join(TARGETS)}."
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(main))
