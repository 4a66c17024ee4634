# SPDX-License-Identifier: Apache-2.0
"""Normalisations, arithmetic, Concat and what the host does at the end.

Arithmetic with a constant per channel is an affine map, folded into the convolution before it.
"""

from functools import partial
from math import isfinite, prod

import numpy as np

from nuq.formats.arithmetic import Lrn
from nuq.formats.ending import Step
from nuq.model_prep.onnx.limits import MAX_CONCAT_PARTS
from nuq.model_prep.onnx.lowering import Node, Result, Results, folding, operator
from nuq.model_prep.onnx.operations import Finished, UnsupportedError, Value, map_axes
from nuq.model_prep.onnx.pointwise import ARITHMETIC, combined, part_of_one, scaled, unresolved
from nuq.model_prep.onnx.views import axis_index

WIDEST_LRN = 255  # channels; fewer can be run


@operator("BatchNormalization", ignored=("momentum",))
def batch_norm(
    node: Node, *, epsilon: float = 1e-5, spatial: int = 1, training_mode: int = 0
) -> Value:
    """BatchNormalization in inference mode: scale and shift per channel."""
    value = node.tensor()
    if training_mode or not spatial:
        raise UnsupportedError("training_mode must be 0 and spatial 1")
    if value.ndim < 2 or value.axes[1] not in ((), ("C",)):
        raise UnsupportedError("channels must be axis 1")
    channels = value.shape[1]
    gamma, beta, mean, variance = (node.weights(index).astype(np.float64) for index in range(1, 5))
    if any(array.shape != (channels,) for array in (gamma, beta, mean, variance)):
        raise UnsupportedError(f"scale, bias, mean and variance must have {channels} values each")
    spread = variance + epsilon
    if not (spread > 0).all():
        raise UnsupportedError("variance + epsilon must be positive")
    scale = gamma / np.sqrt(spread)
    return _affine(node, value, scale, beta - mean * scale)


