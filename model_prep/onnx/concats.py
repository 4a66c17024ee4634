# SPDX-License-Identifier: Apache-2.0
"""The engine's rules for concatenations, which are no operations but addresses.

A layer is part of one concat only, so others get a copy; every part but the last has a multiple of
8 channels, so zero channels are put in, with zero weights for them in what reads them.
"""

from dataclasses import dataclass

import numpy as np

from formats.arithmetic import BLOCK_CODES, Window
from formats.errors import UserError
from model_prep.onnx.fuse import reachable
from model_prep.onnx.limits import FLOAT_BYTES, MAX_CONCAT_PARTS, Budget
from model_prep.onnx.operations import Op


def copy_of(source: Op) -> Op:
    """A layer that stores `source` a second time: a max pool over single pixels."""
    return Op(
        "maxpool", [source], source.shape, f"copy of {source.title}", pool=Window((1, 1), (1, 1)),
        nonnegative=source.nonnegative,
    )  # fmt: skip


def separate(output: Op) -> int:
    """Flatten nested concats and give every layer to one concat only; return the copies made."""
    order = reachable(output)
    uses: dict[int, int] = {}
    for op in order:
        for source in op.inputs:
            uses[id(source)] = uses.get(id(source), 0) + 1
    copies = 0
    owned: set[int] = set()
    for op in order:
        if op.kind != "concat":
            continue
        parts: list[Op] = []
        for source in op.inputs:
            nested = source.kind == "concat"
            if nested and uses[id(source)] == 1:
                parts.extend(source.inputs)  # flat already: it came before in this order
            elif nested or id(source) in owned:
                parts.append(copy_of(source))
                copies += 1
            else:
                parts.append(source)
            owned.update(id(part) for part in parts)
        if len(parts) > MAX_CONCAT_PARTS:
            raise UserError(
                f"node {op.title} must join at most {MAX_CONCAT_PARTS} layers, not {len(parts)}"
            )
        op.inputs = parts
    return copies


@dataclass
class Places:
    """Where a feature map's channels really lie.

    Attributes:
        index: position of each of the network's channels.
        width: channels that are stored; those that no index names are 0.
    """

    index: np.ndarray
    width: int

    @property
    def plain(self) -> bool:
        """Whether nothing was put in."""
        return self.width == len(self.index)


def plain_places(channels: int) -> Places:
    """The places of a map into which nothing was put."""
    return Places(np.arange(channels), channels)


