# SPDX-License-Identifier: Apache-2.0
"""MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool, ReduceMean, LRN and Pad."""

from math import isfinite

import numpy as np

from formats.arithmetic import Average, Lrn, Window
from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.lowering import Context, Node, Operator
from model_prep.onnx.operations import Op, Value
from model_prep.onnx.views import axis_indices
from model_prep.onnx.windows import SlidingWindow, check, window

MAX_SIZE = 255


def _window(node: Node, source: Op) -> SlidingWindow:
    kernel = node.attributes.integers("kernel_shape")
    if kernel is None or len(kernel) != 2:
        raise UnsupportedError("kernel_shape must have 2 values (rows, columns)")
    sliding = window(node.attributes, *source.shape[1:], (kernel[0], kernel[1]))
    same = node.attributes.string("auto_pad", "NOTSET").startswith("SAME")
    if same and any(sliding.stride[axis] > kernel[axis] for axis in range(2)):
        raise UnsupportedError("auto_pad must not be SAME where strides exceed the kernel")
    if sliding.dilation != (1, 1):
        raise UnsupportedError(f"dilations must be 1, not {list(sliding.dilation)}")
    if any(pad >= kernel[index % 2] for index, pad in enumerate(sliding.pads)):
        raise UnsupportedError(
            f"pads must be smaller than the kernel {list(kernel)}, not {list(sliding.pads)}"
        )
    return sliding


def convert_max_pool(context: Context, node: Node) -> None:
    """MaxPool; ceil mode becomes padding behind the map."""
    source = context.map(node)
    sliding = _window(node, source)
    pool = Window(sliding.kernel, sliding.stride, sliding.pads)
    shape = (source.shape[0], *sliding.out)
    context.emit(node, Op("maxpool", [source], shape, node.title, pool=pool))


def convert_average_pool(context: Context, node: Node) -> None:
    """AveragePool, with or without the padding in the divisor."""
    source = context.map(node)
    sliding = _window(node, source)
    include = bool(node.attributes.integer("count_include_pad", 0)) and any(sliding.pads)
    if include and sliding.overhang:
        raise UnsupportedError(
            "ceil_mode must not reach beyond the pads where count_include_pad is 1"
        )
    average = Average(sliding.kernel, sliding.stride, sliding.pads, include)
    shape = (source.shape[0], *sliding.out)
    context.emit(node, Op("avgpool", [source], shape, node.title, average=average))


def convert_global_average(context: Context, node: Node) -> None:
    """GlobalAveragePool: an average over the whole map."""
    source = context.map(node)
    context.emit(node, _whole(node, source))


def convert_global_max(context: Context, node: Node) -> None:
    """GlobalMaxPool: a max pool over the whole map."""
    source = context.map(node)
    channels, height, width = source.shape
    check((height, width), 1, "the map's sides")
    pool = Window((height, width), (1, 1))
    context.emit(node, Op("maxpool", [source], (channels, 1, 1), node.title, pool=pool))


def _whole(node: Node, source: Op) -> Op:
    channels, height, width = source.shape
    check((height, width), 1, "the map's sides")
    average = Average((height, width), (1, 1))
    return Op("avgpool", [source], (channels, 1, 1), node.title, average=average)


def convert_reduce_mean(context: Context, node: Node) -> None:
    """ReduceMean over rows and columns, in whatever order the axes are."""
    value = context.tensor(node)
    axes = node.attributes.integers("axes")
    if axes is None:
        axes = context.integers(node, 1)
    if axes is None or not axes:
        raise UnsupportedError("axes must be given: the rows and the columns")
    chosen = axis_indices(axes, len(value.axes))
    labels = {label for index in chosen for label in value.axes[index]}
    spatial = {label for label in ("H", "W") if value.size((label,)) > 1}
    if labels != spatial:
        raise UnsupportedError(f"axes must be the rows and the columns, not {list(axes)[:8]}")
    op = _whole(node, value.op)
    kept = bool(node.attributes.integer("keepdims", 1))
    seen = tuple(
        () if index in chosen else labels
        for index, labels in enumerate(value.axes)
        if kept or index not in chosen
    )
    context.emit(node, op, Value(op, seen))


def convert_lrn(context: Context, node: Node) -> None:
    """LRN over channels."""
    source = context.map(node)
    attributes = node.attributes
    size = attributes.integer("size", 0)
    lrn = Lrn(
        size, attributes.number("alpha", 1e-4), attributes.number("beta", 0.75),
        attributes.number("bias", 1.0),
    )  # fmt: skip
    if not 1 <= size <= MAX_SIZE:
        raise UnsupportedError(f"size must be 1 to {MAX_SIZE}, not {size}")
    if not (isfinite(lrn.alpha) and lrn.alpha >= 0 and 0 <= lrn.beta <= 8 and 0 < lrn.k < 1e6):
        raise UnsupportedError(
            f"alpha must be 0 or more, beta 0 to 8 and bias positive, not {lrn.alpha:g}, "
            f"{lrn.beta:g} and {lrn.k:g}"
        )
    context.emit(node, Op("lrn", [source], source.shape, node.title, lrn=lrn))


def convert_pad(context: Context, node: Node) -> None:
    """Pad of rows and columns with a constant; fused into what reads it where that pads too."""
    source = context.map(node)
    attributes = node.attributes
    if attributes.string("mode", "constant") != "constant":
        raise UnsupportedError("mode must be constant")
    pads = attributes.integers("pads") or context.integers(node, 1) or ()
    fill = attributes.number("value", 0.0)
    if context.known(node, 2):
        found = context.constant(node, 2)
        if found.size != 1:
            raise UnsupportedError("the padding value must be one number")
        fill = float(found.reshape(-1)[0])
    full = _all_axes(pads, context.integers(node, 3))
    if any(full[index] for index in (0, 1, 4, 5)):
        raise UnsupportedError("only rows and columns can be padded")
    inner = (full[2], full[3], full[6], full[7])
    check(inner, 0, "pads")
    if fill not in (0.0, -np.inf):
        raise UnsupportedError(
            f"the padding value must be 0 (or -inf before a MaxPool), not {fill:g}"
        )
    channels, height, width = source.shape
    shape = (channels, height + inner[0] + inner[2], width + inner[1] + inner[3])
    context.emit(node, Op("pad", [source], shape, node.title, pads=inner, pad_value=fill))


def _all_axes(pads: tuple[int, ...], axes: tuple[int, ...] | None) -> list[int]:
    """Pads before all 4 axes, then behind them."""
    chosen = list(range(4)) if axes is None else axis_indices(axes, 4)
    if len(pads) != 2 * len(chosen):
        raise UnsupportedError(f"pads must have {2 * len(chosen)} values, not {len(pads)}")
    full = [0] * 8
    for position, axis in enumerate(chosen):
        full[axis], full[axis + 4] = pads[position], pads[position + len(chosen)]
    return full


_POOL = {"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"}
OPERATORS = {
    "MaxPool": Operator(convert_max_pool, frozenset({*_POOL, "storage_order"})),
    "AveragePool": Operator(convert_average_pool, frozenset({*_POOL, "count_include_pad"})),
    "GlobalAveragePool": Operator(convert_global_average, frozenset()),
    "GlobalMaxPool": Operator(convert_global_max, frozenset()),
    "ReduceMean": Operator(
        convert_reduce_mean, frozenset({"axes", "keepdims", "noop_with_empty_axes"})
    ),
    "LRN": Operator(convert_lrn, frozenset({"alpha", "beta", "bias", "size"})),
    "Pad": Operator(convert_pad, frozenset({"mode", "pads", "value"})),
}
