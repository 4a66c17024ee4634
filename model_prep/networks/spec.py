# SPDX-License-Identifier: Apache-2.0
"""NetworkSpec: what the registry knows about a network; `chain` makes it of a list of layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nuq.formats.activation import RELU
from nuq.formats.arithmetic import Window
from nuq.formats.ending import Output
from nuq.formats.images import Preprocessing, Reader
from nuq.model_prep.graph import INPUT, Codes, Graph, Layer

State = Mapping[str, np.ndarray]


IMAGENET = Preprocessing(256, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the registry."""

    name: str  # what NET= selects
    in_shape: tuple[int, int, int]  # (channels, rows, columns)
    state_shapes: Mapping[str, tuple[int, ...]]  # tensors of a checkpoint by name, in order
    build: Callable[[State], Graph]  # from such a state, float32 arrays
    outputs: int  # number of classes
    preprocessing: Preprocessing
    default_data: str  # what DATA= defaults to, "photographs" or "digits"
    default_scheme: str
    default_bits: str
    # published weights; the file name ends in "-" and the first digits of the file's SHA-256
    url: str | None = None
    packaged: Path | None = None  # weights in this repository
    input_codes: Codes | None = None  # of a file that is quantized, their step a power of two
    results: tuple[Output, ...] = ()  # a file's outputs; none: the values of the last layer
    margins: bool = False  # whether images keep the margin that the recipe cuts away

    def empty(self) -> Graph:
        """The structure; its zero weights take no memory until they are touched."""
        return self.build(
            {name: np.zeros(shape, np.float32) for name, shape in self.state_shapes.items()}
        )

    @property
    def reader(self) -> Reader:
        """What reads images for the network."""
        return Reader(
            self.name, self.in_shape, self.outputs, self.preprocessing, margins=self.margins
        )

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(prod(shape) for shape in self.state_shapes.values())


@dataclass(frozen=True)
class Step:
    """One layer of a chain, with a ReLU unless it is the last."""

    name: str
    out: int  # channels
    kernel: int = 0  # its side; 0 for a fully connected layer, whose kernel covers its input
    stride: int = 1
    pad: int = 0
    pool: Window | None = None
    tensors: str = ""  # prefix of its tensors in a checkpoint, if that is not its name


def chain(
    name: str, in_shape: tuple[int, int, int], steps: Sequence[Step], **recipe: Any
) -> NetworkSpec:
    """A network whose layers read one another in turn.

    Args:
        name, in_shape: of the network.
        steps: its layers.
        recipe: other fields of its NetworkSpec.
    """
    state_shapes: dict[str, tuple[int, ...]] = {}
    kernels = []
    channels, *sides = in_shape
    for step in steps:
        tensors = step.tensors or step.name
        kernel = (step.kernel, step.kernel) if step.kernel else (sides[0], sides[1])
        kernels.append((step.out, channels, *kernel))
        flat = (step.out, prod(kernels[-1][1:]))
        state_shapes[f"{tensors}.weight"] = kernels[-1] if step.kernel else flat
        state_shapes[f"{tensors}.bias"] = (step.out,)
        for window in (_window(step, kernel), step.pool):
            sides = [*window.out_size(*sides)] if window else sides
        channels = step.out

    def build(state: State) -> Graph:
        layers: list[Layer] = []
        for step, kernel in zip(steps, kernels, strict=True):
            tensors = step.tensors or step.name
            window = _window(step, kernel[2:])
            layers.append(Layer(
                step.name, "conv" if step.kernel else "fc",
                (layers[-1].name if layers else INPUT,),
                state[f"{tensors}.weight"].reshape(kernel), state[f"{tensors}.bias"],
                stride=window.stride, pads=window.pads, pool=step.pool,
                activation=RELU if step is not steps[-1] else None,
            ))  # fmt: skip
        return Graph(name, in_shape, layers)

    return NetworkSpec(name, in_shape, state_shapes, build, steps[-1].out, **recipe)


def _window(step: Step, kernel: tuple[int, int]) -> Window:
    return Window(kernel, (step.stride, step.stride), (step.pad,) * 4)