def rounded(channels: int) -> int:
    """The next multiple of 8.

    >>> rounded(20), rounded(64)
    (24, 64)
    """
    return -(-channels // BLOCK_CODES) * BLOCK_CODES


def select(source: Op, places: Places, width: int, budget: Budget) -> Op:
    """A 1x1 convolution that stores the network's channels one after the other, then zeros."""
    channels = len(places.index)
    size = width * places.width * FLOAT_BYTES
    budget.check(size, f"the matrix that selects the channels of node {source.title}")
    weight = np.zeros((width, places.width, 1, 1), np.float32)
    weight[np.arange(channels), places.index] = 1.0
    return Op(
        "conv", [source], (width, *source.shape[1:]), f"channels of {source.title}", weight=weight,
        bias=np.zeros(width, np.float32), relu=source.nonnegative, nonnegative=source.nonnegative,
        fixed=True,
    )  # fmt: skip


class Padder:
    """Puts zero channels in where concats need them and adapts what reads them."""

    def __init__(self, output: Op, budget: Budget) -> None:
        self._order = reachable(output)
        self._output = output
        self._budget = budget
        self._places: dict[int, Places] = {}
        self._packed: dict[int, Op] = {}
        self._wide: dict[int, Op] = {}
        self._inner = {
            id(part) for op in self._order if op.kind == "concat" for part in op.inputs[:-1]
        }
        self.added = 0

    def run(self) -> Op:
        """The output, whose own channels are plain."""
        rules = {"conv": self._conv, "concat": self._concat, "add": self._add, "lrn": self._lrn}
        for op in self._order:
            if op.kind == "input":
                self._places[id(op)] = plain_places(op.shape[0])
            elif op.kind in rules:
                rules[op.kind](op)
            else:
                places = self._of(op.inputs[0])
                self._set(op, places.index, places.width)
        return self._output if self._of(self._output).plain else self._pack(self._output)

    def _of(self, op: Op) -> Places:
        return self._places[id(op)]

    def _set(self, op: Op, index: np.ndarray, width: int) -> None:
        op.shape = (width, *op.shape[1:])
        self._places[id(op)] = Places(index, width)

    def _pack(self, op: Op) -> Op:
        """`op` without the channels that were put in."""
        if self._of(op).plain:
            return op
        if id(op) not in self._packed:
            packed = select(op, self._of(op), len(self._of(op).index), self._budget)
            self._places[id(packed)] = plain_places(packed.shape[0])
            self._packed[id(op)] = packed
        return self._packed[id(op)]

    def _conv(self, op: Op) -> None:
        weight, bias = op.kernels
        out = weight.shape[0]
        places = self._of(op.inputs[0])
        depthwise = op.groups == out == len(places.index) and op.groups > 1
        if not places.plain and depthwise:
            op.weight = np.zeros((places.width, *weight.shape[1:]), np.float32)
            op.bias = np.zeros(places.width, np.float32)
            op.weight[places.index], op.bias[places.index] = weight, bias
            op.groups = places.width
            self._set(op, places.index, places.width)
            return
        if not places.plain and op.groups == 1:
            size = weight.nbytes // weight.shape[1] * places.width
            self._budget.check(size, f"the weights of node {op.title}")
            op.weight = np.zeros((out, places.width, *weight.shape[2:]), np.float32)
            op.weight[:, places.index] = weight
        elif not places.plain:  # groups would no longer meet their channels
            op.inputs = [self._pack(op.inputs[0])]
        width = rounded(out) if id(op) in self._inner and op.groups == 1 else out
        if width > out:
            weight, bias = op.kernels
            op.weight = np.concatenate(
                [weight, np.zeros((width - out, *weight.shape[1:]), np.float32)]
            )
            op.bias = np.concatenate([bias, np.zeros(width - out, np.float32)])
            self.added += width - out
        self._set(op, np.arange(out), width)

    def _add(self, op: Op) -> None:
        first, second = (self._of(source) for source in op.inputs)
        if first.width != second.width or not np.array_equal(first.index, second.index):
            op.inputs = [self._pack(source) for source in op.inputs]
            first = self._of(op.inputs[0])
        self._set(op, first.index, first.width)

    def _lrn(self, op: Op) -> None:
        index = self._of(op.inputs[0]).index
        if not np.array_equal(index, np.arange(len(index))):  # zeros between channels it sums over
            op.inputs = [self._pack(op.inputs[0])]
        places = self._of(op.inputs[0])
        self._set(op, places.index, places.width)

    def _concat(self, op: Op) -> None:
        op.inputs = [*(self._widen(part) for part in op.inputs[:-1]), op.inputs[-1]]
        index, offset = [], 0
        for part in op.inputs:
            places = self._of(part)
            index.append(places.index + offset)
            offset += places.width
        self._set(op, np.concatenate(index), offset)

    def _widen(self, op: Op) -> Op:
        """`op` with a multiple of 8 channels."""
        places = self._of(op)
        if places.width % BLOCK_CODES == 0:
            return op
        if id(op) not in self._wide:
            width = rounded(len(places.index))
            wide = select(op, places, width, self._budget)
            self._places[id(wide)] = Places(np.arange(len(places.index)), width)
            self._wide[id(op)] = wide
            self.added += width - len(places.index)
        return self._wide[id(op)]
