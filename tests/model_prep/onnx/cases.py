# SPDX-License-Identifier: Apache-2.0
"""Small networks as people bring them: what each exporter writes around the layers themselves."""

import itertools
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx_models import build, node

Built = tuple[list[NodeProto], dict[str, np.ndarray]]
_rng = np.random.default_rng


def weight(seed: int, *shape: int) -> np.ndarray:
    """Normal float32 numbers, scaled by fan-in."""
    values = _rng(seed).standard_normal(shape) * (2.0 / max(int(np.prod(shape[1:])), 1)) ** 0.5
    return np.asarray(values, np.float32)


def body(source: str = "x", outputs: int = 10, last: str = "z") -> Built:
    """Convolution, ReLU, mean over the map, fully connected layer."""
    nodes = [
        node("Conv", f"{source} w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("GlobalAveragePool", "r1", "g"), node("Flatten", "g", "f"),
        node("Gemm", "f w2", last, transB=1),
    ]  # fmt: skip
    return nodes, {"w1": weight(1, 16, 3, 3, 3), "w2": weight(2, outputs, 16)}


IMAGE = (1, 3, 16, 16)


def sigmoid_output() -> ModelProto:
    """One probability."""
    nodes, constants = body(outputs=1)
    return build([*nodes, node("Sigmoid", "z", "y")], constants, IMAGE)


def softmax_output() -> ModelProto:
    """Probabilities of classes."""
    nodes, constants = body()
    return build([*nodes, node("Softmax", "z", "y", axis=1)], constants, IMAGE)


def argmax_output() -> ModelProto:
    """The class alone."""
    nodes, constants = body()
    model = build([*nodes, node("ArgMax", "z", "y", axis=1, keepdims=0)], constants, IMAGE)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def channels_last_output() -> ModelProto:
    """A map of probabilities with channels last, as segmentation gives them."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2"), node("Transpose", "c2", "t", perm=[0, 2, 3, 1]),
        node("Softmax", "t", "y", axis=-1),
    ]  # fmt: skip
    return build(nodes, {"w1": weight(1, 16, 3, 3, 3), "w2": weight(2, 5, 16, 1, 1)}, IMAGE)


def perceptron(source: str, sizes: tuple[int, ...]) -> Built:
    """Fully connected layers with ReLUs between them."""
    nodes: list[NodeProto] = []
    constants = {}
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        final = index == len(sizes) - 2
        constants[f"g{index}"] = weight(index, outputs, inputs)
        gemm = "y" if final else f"h{index}"
        nodes.append(node("Gemm", f"{source} g{index}", gemm, transB=1))
        source = f"r{index}"
        nodes += [] if final else [node("Relu", gemm, source)]
    return nodes, constants


def flat_input() -> ModelProto:
    """Features, no map anywhere."""
    return build(*perceptron("x", (16, 64, 32, 5)), ("N", 16))


def features_as_channels() -> ModelProto:
    """Features as channels of single pixels."""
    nodes, constants = perceptron("f", (16, 24, 5))
    return build([node("Flatten", "x", "f"), *nodes], constants, ("N", 16, 1, 1))


def rows_and_columns_input() -> ModelProto:
    """A picture without a channel axis, flattened at once."""
    nodes, constants = perceptron("f", (64, 24, 10))
    return build([node("Flatten", "x", "f"), *nodes], constants, ("N", 8, 8))


def autoencoder() -> ModelProto:
    """Features in, as many out, few between."""
    return build(*perceptron("x", (40, 24, 8, 24, 40)), (1, 40))


def channels_last_input() -> ModelProto:
    """What tf2onnx writes: pictures with channels last, normalised, then moved."""
    nodes, constants = body("t", last="y")
    before = [node("Sub", "x mean", "m"), node("Mul", "m spread", "n"),
              node("Transpose", "n", "t", perm=[0, 3, 1, 2])]  # fmt: skip
    constants |= {"mean": np.array([120, 110, 100], np.float32), "spread": np.float32(1 / 60)}
    return build(before + nodes, constants, ("N", 16, 16, 3))


def channels_last_flattened() -> ModelProto:
    """A picture of one channel, last, flattened at once."""
    nodes, constants = perceptron("f", (64, 24, 10))
    constants["flat"] = np.array([-1, 64])
    return build([node("Reshape", "x flat", "f"), *nodes], constants, ("N", 8, 8, 1))


def input_scale_inside() -> ModelProto:
    """x / 255, mean and standard deviation inside the file."""
    nodes, constants = body("d", last="y")
    before = [node("Div", "x k", "a"), node("Sub", "a mean", "b"), node("Div", "b std", "d")]
    numbers = {"k": [255.0], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    for name, values in numbers.items():
        constants[name] = np.array(values, np.float32).reshape(1, -1, 1, 1)
    return build(before + nodes, constants, IMAGE)


def signed_max_pool() -> ModelProto:
    """LeNet's order without a ReLU before its first max pool, whose pads must not win."""
    nodes = [
        node("Conv", "x w1", "c1"),
        node("MaxPool", "c1", "p1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "p1 w2", "c2"), node("Relu", "c2", "r2"), node("Flatten", "r2", "f"),
        node("Gemm", "f w3", "y", transB=1),
    ]  # fmt: skip
    weights = {"w1": (8, 1, 3, 3), "w2": (16, 8, 3, 3), "w3": (10, 400)}
    constants = {name: weight(i, *shape) for i, (name, shape) in enumerate(weights.items())}
    return build(nodes, constants, (1, 1, 16, 16))


def norm_before_pool(lowest: float) -> ModelProto:
    """Convolution, ReLU, batch normalisation, max pool."""
    nodes, constants = body("p1", outputs=10, last="y")
    before = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]), node("Relu", "c0", "r0"),
        node("BatchNormalization", "r0 gamma beta mean variance", "n0"),
        node("MaxPool", "n0", "p1", kernel_shape=[2, 2], strides=[2, 2]),
    ]  # fmt: skip
    constants |= {
        "w0": weight(5, 3, 3, 3, 3), "gamma": np.array([lowest, 0.8, 1.5], np.float32),
        "beta": weight(8, 3), "mean": weight(9, 3), "variance": np.abs(weight(10, 3)) + 1,
    }  # fmt: skip
    return build(before + nodes, constants, IMAGE)


