# SPDX-License-Identifier: Apache-2.0
"""Finds and runs Yosys and the C++ compiler; both are optional until something here is called.

The PyPI package pyosys comes first, because requirements.txt pins its version and figures depend on
it; a `yosys` on the PATH is second.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from formats.errors import UserError

# Runs in a process of its own: a Yosys error ends the process that it happens in.
PYOSYS = (
    "import sys; from pyosys import libyosys as ys; "
    "ys.run_pass('script ' + sys.argv[1], ys.Design())"
)


@dataclass(frozen=True)
class Yosys:
    """An installed Yosys.

    Attributes:
        command: how to run a script file (its name is appended).
        share: folder of cell libraries and simulation headers, None where unknown.
    """

    command: tuple[str, ...]
    share: Path | None


@cache
def find_yosys() -> Yosys:
    """The Yosys to use; UserError names what to install."""
    spec = importlib.util.find_spec("pyosys")
    if spec and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        return Yosys((sys.executable, "-c", PYOSYS), folder / "share")
    program = shutil.which("yosys")
    if program:
        share = Path(program).resolve().parents[1] / "share" / "yosys"
        return Yosys((program, "-QT", "-s"), share if share.is_dir() else None)
    raise UserError(
        "Yosys must be installed to synthesize the conversion units: neither the Python package "
        "pyosys nor a program yosys on the PATH was found; `pip install pyosys` (or Debian: "
        "apt-get install yosys yosys-dev)"
    )


def has_yosys() -> bool:
    """Whether Yosys can be run."""
    try:
        find_yosys()
    except UserError:
        return False
    return True


def run_yosys(script: str, folder: Path, timeout: float = 3600.0) -> str:
    """Run a script in a folder; return what Yosys printed.

    Args:
        script: commands, one a line.
        folder: where file names are resolved.
        timeout: seconds.

    Raises:
        UserError: with the last words of Yosys, where it fails.
    """
    path = folder / "script.ys"
    path.write_text(script)
    done = subprocess.run(
        [*find_yosys().command, path.name], cwd=folder, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        last = errors[-1] if errors else f"status {done.returncode}"
        raise UserError(f"Yosys must accept its script, but ended with {last}")
    return done.stdout


@cache
def yosys_version() -> str:
    """Name and version of the Yosys in use, as it signs its files."""
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        run_yosys("write_json empty.json\n", Path(name))
        creator = json.loads((Path(name) / "empty.json").read_text())["creator"]
    return " ".join(str(creator).split()[:2])


def cxxrtl_flags() -> list[str]:
    """Compiler flags for the headers of Yosys' C++ simulation; UserError names what is missing."""
    share = find_yosys().share
    found = sorted((share / "include").rglob("cxxrtl.h")) if share else []
    if not found:
        raise UserError(
            "Yosys must come with its CXXRTL headers to simulate the conversion units; "
            "`pip install pyosys` (or Debian: apt-get install yosys-dev)"
        )
    return [f"-I{found[0].parent}", f"-I{found[0].parents[1]}"]
