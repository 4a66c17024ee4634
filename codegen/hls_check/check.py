# SPDX-License-Identifier: Apache-2.0
"""The HLS subset: all rules over all files of a design; the command `hls-check`."""

from collections.abc import Iterable
from pathlib import Path

from codegen.hls_check import rules
from codegen.hls_check.dataflow import check_dataflow
from codegen.hls_check.lexer import lex
from codegen.hls_check.syntax import parse
from formats.errors import UserError

RULES: tuple[rules.Rule, ...] = (
    rules.check_head,
    rules.check_parsed,
    rules.check_heap,
    rules.check_recursion,
    rules.check_loops,
    rules.check_arrays,
    rules.check_dynamic,
    rules.check_pointers,
    rules.check_system,
    rules.check_pragmas,
    check_dataflow,
)
SUFFIXES = (".hpp", ".cpp", ".hpp.j2", ".cpp.j2")
# What runs on the PC only.
SIMULATION_ONLY = ("testbench", "emulator", "threads")


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


def check_texts(texts: dict[str, str]) -> list[rules.Finding]:
    """All findings in files of these names and contents, in the order of files and lines."""
    units = tuple(parse(lex(name, text)) for name, text in texts.items())
    program = rules.Program(units)
    return sorted({finding for rule in RULES for finding in rule(program)})


def check_files(paths: Iterable[Path]) -> list[rules.Finding]:
    """All findings in files and folders, which are one design."""
    return check_texts({str(path): path.read_text(encoding="utf-8") for path in find_files(paths)})
