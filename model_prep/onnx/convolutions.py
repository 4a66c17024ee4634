# SPDX-License-Identifier: Apache-2.0
"""Conv, Gemm and MatMul: nodes with weights.

A fully connected node becomes a convolution whose kernel covers its input map; its weights are
permuted where the map was transposed before it was flattened.
"""

import numpy as np

from nuq.model_prep.onnx.lowering import Node, operator
from nuq.model_prep.onnx.operations import LABELS, UnsupportedError, Value, map_axes
from nuq.model_prep.onnx.windows import Sliding


@operator("Conv")
def conv(node: Node, *, window: Sliding, group: int = 1) -> Value:
    """Conv with groups, strides, dilations and pads; a missing bias is 0."""
    source, weight = node.map(), node.weights(1)
    if weight.ndim != 4 or 0 in weight.shape:
        raise UnsupportedError(
            f"weights must have 4 axes of positive size, not {list(weight.shape)}"
        )
    kernel, declared = (weight.shape[2], weight.shape[3]), window.kernel_shape
    if declared is not None and declared != kernel:
        raise UnsupportedError(
            f"kernel_shape must be the weights' {list(kernel)}, not {list(declared)[:4]}"
        )
    (out, columns), channels = weight.shape[:2], source.out_shape[0]
    if group < 1 or out % group or channels != columns * group:
        raise UnsupportedError(
            f"weights {list(weight.shape)} in {group} groups must fit {channels} channels"
        )
    bias = node.weights(2) if node.has(2) else np.zeros(out, np.float32)
    if bias.shape != (out,):
        raise UnsupportedError(f"the bias must have {out} values, not the sizes {list(bias.shape)}")
    place, _ = window.over(source, kernel)
    return node.op(
        "conv", source, weight=weight, bias=bias, stride=place.stride, pads=place.pads,
        dilation=window.dilation, groups=group,
    )  # fmt: skip


@operator("Gemm")
def gemm(
    node: Node, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Value:
    """Gemm with constant B and C: alpha * A * B + beta * C."""
    if transA:
        raise UnsupportedError("transA must be 0")
    value, weight = node.tensor(), node.weights(1)
    if weight.ndim != 2:
        raise UnsupportedError(f"B must have 2 axes, not {weight.ndim}")
    weight = (weight if transB else weight.T) * np.float32(alpha)
    bias = np.zeros(weight.shape[0], np.float32)
    if node.has(2):
        addend = node.weights(2) * np.float32(beta)
        if addend.size not in (1, bias.size) or addend.shape[-1:] not in ((), (1,), bias.shape):
            raise UnsupportedError(f"C must have 1 or {bias.size} values, not {list(addend.shape)}")
        bias = bias + addend.reshape(-1)
    return _connected(node, value, weight, bias)


@operator("MatMul")
def matmul(node: Node) -> Value:
    """MatMul of the flattened map with a constant matrix; an Add behind it becomes the bias."""
    value, weight = node.tensor(), node.weights(1)
    if weight.ndim != 2:
        raise UnsupportedError(f"input 1 must have 2 axes, not {weight.ndim}")
    return _connected(node, value, weight.T, np.zeros(weight.shape[1], np.float32))


def _connected(node: Node, value: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
    """A convolution that covers the map, from a matrix [outputs, inputs]."""
    if value.ndim != 2 or value.axes[0]:
        raise UnsupportedError(
            f"input 0 must be flattened to (1, features), not have the sizes {list(value.shape)}"
        )
    if value.split:
        raise UnsupportedError("input 0 must not have its channels in parts")
    outputs, inputs = weight.shape
    if inputs != value.shape[1] or outputs < 1:
        raise UnsupportedError(
            f"weights for {inputs} inputs must fit the {value.shape[1]} there are"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UnsupportedError("weights must be finite after scaling")
    order = [*value.order, *(label for label in LABELS if label not in value.order)]
    kernel = weight.reshape(outputs, *(value.size((label,)) for label in order))
    kernel = kernel.transpose(0, *(order.index(label) + 1 for label in LABELS))
    return node.op(
        "fc", value.op, axes=map_axes((outputs, 1, 1))[:2],
        weight=np.ascontiguousarray(kernel, np.float32),
        bias=np.ascontiguousarray(bias, np.float32),
    )  # fmt: skip
