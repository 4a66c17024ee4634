# SPDX-License-Identifier: Apache-2.0
"""Small networks with activations other than a ReLU, as people bring them."""

from collections.abc import Callable

import numpy as np
from cases import Built, weight
from onnx import ModelProto, NodeProto
from onnx_models import build, node

IMAGE = (1, 3, 12, 12)


def _conv(source: str, name: str, size: int = 3) -> NodeProto:
    return node("Conv", f"{source} w_{name}", name, pads=[size // 2] * 4)


def _silu(source: str, name: str) -> list[NodeProto]:
    """As exporters write it."""
    return [node("Sigmoid", source, f"s_{name}"), node("Mul", f"{source} s_{name}", name)]


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"w_{name}": weight(len(name), *shape) for name, shape in shapes.items()}


def _head(source: str, channels: int) -> Built:
    """Mean over the map and a fully connected layer."""
    nodes = [node("GlobalAveragePool", source, "m"), node("Flatten", "m", "f"),
             node("Gemm", "f w_y", "y", transB=1)]  # fmt: skip
    return nodes, {"w_y": weight(9, 10, channels)}


def leaky_detector() -> ModelProto:
    """Convolutions, LeakyReLUs and max pools, as in Darknet; the values of a grid."""
    nodes = []
    for index, source in enumerate(("x", "p0")):
        nodes += [
            _conv(source, f"c{index}"), node("LeakyRelu", f"c{index}", f"l{index}", alpha=0.1),
            node("MaxPool", f"l{index}", f"p{index}", kernel_shape=[2, 2], strides=[2, 2]),
        ]  # fmt: skip
    shapes = {"c0": (16, 3, 3, 3), "c1": (24, 16, 3, 3), "yes": (30, 24, 1, 1)}
    nodes.append(node("Conv", "p1 w_yes", "y"))
    return build(nodes, _weights(**shapes), IMAGE)


def hidden_tanh() -> ModelProto:
    """Fully connected layers with a Tanh and a Sigmoid between them."""
    nodes = [
        _conv("x", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"), node("Gemm", "f w_one", "one", transB=1),
        node("Tanh", "one", "t"), node("Gemm", "t w_three", "three", transB=1),
        node("Sigmoid", "three", "s"), node("Gemm", "s w_y", "y", transB=1),
    ]  # fmt: skip
    shapes = {"c": (16, 3, 3, 3), "one": (32, 16), "three": (12, 32), "y": (5, 12)}
    return build(nodes, _weights(**shapes), IMAGE)


def silu_stages() -> ModelProto:
    """As in YOLO: SiLU, a shortcut, a concatenation of its parts, pools joined with their map."""
    nodes = [
        _conv("x", "c"), *_silu("c", "a"), _conv("a", "cc"), *_silu("cc", "b"),
        node("Add", "a b", "d"), node("Concat", "a d b", "k", axis=1), _conv("k", "ccc", 1),
        *_silu("ccc", "e"),
        *[node("MaxPool", source, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
          for source, name in (("e", "p"), ("p", "q"))],
        node("Concat", "e p q", "j", axis=1), _conv("j", "cccc", 1), *_silu("cccc", "h"),
    ]  # fmt: skip
    shapes = {"c": (16, 3, 3, 3), "cc": (16, 16, 3, 3), "ccc": (16, 48, 1, 1),
              "cccc": (16, 48, 1, 1)}  # fmt: skip
    end, more = _head("h", 16)
    return build([*nodes, *end], _weights(**shapes) | more, IMAGE)


def many_functions() -> ModelProto:
    """Functions that rise in one concatenation, others one after the other; odd channels."""
    nodes = [
        _conv("x", "c"), node("Elu", "c", "a"), _conv("x", "cc"), node("Tanh", "cc", "b"),
        _conv("x", "ccc"), node("HardSigmoid", "ccc", "d"), node("Concat", "a b d", "k", axis=1),
        node("MaxPool", "k", "kp", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), _conv("kp", "eeeee"),
        _conv("k", "e"), node("Add", "e eeeee", "u"), node("HardSwish", "u", "g"),
        _conv("g", "ee"), node("Sigmoid", "ee", "h"),
        _conv("g", "eee"), node("Softplus", "eee", "i"), node("Add", "h i", "j"),
        node("Clip", "j low high", "o"),
        node("AveragePool", "o", "q", kernel_shape=[2, 2], strides=[2, 2]), node("Tanh", "q", "r"),
        node("LRN", "r", "s", size=3, alpha=1e-2), _conv("s", "eeee"), node("Mish", "eeee", "t"),
    ]  # fmt: skip
    shapes = {"c": (8, 3, 3, 3), "cc": (16, 3, 3, 3), "ccc": (8, 3, 3, 3), "e": (13, 32, 3, 3),
              "eeeee": (13, 32, 3, 3), "ee": (5, 13, 3, 3), "eee": (5, 13, 3, 3),
              "eeee": (16, 5, 3, 3)}  # fmt: skip
    limits = {"low": np.float32(-0.5), "high": np.float32(2.0)}
    end, more = _head("t", 16)
    return build([*nodes, *end], _weights(**shapes) | more | limits, IMAGE, opset=18)


ACTIVATIONS: dict[str, Callable[[], ModelProto]] = {
    made.__name__: made for made in (leaky_detector, hidden_tanh, silu_stages, many_functions)
}