def norm_before_max_pool() -> ModelProto:
    """Positive factors, which commute with the pool."""
    return norm_before_pool(0.5)


def negative_norm_before_max_pool() -> ModelProto:
    """Factors of both signs, which do not."""
    return norm_before_pool(-1.5)


def rectangular_average() -> ModelProto:
    """A mean over a map that is no square, in one node."""
    nodes, constants = body()
    nodes[2] = node("AveragePool", "r1", "g", kernel_shape=[7, 11])
    nodes[4] = node("Gemm", "f w2", "y", transB=1)
    nodes[0] = node("Conv", "x w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2])
    return build(nodes, constants, (1, 3, 14, 22))


def mean_side_by_side() -> ModelProto:
    """A mean over columns, then over rows."""
    nodes, constants = body(last="y")
    nodes[2:4] = [node("ReduceMean", "r1", "g", axes=[3], keepdims=0),
                  node("ReduceMean", "g", "f", axes=[2], keepdims=0)]  # fmt: skip
    return build(nodes, constants, (1, 3, 10, 16))


def shuffled_channels() -> ModelProto:
    """A unit of ShuffleNet v2: halves, one convolved, joined, shuffled, and halves again."""
    nodes = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]), node("Relu", "c0", "r0"),
        helper.make_node("Split", ["r0"], ["left", "right"], axis=1, name="halves"),
        node("Conv", "right w1", "c1"), node("Relu", "c1", "r1"),
        node("Concat", "left r1", "j", axis=1), node("Reshape", "j groups", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]), node("Reshape", "t together", "s"),
        helper.make_node("Split", ["s"], ["a", "b"], axis=1, name="again"),
        node("Conv", "b w2", "c2", pads=[1, 1, 1, 1], group=8), node("Conv", "c2 w3", "c3"),
        node("Relu", "c3", "r3"), node("Concat", "a r3", "k", axis=1),
        node("Conv", "k w4", "c4"), node("Relu", "c4", "r4"),
        node("GlobalAveragePool", "r4", "m"), node("Flatten", "m", "f"),
        node("Gemm", "f w5", "y", transB=1),
    ]  # fmt: skip
    shapes = [(16, 3, 3, 3), (8, 8, 1, 1), (8, 1, 3, 3), (8, 8, 1, 1), (16, 16, 1, 1), (10, 16)]
    constants = {f"w{i}": weight(i, *shape) for i, shape in enumerate(shapes)}
    constants |= {
        "groups": np.array([1, 2, 8, 8, 8]), "together": np.array([1, -1, 8, 8]),
    }  # fmt: skip
    return build(nodes, constants, (1, 3, 8, 8))


