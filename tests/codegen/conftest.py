# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the code generator's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys import Toy, mixed_layers, write_toy


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Path]:
    """Factory: make_toy(Toy(...)) writes quantized/ in a new build folder and returns that."""

    def make(toy: Toy | None = None, name: str = "build") -> Path:
        chosen = toy or Toy(in_shape=(3, 14, 13), layers=mixed_layers())
        write_toy(tmp_path / name / "quantized", chosen)
        return tmp_path / name

    return make
