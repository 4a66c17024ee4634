# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the conversion units' tests: a skip that names what is missing."""

import pytest

from codegen.units.yosys import has_yosys


@pytest.fixture
def yosys() -> None:
    """Skips where no Yosys is installed."""
    if not has_yosys():
        pytest.skip("needs Yosys: `pip install pyosys`, or a program yosys on the PATH")
