# SPDX-License-Identifier: Apache-2.0
"""The commands of codegen (formats.commands): each a function of the options.

A mismatch in a simulation ends with exit status 1. What a command needs is imported when it runs,
so that none waits for another's.
"""

import textwrap
from dataclasses import replace
from pathlib import Path

from nuq.formats.errors import UserError, call
from nuq.formats.help import WIDTH
from nuq.formats.options import Options


def codegen(options: Options) -> None:
    """Render C++, pack weights and golden vectors."""
    from nuq.codegen.emit.generate import generate
    from nuq.codegen.emit.report import ddr_traffic

    plan = generate(options)
    if plan is None:
        print(f"{options.folder}: up to date")
        return
    used, part = plan.resources, plan.part
    print(
        f"{plan.network.name} on {part.name}: {plan.array.simd}x{plan.array.pe}"
        f"x{plan.array.pixels} products a cycle of {plan.array.multipliers} multipliers, "
        f"{plan.array.weight_ports} weight port(s), "
        f"{plan.array.qk_units} QK units, {plan.cycles:,} cycles for {plan.images} image(s), "
        f"about {plan.seconds:#.3g} s at {part.clock_mhz:g} MHz"
        f"{bound_text(plan.dram_bound)}"
    )
    print(
        f"estimated: {used.dsp}/{part.dsp} DSP, {used.bram36}/{part.bram36} BRAM36, "
        f"{used.lut:,}/{part.lut:,} LUT; report: {options.folder / 'report.html'}"
    )
    ddr, kept = ddr_traffic(plan), len([1 for row in plan.rows if row.out_chip])
    print(
        f"activation DDR traffic: input {ddr['input_bytes']:,} bytes + logits "
        f"{ddr['output_bytes']:,} bytes + other feature maps {ddr['other_bytes']:,} bytes; "
        f"{kept} of {len(plan.rows)} outputs on chip"
    )


def bound_text(layers: list[str]) -> str:
    """Which layers the DRAM binds, to stand behind a time.

    >>> bound_text([]), bound_text(["fc6", "fc7"])
    ('', ', of which DRAM binds fc6, fc7')
    """
    return f", of which DRAM binds {', '.join(layers)}" if layers else ""


def csim(options: Options) -> int:
    """Compile and run the C-simulation; 1 where it differs."""
    from nuq.codegen.emit.csim import simulate

    return simulate(options)


def engine(options: Options) -> None:
    """Render a general engine for PART into OUT (build/engine), and say what it has."""
    from nuq.codegen.design.general import general_engine, summary
    from nuq.codegen.emit.generate import array_axes, write_engine
    from nuq.formats.hardware import clocked, find_part

    made = general_engine(clocked(find_part(options.part), options.clock), array_axes(options))
    folder = options.out or Path("build") / "engine"
    engine_id = write_engine(made, folder)
    print(summary(made))
    print(
        f"{folder}: engine {engine_id}; {call(f'codegen NET=... ENGINE={folder}')} plans a network"
    )


def explore(options: Options) -> None:
    """Search the design space, draw what bounds it."""
    from nuq.codegen.design import search
    from nuq.codegen.emit import explore_page
    from nuq.codegen.emit.generate import axes, quantized_folder
    from nuq.formats.hardware import clocked, find_part
    from nuq.formats.network import load

    part, set_axes = clocked(find_part(options.part), options.clock), axes(options)
    part = replace(part, limit=options.limit)
    images = options.batch or 1
    network = load(quantized_folder(options.folder))
    shared = search.check_stage(network, part, set_axes)
    search.smallest(set_axes, part, shared).check_ports(part)
    found = search.explore(network, part, images, set_axes)
    page = explore_page.write(options.folder, found)
    print(explore_page.summary_text(found))
    print(f"report: {page}")


def alternatives(options: Options) -> None:
    """The model of two faster compute stages."""
    from nuq.codegen.design.alternatives import table
    from nuq.codegen.emit.generate import quantized_folder
    from nuq.formats.hardware import DEFAULT_PART, clocked, load_parts
    from nuq.formats.network import load

    network = load(quantized_folder(options.folder))
    parts = [
        clocked(part, options.clock if part.name == DEFAULT_PART else None)
        for part in load_parts().values()
    ]
    print(table(network, parts, options.batch or 8))


def report(options: Options) -> None:
    """Write report.html of report.json again, with the tools' reports where there are any."""
    from nuq.codegen.emit.report_model import read_report
    from nuq.codegen.emit.report_page import write_report
    from nuq.codegen.emit.xilinx.flow import REPORT_FOLDER
    from nuq.codegen.emit.xilinx.reports import summary, update_report

    if (options.folder / REPORT_FOLDER).is_dir():
        print(summary(update_report(options.folder)))
    else:
        write_report(options.folder, read_report(options.folder))
    print(options.folder / "report.html")


