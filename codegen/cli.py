# SPDX-License-Identifier: Apache-2.0
"""Command line of the code generator: generate, explore, alternatives, csim, report, parts.

Bad input ends with one sentence on stderr and exit status 2; a mismatch in the C-simulation with 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from codegen.design import alternatives
from codegen.design.chip import MODES
from codegen.design.network import load
from codegen.design.parts import DEFAULT_PART, clocked, find_part, load_parts
from codegen.design.search import LIMIT, explore
from codegen.design.space import Fixed
from codegen.emit import explore_page as exploration
from codegen.emit.csim import TYPES
from codegen.emit.csim import Settings as CsimSettings
from codegen.emit.generate import Settings, generate, quantized_folder
from codegen.emit.report import ddr_traffic, read_report, write_report
from codegen.emit.simulate import simulate
from formats.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors: one sentence, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise UserError(f"{message}; see {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = make_parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The argument parser, one subcommand each."""
    parser = Parser(prog="python -m codegen", description="HLS code generator")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("generate", help="render C++, pack weights and golden vectors")
    _add_build(command)
    _add_design(command)
    command.add_argument(
        "--images",
        default="0",
        help="images in golden/ (default: all that were quantized)",
    )
    command.set_defaults(run=_generate)

    command = commands.add_parser("explore", help="search the design space, draw what bounds it")
    _add_build(command)
    _add_design(command)
    command.add_argument("--images", default="1", help="batch that the speed is for (default 1)")
    command.add_argument("--limit", default=f"{LIMIT:g}", help="fraction of the part to use")
    command.set_defaults(run=_explore)

    command = commands.add_parser("alternatives", help="model of two faster compute stages")
    _add_build(command)
    command.add_argument("--images", default="8", help="images of a batch (default 8)")
    command.add_argument("--clock", help="MHz of the default part (default: typical)")
    command.set_defaults(run=_alternatives)

    command = commands.add_parser("csim", help="compile and run the C-simulation")
    _add_build(command)
    command.add_argument(
        "--types",
        choices=TYPES,
        default="fast",
        help="native integers or ap_int everywhere (default fast)",
    )
    command.add_argument(
        "--first-layers",
        default="0",
        metavar="K",
        help="run only the first K layers",
    )
    command.add_argument("--sanitize", action="store_true", help="with address/UB sanitizers")
    command.set_defaults(run=_csim)

    command = commands.add_parser("report", help="write report.html from report.json again")
    _add_build(command)
    command.set_defaults(run=_report)

    command = commands.add_parser("parts", help="list the FPGA parts")
    command.set_defaults(run=_parts)
    return parser


def _add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("--build", type=Path, required=True, help="build folder of the network")


def _add_design(command: argparse.ArgumentParser) -> None:
    """Options that fix axes of the design space; the exploration chooses the others."""
    command.add_argument("--part", default=DEFAULT_PART, help="FPGA part (default %(default)s)")
    command.add_argument("--clock", help="MHz (default: the part's typical clock)")
    command.add_argument("--simd", help="input channels a cycle, a multiple of 8")
    command.add_argument("--pe", help="output channels a cycle, a multiple of 8")
    command.add_argument("--pixels", help="pixels of a row a cycle, 1..8")
    command.add_argument("--weight-ports", help="memory ports for weights: 1, 2, 3, 4 or 6")
    command.add_argument(
        "--fm",
        choices=MODES,
        help="feature maps: on chip where they fit (auto, default), all on chip, or in DRAM",
    )


def _fixed(options: argparse.Namespace) -> Fixed:
    """The axes that the command line sets."""
    axes = ("simd", "pe", "pixels", "weight_ports")
    given = {name: getattr(options, name) for name in axes if getattr(options, name) is not None}
    return Fixed(
        **{name: _integer(name.upper(), text) for name, text in given.items()}, fm=options.fm
    )


def _clock(options: argparse.Namespace) -> float | None:
    return None if options.clock is None else _number("CLOCK", options.clock, " of MHz")


def _number(name: str, text: str, unit: str = "") -> float:
    """The number that `text` spells."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} must be a number{unit}, not {text!r}") from None


def _integer(name: str, text: str) -> int:
    """The integer that `text` spells."""
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name} must be an integer, not {text!r}") from None


def _generate(options: argparse.Namespace) -> int:
    settings = Settings(
        options.build,
        options.part,
        _fixed(options),
        _integer("IMAGES", options.images),
        _clock(options),
    )
    plan = generate(settings)
    if plan is None:
        print(f"{options.build}: up to date")
        return 0
    used, part = plan.resources, plan.part
    print(
        f"{plan.network.name} on {part.name}: {plan.engine.simd}x{plan.engine.pe}"
        f"x{plan.engine.pixels} multipliers, {plan.engine.weight_ports} weight port(s), "
        f"{plan.engine.qk_units} QK units, {plan.cycles:,} cycles for {plan.images} image(s), "
        f"about {plan.seconds:.3f} s at {part.clock_mhz:g} MHz"
    )
    print(
        f"estimated: {used.dsp}/{part.dsp} DSP, {used.bram36}/{part.bram36} BRAM36, "
        f"{used.lut:,}/{part.lut:,} LUT; report: {options.build / 'report.html'}"
    )
    ddr, kept = ddr_traffic(plan), len([1 for row in plan.rows if row["out_chip"]])
    print(
        f"activation DDR traffic: input {ddr['input_bytes']:,} bytes + logits "
        f"{ddr['output_bytes']:,} bytes + other feature maps {ddr['other_bytes']:,} bytes; "
        f"{kept} of {len(plan.rows)} outputs on chip"
    )
    return 0


def _explore(options: argparse.Namespace) -> int:
    limit = _number("LIMIT", options.limit)
    part = clocked(find_part(options.part), _clock(options))
    fixed, images = _fixed(options), _integer("IMAGES", options.images)
    fixed.check(part)
    found = explore(load(quantized_folder(options.build)), part, images, fixed, limit)
    page = exploration.write(options.build, found, limit)
    print(exploration.table(found))
    print(f"report: {page}")
    return 0


def _alternatives(options: argparse.Namespace) -> int:
    network = load(quantized_folder(options.build))
    parts = [
        clocked(part, _clock(options)) if part.name == DEFAULT_PART else part
        for part in load_parts().values()
    ]
    print(alternatives.table(network, parts, _integer("IMAGES", options.images)))
    return 0


def _csim(options: argparse.Namespace) -> int:
    layers = _integer("first-layers", options.first_layers)
    if layers < 0:
        raise UserError(f"first-layers must be 0 or more, not {layers}")
    return simulate(CsimSettings(options.build, options.types, layers, options.sanitize))


def _report(options: argparse.Namespace) -> int:
    write_report(options.build, read_report(options.build))
    print(options.build / "report.html")
    return 0


def _parts(_: argparse.Namespace) -> int:
    print(
        f"{'part':8s} {'DSP':>5s} {'BRAM36':>6s} {'URAM':>4s} {'LUT':>7s} {'MHz':>4s} "
        f"{'GB/s':>5s} {'ports':>5s}  source"
    )
    for part in load_parts().values():
        print(
            f"{part.name:8s} {part.dsp:5d} {part.bram36:6d} {part.uram:4d} {part.lut:7d} "
            f"{part.clock_mhz:4g} {part.ddr_gbs:5g} {part.ports:5d}  {part.source}"
        )
    return 0
