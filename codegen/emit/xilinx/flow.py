# SPDX-License-Identifier: Apache-2.0
"""The two runs: Vitis HLS from build/NET/hls to hls_report, Vivado from there to bitstream.

Folders under build/NET: hls_work and vivado are the tools' own and stay after a failure; hls_report
and bitstream appear whole, with design.json that says what they were made from.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from codegen.emit.xilinx.design import Design, block_design, read_design
from codegen.emit.xilinx.tools import find_hls, find_vivado, require, run_tool
from formats.build import atomic_dir, write_atomic
from formats.errors import UserError
from formats.hardware import find_board

STEPS = ("csim", "csynth", "cosim", "export")
DEFAULT_STEPS = ("csim", "csynth", "export")
COSIM_MACS = 5_000_000  # of one image: beyond that an RTL simulation takes days
SOLUTION = Path("accelerator_prj") / "solution1"
EXPORTED = SOLUTION / "impl" / "ip" / "component.xml"
STAMP = "design.json"
REPORT_FOLDER, BITSTREAM_FOLDER = "hls_report", "bitstream"


def run_hls(build: Path, steps: Sequence[str] = DEFAULT_STEPS) -> Path:
    """Run Vitis HLS; return build/NET/hls_report."""
    tool = find_hls()
    design = read_design(build)
    if "cosim" in steps and design.macs > COSIM_MACS:
        raise UserError(
            f"cosim must have a network of at most {COSIM_MACS:,} multiply-accumulates, "
            f"not {design.macs:,} ({design.network}); leave it out of HLS_STEPS, or use NET=digits"
        )
    work = build / "hls_work"
    log = work / f"{tool.name}.log"
    run_tool(tool, build / "hls" / "run_hls.tcl", work, log, {"HLS_STEPS": " ".join(steps)})
    solution = work / SOLUTION
    if set(steps) - {"csim"}:
        require(solution / "syn" / "report" / "csynth.xml", tool, log)
    if "export" in steps:
        require(work / EXPORTED, tool, log)
    with atomic_dir(build / REPORT_FOLDER) as folder:
        for path in sorted(solution.glob("*/report/**/*")):
            if path.suffix in (".xml", ".rpt", ".log") and path.is_file():
                shutil.copy(path, folder / path.name)
        shutil.copy(log, folder / log.name)
        write_stamp(folder, design, {"steps": list(steps), "tool": tool.path})
    return build / REPORT_FOLDER


def run_bitstream(build: Path, board_name: str) -> Path:
    """Run Vivado, after Vitis HLS where that has not run; return build/NET/bitstream."""
    board = find_board(board_name)
    tool = find_vivado()
    design = read_design(build)
    script = write_block_design(design, board_name)
    if not has_ip(design):
        run_hls(build, ("csynth", "export"))
    work = build / "vivado"
    shutil.rmtree(work / "out", ignore_errors=True)
    log = work / "vivado.log"
    run_tool(tool, script, work, log, {})
    made = work / "out"
    for name in ("accelerator.bit", "accelerator.hwh", "utilization.rpt", "timing.rpt"):
        require(made / name, tool, log)
    check_handoff(made / "accelerator.hwh", design)
    with atomic_dir(build / BITSTREAM_FOLDER) as folder:
        for path in sorted(made.iterdir()):
            shutil.copy(path, folder / path.name)
        write_stamp(folder, design, {"board": board.name, "tool": tool.path})
    return build / BITSTREAM_FOLDER


def write_block_design(design: Design, board_name: str) -> Path:
    """Render build/NET/vivado/block_design.tcl."""
    text = block_design(design, find_board(board_name))
    path = design.build / "vivado" / "block_design.tcl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return path


def has_ip(design: Design) -> bool:
    """Whether Vitis HLS has exported this design."""
    stamp = read_stamp(design.build / REPORT_FOLDER)
    current = stamp is not None and stamp["sources_sha256"] == design.sources_sha256
    return current and (design.build / "hls_work" / EXPORTED).is_file()


def write_stamp(folder: Path, design: Design, more: dict[str, Any]) -> None:
    """Say in design.json what a folder was made from."""
    stamp = {"design_id": design.design_id, "sources_sha256": design.sources_sha256, **more}
    (folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """design.json of a folder; None where there is none."""
    path = folder / STAMP
    if not path.is_file():
        return None
    try:
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error}); run the tool again") from None
    return stamp


def check_handoff(path: Path, design: Design) -> None:
    """UserError where a .hwh lacks this design's one accelerator with all its interfaces."""
    try:
        modules = ElementTree.parse(path).getroot().iter("MODULE")
    except ElementTree.ParseError as error:
        raise UserError(f"{path} must be XML ({error}); run `make bitstream` again") from None
    found = [module for module in modules if ":hls:accelerator:" in module.get("VLNV", "")]
    if len(found) != 1:
        raise UserError(f"{path} must have one IP of type accelerator, not {len(found)}")
    buses = {bus.get("NAME", ""): bus.get("BUSNAME", "") for bus in found[0].iter("BUSINTERFACE")}
    for name in (f"s_axi_{design.control}", *(f"m_axi_{item}" for item in design.masters)):
        if buses.get(name, "__NOC__") == "__NOC__":  # how a .hwh marks an open interface
            raise UserError(f"{path}: {name} of the accelerator must be connected")