def _affine(node: Node, value: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
    """x * scale + shift; both [channels] or one number."""
    of = None
    if scale.size == shift.size == 1:
        found = scaled(node, value, scale.item(), shift.item())
        if isinstance(found, Value):
            return found
        of = found
    elif unresolved(value.op):
        raise UnsupportedError("a constant for each channel must not be in an activation")
    channels = value.op.out_shape[0]
    with np.errstate(over="ignore"):
        factors = np.broadcast_to(scale, channels).astype(np.float32)
        shifts = np.broadcast_to(shift, channels).astype(np.float32)
    if not (np.isfinite(factors).all() and np.isfinite(shifts).all()):
        raise UnsupportedError("scale and shift must be finite")
    weight = factors.reshape(-1, 1, 1, 1)
    return node.op(
        "affine", value.op, axes=value.axes, weight=weight, bias=shifts, groups=channels, of=of
    )


def _per_channel(node: Node, index: int, value: Value) -> np.ndarray:
    """A constant input as float64 [channels] or one number."""
    array = node.weights(index).astype(np.float64)
    if array.size == 1 and array.ndim <= value.ndim:
        return array.reshape(())
    dims = (1,) * (value.ndim - array.ndim) + array.shape
    axis = value.axes.index(("C",)) if ("C",) in value.axes else None
    if axis is None or dims != tuple(
        size if index == axis else 1 for index, size in enumerate(value.shape)
    ):
        raise UnsupportedError(
            f"a constant must have one value, or one per channel, not the sizes {list(array.shape)}"
        )
    return array.reshape(-1)


@operator("Add", "Sub", "Mul", "Div")
def arithmetic(node: Node) -> Results:
    """Add, Sub, Mul or Div of constants, or with one per channel; Add or Mul of two tensors."""
    if len(node.constants()) == 2:
        return _computed(node, *node.constants())
    first = 1 if node.known(0) else 0
    value, other = node.tensor(first), 1 - first
    if not node.known(other):
        found = combined(node, node.tensor(0), node.tensor(1))
        if found is None and node.op_type not in ("Add", "Mul"):
            raise UnsupportedError("one input must be a constant", value.shape)
        if found is None:
            return add(node) if node.op_type == "Add" else product(node)
        return found
    constant = _per_channel(node, other, value)
    one, zero = np.ones(()), np.zeros(())
    if node.op_type == "Add":
        scale, shift = one, constant
    elif node.op_type == "Mul":
        scale, shift = constant, zero
    elif node.op_type == "Sub":
        scale, shift = (one, -constant) if first == 0 else (-one, constant)
    elif first == 0 and (constant != 0).all():
        scale, shift = 1 / constant, zero
    elif first == 1 and constant.size == 1:
        return part_of_one(node, value, partial(np.divide, constant.item()))
    else:
        raise UnsupportedError("the divisor must be a constant other than 0")
    return _affine(node, value, scale, shift)


@operator("Neg")
def negative(node: Node) -> Result:
    """The number itself, negative."""
    if constants := node.constants():
        node.take(constants[0].nbytes)
        with folding():
            return np.negative(constants[0])
    return _affine(node, node.tensor(), -np.ones(()), np.zeros(()))


@folding()
def _computed(node: Node, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if first.dtype != second.dtype or first.dtype == np.bool_:
        raise UnsupportedError("constants must be numbers of one type")
    node.take(prod(np.broadcast_shapes(first.shape, second.shape)) * first.itemsize)
    if node.op_type == "Div" and np.issubdtype(first.dtype, np.integer):
        if (second == 0).any() or (first < 0).any() or (second < 0).any():
            raise UnsupportedError("integer division must be of positive numbers")
        return first // second
    return ARITHMETIC[node.op_type](first, second)


@operator("Sum")
def add(node: Node) -> Value:
    """Add or Sum of tensors of equal shape: a chain of two-input additions."""
    values = [node.tensor(index) for index in range(len(node.inputs))]
    if not values:
        raise UnsupportedError("at least one input must be connected")
    if any(value.axes != values[0].axes or value.shape != values[0].shape for value in values):
        sizes = " and ".join(str(list(value.shape)) for value in values[:3])
        raise UnsupportedError(f"inputs must have equal sizes, not {sizes}")
    total = values[0]
    for value in values[1:]:
        total = node.op("add", total.op, value.op, axes=value.axes)
    return total


def product(node: Node) -> Value:
    """Mul of two tensors of equal shape, or of one with a number for each of its channels."""
    first, second = sorted((node.tensor(0), node.tensor(1)), key=lambda value: -prod(value.shape))
    spread = tuple(tuple(label for label in labels if label == "C") for labels in first.axes)
    same = (second.axes, second.shape) == (first.axes, first.shape)
    pixel = second.axes == spread and second.op.out_shape == (first.op.out_shape[0], 1, 1)
    if first.split or second.split or not (same or pixel):
        raise UnsupportedError(
            "inputs must have equal sizes, or one of them a number for each channel, not "
            f"{list(node.tensor(0).shape)} and {list(node.tensor(1).shape)}", first.shape
        )  # fmt: skip
    return node.op("mul", first.op, second.op, axes=first.axes)


@operator("Concat")
def concat(node: Node, *, axis: int = 1) -> Result:
    """Concat on the channel axis, or of constants."""
    if constants := node.constants():
        return _joined(node, constants, axis)
    values = [node.tensor(index) for index in range(len(node.inputs))]
    if not values or len(values) > MAX_CONCAT_PARTS:
        raise UnsupportedError(f"inputs must be 1 to {MAX_CONCAT_PARTS}, not {len(values)}")
    axis = axis_index(axis, values[0].ndim)
    others = [value.axes[:axis] + value.axes[axis + 1 :] for value in values]
    for value, rest in zip(values, others, strict=True):
        channels = axis < value.ndim and value.axes[axis] == map_axes(value.op.out_shape)[1]
        if not channels or value.split or any("C" in labels for labels in rest):
            raise UnsupportedError("inputs must be maps, joined along their channels")
        if rest != others[0] or value.op.out_shape[1:] != values[0].op.out_shape[1:]:
            raise UnsupportedError("inputs must have equal rows and columns, in the same order")
    if len(values) == 1:
        return values[0]
    sources = [value.op for value in values]
    shape = (sum(source.out_shape[0] for source in sources), *sources[0].out_shape[1:])
    axes = (*others[0][:axis], map_axes(shape)[1], *others[0][axis:])
    return node.op("concat", *sources, axes=axes, conv_shape=shape)


@folding()
def _joined(node: Node, arrays: list[np.ndarray], axis: int) -> np.ndarray:
    node.take(sum(array.nbytes for array in arrays))
    return np.concatenate(arrays, axis_index(axis, max(arrays[0].ndim, 1)))


@operator("LRN")
def lrn(
    node: Node, *, size: int = 0, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    """LRN over channels."""
    source = node.map()
    if not 1 <= size <= WIDEST_LRN:
        raise UnsupportedError(f"size must be 1 to {WIDEST_LRN}, not {size}")
    if not (isfinite(alpha) and alpha >= 0 and 0 <= beta <= 8 and 0 < bias < 1e6):
        raise UnsupportedError(
            f"alpha must be 0 or more, beta 0 to 8 and bias positive, not {alpha:g}, "
            f"{beta:g} and {bias:g}"
        )
    return node.op("lrn", source, lrn=Lrn(size, alpha, beta, bias))


@operator("Softmax", "LogSoftmax")
def softmax(node: Node, *, axis: int | None = None) -> Finished:
    """Softmax or LogSoftmax at the end: left to the host."""
    value, kind = node.finished(), node.op_type.lower()
    if node.context.source.opset >= 13:
        return value.then(Step(kind, axis=axis_index(-1 if axis is None else axis, value.ndim)))
    axis = axis_index(1 if axis is None else axis, value.ndim)  # and all axes behind it
    flat = value.reshape((prod(value.shape[:axis]), prod(value.shape[axis:])))
    return flat.then(Step(kind, axis=1)).reshape(value.shape)


@operator("ArgMax")
def argmax(node: Node, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Finished:
    """ArgMax at the end: left to the host."""
    if select_last_index:
        raise UnsupportedError("select_last_index must be 0: of equal values the first counts")
    value = node.finished()
    return value.then(Step("argmax", axis=axis_index(axis, value.ndim), keep=bool(keepdims)))
