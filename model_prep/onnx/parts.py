# SPDX-License-Identifier: Apache-2.0
"""Gather, Slice and Split: parts of constants, and of a map's channels.

A part of the channels moves no data: what reads it gets zero weights for the others (`fuse`).
"""

from itertools import accumulate, pairwise

import numpy as np

from nuq.model_prep.onnx.lowering import Ints, Node, Result, folding, operator
from nuq.model_prep.onnx.operations import UnsupportedError, Value, map_axes, selected
from nuq.model_prep.onnx.views import axis_index, reshaped


def _chosen(node: Node, value: Value, axis: int, index: np.ndarray) -> Value:
    """The channels at `index`, where `axis` has the channels."""
    whole = value.is_map or value.shape == (1, value.op.out_shape[0])
    if not whole or axis != 1 or not len(index):
        raise UnsupportedError("only channels of a map can be chosen, one or more of them")
    op = selected(value.op, np.asarray(index, np.int64), node.title)
    return Value(op, map_axes(op.out_shape)[: value.ndim])


@operator("Gather")
@folding()
def gather(node: Node, *, axis: int = 0) -> Result:
    """Gather of a constant, of a map's channels by a constant list, or of all in their order.

    The last is how torch writes `as_strided` where that moves nothing.
    """
    source, index = node.value(), node.constant(1)
    axis = axis_index(axis, max(source.ndim, 1))
    limit = source.shape[axis] if source.ndim else 0
    if not np.issubdtype(index.dtype, np.integer) or ((index < -limit) | (index >= limit)).any():
        raise UnsupportedError(f"indices must be -{limit} to {limit - 1}")
    if isinstance(source, np.ndarray):
        node.take(source.nbytes // max(limit, 1) * index.size)
        return np.take(source, index, axis)
    if np.array_equal(index.ravel() % max(limit, 1), np.arange(limit)):
        return reshaped(
            node, source, (*source.shape[:axis], *index.shape, *source.shape[axis + 1 :])
        )
    if index.ndim != 1:
        raise UnsupportedError(
            "indices of channels must be a list; where torch.onnx.export wrote this for strides, "
            "give it a contiguous example input, as torch.zeros(...) is, or dynamo=False"
        )
    return _chosen(node, node.tensor(), axis, index % max(limit, 1))


@operator("Slice")
@folding()
def cut(
    node: Node, *, starts: Ints | None = None, ends: Ints | None = None, axes: Ints | None = None
) -> Result:
    """Slice of a constant, or of a map's channels."""
    source = node.value()
    starts = starts or node.integers(1) or ()
    ends = ends or node.integers(2) or ()
    axes = axes or node.integers(3) or tuple(range(len(starts)))
    steps = node.integers(4) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise UnsupportedError("starts, ends, axes and steps must go together")
    chosen = [slice(None)] * source.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen[axis_index(axis, source.ndim)] = slice(start, end, step)
    if isinstance(source, np.ndarray):
        return source[tuple(chosen)]
    value = node.tensor()
    for axis, size in enumerate(value.shape):
        if axis != 1 and len(range(size)[chosen[axis]]) != size:
            raise UnsupportedError("only channels of a map can be cut, not rows or columns")
    if len(chosen) < 2:
        raise UnsupportedError("only channels of a map can be cut")
    return _chosen(node, value, 1, np.arange(value.shape[1])[chosen[1]])


@operator("Split")
@folding()
def split(
    node: Node, *, axis: int = 0, split: Ints | None = None, num_outputs: int | None = None
) -> tuple[Result, ...]:
    """Split of a constant, or of a map's channels, in the given sizes or in equal ones."""
    source = node.value()
    axis = axis_index(axis, max(source.ndim, 1))
    total = source.shape[axis] if source.ndim else 0
    sizes = split or node.integers(1)
    if sizes is None:
        count = num_outputs or node.outputs
        each = -(-total // count) if count > 0 else 0
        sizes = tuple(min(each, total - place * each) for place in range(max(count, 0)))
    if len(sizes) != node.outputs or sum(sizes) != total or min(sizes, default=0) < 1:
        raise UnsupportedError(
            f"{node.outputs} outputs must share {total} elements, not {list(sizes)[:8]}"
        )
    ends = pairwise(accumulate(sizes, initial=0))
    if isinstance(source, np.ndarray):
        return tuple(np.take(source, range(*pair), axis) for pair in ends)
    value = node.tensor()
    return tuple(_chosen(node, value, axis, np.arange(*pair)) for pair in ends)
