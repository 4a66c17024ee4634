# SPDX-License-Identifier: Apache-2.0
"""`python -m codegen.emit.xilinx`: tools, hls, bitstream, render, read.

Bad input, missing programs and failed runs end with one sentence on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codegen.cli import Parser
from codegen.emit.xilinx.boards import load_boards
from codegen.emit.xilinx.compare import summary, update_report
from codegen.emit.xilinx.design import read_design
from codegen.emit.xilinx.flow import parse_steps, run_bitstream, run_hls, write_block_design
from codegen.emit.xilinx.tools import find_hls, find_vivado
from formats.errors import run_cli


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = make_parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The argument parser, one subcommand each."""
    parser = Parser(prog="python -m codegen.emit.xilinx", description="Vitis HLS and Vivado")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("tools", help="say which programs of a target are missing")
    command.add_argument("target", choices=("hls", "bitstream"))
    command.set_defaults(run=_tools)
    command = commands.add_parser("hls", help="run Vitis HLS")
    _add_build(command)
    command.add_argument(
        "--steps", default="", help="csim, csynth, cosim, export (default all but cosim)"
    )
    command.set_defaults(run=_hls)
    for name, run, text in (
        ("bitstream", _bitstream, "run Vivado"),
        ("render", _render, "write the Vivado script only"),
    ):
        command = commands.add_parser(name, help=text)
        _add_build(command)
        command.add_argument("--board", required=True, help=f"one of {', '.join(load_boards())}")
        command.set_defaults(run=run)
    command = commands.add_parser("read", help="put the tools' reports into report.json again")
    _add_build(command)
    command.set_defaults(run=_read)
    return parser


def _add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("--build", type=Path, required=True, help="build folder of the network")


def _tools(options: argparse.Namespace) -> int:
    if options.target == "bitstream":
        print(find_vivado().path)
    print(find_hls().path)
    return 0


def _hls(options: argparse.Namespace) -> int:
    print(run_hls(options.build, parse_steps(options.steps)))
    return _read(options)


def _bitstream(options: argparse.Namespace) -> int:
    print(run_bitstream(options.build, options.board))
    return _read(options)


def _render(options: argparse.Namespace) -> int:
    print(write_block_design(read_design(options.build), options.board))
    return 0


def _read(options: argparse.Namespace) -> int:
    print(summary(update_report(options.build)))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
