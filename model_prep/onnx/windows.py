# SPDX-License-Identifier: Apache-2.0
"""Kernels, strides and pads of convolutions and pools, brought to floor mode with explicit pads."""

from dataclasses import dataclass

from model_prep.onnx.attributes import Attributes, UnsupportedError
from model_prep.onnx.limits import check_window

Pair = tuple[int, int]


@dataclass(frozen=True)
class SlidingWindow:
    """A sliding window in floor mode.

    Attributes:
        kernel, stride, dilation: (rows, columns).
        pads: (top, left, bottom, right).
        out: positions (rows, columns).
        overhang: whether ceil mode added windows that reach beyond the pads the node declares.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[int, int, int, int]
    out: Pair
    overhang: bool


def pair(attributes: Attributes, name: str, default: int, lowest: int) -> Pair:
    """An attribute of two integers (rows, columns)."""
    values = attributes.integers(name)
    if values is None:
        return default, default
    if len(values) != 2:
        raise UnsupportedError(f"{name} must have 2 values (rows, columns), not {len(values)}")
    check(values, lowest, name)
    return values[0], values[1]


def check(values: tuple[int, ...], lowest: int, name: str) -> None:
    """UnsupportedError where a value is out of range."""
    try:
        check_window(values, lowest, name)
    except ValueError as error:
        raise UnsupportedError(str(error)) from None


def side(
    size: int, reach: int, stride: int, before: int, after: int, ceil: bool
) -> tuple[int, int]:
    """(positions, padding behind that they use) along one side.

    In ceil mode a window may begin before the end of the map, but not in the padding behind it.

    >>> side(54, 3, 2, 0, 0, True), side(54, 3, 2, 0, 0, False)
    ((27, 1), (26, 0))
    >>> side(3, 2, 3, 0, 1, True)
    (1, 0)
    """
    space = size + before + after - reach
    if space < 0:
        raise UnsupportedError(
            f"the kernel must fit its padded input, not reach over {reach} of {size}"
        )
    count = (-(-space // stride) if ceil else space // stride) + 1
    if ceil and (count - 1) * stride >= size + before:
        count -= 1
    return count, max((count - 1) * stride + reach - size - before, 0)


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


def window(attributes: Attributes, height: int, width: int, kernel: Pair) -> SlidingWindow:
    """The window that a node's attributes describe on a (height, width) map."""
    check(kernel, 1, "kernel_shape")
    stride = pair(attributes, "strides", 1, 1)
    dilation = pair(attributes, "dilations", 1, 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    sizes = (height, width)
    pads = attributes.integers("pads") or (0, 0, 0, 0)
    if len(pads) != 4:
        raise UnsupportedError(
            f"pads must have 4 values (top, left, bottom, right), not {len(pads)}"
        )
    check(pads, 0, "pads")
    auto = attributes.string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        rows, columns = (
            same_pads(sizes[i], reach[i], stride[i], auto == "SAME_UPPER") for i in range(2)
        )
        pads = (rows[0], columns[0], rows[1], columns[1])
    elif auto == "VALID":
        pads = (0, 0, 0, 0)
    elif auto != "NOTSET":
        raise UnsupportedError("auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    ceil = attributes.integer("ceil_mode", 0) == 1
    rows, columns = (
        side(sizes[i], reach[i], stride[i], pads[i], pads[i + 2], ceil) for i in range(2)
    )
    return SlidingWindow(
        kernel, stride, dilation, (pads[0], pads[1], rows[1], columns[1]), (rows[0], columns[0]),
        overhang=rows[1] > pads[2] or columns[1] > pads[3],
    )  # fmt: skip
