# SPDX-License-Identifier: Apache-2.0
"""The table "model against Vitis": what the planner estimated beside what the tools report.

Written into report.json as `vendor` and from there into report.html; docs/hls.md has the fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codegen.emit.report import write_report
from codegen.emit.xilinx.design import Design, read_design
from codegen.emit.xilinx.flow import BITSTREAM_FOLDER, REPORT_FOLDER, read_stamp
from codegen.emit.xilinx.reports import read_cosim, read_csynth, read_timing, read_utilization
from formats.errors import UserError

COSIM_REPORT = "accelerator_cosim.rpt"
COLUMNS = ("model", "hls", "vivado")


def update_report(build: Path) -> dict[str, Any]:
    """Read the tools' reports of build/NET into report.json and report.html; return the report.

    Raises:
        UserError: there is none, or it belongs to another design.
    """
    design = read_design(build)
    vendor = collect(design)
    design.report["vendor"] = vendor
    write_report(build, design.report)
    return design.report


def collect(design: Design) -> dict[str, Any]:
    """The `vendor` object of report.json."""
    folder = _folder(design, REPORT_FOLDER, "make hls")
    hls = read_csynth(folder / "csynth.xml") if (folder / "csynth.xml").is_file() else None
    cosim = read_cosim(folder / COSIM_REPORT) if (folder / COSIM_REPORT).is_file() else None
    vivado = None
    if (design.build / BITSTREAM_FOLDER).is_dir():
        placed = _folder(design, BITSTREAM_FOLDER, "make bitstream")
        clock = placed / "clock.txt"
        vivado = {
            "resources": read_utilization(placed / "utilization.rpt"),
            "slack_ns": read_timing(placed / "timing.rpt"),
            "clock_mhz": float(clock.read_text()) if clock.is_file() else None,
        }
    return {
        "hls": hls,
        "cosim": cosim,
        "vivado": vivado,
        "comparison": comparison(design.report, hls, vivado),
    }


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


def comparison(
    report: dict[str, Any], hls: dict[str, Any] | None, vivado: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Rows quantity, model, hls, vivado; None where one of them does not say.

    Vivado's figures are those of the whole system with its interconnects. Block RAMs are counted in
    36 Kb; a call's latency is compared over all layers and images, where Vitis HLS has only bounds.
    """
    estimate = report["resources"]["estimate"]
    used = hls["resources"] if hls else {}
    placed = vivado["resources"] if vivado else {}
    half = used.get("bram18")
    found = {"bram36": None if half is None else half / 2}
    rows = [
        {
            "quantity": name,
            "model": estimate[name],
            "hls": found.get(name, used.get(name)),
            "vivado": placed.get(name),
        }
        for name in ("dsp", "bram36", "lut", "ff")
    ]
    period = hls["estimated_ns"] if hls else None
    rows.append(
        {
            "quantity": "clock_mhz",
            "model": report["performance"]["clock_mhz"],
            "hls": round(1000 / period, 1) if period else None,
            "vivado": vivado["clock_mhz"] if vivado else None,
        }
    )
    for bound in ("latency_min", "latency_max"):
        rows.append(
            {
                "quantity": bound,
                "model": report["performance"]["cycles"],
                "hls": hls[bound] if hls else None,
                "vivado": None,
            }
        )
    return rows


def summary(report: dict[str, Any]) -> str:
    """The comparison as text."""
    vendor = report["vendor"]
    lines = [f"{'model against Vitis':20s}" + "".join(f"{name:>14s}" for name in COLUMNS)]
    for row in vendor["comparison"]:
        cells = ("-" if row[name] is None else f"{row[name]:,}" for name in COLUMNS)
        lines.append(f"{row['quantity']:20s}" + "".join(f"{cell:>14s}" for cell in cells))
    if vendor["vivado"]:
        slack = vendor["vivado"]["slack_ns"]
        lines.append(f"slack: setup {slack['setup']} ns, hold {slack['hold']} ns")
    if vendor["cosim"]:
        lines.append(f"cosim: {vendor['cosim']['status']}")
    return "\n".join(lines)
