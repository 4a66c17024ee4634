# SPDX-License-Identifier: Apache-2.0
"""Nodes whose inputs are all constants, computed with numpy at import.

Every result's size is known, and checked, before it is computed.
"""

from collections.abc import Callable
from math import prod

import numpy as np
from onnx import TensorProto

from formats.errors import UserError
from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.lowering import Context, Node, Operator
from model_prep.onnx.tensors import ITEM_BYTES
from model_prep.onnx.text import shown
from model_prep.onnx.views import axis_index, axis_indices

Fold = Callable[[Context, Node, list[np.ndarray]], np.ndarray]
CASTS: dict[int, type] = {
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16,
    TensorProto.INT64: np.int64, TensorProto.INT32: np.int32, TensorProto.BOOL: np.bool_,
}  # fmt: skip


def constant_of_shape(context: Context, node: Node) -> None:
    """ConstantOfShape: one value, broadcast without taking memory until it is used."""
    dims = context.integers(node, 0) or ()
    if len(dims) > 8 or any(not 0 <= size < 1 << 31 for size in dims):
        raise UnsupportedError(
            f"sizes must be 0 to 2^31 - 1, at most 8 of them, not {list(dims)[:8]}"
        )
    tensor = node.attributes.tensor("value")
    value = np.zeros(1, np.float32)
    item = 4
    if tensor is not None:
        value = context.tensors.array(tensor, node.title)
        item = ITEM_BYTES[tensor.data_type]
    if value.size != 1:
        raise UnsupportedError("the value must be one number")
    context.budget.take(prod(dims) * item, f"the output of node {node.title}")
    context.set(node, np.broadcast_to(value.reshape(()), dims))


def _arithmetic(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    first, second = inputs
    if first.dtype != second.dtype or first.dtype == np.bool_:
        raise UnsupportedError("constants must be numbers of one type")
    dims = np.broadcast_shapes(first.shape, second.shape)
    _take(context, node, prod(dims) * first.itemsize)
    with np.errstate(all="ignore"):
        if node.op_type == "Add":
            return first + second
        if node.op_type == "Sub":
            return first - second
        if node.op_type == "Mul":
            return first * second
        if np.issubdtype(first.dtype, np.integer):
            if (second == 0).any() or (first < 0).any() or (second < 0).any():
                raise UnsupportedError("integer division must be of positive numbers")
            return first // second
        return first / second


def _take(context: Context, node: Node, size: int) -> None:
    context.budget.take(size, f"the output of node {node.title}")


def _cast(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    target = CASTS.get(node.attributes.integer("to", 0))
    if target is None:
        raise UnsupportedError("a constant's type must be a float type, int32, int64 or bool")
    _take(context, node, inputs[0].size * np.dtype(target).itemsize)
    with np.errstate(all="ignore"):
        return inputs[0].astype(target)


def _axes(context: Context, node: Node) -> tuple[int, ...] | None:
    axes = node.attributes.integers("axes")
    return context.integers(node, 1) if axes is None else axes


def _unsqueeze(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    axes = _axes(context, node) or ()
    rank = inputs[0].ndim + len(axes)
    if rank > 16:
        raise UnsupportedError("a constant must have at most 16 axes")
    return np.expand_dims(inputs[0], tuple(axis_indices(axes, rank)))


def _squeeze(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    axes = _axes(context, node)
    array = inputs[0]
    chosen = None if axes is None else tuple(axis_indices(axes, array.ndim))
    if chosen is not None and any(array.shape[axis] != 1 for axis in chosen):
        raise UnsupportedError("squeezed axes must have size 1")
    return np.squeeze(array, chosen)


def _reshape(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    array = inputs[0]
    dims = [
        array.shape[index] if size == 0 and index < array.ndim else size
        for index, size in enumerate(context.integers(node, 1) or ())
    ]
    _take(context, node, array.nbytes)
    return array.reshape(dims)


def _flatten(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    array, axis = inputs[0], node.attributes.integer("axis", 1)
    if axis != array.ndim:
        axis = axis_index(axis, array.ndim)
    _take(context, node, array.nbytes)
    return array.reshape(prod(array.shape[:axis]), prod(array.shape[axis:]))


def _transpose(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    perm = node.attributes.integers("perm")
    if perm is not None and sorted(perm) != list(range(inputs[0].ndim)):
        raise UnsupportedError("perm must be a permutation of the axes")
    return inputs[0].transpose(perm)


def _concat(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    axis = axis_index(node.attributes.integer("axis", 0), max(inputs[0].ndim, 1))
    _take(context, node, sum(array.nbytes for array in inputs))
    return np.concatenate(inputs, axis)


def _gather(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    array, index = inputs
    axis = axis_index(node.attributes.integer("axis", 0), max(array.ndim, 1))
    limit = array.shape[axis] if array.ndim else 0
    if not np.issubdtype(index.dtype, np.integer) or ((index < -limit) | (index >= limit)).any():
        raise UnsupportedError(f"indices must be -{limit} to {limit - 1}")
    _take(context, node, array.nbytes // max(limit, 1) * index.size)
    return np.take(array, index, axis)


def _slice(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    array = inputs[0]
    attributes = node.attributes
    starts = attributes.integers("starts") or context.integers(node, 1) or ()
    ends = attributes.integers("ends") or context.integers(node, 2) or ()
    axes = attributes.integers("axes") or context.integers(node, 3) or tuple(range(len(starts)))
    steps = context.integers(node, 4) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise UnsupportedError("starts, ends, axes and steps must go together")
    chosen = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen[axis_index(axis, array.ndim)] = slice(start, end, step)
    return array[tuple(chosen)]


def _same(context: Context, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    return inputs[0]


FOLDS: dict[str, tuple[Fold, int]] = {  # function, inputs it needs
    **{name: (_arithmetic, 2) for name in ("Add", "Sub", "Mul", "Div")},
    "Cast": (_cast, 1), "Unsqueeze": (_unsqueeze, 1), "Squeeze": (_squeeze, 1),
    "Reshape": (_reshape, 2), "Flatten": (_flatten, 1), "Transpose": (_transpose, 1),
    "Concat": (_concat, 1), "Gather": (_gather, 2), "Slice": (_slice, 1), "Identity": (_same, 1),
    "Dropout": (_same, 1),
}  # fmt: skip


def folding(name: str, otherwise: Operator | None, attributes: frozenset[str]) -> Operator:
    """The operator that folds where all inputs are constants, and else does `otherwise`."""
    fold, needed = FOLDS[name]

    def convert(context: Context, node: Node) -> None:
        connected = [index for index in range(len(node.inputs)) if node.has(index)]
        if len(connected) >= needed and all(context.known(node, index) for index in connected):
            inputs = [context.constant(node, index) for index in connected]
            try:
                context.set(node, fold(context, node, inputs))
            except UserError:
                raise
            except (ValueError, TypeError, IndexError) as error:  # numpy: sizes that do not fit
                raise UnsupportedError(
                    f"constants must fit each other: {shown(str(error))}"
                ) from None
        elif otherwise is None:
            raise UnsupportedError("inputs must be constants")
        else:
            otherwise.convert(context, node)

    return Operator(convert, attributes if otherwise is None else otherwise.attributes)


CONSTANT_ONLY = {
    "Gather": frozenset({"axis"}),
    "Slice": frozenset({"starts", "ends", "axes"}),
}
