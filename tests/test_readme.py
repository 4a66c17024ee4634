# SPDX-License-Identifier: Apache-2.0
"""README's commands exist, its files exist, and its figures name their command."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def test_there_are_commands():
    assert "make csim" in COMMANDS and "make test" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_make_knows(command, tmp_path):
    words = command.split()
    assert words[0] == "make"
    done = subprocess.run(
        [*words, "-n", f"OUT={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_make_help_names_every_variable():
    makefile = (ROOT / "Makefile").read_text()
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Variables:")]
    named = line.split()[1:]
    passed = set(re.findall(r"\$\(if \$\(([A-Z_]+)\),", makefile))
    preset = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    assert {"REFINE", "TARGET_DB", "CLNQ"} <= passed
    assert passed <= preset
    assert set(named) == preset
    assert len(named) == len(set(named))


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_no_gap_is_left():
    assert "<!--" not in README


def test_ci_runs_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set", "cd"))]
    assert commands == ["make test"]
