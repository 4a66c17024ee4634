# SPDX-License-Identifier: Apache-2.0
"""The table "model against Vitis": what the planner estimated beside what the tools report.

Written into report.json as `vendor` and from there into report.html; docs/hls.md has the fields.
"""

from pathlib import Path

from codegen.emit.report_model import Hls, Quantity, Report, Vendor, Vivado
from codegen.emit.report_page import figure, write_report
from codegen.emit.xilinx.design import Design, read_design
from codegen.emit.xilinx.flow import BITSTREAM_FOLDER, REPORT_FOLDER, read_stamp
from codegen.emit.xilinx.reports import read_cosim, read_csynth, read_timing, read_utilization
from formats.errors import UserError

COSIM_REPORT = "accelerator_cosim.rpt"
COLUMNS = ("model", "hls", "vivado")


def update_report(build: Path) -> Report:
    """Read the tools' reports of build/NET into report.json and report.html; return the report.

    Raises:
        UserError: there is none, or it belongs to another design.
    """
    design = read_design(build)
    design.report.vendor = collect(design)
    write_report(build, design.report)
    return design.report


def collect(design: Design) -> Vendor:
    """The `vendor` object of report.json."""
    folder = _folder(design, REPORT_FOLDER, "make hls")
    hls = read_csynth(folder / "csynth.xml") if (folder / "csynth.xml").is_file() else None
    cosim = read_cosim(folder / COSIM_REPORT) if (folder / COSIM_REPORT).is_file() else None
    vivado = None
    if (design.build / BITSTREAM_FOLDER).is_dir():
        placed = _folder(design, BITSTREAM_FOLDER, "make bitstream")
        clock = placed / "clock.txt"
        vivado = Vivado(
            resources=read_utilization(placed / "utilization.rpt"),
            slack_ns=read_timing(placed / "timing.rpt"),
            clock_mhz=float(clock.read_text()) if clock.is_file() else None,
        )
    rows = comparison(design.report, hls, vivado)
    return Vendor(hls=hls, cosim=cosim, vivado=vivado, comparison=rows)


def _folder(design: Design, name: str, command: str) -> Path:
    folder = design.build / name
    stamp = read_stamp(folder)
    if stamp is None:
        raise UserError(f"{folder} must hold the tool's reports; run `{command}` first")
    if stamp["design_id"] != design.design_id:
        raise UserError(
            f"{folder} is of design {stamp['design_id']}, not {design.design_id}; "
            f"run `{command}` again"
        )
    return folder


def comparison(report: Report, hls: Hls | None, vivado: Vivado | None) -> list[Quantity]:
    """What the model says beside the tools; None where one of them does not say.

    Vivado's figures are those of the whole system with its interconnects. Block RAMs are counted in
    36 Kb; a call's latency is compared over all layers and images, where Vitis HLS has only bounds.
    """
    estimate, speed = report.resources.estimate, report.performance
    used = dict(hls.resources) if hls else {}
    placed = dict(vivado.resources) if vivado else {}
    half = used.get("bram18")
    used["bram36"] = None if half is None else half / 2
    rows = [
        (name, getattr(estimate, name), used.get(name), placed.get(name))
        for name in ("dsp", "bram36", "lut", "ff")
    ]
    period = hls.estimated_ns if hls else None
    clock = vivado.clock_mhz if vivado else None
    rows.append(("clock_mhz", speed.clock_mhz, round(1000 / period, 1) if period else None, clock))
    for bound in ("latency_min", "latency_max"):
        rows.append((bound, speed.cycles, getattr(hls, bound) if hls else None, None))
    return [
        Quantity(quantity=name, model=model, hls=synthesized, vivado=routed)
        for name, model, synthesized, routed in rows
    ]


def summary(report: Report) -> str:
    """The comparison as text."""
    lines = [f"{'model against Vitis':20s}" + "".join(f"{name:>14s}" for name in COLUMNS)]
    vendor = report.vendor
    if vendor is None:
        return lines[0]
    for row in vendor.comparison:
        cells = (figure(value, "-") for value in (row.model, row.hls, row.vivado))
        lines.append(f"{row.quantity:20s}" + "".join(f"{cell:>14s}" for cell in cells))
    if vendor.vivado:
        slack = vendor.vivado.slack_ns
        lines.append(f"slack: setup {slack.setup} ns, hold {slack.hold} ns")
    if vendor.cosim:
        lines.append(f"cosim: {vendor.cosim.status}")
    return "\n".join(lines)
