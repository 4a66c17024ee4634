# SPDX-License-Identifier: Apache-2.0
"""The import rules of pyproject.toml fail where they are broken; `make lint` holds the sources."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT, execute

FOLDERS = ("formats", "model_prep", "codegen", "board", "nuq")
# (file, import that breaks the rule, first words of the rule), together and the circle by itself
APART = [
    ("formats/errors.py", "import scipy", "formats imports numpy only"),
    ("board/errors.py", "import jinja2", "board imports formats"),
    ("codegen/emit/page.py", "import torch", "codegen knows networks by files only"),
    (
        "model_prep/stats.py",
        "import nuq.codegen",
        "model_prep knows codegen and bo",
    ),
    (
        "model_prep/run.py",
        "import nuq.model_prep.study.papers",
        "nothing of the product imports the st",
    ),
    (
        "codegen/emit/csim.py",
        "import nuq.codegen.units.cost",
        "nothing of the product imports the e",
    ),
]
CIRCLE = [("formats/errors.py", "import nuq.formats.build", "no circles")]


def test_nothing_is_imported_under_another_name(tmp_path):
    """One name for what is installed: another project may have a package `board`, too."""
    (tmp_path / "a.py").write_text("import formats.build\nfrom board import driver\n")
    ruff, rules = Path(sys.executable).with_name("ruff"), ROOT / "pyproject.toml"
    done = execute(ruff, "check", "--no-cache", "--config", rules, tmp_path / "a.py", status=1)
    assert done.stdout.count("one name for what is installed") == 2, done.stdout


@pytest.mark.parametrize("seeded", [APART, CIRCLE], ids=["directions", "circle"])
def test_a_violation_of_each_rule_is_found(seeded, tmp_path):
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__", "*.pth"))  # fmt: skip
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, line, _ in seeded:
        path = tmp_path / name
        path.write_text(path.read_text() + f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    broken = re.findall(r"^(.*) BROKEN", done.stdout, re.MULTILINE)
    assert done.returncode == 1, done.stdout + done.stderr
    for _, _, rule in seeded:
        assert any(name.startswith(rule) for name in broken), (rule, done.stdout)
