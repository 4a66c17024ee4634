# SPDX-License-Identifier: Apache-2.0
"""Activations of ONNX files: operators, what exporters write in parts, and where they may stand."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto
from onnx_models import build, compare, node, random, save

from nuq.formats.errors import UserError
from nuq.model_prep.onnx import load_onnx

CONV = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
CONSTANTS = {
    "w": random(1, 8, 4, 3, 3) / 6, "v": random(2, 16, 8, 3, 3) / 8, "u": random(3, 5, 16, 1, 1),
    "one": np.float32(1), "half": np.float32(0.5), "three": np.float32(3), "six": np.float32(6),
    "zero": np.float32(0), "cube": np.float32(0.044715), "low": np.float32(-0.2),
    "root2": np.float32(2**0.5), "third": np.float32(1 / 6), "tanh": np.float32((2 / np.pi) ** 0.5),
    "slope": np.full((8, 1, 1), 0.25, np.float32), "slopes": np.arange(8, dtype=np.float32),
}  # fmt: skip


def parts(*nodes: str, output: str = "a") -> list[NodeProto]:
    """Nodes from "Op inputs": each output is called by its number, the last one `output`."""
    return [
        node(*text.split(" ", 1), str(index) if index < len(nodes) - 1 else output)
        for index, text in enumerate(nodes)
    ]


# (what is behind the convolution c, the function that it becomes)
WHOLE: dict[str, tuple[list[NodeProto], str]] = {
    "LeakyRelu": ([node("LeakyRelu", "c", "a", alpha=0.1)], "leaky_relu(alpha=0.1)"),
    "a slope of 0": ([node("LeakyRelu", "c", "a", alpha=0.0)], "relu"),
    "Elu": ([node("Elu", "c", "a")], "elu(alpha=1)"),
    "Selu": ([node("Selu", "c", "a")], "selu(alpha=1.67326, gamma=1.0507)"),
    "Celu": ([node("Celu", "c", "a", alpha=0.5)], "celu(alpha=0.5)"),
    "ThresholdedRelu": ([node("ThresholdedRelu", "c", "a", alpha=0.3)],
                        "thresholded_relu(alpha=0.3)"),
    "Sigmoid": ([node("Sigmoid", "c", "a")], "sigmoid"),
    "Tanh": ([node("Tanh", "c", "a")], "tanh"),
    "HardSigmoid": ([node("HardSigmoid", "c", "a", alpha=0.3)],
                    "hard_sigmoid(alpha=0.3, beta=0.5)"),
    "Softplus": ([node("Softplus", "c", "a")], "softplus"),
    "Softsign": ([node("Softsign", "c", "a")], "softsign"),
    "HardSwish": ([node("HardSwish", "c", "a")], "hard_swish"),
    "Mish": ([node("Mish", "c", "a")], "mish"),
    "PRelu": ([node("PRelu", "c slope", "a")], "leaky_relu(alpha=0.25)"),
    "Clip": ([node("Clip", "c low half", "a")], "clip(low=-0.2, high=0.5)"),
    "Clip above": ([node("Clip", "c _ half", "a")], "clip(low=-3e+38, high=0.5)"),
    "Clip below": ([node("Clip", "c half", "a")], "clip(low=0.5, high=3e+38)"),
}  # fmt: skip
ERF = ("Div c root2", "Erf 0", "Add 1 one")
IN_PARTS: dict[str, tuple[list[NodeProto], str]] = {
    "SiLU": (parts("Sigmoid c", "Mul c 0"), "silu(alpha=1)"),
    "SiLU, the other way round": (parts("Sigmoid c", "Mul 0 c"), "silu(alpha=1)"),
    "GELU": (parts(*ERF, "Mul c 2", "Mul 3 half"), "gelu"),
    "GELU, half first": (parts(*ERF, "Mul half c", "Mul 3 2"), "gelu"),
    "GELU by tanh": (
        parts("Pow c three", "Mul 0 cube", "Add c 1", "Mul 2 tanh", "Tanh 3", "Add 4 one",
              "Mul c half", "Mul 6 5"), "gelu_tanh",
    ),
    "HardSwish": (parts("Add c three", "Clip 0 zero six", "Mul c 1", "Div 2 six"), "hard_swish"),
    "HardSwish, divided first": (
        parts("Add c three", "Clip 0 zero six", "Div 1 six", "Mul c 2"), "hard_swish"
    ),
    "HardSigmoid times x": (
        [node("HardSigmoid", "c", "h", alpha=1 / 6), node("Mul", "c h", "a")], "hard_swish"
    ),
    "HardSigmoid": (
        parts("Add c three", "Clip 0 zero six", "Mul 1 third"),
        "hard_sigmoid(alpha=0.166667, beta=0.5)",
    ),
    "Mish": (parts("Softplus c", "Tanh 0", "Mul c 1"), "mish"),
    "Mish, its logarithm too": (parts("Exp c", "Add 0 one", "Log 1", "Tanh 2", "Mul c 3"), "mish"),
    "Sigmoid": (parts("Neg c", "Exp 0", "Add 1 one", "Div one 2"), "sigmoid"),
    "Sigmoid by Reciprocal": (parts("Neg c", "Exp 0", "Add 1 one", "Reciprocal 2"), "sigmoid"),
    "Softsign": (parts("Abs c", "Add 0 one", "Div c 1"), "softsign"),
}  # fmt: skip


def network(nodes: list[NodeProto], *behind: NodeProto, opset: int = 18) -> ModelProto:
    """Convolution, the nodes, another convolution."""
    last = [node("Conv", "a v", "y", pads=[1, 1, 1, 1])]
    return build([CONV, *nodes, *(behind or last)], CONSTANTS, opset=opset)


@pytest.mark.parametrize("name", WHOLE)
def test_an_operator(name: str, tmp_path: Path) -> None:
    nodes, function = WHOLE[name]
    layers = compare(network(nodes), tmp_path).graph.layers
    assert [str(layer.activation) for layer in layers] == [function, "None"]


@pytest.mark.parametrize("name", IN_PARTS)
def test_what_exporters_write_in_parts(name: str, tmp_path: Path) -> None:
    nodes, function = IN_PARTS[name]
    layers = compare(network(nodes), tmp_path).graph.layers
    assert [str(layer.activation) for layer in layers] == [function, "None"]


@pytest.mark.parametrize(("approximate", "name"), [("none", "gelu"), ("tanh", "gelu_tanh")])
def test_gelu_as_one_operator(approximate: str, name: str, tmp_path: Path) -> None:
    nodes = [node("Gelu", "c", "a", approximate=approximate)]
    layers = compare(network(nodes, opset=20), tmp_path).graph.layers
    assert str(layers[0].activation) == name


TANH, SILU = [node("Tanh", "c", "a")], IN_PARTS["SiLU"][0]
POOL = node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2])
OTHER = [node("Conv", "x w", "b", pads=[1, 1, 1, 1]), node("Relu", "b", "r")]
JOIN = node("Concat", "a r", "k", axis=1)
BEHIND = [node("Conv", "k u", "y")]
# (nodes behind the convolution c, kinds and activations of the layers)
PLACES: dict[str, tuple[list[NodeProto], list[tuple[str, str]]]] = {
    "a pool goes into a function that rises": (
        [*TANH, POOL, node("Conv", "p v", "y")], [("conv", "tanh"), ("conv", "None")]
    ),
    "and stays behind one that falls": (
        [*SILU, POOL, node("Conv", "p v", "y")],
        [("conv", "silu(alpha=1)"), ("maxpool", "None"), ("conv", "None")],
    ),
    "in front of it a function that rises is moved": (
        [node("MaxPool", "c", "m", kernel_shape=[2, 2]), node("Tanh", "m", "t"),
         node("Conv", "t v", "y")],
        [("conv", "tanh"), ("conv", "None")],
    ),
    "one that falls needs a convolution": (
        [node("MaxPool", "c", "m", kernel_shape=[2, 2]), node("HardSwish", "m", "t"),
         node("Conv", "t v", "y")],
        [("conv", "None"), ("conv", "hard_swish"), ("conv", "None")],
    ),
    "behind an addition": (
        [*OTHER, node("Add", "c r", "s"), node("Elu", "s", "a"), node("Conv", "a v", "y")],
        [("conv", "None"), ("conv", "relu"), ("add", "elu(alpha=1)"), ("conv", "None")],
    ),
    "behind an average pool": (
        [node("AveragePool", "c", "m", kernel_shape=[2, 2]), node("Tanh", "m", "a"),
         node("Conv", "a v", "y")],
        [("conv", "None"), ("avgpool", "tanh"), ("conv", "None")],
    ),
    "two in a row": (
        [*TANH, node("Sigmoid", "a", "s"), node("Conv", "s v", "y")],
        [("conv", "tanh"), ("conv", "sigmoid"), ("conv", "None")],
    ),
    "a ReLU of what is never negative": (
        [node("Sigmoid", "c", "s"), node("Relu", "s", "t"), node("Conv", "t v", "y")],
        [("conv", "sigmoid"), ("conv", "None")],
    ),
    "joined with another that rises": (
        [*TANH, *OTHER, JOIN, *BEHIND], [("conv", "tanh"), ("conv", "relu"), ("conv", "None")]
    ),
    "one that falls, joined with another": (
        [*SILU, *OTHER, JOIN, *BEHIND],
        [("conv", "silu(alpha=1)"), ("conv", "None"), ("conv", "relu"), ("conv", "None")],
    ),
    "two alike that fall": (
        [*SILU, OTHER[0], node("Sigmoid", "b", "g"), node("Mul", "b g", "r"), JOIN, *BEHIND],
        [("conv", "silu(alpha=1)"), ("conv", "silu(alpha=1)"), ("conv", "None")],
    ),
    "behind a concatenation": (
        [*OTHER, node("Concat", "c b", "k", axis=1), node("LeakyRelu", "k", "l", alpha=0.5),
         node("Conv", "l u", "y")],
        [("conv", "None"), ("conv", "None"), ("conv", "leaky_relu(alpha=0.5)"), ("conv", "None")],
    ),
    "at the end": ([node("HardSwish", "c", "y")], [("conv", "hard_swish"), ("conv", "None")]),
}  # fmt: skip
PLACES["behind a concatenation"][0].pop(1)  # the ReLU of b


@pytest.mark.parametrize("name", PLACES)
def test_where_it_stands(name: str, tmp_path: Path) -> None:
    nodes, expected = PLACES[name]
    graph = compare(build([CONV, *nodes], CONSTANTS, opset=18), tmp_path).graph
    found = [(layer.kind, str(layer.activation)) for layer in graph.layers]
    if name == "behind a concatenation":
        expected = [("conv", "leaky_relu(alpha=0.5)")] * 2 + [("conv", "None")]
    assert sorted(found) == sorted(expected)


REFUSED: dict[str, tuple[list[NodeProto], str]] = {
    "slopes": ([node("PRelu", "c slopes", "a")], r"PRelu \(node_a\): slope must be one number"),
    "a part alone": (parts("Exp c"), r"Exp \(node_a\): it must be a part of an activation"),
    "unknown parts": (parts("Exp c", "Mul c 0"), r"Mul .*: it must be a part of an activation"),
    "a quotient of two maps": (
        [*OTHER, node("Div", "c r", "a")], r"Div \(node_a\): one input must be a constant"
    ),
    "no finite values": (
        [node("Celu", "c", "a", alpha=-1.0)], r"celu\(alpha=-1\) must rise, or fall up to some"
    ),
    "limits": ([node("Clip", "c half low", "a")], "limits must rise, not be 0.5 and -0.2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    nodes, text = REFUSED[name]
    with pytest.raises(UserError, match=text):
        load_onnx(save(network(nodes), tmp_path / "model.onnx"))


def test_a_long_row_of_functions(tmp_path: Path) -> None:
    nodes = parts(*("Neg c" if not index else f"Neg {index - 1}" for index in range(40)))
    compare(network(nodes), tmp_path)


def test_a_large_function_is_refused_soon(tmp_path: Path) -> None:
    """Each product reads two before it, so that their parts double and double again."""
    nodes = parts("Exp c", "Mul 0 c", *(f"Mul {index} {index - 1}" for index in range(1, 60)))
    with pytest.raises(UserError, match="it must be a part of an activation"):
        load_onnx(save(network(nodes), tmp_path / "model.onnx"))
