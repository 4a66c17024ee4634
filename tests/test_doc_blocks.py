# SPDX-License-Identifier: Apache-2.0
"""Code blocks of README.md and docs/*.md: run as they stand, or marked with what they need.

`<!-- needs: WHAT -->` on the line before a block says that it cannot run here; its command lines
are checked against the table of options, its Python is compiled. `<!-- takes: A MINUTE -->` leaves
it to the slow test, which runs a page whole. Blocks of a page share a folder, and its Python one
session. What a page prints (`text`) is not compared.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from nuq.formats import commands
from nuq.formats.commands import COMMANDS
from tests.checkout import ROOT, needs_compiler

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (needs|takes): [^>]+ -->\n\Z")
CALL = re.compile(r"(?:^| )(?:make|nuq) [a-z].*")
INDENTED = re.compile(r"^    (.*)$", re.MULTILINE)  # a line of an indented block
OTHERS = ("install", "test", "test-all", "fuzz", "lint", "format", "bench", "docs", "help")
RUN = {"python", "sh", "toml"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str  # "", "needs" or "takes"

    @property
    def place(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    page, found = path.read_text(encoding="utf-8"), []
    for match in FENCE.finditer(page):
        mark = MARK.search(page[: match.start()])
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(path.name, line, match[1], match[2], mark[1] if mark else ""))
    assert page.count("\n```") + page.startswith("```") == 2 * len(found), f"{path}: odd fences"
    return found


ALL = [block for path in PAGES for block in blocks(path)]


def command_lines(text: str) -> list[str]:
    """The lines of a shell block that call make or nuq, without comments."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    plain = [re.sub(r"\s#.*", "", line).strip() for line in lines]
    found = [CALL.search(line) for line in plain]
    return [match[0].strip() for match in found if match]


def check_line(line: str) -> None:
    """The command exists and takes these options with these values; raises UserError."""
    words = [word for word in shlex.split(line.split("&&")[0])[1:] if word != "..."]
    names = [word for word in words if "=" not in word]
    if not names or names[0] in OTHERS:
        return
    assert set(names) <= {*COMMANDS}, line
    several = len(names) > 1
    for name in names:
        commands.read_words(name, [word for word in words if "=" in word], lenient=several)


def test_every_block_has_a_language_that_is_run_or_read():
    assert {block.language for block in ALL} <= RUN | {"text"}
    assert len([block for block in ALL if not block.mark and block.language in RUN]) > 8


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_command_lines_are_those_of_the_table(path):
    """Of all blocks, also those that cannot run here, and of indented ones."""
    lines = command_lines("\n".join(INDENTED.findall(path.read_text(encoding="utf-8"))))
    for block in blocks(path):
        lines += command_lines(block.text) if block.language == "sh" else []
        if block.language == "python":
            compile(block.text, block.place, "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
    for line in lines:
        check_line(line)


def test_a_wrong_line_is_found():
    for line in ("make csim BITZ=3", "nuq cism", "make csim CSIM_TYPES=slow"):
        with pytest.raises((AssertionError, ValueError)):
            check_line(line)
    assert command_lines("BOARD_FILES=x make bitstream \\\n  NET=digits  # why\nls\n") == [
        "make bitstream NET=digits"
    ]


def run_page(path: Path, folder: Path, whole: bool) -> str:
    """Run the blocks of a page in a folder; what they print.

    Args:
        path: the page.
        folder: to run in.
        whole: also blocks that take long; else these, and what stands behind them in Python with
            their names, are left out.
    """
    shims = folder / "bin"
    shims.mkdir()
    for name, flag in (("nuq", ""), ("make", " --make")):  # as the Makefile calls it
        (shims / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m nuq{flag} "$@"\n')
        (shims / name).chmod(0o755)
    left_out = {"needs"} if whole else {"needs", "takes"}
    steps = []
    for block in blocks(path):
        if block.mark not in left_out and block.language == "python":
            steps.append(f"exec(compile({block.text!r}, {block.place!r}, 'exec'), session)")
        elif block.mark not in left_out and block.language == "sh":
            script = f"set -e\n{block.text}"
            steps.append(f"subprocess.run(['bash', '-c', {script!r}], check=True)")
    program = "import subprocess\nsession = {'__name__': 'page'}\n" + "\n".join(steps)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment |= {
        "PATH": f"{shims}:{environment['PATH']}", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


RUNNABLE = [
    path for path in PAGES if any(block.language in ("sh", "python") for block in blocks(path))
]


def test_the_tutorial_runs_but_for_what_takes_minutes(tmp_path):
    said = run_page(ROOT / "docs" / "tutorial.md", tmp_path, whole=False)
    assert "own: input 1x8x8, 10 outputs, 3 layers (2 conv, 1 fc), 6,090 parameters" in said
    float_top1 = re.search(r"float \(onnxruntime\) +([\d.]+)", said)
    integer_top1 = re.search(r"integer reference +([\d.]+)", said)
    assert float_top1 and integer_top1
    assert float(float_top1[1]) > 90 and float(integer_top1[1]) > float(float_top1[1]) - 3
    assert (tmp_path / "build" / "own" / "plan.toml").is_file()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_a_page_runs_whole(path, tmp_path):
    said = run_page(path, tmp_path, whole=True)
    if path.stem == "tutorial":
        assert said.count("PASSED: every layer is bit-exact") >= 1
        assert (tmp_path / "own.zip").is_file()
