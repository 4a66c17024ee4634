# SPDX-License-Identifier: Apache-2.0
"""Nodes that enlarge a map or fold it: Resize, Upsample, ConvTranspose, DepthToSpace, SpaceToDepth.

A transposed convolution of stride s is one over the smaller map with s*s times the channels, and
zero weights where no tap falls, whose pixels are shuffled (Shi et al. 2016, sub-pixel convolution).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from nuq.formats.arithmetic import MAX_UPSCALE, Pair, Upscale
from nuq.model_prep.onnx.limits import FLOAT_BYTES, shown
from nuq.model_prep.onnx.lowering import Ints, Node, Result, operator
from nuq.model_prep.onnx.operations import Op, UnsupportedError, Value
from nuq.model_prep.onnx.views import axis_indices
from nuq.model_prep.onnx.windows import Sliding, check

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Sampling:
    """Where Resize looks for the pixel of an output place; defaults are those of ONNX."""

    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"

    def picks(self, size: int, factor: int) -> np.ndarray:
        """The pixel, of `size`, that each of size*factor places takes, int64.

        >>> Sampling().picks(2, 2).tolist(), Sampling(nearest_mode="ceil").picks(2, 2).tolist()
        ([0, 0, 1, 1], [0, 1, 1, 1])

        Raises UnsupportedError where the mode is none of ONNX's, or looks elsewhere.
        """
        place = np.arange(size * factor)
        ways = {  # numerator and denominator of the place's coordinate in the input
            "half_pixel": (2 * place + 1 - factor, 2 * factor),
            "half_pixel_symmetric": (2 * place + 1 - factor, 2 * factor),
            "pytorch_half_pixel": (2 * place + 1 - factor, 2 * factor),
            "tf_half_pixel_for_nn": (2 * place + 1, 2 * factor),
            "asymmetric": (place, factor),
            "align_corners": (place * (size - 1), max(size * factor - 1, 1)),
        }
        if self.coordinate_transformation_mode not in ways:
            raise UnsupportedError(
                f"coordinate_transformation_mode must be one of {', '.join(ways)}, not "
                f"{shown(self.coordinate_transformation_mode, 30)}"
            )
        top, bottom = ways[self.coordinate_transformation_mode]
        rounded = {
            "floor": top // bottom,
            "ceil": -(-top // bottom),
            "round_prefer_floor": -((bottom - 2 * top) // (2 * bottom)),
            "round_prefer_ceil": (2 * top + bottom) // (2 * bottom),
        }
        if self.nearest_mode not in rounded:
            raise UnsupportedError(
                f"nearest_mode must be one of {', '.join(rounded)}, not "
                f"{shown(self.nearest_mode, 30)}"
            )
        return np.clip(rounded[self.nearest_mode], 0, size - 1)


FIRST = Sampling("nearest", "asymmetric", "floor")  # before Resize could be told


def _repeated(node: Node, factor: Pair, sampling: Sampling) -> Value:
    """Every pixel of input 0 as several; UnsupportedError where that is not what is asked for."""
    source = node.map()
    if factor == (1, 1):
        return node.tensor()
    if sampling.mode != "nearest":
        raise UnsupportedError(f"mode must be nearest, not {shown(sampling.mode, 20)}")
    _limited(factor)
    for size, times in zip(source.out_shape[1:], factor, strict=True):
        picks = sampling.picks(size, times)
        if not np.array_equal(picks, np.arange(size * times) // times):
            raise UnsupportedError(
                f"every pixel must be repeated {times} times, which "
                f"{sampling.coordinate_transformation_mode} with {sampling.nearest_mode} does not; "
                "use asymmetric with floor"
            )
    return node.op("upscale", source, upscale=Upscale(factor, False))


def _limited(factor: Pair) -> None:
    if not 1 <= min(factor) <= max(factor) <= MAX_UPSCALE:
        raise UnsupportedError(
            f"rows and columns must be enlarged 1 to {MAX_UPSCALE} times, not {list(factor)}"
        )


def _whole(values: list[float], what: str) -> Pair:
    """(rows, columns) of factors of all axes, batch and channels being 1."""
    if len(values) != 4 or values[:2] != [1.0, 1.0] or any(one != int(one) for one in values):
        raise UnsupportedError(
            f"{what} must enlarge rows and columns by whole numbers, and nothing else, not by "
            f"{[round(one, 4) for one in values[:8]]}"
        )
    return int(values[2]), int(values[3])


def _by_axis(values: Sequence[Number], axes: Ints | None, what: str) -> dict[int, Number]:
    """The values of `axes`, or of all four."""
    chosen = axis_indices(axes or range(4), 4)
    if len(values) != len(chosen):
        raise UnsupportedError(f"{what} must be {len(chosen)} numbers, not {len(values)}")
    return dict(zip(chosen, values, strict=True))


def _scales(node: Node, index: int, axes: Ints | None = None) -> Pair:
    """The factors that input `index` gives."""
    every = _by_axis(node.weights(index).reshape(-1).tolist(), axes, "scales")
    return _whole([every.get(axis, 1.0) for axis in range(4)], "scales")


@operator("Resize", ignored=("cubic_coeff_a", "exclude_outside", "extrapolation_value"))
def resize(
    node: Node, *, sampling: Sampling, axes: Ints | None = None, antialias: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
) -> Value:  # fmt: skip
    """Resize by whole factors, nearest neighbour, as far as it repeats every pixel."""
    source = node.map()
    if antialias or keep_aspect_ratio_policy != "stretch":
        raise UnsupportedError("antialias must be 0 and keep_aspect_ratio_policy stretch")
    if node.context.source.opset < 11:
        return _repeated(node, _scales(node, 1), FIRST if sampling.mode == "nearest" else sampling)
    if node.has(3):
        before = (node.context.source.batch or 1, *source.out_shape)
        every = _by_axis(node.integers(3) or (), axes, "sizes")
        if every.get(0) == 1:  # the batch that the file's has become
            every[0] = before[0]
        found = [every.get(axis, size) / size for axis, size in enumerate(before)]
        return _repeated(node, _whole(found, "sizes"), sampling)
    if not node.has(2):
        raise UnsupportedError("scales or sizes must be given")
    return _repeated(node, _scales(node, 2, axes), sampling)


@operator("Upsample")
def upsample(
    node: Node, *, mode: str = "nearest", scales: tuple[float, ...] | None = None
) -> Value:
    """Upsample by whole factors, nearest neighbour."""
    factor = _scales(node, 1) if scales is None else _whole(list(scales), "scales")
    return _repeated(node, factor, FIRST if mode == "nearest" else Sampling(mode))


def _groups(node: Node, source: Op, size: int, what: str) -> None:
    if not 1 <= size <= MAX_UPSCALE:
        raise UnsupportedError(f"blocksize must be 1 to {MAX_UPSCALE}, not {size}")
    if what == "channels" and source.out_shape[0] % (size * size):
        raise UnsupportedError(
            f"channels must be a multiple of {size * size}, not {source.out_shape[0]}"
        )
    if what != "channels" and any(side % size for side in source.out_shape[1:]):
        raise UnsupportedError(
            f"rows and columns must be multiples of {size}, not {list(source.out_shape[1:])}"
        )


@operator("DepthToSpace")
def depth_to_space(node: Node, *, blocksize: int = 0, mode: str = "DCR") -> Result:
    """DepthToSpace, by the layer before it, or by the host at the end."""
    source = node.map()
    _groups(node, source, blocksize, "channels")
    if mode not in ("DCR", "CRD"):
        raise UnsupportedError(f"mode must be DCR or CRD, not {shown(mode, 20)}")
    channels, height, width = source.out_shape
    rest, size = channels // blocksize**2, blocksize
    if node.at_end:
        shape = (1, size, size, rest) if mode == "DCR" else (1, rest, size, size)
        order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
        value = node.finished().reshape((*shape, height, width)).transpose(order)
        return value.reshape((1, rest, height * size, width * size))
    place, channel = np.arange(size * size)[:, None], np.arange(rest)
    index = place * rest + channel if mode == "DCR" else channel * size**2 + place
    upscale = Upscale((size, size), True)
    return node.op("upscale", source, upscale=upscale, index=index.reshape(-1))


@operator("SpaceToDepth")
def space_to_depth(node: Node, *, blocksize: int = 0) -> Value:
    """SpaceToDepth, in the weights of the convolution that reads it."""
    source = node.map()
    _groups(node, source, blocksize, "rows and columns")
    channels, height, width = source.out_shape
    shape = (channels * blocksize**2, height // blocksize, width // blocksize)
    return node.op(
        "fold", source, conv_shape=shape, stride=(blocksize, blocksize), index=np.arange(shape[0])
    )


@dataclass(frozen=True)
class Subpixels:
    """One axis of a transposed convolution, as a convolution over the smaller map."""

    kernel: int
    pads: Pair  # before, after
    taps: dict[tuple[int, int], int]  # the tap behind (place, kernel element)


def subpixels(size: int, reach: int, step: int, stride: int, pads: Pair, more: int) -> Subpixels:
    """How the outputs of one axis follow from the inputs near them.

    Output stride*i + place gets input i + o by the tap t with t*step = place + pad - stride*o.

    Args:
        size: inputs.
        reach: taps, `step` apart.
        step: dilation.
        stride: outputs from input to input.
        pads: outputs that are cut off before and behind.
        more: outputs that are added behind.

    >>> subpixels(8, 4, 1, 2, (1, 1), 0).taps
    {(0, 0): 3, (0, 1): 1, (1, 1): 2, (1, 2): 0}

    Raises UnsupportedError where the outputs are no multiple of the stride.
    """
    out = stride * (size - 1) + more + (reach - 1) * step + 1 - sum(pads)
    if out < 1 or out % stride:
        raise UnsupportedError(
            f"rows and columns of its output must be multiples of its strides, not {out} of "
            f"{stride}; give it output_padding or other pads"
        )
    offsets = {
        (place, (place + pads[0] - tap * step) // stride): tap
        for place in range(stride)
        for tap in range(reach)
        if (place + pads[0] - tap * step) % stride == 0
    }
    first = min([0, *(offset for _, offset in offsets)])
    last = max([size - out // stride, 0, *(offset for _, offset in offsets)])
    behind = last + out // stride - size
    taps = {(place, offset - first): tap for (place, offset), tap in sorted(offsets.items())}
    return Subpixels(last - first + 1, (-first, behind), taps)


@operator("ConvTranspose")
def conv_transpose(
    node: Node, *, window: Sliding, group: int = 1, output_padding: Ints | None = None,
    output_shape: Ints | None = None,
) -> Value:  # fmt: skip
    """ConvTranspose whose output's sides are multiples of its strides; a missing bias is 0."""
    source, weight = node.map(), node.weights(1)
    if weight.ndim != 4 or 0 in weight.shape:
        raise UnsupportedError(
            f"weights must have 4 axes of positive size, not {list(weight.shape)}"
        )
    channels, each = weight.shape[:2]
    if group < 1 or channels % group or channels != source.out_shape[0]:
        raise UnsupportedError(
            f"weights {list(weight.shape)} in {group} groups must fit {source.out_shape[0]} "
            "channels"
        )
    if output_shape is not None or window.auto_pad not in ("NOTSET", "VALID"):
        raise UnsupportedError("output_shape and auto_pad must not be given: write pads instead")
    kernel, stride = (weight.shape[2], weight.shape[3]), window.step
    if window.kernel_shape is not None and window.kernel_shape != kernel:
        raise UnsupportedError(
            f"kernel_shape must be the weights' {list(kernel)}, not {list(window.kernel_shape)[:4]}"
        )
    pads, more = window.pads or (0, 0, 0, 0), output_padding or (0, 0)
    if window.auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    if len(pads) != 4 or len(more) != 2:
        raise UnsupportedError("pads must have 4 values and output_padding 2")
    check(pads, 0, "pads")
    check(more, 0, "output_padding")
    _limited(stride)
    rows, columns = (
        subpixels(
            source.out_shape[1 + axis], kernel[axis], window.dilation[axis], stride[axis],
            (pads[axis], pads[axis + 2]), more[axis],
        )
        for axis in range(2)
    )  # fmt: skip
    check((rows.kernel, columns.kernel), 1, "the kernel over the smaller map")
    check((*rows.pads, *columns.pads), 0, "the pads over the smaller map")
    bias = node.weights(2) if node.has(2) else np.zeros(each * group, np.float32)
    if bias.shape != (each * group,):
        raise UnsupportedError(
            f"the bias must have {each * group} values, not the sizes {list(bias.shape)}"
        )
    places = prod(stride)
    groups = group if places == 1 else 1
    size = places * each * group * channels // groups * rows.kernel * columns.kernel
    node.context.budget.check(size * FLOAT_BYTES, f"the weights of node {node.title}")
    op = node.op(
        "conv", source, weight=_spread(weight, group, groups, stride, rows, columns),
        bias=np.tile(bias, places), groups=groups,
        pads=(rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]),
    ).op  # fmt: skip
    index = np.arange(op.out_shape[0])
    return node.op("upscale", op, upscale=Upscale(stride, True), index=index)


def _spread(
    weight: np.ndarray, group: int, groups: int, stride: Pair, rows: Subpixels, columns: Subpixels
) -> np.ndarray:
    """Weights [in, out / group, KH, KW] as [places * out, in / groups, KH', KW'].

    `groups` is `group`, where there is one place, or 1.
    """
    channels, each = weight.shape[:2]
    ins = channels // group
    shape = (*stride, group, each, channels // groups, rows.kernel, columns.kernel)
    spread = np.zeros(shape, np.float32)
    by_group = weight.reshape(group, ins, each, *weight.shape[2:])
    for (dy, y), row in rows.taps.items():
        for (dx, x), column in columns.taps.items():
            for index in range(group):
                first = 0 if groups == group else index * ins
                part = by_group[index, :, :, row, column].T
                spread[dy, dx, index, :, first : first + ins, y, x] = part
    return spread.reshape(-1, channels // groups, rows.kernel, columns.kernel)
