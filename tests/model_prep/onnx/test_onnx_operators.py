# SPDX-License-Identifier: Apache-2.0
"""Operator by operator: small models equal onnxruntime, and import to the layers they should."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto
from onnx_models import build, compare, node, random, save

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import Lrn
from nuq.formats.errors import UserError
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.run import normalise

CONSTANTS = {
    "w": random(1, 8, 4, 3, 3), "b": random(2, 8), "v": random(3, 8, 8, 1, 1),
    "depthwise": random(4, 8, 1, 3, 3), "odd": random(5, 5, 4, 3, 3), "five": random(6, 6, 5, 1, 1),
    "grouped": random(7, 10, 2, 3, 3), "scale": 1 + random(8, 8) / 4, "shift": random(9, 8),
    "mean": random(10, 8), "variance": 1 + np.abs(random(11, 8)), "matrix": random(12, 8 * 72, 10),
    "row": random(13, 10), "zero": np.float32(0), "six": np.float32(1.5), "axes": np.array([2, 3]),
    "flat": np.array([0, -1]), "per_channel": random(14, 8, 1, 1), "two": np.float32(2),
    "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "mix": random(15, 4, 13, 1, 1),
    "padded": random(16, 8, 4, 3, 3), "end": random(17, 8, 10), "batch": np.array([0]),
    "rest": np.array([-1]), "lowest": np.float32(-np.inf),
    "anchors": np.array([1, 2, 4, 9, 8]), "eight": np.arange(8).reshape(1, 8, 1, 1),
    "seven": (np.arange(8) - 8)[None], "backwards": np.arange(8)[::-1].reshape(1, 8, 1, 1),
}  # fmt: skip
CONV = node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
RELU = node("Relu", "c", "r")
START = [CONV, RELU]
ODD = [node("Conv", "x odd", "o", pads=[1, 1, 1, 1]), node("Relu", "o", "p")]


def last(op: str, inputs: str, **attributes: object) -> NodeProto:
    return node(op, inputs, "y", **attributes)


CASES: dict[str, tuple[list[NodeProto], list[str]]] = {  # nodes, kinds of the layers
    "conv without bias": ([last("Conv", "x w")], ["conv"]),
    "grouped, dilated, asymmetric": (
        [last("Conv", "x grouped", group=2, dilations=[2, 1], strides=[1, 2], pads=[0, 1, 2, 3])],
        ["conv"],
    ),
    "depthwise": ([*START, last("Conv", "r depthwise", group=8)], ["conv", "conv"]),
    "same upper": ([last("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])], ["conv"]),
    "same lower": ([last("Conv", "x w", auto_pad="SAME_LOWER", strides=[2, 2])], ["conv"]),
    "valid": ([last("Conv", "x w", auto_pad="VALID")], ["conv"]),
    "batch norm folded": (
        [CONV, last("BatchNormalization", "c scale shift mean variance", epsilon=0.01)], ["conv"],
    ),
    "batch norm alone": (
        [*START, node("BatchNormalization", "r scale shift mean variance", "n"),
         node("Relu", "n", "m"), last("Conv", "m v")], ["conv", "conv", "conv"],
    ),
    "relu at the end": ([CONV, last("Relu", "c")], ["conv", "conv"]),
    "relu of a shared tensor": (
        [CONV, node("Relu", "c", "r"), last("Add", "c r")], ["conv", "conv", "add", "conv"],
    ),
    "relu of the input": ([node("Relu", "x", "r"), last("Conv", "r w")], ["conv", "conv"]),
    "two relus": ([*START, node("Relu", "r", "s"), last("Conv", "s v")], ["conv", "conv"]),
    "clip 0 to 1.5": ([CONV, node("Clip", "c zero six", "r"), last("Conv", "r v")], ["conv"] * 2),
    "clip 0 to anything": ([CONV, node("Clip", "c zero", "r"), last("Conv", "r v")], ["conv"] * 2),
    "clip behind a pool": (
        [CONV, node("MaxPool", "c", "m", kernel_shape=[2, 2]), node("Clip", "m zero six", "r"),
         last("Conv", "r v")], ["conv", "conv"],
    ),
    "pool fused": (
        [*START, node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
         last("Conv", "m v")], ["conv", "conv"],
    ),
    "pool before its relu": (
        [CONV, node("MaxPool", "c", "m", kernel_shape=[3, 2], pads=[1, 0, 1, 1]),
         node("Relu", "m", "r"), last("Conv", "r v")], ["conv", "conv"],
    ),
    "pool of a shared tensor": (
        [*START, node("MaxPool", "r", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
         node("Add", "m r", "a"), last("Conv", "a v")], ["conv", "maxpool", "add", "conv"],
    ),
    "two pools": (
        [*START, node("MaxPool", "r", "m", kernel_shape=[2, 2]),
         node("MaxPool", "m", "n", kernel_shape=[2, 2], strides=[2, 2]), last("Conv", "n v")],
        ["conv", "maxpool", "conv"],
    ),
    "pool of a sum, relu behind": (
        [CONV, node("Conv", "x padded", "d", pads=[1, 1, 1, 1]), node("Add", "c d", "a"),
         node("MaxPool", "a", "m", kernel_shape=[2, 2]), node("Relu", "m", "r"),
         last("Conv", "r v")], ["conv", "conv", "add", "maxpool", "conv"],
    ),
    "global max": ([*START, node("GlobalMaxPool", "r", "m"), last("Conv", "m v")], ["conv"] * 2),
    "average without pads": (
        [*START, last("AveragePool", "r", kernel_shape=[2, 3], strides=[2, 1])],
        ["conv", "avgpool"],
    ),
    "average with pads": (
        [*START, node("AveragePool", "r", "a", kernel_shape=[3, 3], pads=[1, 1, 0, 1]),
         last("Conv", "a v")], ["conv", "avgpool", "conv"],
    ),
    "average, pads counted": (
        [*START, last("AveragePool", "r", kernel_shape=[3, 3], pads=[1, 1, 0, 1],
                      count_include_pad=1)], ["conv", "avgpool"],
    ),
    "average at the end, pads not counted": (
        [*START, last("AveragePool", "r", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        ["conv", "avgpool", "conv"],
    ),
    "average in ceil mode": (
        [*START, node("AveragePool", "r", "a", kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
         last("Conv", "a v")], ["conv", "avgpool", "conv"],
    ),
    "global average": ([*START, last("GlobalAveragePool", "r")], ["conv", "avgpool"]),
    "reduce mean": (
        [*START, last("ReduceMean", "r", axes=[-1, 2], keepdims=0)], ["conv", "avgpool"],
    ),
    "reduce mean of transposed": (
        [*START, node("Transpose", "r", "t", perm=[0, 2, 3, 1]),
         last("ReduceMean", "t", axes=[1, 2], keepdims=0)], ["conv", "avgpool"],
    ),
    "lrn": (
        [*START, node("LRN", "r", "l", size=5, alpha=0.5, beta=0.6, bias=2.0), last("Conv", "l v")],
        ["conv", "lrn", "conv"],
    ),
    "lrn of signed": ([CONV, node("LRN", "c", "l", size=3, alpha=0.5), last("Conv", "l v")],
                      ["conv", "lrn", "conv"]),
    "residual": (
        [CONV, node("Conv", "x padded", "d", pads=[1, 1, 1, 1]), node("Add", "c d", "a"),
         node("Relu", "a", "r"), last("Conv", "r v")], ["conv", "conv", "add", "conv"],
    ),
    "sum of three": (
        [*START, node("Conv", "r v", "d"), node("Sum", "r d c", "a"), last("Conv", "a v")],
        ["conv", "conv", "conv", "add", "add", "conv"],
    ),
    "arithmetic with constants": (
        [CONV, node("Mul", "c per_channel", "d"), node("Sub", "two d", "e"),
         node("Div", "e two", "f"), last("Add", "f per_channel")], ["conv"],
    ),
    "normalised input": (
        [node("Sub", "x two", "d"), node("Div", "d two", "e"), last("Conv", "e w")],
        ["conv"],
    ),
    "pad into a convolution": (
        [*START, node("Pad", "r pads", "q"), last("Conv", "q depthwise", group=8)],
        ["conv", "conv"],
    ),
    "pad into pools": (
        [*START, node("Pad", "r pads", "q"), node("MaxPool", "q", "m", kernel_shape=[3, 3]),
         node("AveragePool", "q", "a", kernel_shape=[3, 3]), node("Add", "m a", "s"),
         last("Conv", "s v")], ["conv", "maxpool", "avgpool", "add", "conv"],
    ),
    "pad with -inf": (
        [*START, node("Pad", "r pads lowest", "q"), node("MaxPool", "q", "m", kernel_shape=[3, 3]),
         last("Conv", "m v")], ["conv", "conv"],
    ),
    "pad alone": ([*START, last("Pad", "r pads")], ["conv", "conv", "conv"]),
    "concat": (
        [*START, node("Conv", "r v", "d"), node("Relu", "d", "e"),
         node("Concat", "r e", "k", axis=1), last("ReduceMean", "k", axes=[2, 3])],
        ["conv", "conv", "avgpool"],
    ),
    "relu behind a concat": (
        [CONV, node("Conv", "x padded", "d", pads=[1, 1, 1, 1]),
         node("Concat", "c d", "k", axis=-3), node("Relu", "k", "e"),
         last("GlobalAveragePool", "e")], ["conv", "conv", "avgpool"],
    ),
    "concat at the end": (
        [*START, node("Conv", "r v", "d"), last("Concat", "r d", axis=1)], ["conv"] * 3,
    ),
    "concat of 5 and 8 channels": (
        [*START, *ODD, node("Concat", "p r", "k", axis=1), last("Conv", "k mix")], ["conv"] * 3,
    ),
    "concat of 5 channels, pooled, to the end": (
        [*START, *ODD, node("Concat", "p r", "k", axis=1),
         node("MaxPool", "k", "m", kernel_shape=[2, 2]), last("GlobalAveragePool", "m")],
        ["conv", "conv", "avgpool", "conv"],
    ),
    "concat of 5 channels, depthwise and lrn": (
        [*START, *ODD, node("Concat", "p r", "k", axis=1), node("Mul", "k two", "h"),
         node("Relu", "h", "i"), node("LRN", "i", "l", size=3, alpha=1.0), last("Conv", "l mix")],
        ["conv", "conv", "conv", "conv", "lrn", "conv"],
    ),
    "concat part that cannot be padded": (
        [*START, *ODD, node("LRN", "p", "l", size=3, alpha=1.0),
         node("Concat", "l r", "k", axis=1), last("Conv", "k mix")],
        ["conv", "lrn", "conv", "conv", "conv"],
    ),
    "layer in two concats": (
        [*START, node("Conv", "r v", "d"), node("Concat", "r d", "k", axis=1),
         node("Concat", "r k", "l", axis=1), node("Concat", "l k", "m", axis=1),
         last("GlobalAveragePool", "m")], ["conv", "conv", *["maxpool"] * 2, "avgpool"],
    ),
    "flatten and matrix": (
        [*START, node("Flatten", "r", "f"), node("MatMul", "f matrix", "g"), last("Add", "g row")],
        ["conv", "fc"],
    ),
    "gemm of a transposed map": (
        [*START, node("Transpose", "r", "t", perm=[0, 2, 3, 1]), node("Reshape", "t flat", "f"),
         last("Gemm", "f matrix row", alpha=0.5, beta=2.0)], ["conv", "fc"],
    ),
    "gemm, relu, softmax": (
        [*START, node("Reshape", "r flat", "f"), node("Gemm", "f matrix", "g"),
         last("Softmax", "g", axis=1)], ["conv", "fc"],
    ),
    "sigmoid at the end": (
        [*START, node("Flatten", "r", "f"), node("Gemm", "f matrix", "g"), last("Sigmoid", "g")],
        ["conv", "fc"],
    ),
    "tanh of a map, rows and columns first": (
        [CONV, node("Tanh", "c", "t"), last("Transpose", "t", perm=[2, 3, 0, 1])], ["conv"],
    ),
    "argmax, as another type": (
        [*START, node("Flatten", "r", "f"), node("Gemm", "f matrix", "g"),
         node("ArgMax", "g", "a", axis=-1, keepdims=0), last("Cast", "a", to=TensorProto.FLOAT)],
        ["conv", "fc"],
    ),
    "argmax of a map": (
        [CONV, node("ArgMax", "c", "a", axis=1), last("Cast", "a", to=TensorProto.FLOAT)], ["conv"],
    ),
    "channels last at the end": ([CONV, last("Transpose", "c", perm=[0, 2, 3, 1])], ["conv"]),
    "head of a detector": (
        [CONV, node("Reshape", "c anchors", "s"), node("Transpose", "s", "t", perm=[0, 1, 3, 4, 2]),
         last("LogSoftmax", "t", axis=-1)], ["conv"],
    ),
    "a vector without its batch axis": (
        [*START, node("ReduceMean", "r", "m", axes=[2, 3], keepdims=0), node("Squeeze", "m", "s"),
         last("Softmax", "s", axis=0)], ["conv", "avgpool"],
    ),
    "sizes from Shape": (
        [*START, node("Shape", "r", "s"), node("Gather", "s batch", "n"),
         node("Concat", "n rest", "d", axis=0), node("Reshape", "r d", "f"),
         last("MatMul", "f matrix")], ["conv", "fc"],
    ),
    "strides that change nothing": (  # torch's `as_strided`
        [*START, node("GlobalAveragePool", "r", "g"), node("Reshape", "g rest", "f"),
         node("Gather", "f eight", "s", axis=0), node("Reshape", "s flat", "h"),
         last("MatMul", "h end")], ["conv", "avgpool", "fc"],
    ),
    "all elements by negative indices, a row": (
        [*START, node("GlobalAveragePool", "r", "g"), node("Reshape", "g rest", "f"),
         node("Gather", "f seven", "s", axis=0), last("MatMul", "s end")],
        ["conv", "avgpool", "fc"],
    ),
    "scale by a number of a node, and by a quotient": (
        [*START, node("Constant", "", "k", value_float=3.0), node("Div", "two two", "q"),
         node("Mul", "k q", "n"), last("Mul", "r n")], ["conv", "conv"],
    ),
    "squeeze, dropout, identity, cast": (
        [*START, node("GlobalAveragePool", "r", "g"), node("Squeeze", "g axes", "s"),
         node("Dropout", "s", "d"), node("Identity", "d", "i"),
         node("Cast", "i", "j", to=TensorProto.FLOAT), last("MatMul", "j end")],
        ["conv", "avgpool", "fc"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operator_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    nodes, kinds = CASES[case]
    used = {name for one in nodes for name in one.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    network = compare(build(nodes, constants), tmp_path)
    assert sorted(layer.kind for layer in network.graph.layers) == sorted(kinds)


def test_strides_that_move_elements_name_the_remedy(tmp_path: Path) -> None:
    nodes = [*START, node("GlobalAveragePool", "r", "g"), node("Reshape", "g rest", "f"),
             node("Gather", "f backwards", "s", axis=0), node("Reshape", "s flat", "h"),
             last("MatMul", "h end")]  # fmt: skip
    used = {name for one in nodes for name in one.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    with pytest.raises(
        UserError, match="Gather .* give it a contiguous example input, as torch.ze"
    ):
        load_onnx(save(build(nodes, constants), tmp_path / "a.onnx"))


def test_an_example_with_channels_last_exports_a_network_that_is_taken(tmp_path: Path) -> None:
    """torch then writes `as_strided` behind a mean, with a Gather."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 6),
    ).eval()  # fmt: skip
    x, path = torch.rand(1, 12, 12, 3).permute(0, 3, 1, 2), tmp_path / "a.onnx"
    torch.onnx.export(network, (x,), str(path), external_data=False, verbose=False)
    assert "as_strided" in {out for one in onnx.load(path).graph.node for out in one.output}
    assert [layer.kind for layer in load_onnx(path).graph.layers] == ["conv", "avgpool", "fc"]


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 20, 22])
def test_opsets(opset: int, tmp_path: Path) -> None:
    """The operators whose attributes became inputs, in both forms."""
    constants = {name: CONSTANTS[name] for name in ("w", "b", "v", "end", "zero", "six", "axes")}
    constants["sizes"] = np.array([1, 8])
    clip = (
        node("Clip", "c zero six", "r") if opset >= 11 else node("Clip", "c", "r", min=0.0, max=1.5)
    )
    mean = (
        node("ReduceMean", "r axes", "m")
        if opset >= 18
        else node("ReduceMean", "r", "m", axes=[2, 3])
    )
    nodes = [CONV, clip, mean, node("Reshape", "m sizes", "f"), node("MatMul", "f end", "g"),
             last("Softmax", "g")]  # fmt: skip
    network = compare(build(nodes, constants, opset=opset), tmp_path)  # with either softmax
    assert network.graph.layers[0].activation == Activation("relu", {"limit": 1.5})
    assert [step.kind for step in network.outputs[0].ending] == ["softmax"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_lrn_window_follows_the_definition(size: int) -> None:
    """Even sizes too, which onnxruntime does not take."""
    x = random(1, 1, 6, 2, 3)
    expected = np.empty_like(x)
    for c in range(6):
        window = x[:, max(0, c - (size - 1) // 2) : min(6, c + size // 2 + 1)]
        total = (window**2).sum(axis=1)
        expected[:, c] = x[:, c] / (2.0 + 0.5 / size * total) ** 0.75
    found = normalise(Lrn(size, 0.5, 0.75, 2.0), torch.from_numpy(x)).numpy()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)


WINDOWS = st.fixed_dictionaries({
    "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "size": st.tuples(st.integers(5, 12), st.integers(5, 12)),
    "ceil": st.booleans(),
    "auto": st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    "share": st.tuples(*[st.floats(0, 0.99)] * 4),
})  # fmt: skip


@given(window=WINDOWS, maximum=st.booleans(), include=st.booleans())
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_pooling_window(window: dict, maximum: bool, include: bool, tmp_path: Path) -> None:
    """Kernel, stride, pads, ceil mode and auto_pad, as max and as average pool."""
    within = all(s <= k for s, k in zip(window["stride"], window["kernel"], strict=True))
    assume(within or not window["auto"].startswith("SAME"))  # else refused
    attributes: dict = {"kernel_shape": window["kernel"], "strides": window["stride"]}
    if window["auto"] == "NOTSET":
        pads = [int(s * window["kernel"][i % 2]) for i, s in enumerate(window["share"])]
        attributes |= {"pads": pads, "ceil_mode": int(window["ceil"] and not include)}
    else:
        attributes["auto_pad"] = window["auto"]
    if not maximum:
        attributes["count_include_pad"] = int(include)
    nodes = [*START, node("MaxPool" if maximum else "AveragePool", "r", "m", **attributes),
             last("Conv", "m v")]  # fmt: skip
    constants = {name: CONSTANTS[name] for name in ("w", "b", "v")}
    compare(build(nodes, constants, (1, 4, *window["size"]), opset=19), tmp_path)


@given(
    window=WINDOWS, dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.sampled_from([1, 2, 4]),
)  # fmt: skip
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_convolution_window(
    window: dict, dilation: tuple[int, int], groups: int, tmp_path: Path
) -> None:
    """Kernel, stride, dilation, pads, auto_pad and groups."""
    attributes: dict = {"strides": window["stride"], "group": groups}
    skipped = [-(-size // s) * s - s + k - size for size, s, k in
               zip((12, 13), window["stride"], window["kernel"], strict=True)]  # fmt: skip
    assume(min(skipped) >= -1 or not window["auto"].startswith("SAME"))  # else refused
    if window["auto"] in ("NOTSET", "VALID"):
        attributes["dilations"] = dilation
        attributes["pads"] = [int(8 * share) for share in window["share"]]
    else:
        attributes["auto_pad"] = window["auto"]
    weight = random(3, 8, 4 // groups, *window["kernel"])
    model = build([last("Conv", "x w", **attributes)], {"w": weight}, (1, 4, 12, 13))
    compare(model, tmp_path)


def test_same_padding_that_would_crop_is_refused(tmp_path: Path) -> None:
    """Runtimes differ in which pixels a 1x1 kernel with stride 4 and auto_pad SAME leaves out."""
    node = last("Conv", "x w", auto_pad="SAME_UPPER", strides=[4, 1])
    model = build([node], {"w": random(3, 8, 4, 1, 1)}, (1, 4, 12, 13))
    with pytest.raises(UserError, match="strides .4. exceed the kernel .1."):
        load_onnx(save(model, tmp_path / "model.onnx"))


def test_what_the_host_does_must_come_last(tmp_path: Path) -> None:
    """An argmax and a softmax before a convolution."""
    for nodes, text in (
        ([CONV, node("ArgMax", "c", "s"), last("Conv", "s v")], r"not ArgMax \(node_s\): it must"),
        ([CONV, node("Softmax", "c", "s", axis=1), last("Conv", "s v")],
         r"not Softmax \(node_s\): it must come last"),
    ):  # fmt: skip
        constants = {name: CONSTANTS[name] for name in ("w", "b", "v")}
        with pytest.raises(UserError, match=text):
            load_onnx(save(build(nodes, constants), tmp_path / "model.onnx"))


def test_what_follows_a_refused_node_is_not_blamed(tmp_path: Path) -> None:
    """Its output is flattened, or cut in pieces and joined again, then multiplied."""
    pieces = [node("Reshape", "l split", "s"), node("Transpose", "s", "t", perm=[0, 2, 1, 3, 4])]
    constants = {**{k: CONSTANTS[k] for k in ("w", "b", "flat", "matrix")},
                 "split": np.array([1, 2, 4, 9, 8]),
                 "slopes": np.arange(8, dtype=np.float32).reshape(8, 1, 1)}  # fmt: skip
    for between, source in (([], "l"), (pieces, "t")):
        nodes = [*START, node("PRelu", "r slopes", "l"), *between,
                 node("Reshape", f"{source} flat", "f"), last("MatMul", "f matrix")]  # fmt: skip
        with pytest.raises(UserError, match=r"not PRelu \(node_l\)") as error:
            load_onnx(save(build(nodes, constants), tmp_path / "model.onnx"))
        assert "MatMul" not in str(error.value)


def test_batch_axis_is_set_to_1_and_declared_sizes_of_it_are_followed(tmp_path: Path) -> None:
    constants = {**{k: CONSTANTS[k] for k in ("w", "b", "matrix")}, "sizes": np.array([5, -1])}
    nodes = [*START, node("Reshape", "r sizes", "f"), last("MatMul", "f matrix")]
    path = tmp_path / "model.onnx"
    path.write_bytes(build(nodes, constants, (5, 4, 9, 8)).SerializeToString())
    network = load_onnx(path)
    assert network.graph.layers[-1].out_shape == (10, 1, 1)
    assert "the batch axis is set to 1" in network.notes
    path.write_bytes(build([last("Conv", "x w")], constants, ("N", 4, 9, 8)).SerializeToString())
    assert load_onnx(path).in_shape == (4, 9, 8)
