# SPDX-License-Identifier: Apache-2.0
"""What the tools report, and the table "model against Vitis": the planner's estimates beside it.

Readers of csynth.xml and *_cosim.rpt of Vitis HLS and of Vivado's text tables: fields that a report
leaves out, or calls undefined, are None; another kind of file is an error. All goes into
report.json as `vendor` and from there into report.html; docs/hls.md has the fields.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from nuq.codegen.emit.report_model import (
    Blocks,
    Cosim,
    Hls,
    HlsLoop,
    HlsModule,
    Placed,
    Quantity,
    Report,
    Slack,
    Vendor,
    Vivado,
    read_report,
)
from nuq.codegen.emit.report_page import figure, write_report
from nuq.codegen.emit.xilinx.flow import BITSTREAM_FOLDER, REPORT_FOLDER
from nuq.codegen.emit.xilinx.verdict import (
    Finding,
    check_clock,
    check_loops,
    check_resources,
    read_messages,
)
from nuq.codegen.hls_check.check import read_design_files
from nuq.codegen.hls_check.dataflow import loops_of_processes
from nuq.formats.design import read_stamp
from nuq.formats.errors import UserError, call
from nuq.formats.hardware import find_part

# Resources of Vitis HLS (UG1399, "Synthesis Summary") and of Vivado (UG906, "Report Utilization";
# first name: 7 series, others: UltraScale+ and 2024 on), by our names.
HLS_RESOURCES = {
    "dsp": ("DSP", "DSP48E"),
    "bram18": ("BRAM_18K",),
    "uram": ("URAM",),
    "lut": ("LUT",),
    "ff": ("FF",),
}
VIVADO_RESOURCES = {
    "dsp": ("DSPs", "DSP Slices"),
    "bram36": ("Block RAM Tile",),
    "uram": ("URAM",),
    "lut": ("Slice LUTs", "CLB LUTs"),
    "ff": ("Slice Registers", "CLB Registers", "Registers"),
}
SLACK_HEADER = re.compile(r"^\s*WNS\(ns\)\s+TNS\(ns\)\s")


def read_csynth(path: Path) -> Hls:
    """What csynth.xml says."""
    root = _parse_xml(path)
    if root.find("AreaEstimates/Resources") is None:
        raise UserError(f"{path} must have AreaEstimates/Resources; run {call('hls')} again")
    timing = "PerformanceEstimates/SummaryOfTimingAnalysis"
    return Hls(
        version=_text(root, "ReportVersion/Version"),
        part=_text(root, "UserAssignments/Part"),
        target_ns=_number(root, "UserAssignments/TargetClockPeriod"),
        uncertainty_ns=_number(root, "UserAssignments/ClockUncertainty"),
        estimated_ns=_number(root, f"{timing}/EstimatedClockPeriod"),
        interval_max=_number(root, "PerformanceEstimates/SummaryOfOverallLatency/Interval-max"),
        modules=[
            HlsModule(name=_text(module, "Name"), **_costs(module))
            for module in root.iterfind("ModuleInformation/Module")
        ],
        loops=list(_loops(root)),
        **_costs(root),
    )


def _loops(root: Element) -> Iterator[HlsLoop]:
    """Loops of the top function and of every module, inner ones too."""
    top = _text(root, "UserAssignments/TopModelName") or "accelerator"
    modules = root.findall("ModuleInformation/Module")
    for name, node in [(top, root), *((_text(item, "Name") or "", item) for item in modules)]:
        summary = node.find("PerformanceEstimates/SummaryOfLoopLatency")
        for loop in summary.iter() if summary is not None else ():
            if loop.find("TripCount") is not None or loop.find("PipelineII") is not None:
                yield HlsLoop(
                    name=_text(loop, "Name") or loop.tag,
                    module=name,
                    ii=_number(loop, "PipelineII"),
                    depth=_number(loop, "PipelineDepth"),
                )


def findings(build: Path) -> list[Finding]:
    """What the run of Vitis HLS in hls_report says against the plan; none where there is no run."""
    report, folder = read_report(build), build / REPORT_FOLDER
    logs = sorted(folder.glob("*.log"))
    log = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    found, csynth = read_messages(log), folder / "csynth.xml"
    if csynth.is_file():
        hls, part = read_csynth(csynth), find_part(report.part)
        room = Blocks(**{name: part.room(name) for name in Blocks.model_fields})
        if not log.strip():
            found.append(Finding("the log must say what was synthesized", f"{folder} has no log"))
        found += check_loops(hls, loops_of_processes(read_design_files(build / "hls")))
        found += check_clock(hls)
        found += check_resources(hls, report.resources.estimate, room)
    return found


def _costs(node: Element) -> dict[str, Any]:
    latency = "PerformanceEstimates/SummaryOfOverallLatency"
    area = node.find("AreaEstimates/Resources")
    return {
        "latency_min": _number(node, f"{latency}/Best-caseLatency"),
        "latency_max": _number(node, f"{latency}/Worst-caseLatency"),
        "resources": {
            name: next((n for tag in tags if (n := _number(area, tag)) is not None), None)
            for name, tags in HLS_RESOURCES.items()
        },
    }


def _parse_xml(path: Path) -> Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"{path} must be XML ({error}); run {call('hls')} again") from None


def _text(node: Element | None, place: str) -> str | None:
    text = None if node is None else node.findtext(place)
    return text.strip() if text and text.strip() else None


def _number(node: Element | None, place: str) -> float | None:
    """A number; None for what is absent or `undef`."""
    return _to_number(_text(node, place) or "")


def _to_number(text: str) -> float | None:
    """The number that a cell holds; integers stay integers.

    >>> _to_number("1,024"), _to_number("14.50"), _to_number("undef"), _to_number("-0.1")
    (1024, 14.5, None, -0.1)
    """
    text = text.replace(",", "").strip()
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return None
    value = float(text)
    return int(value) if value.is_integer() else value


def read_cosim(path: Path) -> Cosim:
    """Status and latency of the Verilog row of a co-simulation report."""
    for cells in _rows(path):
        if cells[0] == "Verilog" and len(cells) >= 5:
            lowest, average, highest = (_to_number(cell) for cell in cells[2:5])
            return Cosim(
                status=cells[1], latency_min=lowest, latency_average=average, latency_max=highest
            )
    raise UserError(f"{path} must have a row for Verilog; run cosim again")


def read_utilization(path: Path) -> Placed:
    """Used blocks of report_utilization."""
    used: dict[str, Any] = dict.fromkeys(VIVADO_RESOURCES)
    columns: list[str] = []
    for cells in _rows(path):
        if cells[0] == "Site Type":
            columns = cells
        elif "Used" in columns and len(cells) == len(columns):
            label = cells[0].rstrip("*")
            for name, labels in VIVADO_RESOURCES.items():
                if label in labels and used[name] is None:
                    used[name] = _to_number(cells[columns.index("Used")])
    if used["lut"] is None:
        raise UserError(f"{path} must be a utilization report with a row for LUTs; run again")
    return Placed(**used)


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows of the tables with | between cells."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.strip()
        if text.startswith("|") and text.endswith("|") and len(text) > 1:
            yield [cell.strip() for cell in text[1:-1].split("|")]


def read_timing(path: Path) -> Slack:
    """Worst slacks of report_timing_summary's "Design Timing Summary"."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        if SLACK_HEADER.match(line):
            places = [_place(line, name) for name in ("WNS", "WHS")]
            for row in lines[number + 1 : number + 4]:
                values = [_to_number(cell) for cell in row.split()]
                setup, hold = (_cell(values, place) for place in places)
                if setup is not None and hold is not None:
                    return Slack(setup=setup, hold=hold)
    raise UserError(f"{path} must have a Design Timing Summary with WNS and WHS; run again")


