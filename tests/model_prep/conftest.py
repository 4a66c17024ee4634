# SPDX-License-Identifier: Apache-2.0
"""A small network of the registry's kind, and random tensors for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from formats.arithmetic import Window
from model_prep import networks
from model_prep.graph import INPUT, Graph
from model_prep.networks.spec import (
    NetworkSpec,
    Preprocessing,
    State,
    conv,
    conv_shapes,
    linear,
    linear_shapes,
)

OUTPUTS = 5


def build_small(state: State) -> Graph:
    """Two layers on 3x20x16 images."""
    layers = [
        conv(state, "features.0", "conv1", INPUT, pad=1, pool=Window((2, 2), (2, 2))),
        linear(state, "classifier", "fc2", "conv1", (6, 10, 8), relu=False),
    ]
    return Graph("small", (3, 20, 16), layers)


@pytest.fixture()
def small() -> NetworkSpec:
    """A network whose crop, 20x16, is smaller than its recipe's resizing to 24."""
    return NetworkSpec(
        name="small",
        in_shape=(3, 20, 16),
        state_shapes={
            **conv_shapes("features.0", 6, 3, 3),
            **linear_shapes("classifier", OUTPUTS, 6 * 10 * 8),
        },
        build=build_small,
        preprocessing=Preprocessing(24, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        default_data="photographs",
        default_scheme="knq",
        default_bits="3",
    )


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
