# SPDX-License-Identifier: Apache-2.0
"""The two runs: Vitis HLS from build/NET/hls to hls_report, Vivado from there to bitstream.

Folders under build/NET: hls_work and vivado are the tools' own and stay after a failure; hls_report
and bitstream appear whole, with design.json that says what they were made from. Every failure of a
tool is one sentence.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from nuq.codegen.emit.xilinx.block_design import read_interfaces, write_block_design
from nuq.formats.build import atomic_dir, sources_digest
from nuq.formats.design import read_design, read_stamp, write_stamp
from nuq.formats.errors import UserError, call
from nuq.formats.hardware import find_board

DEFAULT_STEPS = ("csim", "csynth", "export")
COSIM_MACS = 5_000_000  # of one image: beyond that an RTL simulation takes days
SOLUTION = Path("accelerator_prj") / "solution1"
EXPORTED = SOLUTION / "impl" / "ip" / "component.xml"
REPORT_FOLDER, BITSTREAM_FOLDER = "hls_report", "bitstream"
RELEASE = re.compile(r"20\d\d\.\d")
UNIFIED = "2024.1"  # from this release on vitis-run takes the place of vitis_hls
ERROR_LINE = re.compile(r"^\s*(ERROR|error)\b")
LINE_LIMIT = 300  # characters of a log line that a message quotes
SETUP = "source the settings64.sh of its installation in this shell"


@dataclass(frozen=True)
class Tool:
    """A program of the vendor, and its arguments before a Tcl script."""

    path: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program's name."""
        return Path(self.path).name

    def run(self, script: Path, folder: Path, **extra: str) -> Path:
        """Run a script in `folder`, made here; return the log of everything that it prints.

        Args:
            script: the Tcl script.
            folder: working directory.
            extra: environment variables beyond those of this process.

        Raises:
            UserError: the program failed; the text has its first error and where the log is.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{self.name}.log"
        print(f"{self.name}: {script}; log: {log}", flush=True)
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(
                [self.path, *self.arguments, str(script.resolve())],
                cwd=folder,
                env={**os.environ, **extra},
                stdin=subprocess.DEVNULL,  # a tool that stays at its prompt must end
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if status != 0:
            raise UserError(f"{self.name} failed with status {status}{_first_error(log)}")
        return log

    def require(self, path: Path, log: Path) -> None:
        """UserError where a run has not made `path`."""
        if not path.is_file():
            raise UserError(f"{self.name} must have made {path}{_first_error(log)}")


def _first_error(log: Path) -> str:
    """The end of a message: the first error in a log, where there is one, and the log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [f": {line.strip()[:LINE_LIMIT]}" for line in lines if ERROR_LINE.match(line)]
    return f"{''.join(errors[:1])}; log: {log}"


def release_of(path: str) -> str | None:
    """The release in an installation's path, which has a folder of that name.

    >>> release_of("/tools/Xilinx/Vitis/2024.1/bin/vitis-run"), release_of("/usr/bin/vitis_hls")
    ('2024.1', None)
    """
    found = RELEASE.search(str(Path(path).resolve()))
    return found[0] if found else None


def find_hls() -> Tool:
    """Vitis HLS: vitis-run of 2024.1 and later, else vitis_hls."""
    unified, classic = shutil.which("vitis-run"), shutil.which("vitis_hls")
    if unified is not None:
        release = release_of(unified)
        if classic is None or (release is not None and release >= UNIFIED):
            return Tool(unified, ("--mode", "hls", "--tcl"))
    if classic is not None:
        return Tool(classic, ("-f",))
    raise UserError(
        f"{call('hls')} needs Vitis HLS, and neither vitis-run (2024.1 and later) nor vitis_hls "
        f"(2022.2 to 2023.2) is on the PATH; install AMD Vitis and {SETUP}"
    )


