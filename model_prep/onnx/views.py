# SPDX-License-Identifier: Apache-2.0
"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: other views of the same feature map.

A view never moves data in the engine: it is undone where a fully connected layer's weights are
permuted, or at the output.
"""

from collections.abc import Sequence
from math import prod

from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.operations import LABELS, Axes, Value, refused


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
    found = [axis_index(axis, rank) for axis in axes]
    if len(set(found)) < len(found):
        raise UnsupportedError(f"axes must differ, not {list(axes)}")
    return found


def target_dims(
    value: Value, dims: Sequence[int], batch: int | None, allow_zero: bool = False
) -> tuple[int, ...]:
    """Sizes that a Reshape asks for, with 0 (copy) and -1 (the rest) filled in, batch 1."""
    wanted = list(dims)
    if wanted and batch is not None and batch > 1 and wanted[0] == batch:
        wanted[0] = 1
    if allow_zero and 0 in wanted:
        raise UnsupportedError("sizes must not be 0 with allowzero")
    for index, size in enumerate(wanted):
        if size == 0:
            if index >= len(value.dims):
                raise UnsupportedError("a size of 0 must stand for an axis of the input")
            wanted[index] = value.dims[index]
    if wanted.count(-1) > 1 or any(size < -1 for size in wanted):
        raise UnsupportedError(f"sizes must be positive, or -1 once, not {list(dims)[:8]}")
    total = prod(value.dims)
    known = prod(size for size in wanted if size != -1)
    if -1 in wanted:
        if known == 0 or total % known:
            raise UnsupportedError(f"sizes {list(dims)[:8]} must fit {total} elements")
        wanted[wanted.index(-1)] = total // known
    if prod(wanted) != total:
        raise UnsupportedError(f"sizes {list(dims)[:8]} must fit {total} elements")
    return tuple(wanted)


def regroup(value: Value, dims: Sequence[int]) -> Axes:
    """The axes after a reshape to `dims`; UnsupportedError where it cuts a map's axis in pieces."""
    rest = list(value.order)
    axes = []
    for size in dims:
        labels: list[str] = []
        while value.size(tuple(labels)) < size and rest:
            labels.append(rest.pop(0))
        if value.size(tuple(labels)) != size:
            raise UnsupportedError(
                "a reshape that splits channels, rows or columns is not supported", tuple(dims)
            )
        axes.append(tuple(labels))
    return tuple(axes)


def reshape(value: Value, dims: Sequence[int]) -> Value:
    """The value with other sizes."""
    if value.op.kind == "refused":
        return refused(tuple(dims))
    return value.seen(regroup(value, dims))


def flatten(value: Value, axis: int) -> Value:
    """ONNX Flatten: two axes, cut at `axis`."""
    rank = len(value.axes)
    if axis != rank:
        axis = axis_index(axis, rank)
    front = tuple(label for labels in value.axes[:axis] for label in labels)
    back = tuple(label for labels in value.axes[axis:] for label in labels)
    return value.seen((front, back))


def squeeze(value: Value, axes: Sequence[int] | None) -> Value:
    """Drop axes of size 1: the given ones, or all."""
    rank = len(value.axes)
    chosen = (
        [index for index in range(rank) if value.dims[index] == 1]
        if axes is None
        else axis_indices(axes, rank)
    )
    if any(value.dims[index] != 1 for index in chosen):
        raise UnsupportedError("squeezed axes must have size 1")
    return value.seen(tuple(a for index, a in enumerate(value.axes) if index not in chosen))


def unsqueeze(value: Value, axes: Sequence[int]) -> Value:
    """Insert axes of size 1."""
    rank = len(value.axes) + len(axes)
    chosen = set(axis_indices(axes, rank))
    rest = iter(value.axes)
    return value.seen(tuple(() if index in chosen else next(rest) for index in range(rank)))


def transpose(value: Value, perm: Sequence[int] | None) -> Value:
    """Permute the axes."""
    rank = len(value.axes)
    order = list(reversed(range(rank))) if perm is None else list(perm)
    if sorted(order) != list(range(rank)):
        raise UnsupportedError(f"perm must be a permutation of {rank} axes, not {order[:8]}")
    if value.op.kind == "refused" and not value.is_map:
        dims = tuple(value.dims[index] for index in order)
        raise UnsupportedError("a transpose that moves parts of channels is not supported", dims)
    return value.seen(tuple(value.axes[index] for index in order))


def plain_order(value: Value) -> bool:
    """Whether the elements lie as in [channels, rows, columns]."""
    return value.order == tuple(label for label in LABELS if label in value.order)