def compare(options: Options) -> None:
    """Builds side by side: a table, and OUT/compare.html (build/compare)."""
    from nuq.codegen.emit import compare as comparing

    folders = [folder for folder in (options.a, *options.b) if folder]
    text, path = comparing.compare(folders, options.out)
    print(text)
    print(f"report: {path}")


def parts(_: Options) -> None:
    """List the FPGA parts with their boards, then where the figures come from."""
    from nuq.formats.hardware import load_boards, load_parts

    found = load_parts().values()
    print(
        f"{'part':8s} {'DSP':>5s} {'BRAM36':>6s} {'URAM':>4s} {'LUT':>7s} {'MHz':>4s} "
        f"{'GB/s':>5s} {'ports':>5s}  boards"
    )
    for part in found:
        boards = ", ".join(name for name, one in load_boards().items() if one.part == part.name)
        print(
            f"{part.name:8s} {part.dsp:5d} {part.bram36:6d} {part.uram:4d} {part.lut:7d} "
            f"{part.clock_mhz:4g} {part.ddr_gbs:5g} {part.ports:5d}  {boards}"
        )
    print("\nWhere the figures come from (docs/parts.md):")
    for part in found:
        text = f"{part.name}: {'; '.join(part.source.values())}"
        print(textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def hls_check(options: Options) -> int:
    """Check FILES against the HLS subset; 1 where there is a finding."""
    from nuq.codegen.emit.render import TEMPLATES
    from nuq.codegen.hls_check.check import check_files, find_files

    paths = options.files or (TEMPLATES / "engine", TEMPLATES / "rendered")
    findings, times = check_files(paths)
    if not options.files:
        findings += check_files((TEMPLATES / "probes",))[0]
    for line in (*findings, *times):
        print(line)
    if not findings:
        print(f"{len(find_files(paths))} files keep to the HLS subset")
    return 1 if findings else 0


def check_design(options: Options) -> None:
    """Refuse, by UserError, a part, a clock or an array that there cannot be."""
    from nuq.codegen.design.search import smallest
    from nuq.codegen.emit.generate import array_axes
    from nuq.formats.hardware import clocked, find_part

    part = clocked(find_part(options.part), options.clock)
    if options.engine is None:
        smallest(array_axes(options), part).check_ports(part)


def find_hls(_: Options) -> None:
    """Refuse, by UserError, to begin without Vitis HLS."""
    from nuq.codegen.emit.xilinx import flow

    flow.find_hls()


def find_vivado(options: Options) -> None:
    """Refuse, by UserError, to begin without a board, Vivado and Vitis HLS."""
    from nuq.codegen.emit.xilinx import flow
    from nuq.formats.hardware import find_board

    find_board(_board(options))
    flow.find_vivado()
    flow.find_hls()


def _board(options: Options) -> str:
    if options.board is None:
        raise UserError("BOARD must be set, as in BOARD=pynq-z2")
    return options.board


def tools(_: Options) -> None:
    """Print where the programs of `hls` and `bitstream` are."""
    from nuq.codegen.emit.xilinx import flow

    print(flow.find_hls().path)
    print(flow.find_vivado().path)


def hls(options: Options) -> int:
    """Run Vitis HLS; its reports go into report.json. 1 where it is not what was planned."""
    from nuq.codegen.emit.xilinx import probes
    from nuq.codegen.emit.xilinx.flow import run_hls
    from nuq.codegen.emit.xilinx.reports import findings
    from nuq.formats.hardware import clocked, find_part

    if options.net == probes.NET:
        part = clocked(find_part(options.part), options.clock)
        return probes.run_probes(options.folder, part)
    print(run_hls(options.folder, options.hls_steps))
    report(options)
    found = findings(options.folder)
    for finding in found:
        print(f"FAILED: {finding}")
    return 1 if found else 0


def bitstream(options: Options) -> None:
    """Run Vivado; its reports go into report.json."""
    from nuq.codegen.emit.xilinx.flow import run_bitstream, synthesize
    from nuq.codegen.emit.xilinx.reports import findings

    synthesize(options.folder)
    found = findings(options.folder)
    if found:
        raise UserError(
            f"{options.folder / 'hls_report'} must be as planned before Vivado runs: {found[0]}; "
            f"{call('hls')} lists everything"
        )
    print(run_bitstream(options.folder, _board(options)))
    report(options)


def vivado_script(options: Options) -> None:
    """Write the Vivado script only."""
    from nuq.codegen.emit.xilinx.block_design import write_block_design

    print(write_block_design(options.folder, _board(options)))
