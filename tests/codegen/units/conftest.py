# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the conversion units' tests."""

import pytest

from codegen.units.synthesis import find_yosys
from formats.errors import UserError


@pytest.fixture
def yosys() -> None:
    """Skips, naming what is missing, where no Yosys is installed."""
    try:
        find_yosys()
    except UserError as error:
        pytest.skip(str(error))
