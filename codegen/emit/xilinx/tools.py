# SPDX-License-Identifier: Apache-2.0
"""Finds the vendor's programs and runs them with a log; every failure is one sentence."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from formats.errors import UserError

RELEASE = re.compile(r"20\d\d\.\d")
UNIFIED = "2024.1"  # from this release on vitis-run takes the place of vitis_hls
ERROR_LINE = re.compile(r"^\s*(ERROR|error)\b")
LINE_LIMIT = 200
SETUP = "source the settings64.sh of its installation in this shell"


@dataclass(frozen=True)
class Tool:
    """A program of the vendor and how it runs a Tcl script."""

    path: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program's name."""
        return Path(self.path).name

    def command(self, script: Path) -> list[str]:
        """The command line for a script."""
        return [self.path, *self.arguments, str(script)]


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
        "`make hls` needs Vitis HLS, and neither vitis-run (2024.1 and later) nor vitis_hls "
        f"(2022.2 to 2023.2) is on the PATH; install AMD Vitis and {SETUP}"
    )


def find_vivado() -> Tool:
    """Vivado in batch mode."""
    path = shutil.which("vivado")
    if path is None:
        raise UserError(
            "`make bitstream` needs Vivado 2022.2 or later, and vivado is not on the PATH; "
            f"install AMD Vivado with the board's device family and {SETUP}"
        )
    return Tool(path, ("-mode", "batch", "-source"))


def run_tool(tool: Tool, script: Path, folder: Path, log: Path, extra: Mapping[str, str]) -> None:
    """Run a script in `folder` with everything it prints in `log`.

    Args:
        tool: the program.
        script: the Tcl script.
        folder: working directory; made here.
        log: what the program prints, overwritten.
        extra: environment variables beyond those of this process.

    Raises:
        UserError: the program failed; the text has its first error and where the log is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{tool.name}: {script}; log: {log}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(
            tool.command(script.resolve()),
            cwd=folder,
            env={**os.environ, **extra},
            stdin=subprocess.DEVNULL,  # a tool that stays at its prompt must end
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if status != 0:
        raise UserError(f"{tool.name} failed with status {status}{first_error(log)}; log: {log}")


def first_error(log: Path) -> str:
    """The first error in a log as `: text`, or nothing."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if ERROR_LINE.match(line):
            return f": {line.strip()[:LINE_LIMIT]}"
    return ""


def require(path: Path, tool: Tool, log: Path) -> Path:
    """`path`, which a run must have made."""
    if not path.is_file():
        raise UserError(f"{tool.name} must have made {path}{first_error(log)}; log: {log}")
    return path
