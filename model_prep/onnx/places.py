# SPDX-License-Identifier: Apache-2.0
"""Layers that store a map otherwise than it was computed: enlarged, folded, copied, chosen from.

What enlarges a map is done by the layer that gives it, where nothing else reads that; else by a
layer behind it.
"""

from math import prod

import numpy as np

from nuq.formats.arithmetic import MAX_UPSCALE, Upscale, Window
from nuq.model_prep.activations import rises
from nuq.model_prep.onnx.limits import FLOAT_BYTES, Budget
from nuq.model_prep.onnx.operations import Op, fixed_conv, identity

STORES = ("conv", "fc", "add", "maxpool", "avgpool", "lrn")  # kinds that can enlarge their map


def places_of(op: Op) -> int:
    """Channels of a convolution that are one channel of the map that it stores."""
    return prod(op.upscale.factor) if op.upscale and op.upscale.shuffle else 1


def at_all(op: Op, values: np.ndarray) -> np.ndarray:
    """Values of the stored channels [C, ...] for those of the convolution, place by place."""
    return np.concatenate([values] * places_of(op))


def takes(op: Op, upscale: Upscale) -> bool:
    """Whether a layer that nothing else reads can store its map enlarged."""
    if op.kind not in STORES:
        return False
    if upscale.shuffle:
        return op.has_weights and op.groups == 1 and op.upscale is None
    if op.upscale is None:
        return True
    return not op.upscale.shuffle and max(_product(op.upscale, upscale)) <= MAX_UPSCALE


def _product(first: Upscale, second: Upscale) -> tuple[int, int]:
    rows, columns = (one * other for one, other in zip(first.factor, second.factor, strict=True))
    return rows, columns


def enlarge(op: Op, upscale: Upscale, index: np.ndarray) -> None:
    """Let a layer store its map enlarged; `index` is the order of its channels for a shuffle."""
    if upscale.shuffle:
        op.weight, op.bias, op.upscale = op.weight[index], op.bias[index], upscale
    elif op.upscale:
        op.upscale = Upscale(_product(op.upscale, upscale), False)
    else:
        op.upscale = upscale


def behind(source: Op, op: Op, budget: Budget) -> Op:
    """A layer that does nothing but store `source` as the operation `op` enlarges it."""
    if op.upscale and op.upscale.shuffle:
        made = choice(op, budget, source)
    else:
        made = identity(source, op.title) if source.kind == "input" else copy_of(source)
        made.title = op.title
    made.upscale = op.upscale
    return made


def choice(op: Op, budget: Budget, source: Op | None = None) -> Op:
    """A 1x1 convolution that gives the channels `op.index` of what `op` reads."""
    source = source or op.sources[0]
    shape = (len(op.index), source.out_shape[0], 1, 1)
    budget.check(prod(shape) * FLOAT_BYTES, f"the choice of node {op.title}")
    weight = np.zeros(shape, np.float32)
    weight[np.arange(len(op.index)), op.index] = 1.0
    return fixed_conv(source, op.title, weight)


def folded(op: Op, budget: Budget) -> Op:
    """The convolution that puts `op.stride` rows and columns into channels."""
    source, (rows, columns) = op.sources[0], op.stride
    channels = source.out_shape[0]
    shape = (rows, columns, channels, channels, rows, columns)
    budget.check(prod(shape) * FLOAT_BYTES, f"the weights of node {op.title}")
    weight = np.zeros(shape, np.float32)
    for dy, dx in np.ndindex(rows, columns):
        weight[dy, dx, :, :, dy, dx] = np.eye(channels)
    weight = weight.reshape(-1, channels, rows, columns)[op.index]
    return fixed_conv(source, op.title, weight, stride=op.stride)


def unfold(conv: Op, op: Op) -> None:
    """Let a convolution that reads `op`, a fold, read what that does."""
    (rows, columns), (out, channels, high, wide) = op.stride, conv.weight.shape
    by_place = np.empty_like(conv.weight)
    by_place[:, op.index] = conv.weight
    weight = by_place.reshape(out, rows, columns, channels // (rows * columns), high, wide)
    weight = weight.transpose(0, 3, 4, 1, 5, 2)
    conv.weight = np.ascontiguousarray(weight).reshape(out, -1, high * rows, wide * columns)
    conv.stride = (conv.stride[0] * rows, conv.stride[1] * columns)
    top, left, bottom, right = conv.pads
    conv.pads = (top * rows, left * columns, bottom * rows, right * columns)


def copy_of(source: Op) -> Op:
    """A layer that stores `source` a second time: a max pool over single pixels.

    Codes that do not rise with their values cannot be taken over: a convolution makes others.
    """
    if not all(rises(part.coded) for part in parts_of(source)):
        return identity(source, f"copy of {source.title}")
    return Op(
        "maxpool", sources=[source], title=f"copy of {source.title}",
        pool=Window((1, 1), (1, 1)), nonnegative=source.nonnegative,
    )  # fmt: skip


def parts_of(op: Op) -> list[Op]:
    """The layers that a concat joins, nested or not, or the layer itself."""
    found, stack = [], [op]
    while stack:
        one = stack.pop()
        if one.kind == "concat":
            stack.extend(reversed(one.sources))
        else:
            found.append(one)
    return found
