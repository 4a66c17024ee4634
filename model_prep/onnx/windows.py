# SPDX-License-Identifier: Apache-2.0
"""What slides over rows and columns: `Sliding`, the pools, ReduceMean and Pad."""

from dataclasses import dataclass

import numpy as np

from nuq.formats.arithmetic import Average, Pair, Window, dilated
from nuq.model_prep.onnx.limits import MAX_WINDOW, shown
from nuq.model_prep.onnx.lowering import Ints, Node, operator
from nuq.model_prep.onnx.operations import Op, UnsupportedError, Value
from nuq.model_prep.onnx.views import axes_of, axis_indices


@dataclass(frozen=True)
class Sliding:
    """The attributes of a node that slides a window."""

    auto_pad: str = "NOTSET"
    dilations: Ints | None = None
    kernel_shape: Ints | None = None
    pads: Ints | None = None
    strides: Ints | None = None

    @property
    def dilation(self) -> Pair:
        """(rows, columns)."""
        return _pair(self.dilations, "dilations")

    @property
    def step(self) -> Pair:
        """Strides, (rows, columns)."""
        return _pair(self.strides, "strides")

    def over(self, source: Op, kernel: Pair, ceil: bool = False) -> tuple[Window, bool]:
        """The window on a map, in floor mode with explicit pads.

        Also whether ceil mode added positions that reach beyond the pads which the node declares.
        """
        check(kernel, 1, "kernel_shape")
        stride = self.step
        reach = dilated(kernel, self.dilation)
        sizes = source.out_shape[1:]
        pads = self.pads or (0, 0, 0, 0)
        if len(pads) != 4:
            raise UnsupportedError(
                f"pads must have 4 values (top, left, bottom, right), not {len(pads)}"
            )
        check(pads, 0, "pads")
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            upper = self.auto_pad == "SAME_UPPER"
            rows, columns = (same_pads(sizes[i], reach[i], stride[i], upper) for i in range(2))
            pads = (rows[0], columns[0], rows[1], columns[1])
        elif self.auto_pad == "VALID":
            pads = (0, 0, 0, 0)
        elif self.auto_pad != "NOTSET":
            raise UnsupportedError("auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID")
        bottom, right = (
            behind(sizes[i], reach[i], stride[i], pads[i], pads[i + 2], ceil) for i in range(2)
        )
        overhang = bottom > pads[2] or right > pads[3]
        return Window(kernel, stride, (pads[0], pads[1], bottom, right)), overhang

    def pool(self, source: Op, ceil: bool) -> tuple[Window, bool]:
        """As `over`, with the rules of a pool."""
        kernel = self.kernel_shape
        if kernel is None or len(kernel) != 2:
            raise UnsupportedError("kernel_shape must have 2 values (rows, columns)")
        place, overhang = self.over(source, (kernel[0], kernel[1]), ceil)
        same = self.auto_pad.startswith("SAME")
        if same and any(place.stride[axis] > kernel[axis] for axis in range(2)):
            raise UnsupportedError("auto_pad must not be SAME where strides exceed the kernel")
        if self.dilation != (1, 1):
            raise UnsupportedError(f"dilations must be 1, not {list(self.dilation)}")
        if any(pad >= kernel[index % 2] for index, pad in enumerate(place.pads)):
            raise UnsupportedError(
                f"pads must be smaller than the kernel {list(kernel)}, not {list(place.pads)}"
            )
        return place, overhang


def _pair(values: Ints | None, name: str) -> Pair:
    if values is None:
        return 1, 1
    if len(values) != 2:
        raise UnsupportedError(f"{name} must have 2 values (rows, columns), not {len(values)}")
    check(values, 1, name)
    return values[0], values[1]


def check(values: Ints, lowest: int, what: str) -> None:
    """UnsupportedError where a kernel, stride or pad is below `lowest` or absurdly large."""
    if any(not lowest <= value <= MAX_WINDOW for value in values):
        raise UnsupportedError(f"{what} must be {lowest} to {MAX_WINDOW}, not {list(values)}")


