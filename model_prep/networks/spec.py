# SPDX-License-Identifier: Apache-2.0
"""NetworkSpec: what the registry knows about a network; helpers to build its Graph from tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from formats.arithmetic import Window
from formats.images import Preprocessing, Reader
from model_prep.graph import Graph, Layer

State = Mapping[str, np.ndarray]


IMAGENET = Preprocessing(256, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the registry.

    Attributes:
        name: what NET= selects.
        in_shape: (channels, rows, columns) of the input.
        state_shapes: tensor names and shapes of a checkpoint, in order.
        build: Graph from such a state (float32 arrays).
        preprocessing: see Preprocessing.
        default_data: "photographs" or "digits", what DATA= defaults to.
        default_scheme, default_bits: what SCHEME= and BITS= default to.
        url: published weights, or None; the file name ends in "-" and the first digits of the
            file's SHA-256.
        packaged: weights in this repository, or None.
    """

    name: str
    in_shape: tuple[int, int, int]
    state_shapes: Mapping[str, tuple[int, ...]]
    build: Callable[[State], Graph]
    preprocessing: Preprocessing
    default_data: str
    default_scheme: str
    default_bits: str
    url: str | None = None
    packaged: Path | None = None

    @property
    def outputs(self) -> int:
        """Number of classes: the length of the last bias."""
        return list(self.state_shapes.values())[-1][0]

    @property
    def reader(self) -> Reader:
        """What reads images for the network."""
        return Reader(self.name, self.in_shape, self.outputs, self.preprocessing)

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(prod(shape) for shape in self.state_shapes.values())


def conv_shapes(prefix: str, out: int, channels: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """State entries of one convolution.

    >>> conv_shapes("features.0", 64, 3, 11)
    {'features.0.weight': (64, 3, 11, 11), 'features.0.bias': (64,)}
    """
    return {f"{prefix}.weight": (out, channels, kernel, kernel), f"{prefix}.bias": (out,)}


def linear_shapes(prefix: str, out: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """State entries of one fully connected layer.

    >>> linear_shapes("fc", 10, 64)
    {'fc.weight': (10, 64), 'fc.bias': (10,)}
    """
    return {f"{prefix}.weight": (out, inputs), f"{prefix}.bias": (out,)}


def conv(
    state: State, prefix: str, name: str, source: str, stride: int = 1, pad: int = 0,
    pool: Window | None = None,
) -> Layer:  # fmt: skip
    """A convolution layer with ReLU from a checkpoint's tensors."""
    return Layer(
        name=name, kind="conv", inputs=(source,), weight=state[f"{prefix}.weight"],
        bias=state[f"{prefix}.bias"], stride=(stride, stride), pads=(pad, pad, pad, pad), pool=pool,
    )  # fmt: skip


def linear(
    state: State, prefix: str, name: str, source: str, in_shape: tuple[int, int, int],
    relu: bool = True,
) -> Layer:  # fmt: skip
    """A fully connected layer as a convolution whose kernel covers its input map."""
    weight = state[f"{prefix}.weight"]
    return Layer(
        name=name, kind="fc", inputs=(source,), weight=weight.reshape(weight.shape[0], *in_shape),
        bias=state[f"{prefix}.bias"], relu=relu,
    )  # fmt: skip
