# SPDX-License-Identifier: Apache-2.0
"""The HLS subset: all rules over all files of a design; the command `hls-check`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codegen.hls_check import dataflow, pragmas, rules  # noqa: F401  (they register their rules)
from codegen.hls_check.lexer import lex
from codegen.hls_check.program import RULES, Program
from codegen.hls_check.syntax import parse
from formats.errors import UserError

SUFFIXES = (".hpp", ".cpp", ".hpp.j2", ".cpp.j2")
# What runs on the PC only.
SIMULATION_ONLY = ("testbench", "emulator", "processes")


@dataclass(frozen=True, order=True)
class Finding:
    """One violation."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


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


def check_files(paths: Iterable[Path]) -> list[Finding]:
    """All findings in files and folders, which are one design."""
    return check_texts({str(path): path.read_text(encoding="utf-8") for path in find_files(paths)})