def behind(size: int, reach: int, stride: int, before: int, after: int, ceil: bool) -> int:
    """Padding behind a side of `size` that windows use, of `after` that there is.

    In ceil mode a window may begin before the end of the map, but not in the padding behind it.

    >>> behind(54, 3, 2, 0, 0, True), behind(54, 3, 2, 0, 0, False)
    (1, 0)
    >>> behind(3, 2, 3, 0, 1, True)
    0
    """
    space = size + before + after - reach
    if space < 0:
        raise UnsupportedError(
            f"the kernel must fit its padded input, not reach over {reach} of {size}"
        )
    last = -(-space // stride) if ceil else space // stride  # position
    if ceil and last * stride >= size + before:
        last -= 1
    return max(last * stride + reach - size - before, 0)


def same_pads(size: int, reach: int, stride: int, upper: bool) -> tuple[int, int]:
    """(before, after) of auto_pad SAME: as many positions as size / stride, rounded up.

    >>> same_pads(224, 3, 2, True), same_pads(224, 3, 2, False)
    ((0, 1), (1, 0))

    Raises UnsupportedError where the strides skip two or more values at the edge: ONNX does not
    say which ones, and runtimes differ (onnxruntime crops one at the top, others none).
    """
    total = (-(-size // stride) - 1) * stride + reach - size
    if total < -1:
        raise UnsupportedError(
            f"auto_pad must not be SAME where strides ({stride}) exceed the kernel ({reach}): "
            "write pads instead"
        )
    total = max(total, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


@operator("MaxPool", ignored=("storage_order",))
def max_pool(node: Node, *, window: Sliding, ceil_mode: int = 0) -> Value:
    """MaxPool; ceil mode becomes padding behind the map."""
    source = node.map()
    place, _ = window.pool(source, ceil_mode == 1)
    return node.op("maxpool", source, pool=place)


@operator("AveragePool")
def average_pool(
    node: Node, *, window: Sliding, ceil_mode: int = 0, count_include_pad: int = 0
) -> Value:
    """AveragePool, with or without the padding in the divisor."""
    source = node.map()
    place, overhang = window.pool(source, ceil_mode == 1)
    include = bool(count_include_pad) and any(place.pads)
    if include and overhang:
        raise UnsupportedError(
            "ceil_mode must not reach beyond the pads where count_include_pad is 1"
        )
    average = Average(place.kernel, place.stride, place.pads, include)
    return node.op("avgpool", source, average=average)


def _sides(source: Op) -> Pair:
    """Rows and columns, the kernel of a pool over the whole map."""
    _, height, width = source.out_shape
    check((height, width), 1, "the map's sides")
    return height, width


@operator("GlobalMaxPool")
def global_max(node: Node) -> Value:
    """GlobalMaxPool: a max pool over the whole map."""
    source = node.map()
    return node.op("maxpool", source, pool=Window(_sides(source), (1, 1)))


@operator("GlobalAveragePool")
def global_average(node: Node) -> Value:
    """GlobalAveragePool: an average over the whole map."""
    source = node.map()
    return node.op("avgpool", source, average=Average(_sides(source), (1, 1)))


@operator("ReduceMean", ignored=("noop_with_empty_axes",))
def reduce_mean(node: Node, *, axes: Ints | None = None, keepdims: int = 1) -> Value:
    """ReduceMean over rows, columns or both, in whatever order the axes are."""
    value = node.tensor()
    axes = axes_of(node, axes)
    if not axes:
        raise UnsupportedError("axes must be given: the rows and the columns")
    chosen = axis_indices(axes, value.ndim)
    labels = {label for index in chosen for label in value.axes[index]}
    if not labels <= {"H", "W"}:
        raise UnsupportedError(f"axes must be rows or columns, not {list(axes)[:8]}")
    seen = tuple(
        () if index in chosen else labels
        for index, labels in enumerate(value.axes)
        if keepdims or index not in chosen
    )
    rows, columns = _sides(value.op)
    kernel = (rows if "H" in labels else 1, columns if "W" in labels else 1)
    return node.op("avgpool", value.op, axes=seen, average=Average(kernel, (1, 1)))


@operator("Pad")
def pad(
    node: Node, *, mode: str = "constant", pads: Ints | None = None, value: float = 0.0
) -> Value:
    """Pad of rows and columns with a constant; fused into what reads it where that pads too."""
    source = node.map()
    if mode != "constant":
        raise UnsupportedError(f"mode must be constant, not {shown(mode)}: the engine pads with 0")
    full = _all_axes(pads or node.integers(1) or (), node.integers(3))
    fill = node.number(2, "the padding value", value)
    if any(full[index] for index in (0, 1, 4, 5)):
        raise UnsupportedError("only rows and columns can be padded")
    inner = (full[2], full[3], full[6], full[7])
    check(inner, 0, "pads")
    if fill not in (0.0, -np.inf):
        raise UnsupportedError(
            f"the padding value must be 0 (or -inf before a MaxPool), not {fill:g}"
        )
    channels, height, width = source.out_shape
    shape = (channels, height + inner[0] + inner[2], width + inner[1] + inner[3])
    return node.op("pad", source, conv_shape=shape, pads=inner, pad_value=fill)


def _all_axes(pads: Ints, axes: Ints | None) -> list[int]:
    """Pads before all 4 axes, then behind them."""
    chosen = list(range(4)) if axes is None else axis_indices(axes, 4)
    if len(pads) != 2 * len(chosen):
        raise UnsupportedError(f"pads must have {2 * len(chosen)} values, not {len(pads)}")
    full = [0] * 8
    for position, axis in enumerate(chosen):
        full[axis], full[axis + 4] = pads[position], pads[position + len(chosen)]
    return full
