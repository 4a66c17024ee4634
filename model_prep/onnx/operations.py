# SPDX-License-Identifier: Apache-2.0
"""`Op`, one operation on feature maps before fusing, and `Value`, what a tensor name stands for."""

from dataclasses import dataclass, field, replace

import numpy as np

from formats.arithmetic import Average, Lrn, Window

Shape = tuple[int, int, int]
Axes = tuple[tuple[str, ...], ...]
LABELS = ("C", "H", "W")


@dataclass(eq=False)
class Op:
    """One operation with a feature map [channels, rows, columns] as its result.

    Attributes:
        kind: "input", "conv", "affine" (per channel: x * scale + shift), "relu", "maxpool",
            "avgpool", "add", "concat", "lrn", "pad", or "refused" (stands for a node that cannot
            be had, so that the nodes behind it can still be checked).
        title: the node's name for messages and `Layer.title`.
        weight, bias: of "conv"; scale and shift of "affine".
        clip: upper limit of the ReLU, or None.
        pad_value: what "pad" fills in, 0 or -inf.
        nonnegative: whether no value can be below 0.
        fixed: a convolution whose weights are structure.
    """

    kind: str
    inputs: "list[Op]"
    shape: Shape
    title: str = ""
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    full: bool = False  # a fully connected layer
    relu: bool = False
    clip: float | None = None
    pool: Window | None = None
    average: Average | None = None
    lrn: Lrn | None = None
    pad_value: float = 0.0
    nonnegative: bool = False
    fixed: bool = False

    @property
    def kernels(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a convolution (scale and shift of an affine)."""
        if self.weight is None or self.bias is None:
            raise TypeError(f"{self.kind} {self.title} has no weights")
        return self.weight, self.bias


def identity(source: Op, title: str, pads: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Op:
    """A depthwise 1x1 convolution that copies `source`, with zeros around it where padded."""
    channels, height, width = source.shape
    top, left, bottom, right = pads
    return Op(
        "conv", [source], (channels, height + top + bottom, width + left + right), title,
        weight=np.ones((channels, 1, 1, 1), np.float32), bias=np.zeros(channels, np.float32),
        pads=pads, groups=channels, relu=source.nonnegative, nonnegative=source.nonnegative,
        fixed=True,
    )  # fmt: skip


def map_axes(shape: Shape) -> Axes:
    """The axes of a plain tensor [1, channels, rows, columns]; sides of size 1 have no label.

    >>> map_axes((64, 1, 9))
    ((), ('C',), (), ('W',))
    """
    return ((), *((label,) if size > 1 else () for label, size in zip(LABELS, shape, strict=True)))


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input: a feature map, seen through reshapes and transposes.

    Attributes:
        op: what computes the feature map.
        axes: for every axis of the tensor the map's axes that it runs over, slowest first.
        host: "softmax" or "logsoftmax" where the host applies it, else "".
    """

    op: Op
    axes: Axes
    host: str = ""
    dims: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        """Derive the tensor's sizes where they are not given."""
        if not self.dims:
            object.__setattr__(self, "dims", tuple(self.size(labels) for labels in self.axes))

    def size(self, labels: tuple[str, ...]) -> int:
        """Elements along some of the map's axes."""
        sizes = dict(zip(LABELS, self.op.shape, strict=True))
        total = 1
        for label in labels:
            total *= sizes[label]
        return total

    @property
    def is_map(self) -> bool:
        """Whether the tensor is plainly [1, channels, rows, columns]."""
        return self.axes == map_axes(self.op.shape)

    @property
    def order(self) -> tuple[str, ...]:
        """The map's axes in the order in which the tensor's elements lie."""
        return tuple(label for labels in self.axes for label in labels)

    def seen(self, axes: Axes) -> "Value":
        """The same elements with other axes."""
        return replace(self, axes=axes, dims=())


def feature_map(op: Op) -> Value:
    """The plain value of an operation."""
    return Value(op, map_axes(op.shape))


def refused(dims: tuple[int, ...]) -> Value:
    """Stands for the output of a refused node: a map where `dims` has 4 axes, else opaque."""
    if len(dims) == 4 and dims[0] == 1:
        return feature_map(Op("refused", [], (dims[1], dims[2], dims[3]), nonnegative=True))
    return Value(Op("refused", [], (1, 1, 1)), ((),) * len(dims), dims=dims)
