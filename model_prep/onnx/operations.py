# SPDX-License-Identifier: Apache-2.0
"""`Op`, a layer that is not fused yet; `Value` and `Finished`, what a tensor name stands for."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import MAX_UPSCALE, Upscale
from nuq.formats.ending import Ending, Step, start
from nuq.formats.errors import UserError
from nuq.model_prep.graph import Layer, computed_shape

Shape = tuple[int, int, int]
Pads = tuple[int, int, int, int]
Axes = tuple[tuple[str, ...], ...]
LABELS = ("C", "H", "W")


class UnsupportedError(UserError):
    """A node that the engine cannot run; the text says why, the caller adds which node.

    The text is empty where only a node before it is to blame. `dims` are the sizes that the output
    would have, where they are known.
    """

    def __init__(self, reason: str, dims: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.dims = dims


Compute = Callable[[np.ndarray], np.ndarray]  # a function of numbers, float64


@dataclass(frozen=True)
class Pointwise:
    """How each number of an operation follows from the one of another in the same place."""

    base: "Op"
    compute: Compute
    size: int  # operations that it is made of
    operator: str  # of the node, in ONNX


@dataclass(eq=False, kw_only=True)
class Op(Layer):
    """A layer without a name yet: it reads operations instead of names.

    Until it is fused its kind may also be "input", "affine" (x * weight + bias per channel),
    "activation", "quantize" (has `codes`), "pad", "select" (some channels, in the order of
    `index`), "upscale" (has `upscale`, of channels in the order of `index` where that shuffles),
    "fold" (`stride` rows and columns go into channels, place by place, then in the order of
    `index`), "pointwise" (a part of an activation, which nothing may read once that is recognised),
    or "refused" (stands for a node that cannot be had, so that the nodes behind it can still be
    checked); "concat" becomes a concat of the Graph.
    """

    name: str = ""
    inputs: tuple[str, ...] = ()
    title: str = ""
    activation: Activation | None = None
    sources: "list[Op]"
    pad_value: float = 0.0  # what "pad" fills in, 0 or -inf
    # of "select" and "fold"; of "upscale": channel c, of C, at place q is index[q * C + c]
    index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    nonnegative: bool = False  # no value can be below 0
    of: Pointwise | None = None

    def __post_init__(self) -> None:
        """Derive the shape where it is not given."""
        super().__post_init__()
        if not any(self.conv_shape):
            self.in_shape = self.sources[0].out_shape
            self.conv_shape = computed_shape(self)


def reachable(outputs: Sequence[Op]) -> list[Op]:
    """The operations that outputs depend on, in topological order; no recursion."""
    order: list[Op] = []
    seen: set[Op] = set()
    stack: list[tuple[Op, bool]] = [(output, False) for output in reversed(outputs)]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            stack.extend((source, False) for source in reversed(op.sources) if source not in seen)
    return order


def readers(order: Iterable[Op]) -> Counter[Op]:
    """How often every operation is read."""
    return Counter(source for op in order for source in op.sources)


def fixed_conv(
    source: Op, title: str, weight: np.ndarray, groups: int = 1, pads: Pads = (0, 0, 0, 0),
    stride: tuple[int, int] = (1, 1),
) -> Op:  # fmt: skip
    """A convolution whose weights are structure; it keeps the sign of what it reads."""
    return Op(
        "conv", sources=[source], title=title, weight=weight,
        bias=np.zeros(len(weight), np.float32), groups=groups, pads=pads, stride=stride,
        activation=RELU if source.nonnegative else None, nonnegative=source.nonnegative, fixed=True,
    )  # fmt: skip


def identity(source: Op, title: str, pads: Pads = (0, 0, 0, 0)) -> Op:
    """A depthwise 1x1 convolution that copies `source`, with zeros around it where padded."""
    channels = source.out_shape[0]
    weight = np.ones((channels, 1, 1, 1), np.float32)
    return fixed_conv(source, title, weight, channels, pads)


def selected(source: Op, index: np.ndarray, title: str) -> Op:
    """Some channels of `source`, or all of them in another order."""
    shape = (len(index), *source.out_shape[1:])
    return Op("select", sources=[source], title=title, conv_shape=shape, index=index)


def part(size: int, stride: int, side: str = "C") -> str:
    """The label of a part of the channels, rows or columns: `size` of them, `stride` apart."""
    return f"{side}{size}x{stride}"


def numbers(label: str) -> tuple[int, int]:
    """(size, stride) of the label of a part; none is as large as size 0 says of other labels.

    >>> numbers(part(4, 2)), numbers("C")
    ((4, 2), (0, 0))
    """
    size, _, stride = label[1:].partition("x")
    return (int(size), int(stride)) if stride else (0, 0)


def is_part(label: str) -> bool:
    """Whether the label is a part's."""
    return bool(numbers(label)[0])


