# SPDX-License-Identifier: Apache-2.0
"""Small networks whose maps are multiplied by others: a number for each channel, or a gate."""

from collections.abc import Callable

import numpy as np
from cases import IMAGE, weight
from onnx import ModelProto, NodeProto
from onnx_models import build, node

CHANNELS, FEW = 20, 6


def squeezed(gate: str, pooled: str = "GlobalAveragePool") -> list[NodeProto]:
    """From a map `a` to a number for each of its channels, `g`: mean, two convolutions, a gate."""
    mean = node(pooled, "a", "m")
    if pooled == "ReduceMean":
        mean = node(pooled, "a", "m", axes=[-1, -2])
    return [
        mean, node("Conv", "m s1 q1", "s"), node("Relu", "s", "sr"), node("Conv", "sr s2 q2", "e"),
        node(gate, "e", "g"),
    ]  # fmt: skip


def around(first: list[NodeProto], middle: list[NodeProto], last: str = "p") -> ModelProto:
    """Convolution `c`, `first`, which makes `a` of it, `middle`, a convolution and a classifier."""
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]), *first, *middle,
        node("Conv", f"{last} w2", "z"), node("GlobalAveragePool", "z", "zm"),
        node("Flatten", "zm", "f"), node("Gemm", "f w3", "y", transB=1),
    ]  # fmt: skip
    shapes = {
        "w1": (CHANNELS, 3, 3, 3), "b1": (CHANNELS,), "w2": (16, CHANNELS, 1, 1), "w3": (10, 16),
        "s1": (FEW, CHANNELS, 1, 1), "q1": (FEW,), "s2": (CHANNELS, FEW, 1, 1), "q2": (CHANNELS,),
        "w4": (CHANNELS, 3, 3, 3), "g1": (FEW, CHANNELS), "g2": (CHANNELS, FEW),
    }  # fmt: skip
    constants = {name: weight(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    constants["to_map"] = np.array([1, CHANNELS, 1, 1])
    used = {name for one in nodes for name in one.input}
    return build(nodes, {n: v for n, v in constants.items() if n in used}, IMAGE, 14)


RELU = [node("Relu", "c", "a")]


def squeeze_and_excitation() -> ModelProto:
    """As in RegNet-Y: ReLU in front, a Sigmoid."""
    return around(RELU, [*squeezed("Sigmoid"), node("Mul", "g a", "p")])


def hard_squeeze_and_excitation() -> ModelProto:
    """As in MobileNet v3: HardSwish in front, a HardSigmoid, the mean by ReduceMean."""
    return around(
        [node("HardSwish", "c", "a")],
        [*squeezed("HardSigmoid", "ReduceMean"), node("Mul", "a g", "p")],
    )


def residual_excitation() -> ModelProto:
    """As in EfficientNet: SiLU in front, in parts, and a sum behind the product."""
    silu = [node("Sigmoid", "c", "n"), node("Mul", "c n", "a")]
    return around(
        silu, [*squeezed("Sigmoid"), node("Mul", "a g", "v"), node("Add", "v a", "p")]
    )  # fmt: skip


def flat_excitation() -> ModelProto:
    """The numbers by fully connected layers, and made a map again; a ReLU behind the product."""
    return around(
        [node("Tanh", "c", "a")],
        [
            node("GlobalAveragePool", "a", "m"), node("Flatten", "m", "v"),
            node("Gemm", "v g1", "h", transB=1), node("Relu", "h", "hr"),
            node("Gemm", "hr g2", "e", transB=1), node("Sigmoid", "e", "g"),
            node("Reshape", "g to_map", "gm"), node("Mul", "a gm", "v2"), node("Relu", "v2", "p"),
        ],
    )  # fmt: skip


def gated_map() -> ModelProto:
    """A map times another one of its size, as gated linear units have it."""
    gate = [node("Conv", "x w4", "d", pads=[1, 1, 1, 1]), node("Sigmoid", "d", "g")]
    return around(RELU, [*gate, node("Mul", "a g", "p")])


def channels_last_excitation() -> ModelProto:
    """As tf2onnx writes it: the product is with channels last."""
    return around(
        RELU,
        [
            *squeezed("Sigmoid"), node("Transpose", "a", "t", perm=[0, 2, 3, 1]),
            node("Transpose", "g", "u", perm=[0, 2, 3, 1]), node("Mul", "t u", "v"),
            node("Transpose", "v", "p", perm=[0, 3, 1, 2]),
        ],
    )  # fmt: skip


GATES: dict[str, Callable[[], ModelProto]] = {
    made.__name__: made
    for made in (
        squeeze_and_excitation, hard_squeeze_and_excitation, residual_excitation,
        flat_excitation, gated_map, channels_last_excitation,
    )
}  # fmt: skip
