# SPDX-License-Identifier: Apache-2.0
"""All checks of a design's sources; the command `hls-check`.

The rules read sources as written, templates included. A folder with a rendered design is compiled,
too, as Vitis HLS would see it (front_end.py), and what it computes is weighed (operators.py,
recurrence.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nuq.codegen.design.engine import ENGINE
from nuq.codegen.hls_check import (  # noqa: F401  (they register)
    dataflow,
    pipeline,
    ports,
    pragmas,
    region,
    rules,
)
from nuq.codegen.hls_check.delays import SERIES7, Delays, delays_of
from nuq.codegen.hls_check.front_end import TOP, compile_design
from nuq.codegen.hls_check.lexer import lex
from nuq.codegen.hls_check.llvm import parse_module
from nuq.codegen.hls_check.operators import check_operators
from nuq.codegen.hls_check.program import RULES, Finding, Program
from nuq.codegen.hls_check.recurrence import (
    Recurrence,
    check_recurrences,
    find_pipelines,
    recurrences,
)
from nuq.codegen.hls_check.state import check_state
from nuq.codegen.hls_check.syntax import parse
from nuq.formats.errors import UserError

SUFFIXES = (".hpp", ".cpp", ".hpp.j2", ".cpp.j2")
# What runs on the PC only.
SIMULATION_ONLY = ("testbench", "emulator", "processes", "stream", "timing")


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Files, and the sources in folders without those for simulation only."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES)]
            found += [file for file in inside if not file.name.startswith(SIMULATION_ONLY)]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} must be a file or a folder")
    if not found:
        raise UserError("there must be a C++ file to check")
    return found


def check_texts(texts: dict[str, str]) -> list[Finding]:
    """All findings in files of these names and contents, in the order of files and lines."""
    program = Program(tuple(parse(lex(name, text)) for name, text in texts.items()))
    findings = {
        Finding(unit.source.name, line, name, text)
        for name, check in RULES
        for unit in program.units
        for line, text in check(program, unit)
    }
    return sorted(findings)


def check_design(
    texts: Mapping[str, str], top: str = TOP
) -> tuple[list[Finding], list[Recurrence]]:
    """What is wrong in a rendered design once it is compiled, and the times of its loops.

    Args:
        texts: the files of `hls/` by name.
        top: the file of the top function.
    """
    findings, code = compile_design(texts, top)
    if not code:
        return sorted(findings), []
    module = parse_module(code)
    times = recurrences(module, find_pipelines(texts), design_delays(texts))
    findings = [*check_state(module), *check_operators(module), *check_recurrences(times)]
    return sorted(findings), times


def design_delays(texts: Mapping[str, str]) -> Delays:
    """Delays of the part that a design's engine.json names; 7-series where it has none."""
    if ENGINE not in texts:
        return SERIES7
    try:
        device = json.loads(texts[ENGINE])["part"]["device"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{ENGINE} must name the part's device; generate it again") from None
    return delays_of(device)


def read_design_files(folder: Path) -> dict[str, str]:
    """The C++ of a rendered design and its engine.json, by name."""
    files = [path for path in folder.iterdir() if path.name.endswith((*SUFFIXES[:2], ENGINE))]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def check_files(paths: Iterable[Path]) -> tuple[list[Finding], list[Recurrence]]:
    """All findings in files and folders, which are one design; times of the loops of a folder."""
    paths, times = list(paths), []
    findings = check_texts({str(p): p.read_text(encoding="utf-8") for p in find_files(paths)})
    for folder in (path for path in paths if (path / TOP).is_file()):
        found, loops = check_design(read_design_files(folder))
        findings += [replace(item, file=str(folder / item.file)) for item in found]
        times += loops
    return findings, times