def find_vivado() -> Tool:
    """Vivado in batch mode."""
    path = shutil.which("vivado")
    if path is None:
        raise UserError(
            f"{call('bitstream')} needs Vivado 2022.2 or later, and vivado is not on the PATH; "
            f"install AMD Vivado with the board's device family and {SETUP}"
        )
    return Tool(path, ("-mode", "batch", "-source"))


def run_hls(build: Path, steps: Sequence[str] = DEFAULT_STEPS) -> Path:
    """Run Vitis HLS; return build/NET/hls_report."""
    tool, design = find_hls(), read_design(build)
    macs = sum(layer.macs for layer in design.layers)
    if "cosim" in steps and macs > COSIM_MACS:
        raise UserError(
            f"cosim must have a network of at most {COSIM_MACS:,} multiply-accumulates, "
            f"not {macs:,} ({design.network}); leave it out of HLS_STEPS, or use NET=digits"
        )
    work = build / "hls_work"
    log = tool.run(build / "hls" / "run_hls.tcl", work, HLS_STEPS=" ".join(steps))
    solution = work / SOLUTION
    if set(steps) - {"csim"}:
        tool.require(solution / "syn" / "report" / "csynth.xml", log)
    if "export" in steps:
        tool.require(work / EXPORTED, log)
    with atomic_dir(build / REPORT_FOLDER) as folder:
        for path in sorted(solution.glob("*/report/**/*")):
            if path.suffix in (".xml", ".rpt", ".log") and path.is_file():
                shutil.copy(path, folder / path.name)
        shutil.copy(log, folder / log.name)
        write_stamp(folder, build, steps=list(steps), tool=tool.path)
    return build / REPORT_FOLDER


def synthesize(build: Path) -> None:
    """Run Vitis HLS where its IP is missing or older than the sources."""
    if not has_ip(build):
        run_hls(build, ("csynth", "export"))


def run_bitstream(build: Path, board_name: str) -> Path:
    """Run Vivado, after Vitis HLS where that has not run; return build/NET/bitstream."""
    board, tool = find_board(board_name), find_vivado()
    script = write_block_design(build, board_name)
    synthesize(build)
    work = build / "vivado"
    made = work / "out"
    shutil.rmtree(made, ignore_errors=True)
    log = tool.run(script, work)
    for name in ("accelerator.bit", "accelerator.hwh", "utilization.rpt", "timing.rpt"):
        tool.require(made / name, log)
    check_handoff(made / "accelerator.hwh", build)
    with atomic_dir(build / BITSTREAM_FOLDER) as folder:
        for path in sorted(made.iterdir()):
            shutil.copy(path, folder / path.name)
        write_stamp(folder, build, board=board.name, tool=tool.path)
    return build / BITSTREAM_FOLDER


def has_ip(build: Path) -> bool:
    """Whether Vitis HLS has exported the sources that stand in build/NET/hls."""
    stamp = read_stamp(build / REPORT_FOLDER)
    current = stamp is not None and stamp["sources_sha256"] == sources_digest(build / "hls")
    return current and (build / "hls_work" / EXPORTED).is_file()


def check_handoff(path: Path, build: Path) -> None:
    """UserError where a .hwh lacks the design's one accelerator with all its interfaces."""
    try:
        modules = ElementTree.parse(path).getroot().iter("MODULE")
    except ElementTree.ParseError as error:
        raise UserError(f"{path} must be XML ({error}); run {call('bitstream')} again") from None
    cells = [module for module in modules if ":hls:accelerator:" in module.get("VLNV", "")]
    if len(cells) != 1:
        raise UserError(f"{path} must have one IP of type accelerator, not {len(cells)}")
    buses = {bus.get("NAME", ""): bus.get("BUSNAME", "") for bus in cells[0].iter("BUSINTERFACE")}
    masters, control = read_interfaces(build)
    for name in (f"s_axi_{control}", *(f"m_axi_{item}" for item in masters)):
        if buses.get(name, "__NOC__") == "__NOC__":  # how a .hwh marks an open interface
            raise UserError(f"{path}: {name} of the accelerator must be connected")
