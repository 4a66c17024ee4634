# SPDX-License-Identifier: Apache-2.0
"""Activations, BatchNormalization, arithmetic, Concat and what the host does at the end.

Arithmetic with a constant per channel is an affine map, folded into the convolution before it.
"""

from math import isfinite

import numpy as np

from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.limits import MAX_CONCAT_PARTS
from model_prep.onnx.lowering import Context, Node, Operator
from model_prep.onnx.operations import Op, Value, feature_map
from model_prep.onnx.views import axis_index, plain_order


def convert_relu(context: Context, node: Node) -> None:
    """Relu."""
    _relu(context, node, None)


def convert_clip(context: Context, node: Node) -> None:
    """Clip from 0: a ReLU with an upper limit."""
    low = _limit(context, node, "min", 1, -np.inf)
    high = _limit(context, node, "max", 2, np.inf)
    if low != 0.0 or not high > 0.0:
        raise UnsupportedError(f"limits must be 0 and a positive number, not {low:g} and {high:g}")
    _relu(context, node, high if isfinite(high) and high < 3e38 else None)


def _limit(context: Context, node: Node, name: str, index: int, default: float) -> float:
    if node.attributes.has(name):
        return node.attributes.number(name, default)
    if not node.has(index):
        return default
    array = context.constant(node, index)
    if array.size != 1:
        raise UnsupportedError(f"{name} must be one number")
    return float(array.reshape(-1)[0])


def _relu(context: Context, node: Node, clip: float | None) -> None:
    value = context.tensor(node)
    op = Op("relu", [value.op], value.op.shape, node.title, relu=True, clip=clip, nonnegative=True)
    context.emit(node, op, value)


def refuse_activation(context: Context, node: Node) -> None:
    """Activations other than ReLU: refused, but what follows is still checked."""
    value = context.tensor(node)
    raise UnsupportedError("the engine's activation is ReLU; train the network with it", value.dims)


def convert_batch_norm(context: Context, node: Node) -> None:
    """BatchNormalization in inference mode: scale and shift per channel."""
    value = context.tensor(node)
    attributes = node.attributes
    if attributes.integer("training_mode", 0) or not attributes.integer("spatial", 1):
        raise UnsupportedError("training_mode must be 0 and spatial 1")
    if len(value.axes) < 2 or value.axes[1] not in ((), ("C",)):
        raise UnsupportedError("channels must be axis 1")
    channels = value.dims[1]
    gamma, beta, mean, variance = (
        context.weights(node, index).astype(np.float64) for index in range(1, 5)
    )
    if any(array.shape != (channels,) for array in (gamma, beta, mean, variance)):
        raise UnsupportedError(f"scale, bias, mean and variance must have {channels} values each")
    spread = variance + attributes.number("epsilon", 1e-5)
    if not (spread > 0).all():
        raise UnsupportedError("variance + epsilon must be positive")
    scale = gamma / np.sqrt(spread)
    _affine(context, node, value, scale, beta - mean * scale)


def _affine(
    context: Context, node: Node, value: Value, scale: np.ndarray, shift: np.ndarray
) -> None:
    """x * scale + shift; both [channels] or one number."""
    channels = value.op.shape[0]
    with np.errstate(over="ignore"):
        factors = np.broadcast_to(scale, channels).astype(np.float32)
        shifts = np.broadcast_to(shift, channels).astype(np.float32)
    if not (np.isfinite(factors).all() and np.isfinite(shifts).all()):
        raise UnsupportedError("scale and shift must be finite")
    op = Op("affine", [value.op], value.op.shape, node.title, weight=factors, bias=shifts)
    context.emit(node, op, value)


def _per_channel(context: Context, node: Node, index: int, value: Value) -> np.ndarray:
    """Constant input number `index` as float64 [channels] or one number."""
    array = context.weights(node, index).astype(np.float64)
    if array.size == 1 and array.ndim <= len(value.dims):
        return array.reshape(())
    dims = (1,) * (len(value.dims) - array.ndim) + array.shape
    axis = next((axis for axis, labels in enumerate(value.axes) if labels == ("C",)), None)
    if axis is None or dims != tuple(
        size if index == axis else 1 for index, size in enumerate(value.dims)
    ):
        raise UnsupportedError(
            f"a constant must have one value, or one per channel, not the sizes {list(array.shape)}"
        )
    return array.reshape(-1)


