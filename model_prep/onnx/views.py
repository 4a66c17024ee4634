# SPDX-License-Identifier: Apache-2.0
"""Nodes without arithmetic: views of a feature map or a constant, sizes, and constants.

Every constant's size is known, and checked, before it is computed.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
from onnx import TensorProto

from nuq.model_prep.onnx.limits import MAX_RANK
from nuq.model_prep.onnx.lowering import Ints, Node, Result, folding, operator
from nuq.model_prep.onnx.operations import Finished, UnsupportedError, Value
from nuq.model_prep.onnx.reader import FLOATS, ITEM_BYTES

CASTS: dict[int, type] = {  # of constants
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16,
    TensorProto.INT64: np.int64, TensorProto.INT32: np.int32, TensorProto.BOOL: np.bool_,
}  # fmt: skip


def axis_index(axis: int, rank: int) -> int:
    """A non-negative axis.

    >>> axis_index(-1, 4)
    3
    """
    if not -rank <= axis < rank:
        raise UnsupportedError(f"axis must be {-rank} to {rank - 1}, not {axis}")
    return axis % rank


def axis_indices(axes: Sequence[int], rank: int) -> list[int]:
    """Non-negative, distinct axes."""
    indices = [axis_index(axis, rank) for axis in axes]
    if len(set(indices)) < len(indices):
        raise UnsupportedError(f"axes must differ, not {list(axes)}")
    return indices


def axes_of(node: Node, axes: Ints | None) -> Ints | None:
    """Axes that are an attribute in old files and input 1 in new ones."""
    return node.integers(1) if axes is None else axes


def reshaped(node: Node, value: Result, shape: Sequence[int]) -> Result:
    """A node's value with other sizes, as many; at the end the host does what cannot be a view."""
    if isinstance(value, np.ndarray):
        node.take(value.nbytes)  # numpy copies what was broadcast
    try:
        return value.reshape(shape)
    except UnsupportedError:
        if not (node.at_end and isinstance(value, Value)):
            raise
        return value.finished().reshape(shape)


@operator("Reshape")
def reshape(node: Node, *, allowzero: int = 0) -> Result:
    """Reshape that joins axes, or only adds and drops axes of size 1."""
    value, sizes = node.value(), node.integers(1)
    if sizes is None or len(sizes) > MAX_RANK:
        raise UnsupportedError(f"sizes must be a constant list of at most {MAX_RANK}")
    wanted, batch = list(sizes), node.context.source.batch
    depends = not isinstance(value, np.ndarray)
    if depends and batch is not None and batch > 1 and wanted[:1] == [batch]:
        wanted[0] = 1
    if allowzero and 0 in wanted:
        raise UnsupportedError("sizes must not be 0 with allowzero")
    for index, size in enumerate(wanted):
        if size == 0:
            if index >= value.ndim:
                raise UnsupportedError("a size of 0 must stand for an axis of the input")
            wanted[index] = value.shape[index]
    if wanted.count(-1) > 1 or any(size < -1 for size in wanted):
        raise UnsupportedError(f"sizes must be positive, or -1 once, not {list(sizes)[:8]}")
    elements = prod(value.shape)
    if -1 in wanted:
        others = -prod(wanted)
        wanted[wanted.index(-1)] = elements // max(others, 1)
    if prod(wanted) != elements:
        raise UnsupportedError(f"sizes {list(sizes)[:8]} must fit {elements} elements")
    return reshaped(node, value, wanted)


@operator("Flatten")
def flatten(node: Node, *, axis: int = 1) -> Result:
    """Flatten: two axes, cut at `axis`."""
    value = node.value()
    if axis != value.ndim:
        axis = axis_index(axis, value.ndim)
    return reshaped(node, value, (prod(value.shape[:axis]), prod(value.shape[axis:])))


@operator("Squeeze")
def squeeze(node: Node, *, axes: Ints | None = None) -> Result:
    """Squeeze: drop the given axes of size 1, or all."""
    value, axes = node.value(), axes_of(node, axes)
    if axes is None:
        axes = tuple(index for index, size in enumerate(value.shape) if size == 1)
    chosen = axis_indices(axes, value.ndim)
    if any(value.shape[index] != 1 for index in chosen):
        raise UnsupportedError("squeezed axes must have size 1")
    rest = [size for index, size in enumerate(value.shape) if index not in chosen]
    return reshaped(node, value, rest)


