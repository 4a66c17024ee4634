# SPDX-License-Identifier: Apache-2.0
"""Examples in docs/ are run: the plan file through the parser, the packing example bit by bit."""

import re
from pathlib import Path

import numpy as np

from formats.packing import pack_maps

DOCS = Path(__file__).parents[1] / "docs"


def test_the_plan_example_quantizes_digits(tmp_path):
    from formats.commands import main

    text = re.search(r"```toml\n(.*?)```", (DOCS / "plan.md").read_text(), re.DOTALL)
    assert text
    (tmp_path / "plan.toml").write_text(text.group(1))
    arguments = ["quantize", "NET=digits", "IMAGES=2", f"OUT={tmp_path / 'out'}"]
    assert main([*arguments, f"PLAN={tmp_path / 'plan.toml'}"]) == 0


def test_the_packing_example():
    codes = np.array([1, 2, 3, 4, 5, 6, 7, 0]).reshape(1, 8, 1, 1)
    found = re.search(r"so the bytes are `([0-9a-f ]+)`", (DOCS / "formats.md").read_text())
    assert found
    assert pack_maps(codes, 3)[0, :3].tobytes() == bytes.fromhex(found.group(1))