def map_axes(shape: Shape) -> Axes:
    """The axes of a plain tensor [1, channels, rows, columns]; sides of size 1 have no label.

    >>> map_axes((64, 1, 9))
    ((), ('C',), (), ('W',))
    """
    return ((), *((label,) if size > 1 else () for label, size in zip(LABELS, shape, strict=True)))


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input: a feature map, seen through reshapes and transposes.

    It has an array's `shape`, `ndim`, `reshape` and `transpose`. A view never moves data in the
    engine: it is undone where a fully connected layer's weights are permuted, or at the output.
    """

    op: Op
    axes: Axes  # for every axis of the tensor the map's axes that it runs over, slowest first
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Derive the tensor's sizes where they are not given."""
        if not self.shape:
            object.__setattr__(self, "shape", tuple(self.size(labels) for labels in self.axes))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    def size(self, labels: Sequence[str]) -> int:
        """Elements along some of the map's axes."""
        return prod(numbers(label)[0] or self.op.out_shape[LABELS.index(label)] for label in labels)

    @property
    def is_map(self) -> bool:
        """Whether the tensor is plainly [1, channels, rows, columns]."""
        return self.axes == map_axes(self.op.out_shape)

    @property
    def opaque(self) -> bool:
        """Whether it is behind a refused node and more than its sizes is not known."""
        return prod(self.shape) != prod(self.op.out_shape)

    @property
    def order(self) -> tuple[str, ...]:
        """The map's axes in the order in which the tensor's elements lie."""
        return tuple(label for labels in self.axes for label in labels)

    @property
    def plain(self) -> bool:
        """Whether the elements lie as in [channels, rows, columns]."""
        order = self._joined(self.order)
        return order == tuple(label for label in LABELS if label in order)

    @property
    def split(self) -> bool:
        """Whether the channels are in parts, on axes of their own or in another order."""
        return any(map(is_part, self.order))

    def _joined(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Labels with parts of one side that follow each other joined."""
        found: list[str] = []
        for label in labels:
            size, stride = numbers(label)
            before = numbers(found[-1]) if found else (0, 0)
            if size and found and found[-1][0] == label[0] and before[1] == size * stride:
                found[-1] = part(before[0] * size, stride, label[0])
            else:
                found.append(label)
        whole = {part(size, 1, side): side for side, size in zip(LABELS, self.op.out_shape,
                                                                 strict=True)}  # fmt: skip
        return tuple(whole.get(label, label) for label in found)

    def reshape(self, shape: Sequence[int]) -> "Value":
        """The same elements with other sizes, as many."""
        if self.opaque:
            return refused(tuple(shape))
        rest = list(self.order)
        axes = []
        for size in shape:
            labels: list[str] = []
            while (missing := size // self.size(labels)) > 1 and rest:
                labels += self._cut(rest, missing)
            if self.size(labels) != size:
                raise UnsupportedError(
                    "a reshape that splits rows, columns or channels unevenly is not supported",
                    tuple(shape),
                )
            axes.append(self._joined(labels))
        return replace(self, axes=tuple(axes), shape=())._shuffled()

    def _cut(self, rest: list[str], size: int) -> list[str]:
        """Take the first label off `rest`, only as much of it as `size` asks for."""
        label = rest.pop(0)
        side = label[0]
        whole, stride = numbers(label)
        if not whole:
            whole, stride = self.op.out_shape[LABELS.index(side)], 1
        if whole <= size or whole % size:
            return [label]
        rest.insert(0, part(whole // size, stride, side))
        return [part(size, stride * (whole // size), side)]

    def _shuffled(self) -> "Value":
        """With a choice of channels where one axis has all parts of them in another order."""
        held = [place for place, labels in enumerate(self.axes) if any(map(is_part, labels))]
        if len(held) != 1 or any(is_part(label) and label[0] != "C" for label in self.order):
            return self
        labels = self.axes[held[0]]
        parts = [label for label in labels if is_part(label)]
        first = labels.index(parts[0])
        if tuple(parts) != labels[first : first + len(parts)]:
            return self
        places = np.zeros(1, np.int64)
        for label in parts:
            size, stride = numbers(label)
            places = (places[:, None] + np.arange(size) * stride).reshape(-1)
        op = selected(self.op, places, f"order of {self.op.title}")
        joined = (*labels[:first], "C", *labels[first + len(parts) :])
        return Value(op, (*self.axes[: held[0]], joined, *self.axes[held[0] + 1 :]))

    def moved(self) -> Op | None:
        """The map that this is where parts of its channels became rows and columns, or of these
        channels, as exporters write what shuffles pixels."""
        if self.ndim != 4 or self.axes[0]:
            return None
        cut = any(is_part(label) and label[0] != "C" for label in self.order)
        return self._folded() if cut else self._enlarged()

    def _folded(self) -> Op | None:
        """Every so many rows and columns of one map, the others among its channels."""
        channels, sides, steps = self.op.out_shape[0], self.op.out_shape[1:], []
        for labels, side, whole in zip(self.axes[2:], LABELS[1:], sides, strict=True):
            size, step = numbers(labels[0]) if len(labels) == 1 else (0, 0)
            size, step = (size, step) if size else (whole, 1)
            if [label[0] for label in labels] != [side] or size * step != whole:
                return None
            steps.append(step)
        unit = {"C": 1, "H": steps[1] * channels, "W": channels}
        places = np.zeros(1, np.int64)
        for label in self.axes[1]:
            size, stride = numbers(label)
            size, stride = (size, stride) if size else (self.size((label,)), 1)
            offsets = np.arange(size) * stride * unit[label[0]]
            places = (places[:, None] + offsets).reshape(-1)
        total = channels * steps[0] * steps[1]
        if not np.array_equal(np.sort(places), np.arange(total)):
            return None
        shape = (total, sides[0] // steps[0], sides[1] // steps[1])
        return Op(
            "fold", sources=[self.op], title=f"pixels of {self.op.title}", conv_shape=shape,
            stride=(steps[0], steps[1]), index=places,
        )  # fmt: skip

    def _enlarged(self) -> Op | None:
        """The map of which each place has a part of the channels."""
        found = []
        for labels, side in zip(self.axes[1:], LABELS, strict=True):
            size = self.op.out_shape[LABELS.index(side)]
            if side != "C" and size > 1:
                if labels[:1] != (side,):
                    return None
                labels = labels[1:]
            if not all(map(is_part, labels)):
                return None
            places = np.zeros(1, np.int64)
            for size, stride in map(numbers, labels):
                places = (places[:, None] + np.arange(size) * stride).reshape(-1)
            found.append(places)
        channel, down, across = found
        if max(len(down), len(across)) > MAX_UPSCALE:
            return None
        index = (down[:, None, None] + across[:, None] + channel).reshape(-1)
        upscale = Upscale((len(down), len(across)), True)
        title = f"pixels of {self.op.title}"
        return Op("upscale", sources=[self.op], title=title, upscale=upscale, index=index)

    def transpose(self, order: Sequence[int]) -> "Value":
        """The same elements with permuted axes."""
        if self.opaque:
            dims = tuple(self.shape[index] for index in order)
            raise UnsupportedError(
                "a transpose that moves parts of channels is not supported", dims
            )
        return replace(self, axes=tuple(self.axes[index] for index in order), shape=())

    def finished(self) -> "Finished":
        """The same tensor as the host makes it of what the engine gives."""
        found = Finished(self.op, (), start(self.op.out_shape))
        if not self.plain:
            if self.split:
                raise UnsupportedError("a transpose that moves parts of channels is not supported")
            order = [*self.order, *(label for label in LABELS if label not in self.order)]
            found = found.reshape((1, *self.op.out_shape))
            found = found.transpose((0, *(LABELS.index(label) + 1 for label in order)))
        return found.reshape(self.shape)


@dataclass(frozen=True)
class Finished:
    """A tensor at the network's end, which the host makes of the last layer's values.

    Like `Value` it has an array's `shape`, `ndim`, `reshape` and `transpose`.
    """

    op: Op
    steps: Ending
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def then(self, step: Step) -> "Finished":
        """The tensor behind one more step; UserError where it does not fit."""
        return Finished(self.op, (*self.steps, step), step.shape(self.shape))

    def reshape(self, shape: Sequence[int]) -> "Finished":
        """The same elements with other sizes, as many."""
        same = tuple(shape) == self.shape
        return self if same else self.then(Step("reshape", sizes=tuple(shape)))

    def transpose(self, order: Sequence[int]) -> "Finished":
        """The same elements with permuted axes."""
        same = list(order) == list(range(self.ndim))
        return self if same else self.then(Step("transpose", sizes=tuple(order)))


def refused(dims: tuple[int, ...]) -> Value:
    """Stands for the output of a refused node: a map (or one flattened) where it can be one."""
    if 2 <= len(dims) <= 4 and dims[0] == 1:
        channels, height, width = (*dims[1:], 1, 1)[:3]
        op = Op("refused", sources=[], conv_shape=(channels, height, width), nonnegative=True)
        return Value(op, map_axes(op.out_shape)[: len(dims)])
    return Value(Op("refused", sources=[], conv_shape=(1, 1, 1)), ((),) * len(dims), shape=dims)
