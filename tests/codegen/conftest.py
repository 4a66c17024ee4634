# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the code generator's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nuq.codegen.emit import csim
from nuq.formats.commands import main
from nuq.formats.network import Network, load
from tests.toys import Toy, mixed_layers, write_toy


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys compile longer than they run; what users run is compiled as ever in test_flow."""
    monkeypatch.setattr(csim, "FLAGS", tuple(f.replace("-O3", "-O1") for f in csim.FLAGS))


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Path]:
    """Factory: make_toy(Toy(...)) writes quantized/ in a new build folder and returns that."""

    def make(toy: Toy | None = None, name: str = "build") -> Path:
        chosen = toy or Toy(in_shape=(3, 14, 13), layers=mixed_layers())
        write_toy(tmp_path / name / "quantized", chosen)
        return tmp_path / name

    return make


@pytest.fixture
def load_toy(make_toy: Callable[..., Path]) -> Callable[..., Network]:
    """Factory: a toy as codegen reads it."""
    return lambda *arguments: load(make_toy(*arguments) / "quantized")


@pytest.fixture
def generated(make_toy: Callable[..., Path]) -> Callable[..., Path]:
    """Factory: generated(toy, "PE=16") makes a toy and runs codegen; its build folder.

    The hardware may take all of a toy's images in a run.
    """

    def generate(toy: Toy | None = None, *options: str) -> Path:
        build = make_toy(toy)
        batch = f"BATCH={(toy or Toy).images}"
        assert main(["codegen", f"OUT={build}", batch, *options]) == 0
        return build

    return generate