def chosen_channels() -> ModelProto:
    """Colours in the other order, then every second channel."""
    nodes, constants = body("s", last="y")
    before = [
        node("Gather", "x reverse", "b", axis=1), node("Conv", "b w0", "c0"),
        node("Relu", "c0", "r0"), node("Slice", "r0 one six one two", "s"),
    ]  # fmt: skip
    numbers = {"reverse": [2, 1, 0], "one": [1], "six": [6], "two": [2]}
    constants |= {name: np.array(values) for name, values in numbers.items()}
    return build(before + nodes, constants | {"w0": weight(5, 8, 3, 3, 3)}, IMAGE)


def classes_and_boxes() -> ModelProto:
    """A backbone with two heads, a class and a box a pixel."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "classes"), node("Conv", "r1 w3", "boxes"),
    ]  # fmt: skip
    shapes = [(16, 3, 3, 3), (5, 16, 1, 1), (4, 16, 1, 1)]
    constants = {f"w{i}": weight(i, *shape) for i, shape in enumerate(shapes, 1)}
    return build(nodes, constants, IMAGE, output="classes boxes")


def detector() -> ModelProto:
    """Two heads at two sizes, as YOLO has: the host moves the channels back and squashes them."""
    nodes, source, constants = [], "x", {}
    for i, (inputs, outputs) in enumerate([(3, 8), (8, 16), (16, 24), (24, 32)]):
        constants[f"w{i}"] = weight(i, outputs, inputs, 3, 3)
        nodes += [node("Conv", f"{source} w{i}", f"c{i}", pads=[1, 1, 1, 1]),
                  node("Relu", f"c{i}", f"r{i}")]  # fmt: skip
        source = f"r{i}"
        if i in (0, 1, 2):
            nodes.append(node("MaxPool", source, f"p{i}", kernel_shape=[2, 2], strides=[2, 2]))
            source = f"p{i}"
    for name, source, inputs in (("coarse", "r3", 32), ("fine", "r2", 24)):
        constants |= {f"h_{name}": weight(9, 14, inputs, 1, 1), f"b_{name}": weight(10, 14),
                      f"s_{name}": np.array([1, 2, 7, -1])}  # fmt: skip
        nodes += [
            node("Conv", f"{source} h_{name} b_{name}", f"g_{name}"),
            node("Reshape", f"g_{name} s_{name}", f"a_{name}"),
            node("Transpose", f"a_{name}", f"t_{name}", perm=[0, 1, 3, 2]),
            node("Sigmoid", f"t_{name}", name),
        ]  # fmt: skip
    return build(nodes, constants, (1, 3, 32, 32), output="fine coarse")


def logits_and_probabilities() -> ModelProto:
    """Two outputs of one head."""
    nodes, constants = body()
    nodes.append(node("Softmax", "z", "y", axis=1))
    return build(nodes, constants, IMAGE, output="y z")


def output_that_is_read() -> ModelProto:
    """A feature map that is an output, too, and a whole concat."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2"), node("Relu", "c2", "r2"),
        node("Concat", "r1 r2", "k", axis=1), node("GlobalAveragePool", "k", "y"),
    ]  # fmt: skip
    constants = {"w1": weight(1, 16, 3, 3, 3), "w2": weight(2, 10, 16, 1, 1)}
    return build(nodes, constants, IMAGE, output="r1 k y")


