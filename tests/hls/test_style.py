# SPDX-License-Identifier: Apache-2.0
"""House style of the HLS sources, checked as text: labels, pragmas, synthesizable subset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "hls_templates"
SIMULATION_ONLY = {"testbench.hpp", "testbench.cpp.j2", "threads.hpp"}
SOURCES = sorted(
    path
    for path in [
        *TEMPLATES.glob("*/*.hpp"),
        *TEMPLATES.glob("[!r]*/*.cpp.j2"),
        *TEMPLATES.glob("rendered/*.?pp.j2"),
    ]
    if path.name not in SIMULATION_ONLY
)
LABEL = re.compile(r"^\s*(?!public|private)[a-z]\w*:$")
# Pragmas that need no reason: they restate the source.
PLAIN = ("LOOP_TRIPCOUNT", "INTERFACE", "INLINE")


def synthesized(text: str) -> list[str]:
    """The lines that a synthesis tool sees: no comments, no branch for simulation only."""
    lines: list[str] = []
    branches: list[bool] = []  # of the #if levels we are in: whether synthesis takes the branch
    for line in text.splitlines():
        words = line.split()
        if line.startswith("#if"):
            simulation = words == ["#ifndef", "__SYNTHESIS__"]
            branches.append(not simulation)
        elif line.startswith("#else"):
            branches[-1] = not branches[-1] or "#ifdef __SYNTHESIS__" not in text
        elif line.startswith("#endif"):
            branches.pop()
        lines.append(re.sub(r"//.*", "", line) if all(branches) else "")
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_loop_has_a_label(path):
    lines = path.read_text().splitlines()
    unlabelled = [
        f"{path.name}:{number + 1}: {line.strip()}"
        for number, line in enumerate(lines)
        if re.match(r"\s*(for|while) \(", line) and not LABEL.match(lines[number - 1])
    ]
    assert unlabelled == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_labels_are_unique_in_a_file(path):
    labels = [line.strip() for line in path.read_text().splitlines() if LABEL.match(line)]
    assert sorted(labels) == sorted(set(labels))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_pragma_stands_alone_and_says_why(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "#pragma" not in line:
            continue
        assert line.startswith("#pragma HLS "), f"{path.name}:{number} must be a line of its own"
        if line.split()[2] not in PLAIN:
            assert "//" in line, f"{path.name}:{number} must give the reason of its pragma"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_pipelined_loops_are_innermost_or_fully_unrolled_inside(path):
    """Every loop says PIPELINE, UNROLL, DATAFLOW or how often it runs."""
    lines = path.read_text().splitlines()
    silent = []
    for number, line in enumerate(lines):
        if re.match(r"\s*for \(", line):
            body = number
            while not lines[body].rstrip().endswith("{"):
                body += 1
            if not lines[body + 1].startswith("#pragma HLS"):
                silent.append(f"{path.name}:{number + 1}")
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "word", ["std::", "new ", "malloc", "while (", "virtual", "float", "double"]
)
def test_synthesizable_subset(path, word):
    lines = synthesized(path.read_text())
    used = [f"{path.name}:{n + 1}: {line}" for n, line in enumerate(lines) if word in line]
    assert used == []


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*/*.hpp")), ids=lambda path: path.name)
def test_headers_open_with_licence_and_purpose(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "// SPDX-License-Identifier: Apache-2.0"
    assert lines[1].startswith("// ") and lines[2].startswith("// ")
    assert any(line.startswith("#ifndef " + path.stem.upper() + "_HPP") for line in lines)