def _place(header: str, name: str) -> int:
    """Which value a header's column is; headers such as `TNS Failing Endpoints` hold blanks."""
    titles = re.split(r"\s{2,}", header.strip())
    return next((i for i, title in enumerate(titles) if title.startswith(name)), -1)


def _cell(values: list[float | None], place: int) -> float | None:
    return values[place] if 0 <= place < len(values) else None


def update_report(build: Path) -> Report:
    """Read the tools' reports of build/NET into report.json and report.html; return the report.

    Raises:
        UserError: there is none, or it belongs to another design.
    """
    report = read_report(build)
    report.vendor = collect(build, report)
    write_report(build, report)
    return report


def collect(build: Path, report: Report) -> Vendor:
    """The `vendor` object of report.json."""
    folder = _folder(build / REPORT_FOLDER, report, "hls")
    csynth, cosim = folder / "csynth.xml", folder / "accelerator_cosim.rpt"
    hls = read_csynth(csynth) if csynth.is_file() else None
    vivado = None
    if (build / BITSTREAM_FOLDER).is_dir():
        placed = _folder(build / BITSTREAM_FOLDER, report, "bitstream")
        clock = placed / "clock.txt"
        vivado = Vivado(
            resources=read_utilization(placed / "utilization.rpt"),
            slack_ns=read_timing(placed / "timing.rpt"),
            clock_mhz=float(clock.read_text()) if clock.is_file() else None,
        )
    return Vendor(
        hls=hls,
        cosim=read_cosim(cosim) if cosim.is_file() else None,
        vivado=vivado,
        comparison=comparison(report, hls, vivado),
    )


def _folder(folder: Path, report: Report, command: str) -> Path:
    stamp = read_stamp(folder)
    if stamp is None:
        raise UserError(f"{folder} must hold the tool's reports; run {call(command)} first")
    if stamp["engine_id"] != report.engine_id:
        raise UserError(
            f"{folder} is of engine {stamp['engine_id']}, not {report.engine_id}; "
            f"run {call(command)} again"
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
    lines = [f"{'model against Vitis':20s}{'model said':>14s}{'hls':>14s}{'vivado':>14s}"]
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