def channels_last_island() -> ModelProto:
    """What tf2onnx leaves between convolutions: arithmetic and a concat with channels last."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
        node("Transpose", "c1", "t1", perm=[0, 2, 3, 1]), node("Add", "t1 b1", "a1"),
        node("Relu", "a1", "r1"), node("Transpose", "r1", "u1", perm=[0, 3, 1, 2]),
        node("Conv", "u1 w2", "c2"), node("Transpose", "c2", "t2", perm=[0, 2, 3, 1]),
        node("Relu", "t2", "r2"), node("Concat", "r1 r2", "k", axis=3),
        node("Transpose", "k", "u2", perm=[0, 3, 1, 2]),
        node("MaxPool", "u2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "p", "t3", perm=[0, 2, 3, 1]),
        node("ReduceMean", "t3", "m", axes=[1, 2], keepdims=0), node("Gemm", "m w3", "y", transB=1),
    ]  # fmt: skip
    constants = {
        "w1": weight(1, 16, 3, 3, 3), "b1": weight(4, 16), "w2": weight(2, 10, 16, 1, 1),
        "w3": weight(3, 10, 26),
    }  # fmt: skip
    return build(nodes, constants, IMAGE)


def dense_block() -> ModelProto:
    """As in DenseNet: each concat begins with the one before; 5 channels more a layer."""
    nodes = [node("Conv", "x w0", "k0", pads=[1, 1, 1, 1])]
    constants = {"w0": weight(0, 16, 3, 3, 3)}
    for i in range(1, 4):
        channels = 11 + 5 * i
        names = {"m": weight(i, channels), "g": 1 + 0.2 * weight(i + 10, channels)}
        names |= {"v": np.abs(weight(i + 20, channels)) + 1, "w": weight(i, 5, channels, 3, 3)}
        constants |= {f"{name}{i}": value for name, value in names.items()}
        parts = " ".join(f"k{j}" for j in range(i))
        joined = f"j{i}" if i > 1 else "k0"
        nodes += [] if i == 1 else [node("Concat", parts, joined, axis=1)]
        nodes += [
            node("BatchNormalization", f"{joined} g{i} m{i} m{i} v{i}", f"n{i}"),
            node("Relu", f"n{i}", f"r{i}"), node("Conv", f"r{i} w{i}", f"k{i}", pads=[1, 1, 1, 1]),
        ]  # fmt: skip
    nodes += [
        node("Concat", "k0 k1 k2 k3", "j4", axis=1), node("GlobalAveragePool", "j4", "g"),
        node("Flatten", "g", "f"), node("Gemm", "f w4", "y", transB=1),
    ]  # fmt: skip
    return build(nodes, constants | {"w4": weight(4, 10, 31)}, IMAGE)


def side_by_side(join: str, first: float, second: float) -> ModelProto:
    """Two convolutions joined by `join`, their values so many times as large."""
    nodes = [node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]), node("Relu", "c0", "r0")]
    constants = {"w0": weight(0, 16, 3, 3, 3)}
    for name, by in (("a", first), ("b", second)):
        constants[f"w{name}"] = np.float32(by) * weight(ord(name), 16, 16, 3, 3)
        nodes += [node("Conv", f"r0 w{name}", f"c{name}", pads=[1, 1, 1, 1])]
    if join == "Concat":
        nodes += [node("Relu", f"c{name}", f"r{name}") for name in "ab"]
        nodes += [node("Concat", "ra rb", "j", axis=1)]
        columns = np.repeat([1 / first, 1 / second], 16).astype(np.float32)
        constants["wj"] = weight(3, 16, 32, 1, 1) * columns[:, None, None]
        nodes += [node("Conv", "j wj", "cj"), node("Relu", "cj", "z")]
    else:
        nodes += [node(join, "ca cb", "j"), node("Relu", "j", "z")]
    nodes += [
        node("GlobalAveragePool", "z", "g"), node("Flatten", "g", "f"),
        node("Gemm", "f w", "y", transB=1),
    ]  # fmt: skip
    by = 1 if join == "Concat" else max(first, second)  # so that outputs are logits
    return build(nodes, constants | {"w": weight(4, 10, 16) / np.float32(by)}, IMAGE)


def unequal_parts() -> ModelProto:
    """A concat's second part is a hundredth of its first."""
    return side_by_side("Concat", 100, 1)


def unequal_terms() -> ModelProto:
    """What is added is a thousandth of what it is added to."""
    return side_by_side("Add", 30, 0.03)


CASES: dict[str, Callable[[], ModelProto]] = {
    made.__name__: made
    for made in (
        sigmoid_output, softmax_output, argmax_output, channels_last_output, flat_input,
        features_as_channels, rows_and_columns_input, autoencoder, channels_last_input,
        channels_last_flattened, input_scale_inside, signed_max_pool, norm_before_max_pool,
        negative_norm_before_max_pool, rectangular_average, mean_side_by_side,
        shuffled_channels, chosen_channels, classes_and_boxes, detector,
        logits_and_probabilities, output_that_is_read, channels_last_island,
        dense_block, unequal_parts, unequal_terms,
    )
}  # fmt: skip
