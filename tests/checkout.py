# SPDX-License-Identifier: Apache-2.0
"""The checkout under test: its folder, the optional data beside it, its commands."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX") or "g++") is None, reason="needs g++, or a compiler in CXX"
)
needs_yosys = pytest.mark.skipif(
    not (find_spec("pyosys") or shutil.which("yosys")),
    reason="needs Yosys: `pip install pyosys`, or a program yosys on the PATH",
)
needs_mkdocs = pytest.mark.skipif(
    not find_spec("mkdocs"), reason="needs mkdocs: `.venv/bin/pip install mkdocs`"
)
needs_clang = pytest.mark.skipif(
    not find_spec("ziglang"), reason="needs clang of the package ziglang: `pip install ziglang`"
)


def shared(name: str) -> Path:
    """A file of the optional folder ../shared; skips the test where it is missing."""
    path = ROOT.parent / "shared" / name
    if not path.is_file():
        pytest.skip(f"needs ../shared/{name} beside the checkout")
    return path


def paper_tables() -> dict[str, Any]:
    """The tables of the papers; skips the test where they are missing."""
    tables: dict[str, Any] = json.loads(shared("papers/tables.json").read_text())
    return tables


def execute(
    *command: str | Path,
    folder: Path = ROOT,
    status: int | None = None,
    seconds: float = 3600,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a program and keep what it prints; asserts its exit status where one is given."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=seconds,
        env={**inherited, **environment}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a failed run; asserts that there is exactly one and the status is 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def make(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`make` in the checkout's folder."""
    return execute("make", *words, **options)


def python(*words: str | Path, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """This Python with arguments, as `python("-m", "nuq.codegen", "codegen", f"OUT={out}")`."""
    return execute(sys.executable, *words, status=status, **options)
