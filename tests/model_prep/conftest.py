# SPDX-License-Identifier: Apache-2.0
"""A small network of the registry's kind, and random tensors for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nuq.formats.arithmetic import Window
from nuq.model_prep import networks
from nuq.model_prep.networks.spec import NetworkSpec, Preprocessing, Step, chain


@pytest.fixture()
def small() -> NetworkSpec:
    """Two layers; the crop, 20x16, is smaller than the recipe's resizing to 24."""
    steps = [
        Step("conv1", 6, 3, pad=1, pool=Window((2, 2), (2, 2)), tensors="features.0"),
        Step("fc2", 5, tensors="classifier"),
    ]
    return chain(
        "small", (3, 20, 16), steps, default_data="photographs", default_scheme="knq",
        preprocessing=Preprocessing(24, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        default_bits="3",
    )  # fmt: skip


@pytest.fixture()
def digits() -> NetworkSpec:
    return networks.get("digits")


@pytest.fixture()
def state(small: NetworkSpec) -> dict[str, torch.Tensor]:
    """A fitting checkpoint's contents."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=generator) for name, shape in small.state_shapes.items()
    }


@pytest.fixture()
def checkpoint(tmp_path: Path) -> Callable[[object], Path]:
    """Saves anything with torch.save; returns the path."""

    def save(content: object, name: str = "weights.pth") -> Path:
        path = tmp_path / name
        torch.save(content, path)
        return path

    return save