@operator("Unsqueeze")
def unsqueeze(node: Node, *, axes: Ints | None = None) -> Result:
    """Unsqueeze: insert axes of size 1."""
    value, axes = node.value(), axes_of(node, axes)
    if axes is None or len(axes) + value.ndim > MAX_RANK:
        raise UnsupportedError(f"axes must be given, for at most {MAX_RANK} in all")
    shape = list(value.shape)
    for index in sorted(axis_indices(axes, value.ndim + len(axes))):
        shape.insert(index, 1)
    return reshaped(node, value, shape)


@operator("Transpose")
def transpose(node: Node, *, perm: Ints | None = None) -> Result:
    """Transpose, undone in the next fully connected layer's weights, or by the host at the end."""
    value = node.value()
    rank = value.ndim
    order = list(reversed(range(rank))) if perm is None else list(perm)
    if sorted(order) != list(range(rank)):
        raise UnsupportedError(f"perm must be a permutation of {rank} axes, not {order[:8]}")
    moved = value.transpose(order)
    if isinstance(value, Value) and isinstance(moved, Value) and node.at_end and not moved.plain:
        return value.finished().transpose(order)
    return moved


@operator("Identity")
def identity(node: Node) -> Result:
    """Identity: the value itself."""
    return node.value()


@operator("Dropout", ignored=("ratio", "seed"))
def dropout(node: Node) -> Result:
    """Dropout in inference: nothing."""
    if node.has(2) and np.any(node.constant(2)):
        raise UnsupportedError("training_mode must be false")
    return node.value()


@operator("Cast", ignored=("saturate", "round_mode"))
def cast(node: Node, *, to: int = 0) -> Result:
    """Cast: nothing for a feature map, whose type must stay a float type, and for an index."""
    value = node.value()
    if isinstance(value, Finished) and any(step.kind == "argmax" for step in value.steps):
        return value
    if not isinstance(value, np.ndarray):
        if to not in FLOATS:
            raise UnsupportedError("the type must be a float type")
        return value
    if to not in CASTS:
        raise UnsupportedError("a constant's type must be a float type, int32, int64 or bool")
    node.take(value.size * np.dtype(CASTS[to]).itemsize)
    with folding():
        return value.astype(CASTS[to])


@operator("Shape")
def shape(node: Node, *, start: int = 0, end: int | None = None) -> Result:
    """Shape: known, since only the batch may be free, and that is 1."""
    return np.asarray(node.value().shape[start:end], np.int64)


@operator("Constant")
def constant(
    node: Node, *, value: TensorProto | None = None, value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None, value_int: int | None = None,
    value_ints: Ints | None = None,
) -> Result:  # fmt: skip
    """Constant."""
    if value is not None:
        return node.context.array(value, node.title)
    for numbers, kind in (
        (value_float, np.float32), (value_floats, np.float32), (value_int, np.int64),
        (value_ints, np.int64),
    ):  # fmt: skip
        if numbers is not None:
            return np.asarray(numbers, kind)
    raise UnsupportedError("the value must be a tensor, or float or integer numbers")


@operator("ConstantOfShape")
def constant_of_shape(node: Node, *, value: TensorProto | None = None) -> Result:
    """ConstantOfShape: one value, broadcast without taking memory until it is used."""
    dims = node.integers(0) or ()
    if len(dims) > 8 or any(not 0 <= size < 1 << 31 for size in dims):
        raise UnsupportedError(
            f"sizes must be 0 to 2^31 - 1, at most 8 of them, not {list(dims)[:8]}"
        )
    array, item = np.zeros(1, np.float32), 4
    if value is not None:
        array, item = node.context.array(value, node.title), ITEM_BYTES[value.data_type]
    if array.size != 1:
        raise UnsupportedError("the value must be one number")
    node.take(prod(dims) * item)
    return np.broadcast_to(array.reshape(()), dims)