def convert_arithmetic(context: Context, node: Node) -> None:
    """Add, Sub, Mul or Div with a constant per channel; Add of two tensors."""
    first = 1 if context.known(node, 0) else 0
    value, other = context.tensor(node, first), 1 - first
    if not context.known(node, other):
        if node.op_type != "Add":
            raise UnsupportedError("one input must be a constant", value.dims)
        convert_sum(context, node)
        return
    constant = _per_channel(context, node, other, value)
    one, zero = np.ones(()), np.zeros(())
    if node.op_type == "Add":
        scale, shift = one, constant
    elif node.op_type == "Mul":
        scale, shift = constant, zero
    elif node.op_type == "Sub":
        scale, shift = (one, -constant) if first == 0 else (-one, constant)
    elif first == 0 and (constant != 0).all():
        scale, shift = 1 / constant, zero
    else:
        raise UnsupportedError("the divisor must be a constant other than 0")
    _affine(context, node, value, scale, shift)


def convert_sum(context: Context, node: Node) -> None:
    """Add or Sum of tensors of equal shape: a chain of two-input additions."""
    values = [context.tensor(node, index) for index in range(len(node.inputs))]
    if not values:
        raise UnsupportedError("at least one input must be connected")
    if any(value.axes != values[0].axes or value.dims != values[0].dims for value in values):
        sizes = " and ".join(str(list(value.dims)) for value in values[:3])
        raise UnsupportedError(f"inputs must have equal sizes, not {sizes}")
    if len(values) == 1:
        context.set(node, values[0])
        return
    op = values[0].op
    for value in values[1:]:
        op = Op("add", [op, value.op], op.shape, node.title)
    context.emit(node, op, values[0])


def convert_concat(context: Context, node: Node) -> None:
    """Concat on the channel axis."""
    values = [context.tensor(node, index) for index in range(len(node.inputs))]
    if not values or len(values) > MAX_CONCAT_PARTS:
        raise UnsupportedError(f"inputs must be 1 to {MAX_CONCAT_PARTS}, not {len(values)}")
    axis = axis_index(node.attributes.integer("axis", 1), len(values[0].dims))
    for value in values:
        if axis != 1 or value.axes[0] or not (value.is_map or value.dims == (1, value.op.shape[0])):
            raise UnsupportedError("inputs must be maps, joined along their channels")
        if len(value.dims) != len(values[0].dims) or value.dims[2:] != values[0].dims[2:]:
            raise UnsupportedError("inputs must have equal rows and columns")
    if len(values) == 1:
        context.set(node, values[0])
        return
    channels = sum(value.op.shape[0] for value in values)
    shape = (channels, *values[0].op.shape[1:])
    op = Op("concat", [value.op for value in values], shape, node.title)
    axes = feature_map(op).axes
    context.emit(node, op, Value(op, axes[: len(values[0].dims)]))


def convert_softmax(context: Context, node: Node) -> None:
    """Softmax or LogSoftmax over the classes at the end: left to the host."""
    value = context.tensor(node)
    old = context.source.opset < 13
    axis = axis_index(node.attributes.integer("axis", 1 if old else -1), len(value.dims))
    covered = value.axes[axis:] if old else value.axes[axis : axis + 1]
    labels = tuple(label for part in covered for label in part)
    if ("C" not in labels and value.op.shape[0] > 1) or not plain_order(value):
        raise UnsupportedError("the axis must be the channels (classes)")
    if not old and labels != value.order and labels != ("C",):
        raise UnsupportedError("the axis must be the channels (classes)")
    name = node.op_type.lower()
    context.notes.append(f"{name} {node.title} is left to the host")
    context.set(node, Value(value.op, value.axes, host=name))


_ACTIVATIONS = (
    "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Sigmoid", "HardSigmoid", "Tanh",
    "HardSwish", "Mish", "Softplus", "Softsign", "ThresholdedRelu", "Swish",
)  # fmt: skip
OPERATORS = {
    "Relu": Operator(convert_relu, frozenset()),
    "Clip": Operator(convert_clip, frozenset({"min", "max"})),
    "BatchNormalization": Operator(
        convert_batch_norm, frozenset({"epsilon", "momentum", "spatial", "training_mode"})
    ),
    **{name: Operator(convert_arithmetic, frozenset()) for name in ("Add", "Sub", "Mul", "Div")},
    "Sum": Operator(convert_sum, frozenset()),
    "Concat": Operator(convert_concat, frozenset({"axis"})),
    "Softmax": Operator(convert_softmax, frozenset({"axis"})),
    "LogSoftmax": Operator(convert_softmax, frozenset({"axis"})),
    **{
        name: Operator(refuse_activation, frozenset({"alpha", "beta", "gamma", "approximate"}))
        for name in _ACTIVATIONS
    },
}
