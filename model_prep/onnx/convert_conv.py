# SPDX-License-Identifier: Apache-2.0
"""Conv, Gemm and MatMul: nodes with weights.

A fully connected node becomes a convolution whose kernel covers its input map; its weights are
permuted where the map was transposed before it was flattened.
"""

import numpy as np

from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.lowering import Context, Node, Operator
from model_prep.onnx.operations import LABELS, Op, Value, map_axes
from model_prep.onnx.windows import window


def convert_conv(context: Context, node: Node) -> None:
    """Conv with groups, strides, dilations and pads; a missing bias is 0."""
    source = context.map(node)
    weight = context.weights(node, 1)
    if weight.ndim != 4 or 0 in weight.shape:
        raise UnsupportedError(
            f"weights must have 4 axes of positive size, not {list(weight.shape)}"
        )
    declared = node.attributes.integers("kernel_shape")
    if declared is not None and declared != weight.shape[2:]:
        raise UnsupportedError(
            f"kernel_shape must be the weights' {list(weight.shape[2:])}, not {list(declared)[:4]}"
        )
    groups = node.attributes.integer("group", 1)
    out, columns = weight.shape[:2]
    if groups < 1 or out % groups or source.shape[0] != columns * groups:
        raise UnsupportedError(
            f"weights {list(weight.shape)} in {groups} groups must fit {source.shape[0]} channels"
        )
    bias = _bias(context, node, 2, out)
    sliding = window(node.attributes, *source.shape[1:], (weight.shape[2], weight.shape[3]))
    op = Op(
        "conv", [source], (out, *sliding.out), node.title, weight=weight, bias=bias,
        stride=sliding.stride, pads=sliding.pads, dilation=sliding.dilation, groups=groups,
    )  # fmt: skip
    context.emit(node, op)


def _bias(context: Context, node: Node, index: int, out: int) -> np.ndarray:
    if not node.has(index):
        return np.zeros(out, np.float32)
    bias = context.weights(node, index)
    if bias.shape != (out,):
        raise UnsupportedError(f"the bias must have {out} values, not the sizes {list(bias.shape)}")
    return bias


def convert_gemm(context: Context, node: Node) -> None:
    """Gemm with constant B and C: alpha * A * B + beta * C."""
    attributes = node.attributes
    if attributes.integer("transA", 0):
        raise UnsupportedError("transA must be 0")
    value, weight = context.tensor(node), context.weights(node, 1)
    if weight.ndim != 2:
        raise UnsupportedError(f"B must have 2 axes, not {weight.ndim}")
    weight = weight if attributes.integer("transB", 0) else weight.T
    weight = weight * np.float32(attributes.number("alpha", 1.0))
    bias = np.zeros(weight.shape[0], np.float32)
    if node.has(2):
        addend = context.weights(node, 2) * np.float32(attributes.number("beta", 1.0))
        if addend.size not in (1, bias.size) or addend.shape[-1:] not in ((), (1,), bias.shape):
            raise UnsupportedError(f"C must have 1 or {bias.size} values, not {list(addend.shape)}")
        bias = bias + addend.reshape(-1)
    _connect(context, node, value, weight, bias)


def convert_matmul(context: Context, node: Node) -> None:
    """MatMul of the flattened map with a constant matrix; an Add behind it becomes the bias."""
    value, weight = context.tensor(node), context.weights(node, 1)
    if weight.ndim != 2:
        raise UnsupportedError(f"input 1 must have 2 axes, not {weight.ndim}")
    _connect(context, node, value, weight.T, np.zeros(weight.shape[1], np.float32))


def _connect(
    context: Context, node: Node, value: Value, weight: np.ndarray, bias: np.ndarray
) -> None:
    """A convolution that covers the map, from a matrix [outputs, inputs]."""
    if len(value.dims) != 2 or value.axes[0]:
        raise UnsupportedError(
            f"input 0 must be flattened to (1, features), not have the sizes {list(value.dims)}"
        )
    outputs, inputs = weight.shape
    if inputs != value.dims[1] or outputs < 1:
        raise UnsupportedError(
            f"weights for {inputs} inputs must fit the {value.dims[1]} there are"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UnsupportedError("weights must be finite after scaling")
    order = value.order
    stored = weight.reshape(outputs, *(value.size((label,)) for label in order))
    missing = tuple(label for label in LABELS if label not in order)
    stored = stored.reshape(*stored.shape, *(1 for _ in missing))
    positions = [(*order, *missing).index(label) + 1 for label in LABELS]
    kernel = np.ascontiguousarray(stored.transpose(0, *positions), np.float32)
    shape = (outputs, 1, 1)
    op = Op(
        "conv", [value.op], shape, node.title, weight=kernel,
        bias=np.ascontiguousarray(bias, np.float32), full=True,
    )  # fmt: skip
    context.emit(node, op, Value(op, map_axes(shape)[:2]))


OPERATORS = {
    "Conv": Operator(
        convert_conv,
        frozenset({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}),
    ),
    "Gemm": Operator(convert_gemm, frozenset({"alpha", "beta", "transA", "transB"})),
    "MatMul": Operator(convert_matmul, frozenset()),
}
