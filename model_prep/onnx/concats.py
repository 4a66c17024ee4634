# SPDX-License-Identifier: Apache-2.0
"""The engine's rules for concatenations, which are no operations but addresses.

A max pool behind a concat is fused into the convolutions that are joined there. Where concats need
a layer at different places, some get a copy; every part but the last has a multiple of 8 channels,
so zero channels are put in, with zero weights for them in what reads them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nuq.formats.arithmetic import BLOCK_CODES
from nuq.formats.errors import UserError
from nuq.model_prep.activations import rises
from nuq.model_prep.onnx.limits import FLOAT_BYTES, MAX_CONCAT_PARTS, Budget
from nuq.model_prep.onnx.operations import Op, fixed_conv, identity, reachable, readers
from nuq.model_prep.onnx.places import copy_of, parts_of, places_of


def spread_pools(heads: Sequence[Op]) -> int:
    """Fuse max pools into all the convolutions they read, where each can take it.

    A max pool works on each channel apart, so pooling the parts and joining them gives the same
    values as pooling what is joined; only the pooled maps are then stored. The concatenation takes
    the pool's place: what read the pool reads it, and its shape is the pooled one. A pool stays an
    operation of its own where a part is no convolution with a rising activation, has a pool
    already, or is read by something else, or where something else reads the concatenation.

    Args:
        heads: what ends the network, no max pools; operations are changed in place.

    Returns:
        The number of max pools that went away.
    """
    order = reachable(heads)
    uses = readers(order)
    instead: dict[Op, Op] = {}
    for op in order:
        op.sources = [instead.get(source, source) for source in op.sources]
        if op.kind != "maxpool":
            continue
        source = op.sources[0]
        below = _read_by_one(source, uses)
        for one in below:
            if one.has_weights:
                one.pool = op.pool
            else:
                one.conv_shape = (one.conv_shape[0], *op.out_shape[1:])
        if below:
            uses[source] = uses[op]
            instead[op] = source
    return len(instead)


def _read_by_one(source: Op, uses: Counter[Op]) -> list[Op]:
    """`source`, the concats nested in it and their parts; none where one cannot take a pool."""
    below: list[Op] = []
    stack = [source]  # no recursion: a file may nest as deep as it likes
    while stack:
        op = stack.pop()
        free = op.pool is None and op.upscale is None
        takes = op.has_weights and op.activation and free and rises(op.coded)
        if uses[op] != 1 or not (takes or op.kind == "concat"):
            return []
        below.append(op)
        if op.kind == "concat":
            stack.extend(op.sources)
    return below


def separate(heads: Sequence[Op]) -> int:
    """Flatten nested concats; return the copies made where concats cannot share their layers.

    Layers are behind each other in memory, so that several concats can join them where one order
    serves all, as in DenseNet, where each concat begins with the one before.
    """
    order = reachable(heads)
    uses = readers(order)
    rows = _Rows()
    copies = 0
    for op in order:
        if op.kind != "concat":
            continue
        parts = [part for source in op.sources for part in _flat(source)]
        if len(parts) <= MAX_CONCAT_PARTS and not rows.take(parts):
            parts = []
            for source in op.sources:
                if source.kind == "concat" and uses[source] == 1 and rows.release(source.sources):
                    parts.extend(source.sources)
                elif source.kind == "concat" or source in rows.row or source in parts:
                    parts.append(copy_of(source))
                    copies += 1
                else:
                    parts.append(source)
            rows.take(parts)
        if len(parts) > MAX_CONCAT_PARTS:
            raise UserError(
                f"node {op.title} must join at most {MAX_CONCAT_PARTS} layers, not {len(parts)}"
            )
        op.sources = parts
    return copies


def _flat(source: Op) -> list[Op]:
    """The parts of a concat that is flat already, as it came before in the order, or a layer."""
    return source.sources if source.kind == "concat" else [source]


class _Rows:
    """Rows of layers, each of which lies in one of them, behind the one before."""

    def __init__(self) -> None:
        self.row: dict[Op, list[Op]] = {}

    def take(self, parts: Sequence[Op]) -> bool:
        """Let layers follow each other, where all rows that they are in allow it."""
        rows = {id(self.row[part]): self.row[part] for part in parts if part in self.row}
        place = {part: index for index, part in enumerate(parts)}
        for row in rows.values():
            first = next(index for index, part in enumerate(row) if part in place)
            begin = place[row[first]] - first
            for index, part in enumerate(row, begin):
                if place.setdefault(part, index) != index:
                    return False
        if len(set(place.values())) < len(place) or len(set(parts)) < len(parts):
            return False
        joined = sorted(place, key=place.__getitem__)
        self.row.update(dict.fromkeys(joined, joined))
        return True

    def release(self, parts: Sequence[Op]) -> bool:
        """Give a row up, where it has no other layers; whether it had none."""
        if self.row[parts[0]] != parts:
            return False
        for part in parts:
            del self.row[part]
        return True


def part_unlike(heads: Sequence[Op]) -> int:
    """Let no layer whose codes do not rise with their values share them with unlike ones.

    All that one concat joins is read with one table. Where activations differ, a convolution comes
    behind those that fall before they rise, with a table of its own.

    Returns:
        The number of convolutions.
    """
    added: dict[Op, Op] = {}
    order = reachable(heads)
    for op in order:
        if op.kind != "concat":
            continue
        keys = {part.coded and part.coded.key for part in parts_of(op)}
        if len(keys) > 1:
            op.sources = [_with_own(source, added) for source in op.sources]
    return len(added)


def _with_own(source: Op, added: dict[Op, Op]) -> Op:
    """A part of a concat, with a convolution behind it where its codes do not rise."""
    if source.kind == "concat" or rises(source.coded):
        return source
    if source not in added:
        added[source] = identity(source, f"values of {source.title}")
    return added[source]


@dataclass
class Places:
    """Where a feature map's channels really lie."""

    index: np.ndarray  # position of each of the network's channels
    width: int  # channels that are stored; those that no index names are 0

    @property
    def plain(self) -> bool:
        """Whether nothing was put in."""
        return self.width == len(self.index)


def rounded(channels: int) -> int:
    """The next multiple of 8.

    >>> rounded(20), rounded(64)
    (24, 64)
    """
    return -(-channels // BLOCK_CODES) * BLOCK_CODES


class Padder:
    """Puts zero channels in where concats need them and adapts what reads them."""

    def __init__(self, heads: Sequence[Op], budget: Budget) -> None:
        self._order = reachable(heads)
        self._heads = heads
        self._budget = budget
        self._places: dict[Op, Places] = {}
        self._selected: dict[tuple[Op, int], Op] = {}
        self._inner = {
            part for op in self._order if op.kind == "concat" for part in op.sources[:-1]
        }
        self.added = 0

    def run(self) -> list[Op]:
        """The heads, whose own channels are plain."""
        rules = {
            "conv": self._conv, "fc": self._conv, "concat": self._concat, "add": self._both,
            "mul": self._both, "lrn": self._lrn,
        }  # fmt: skip
        for op in self._order:
            if op.kind == "input":
                self._set(op, np.arange(op.conv_shape[0]), op.conv_shape[0])
            else:
                rules.get(op.kind, self._follow)(op)
        return [self._pack(head) for head in self._heads]

    def _set(self, op: Op, index: np.ndarray, width: int) -> None:
        op.conv_shape = (width * places_of(op), *op.conv_shape[1:])
        self._places[op] = Places(index, width)

    def _follow(self, op: Op) -> None:
        places = self._places[op.sources[0]]
        self._set(op, places.index, places.width)

    def _select(self, source: Op, width: int) -> Op:
        """A 1x1 convolution that stores the network's channels one after the other, then zeros."""
        if (source, width) not in self._selected:
            places = self._places[source]
            channels = np.arange(len(places.index))
            size = width * places.width * FLOAT_BYTES
            self._budget.check(size, f"the matrix that selects the channels of node {source.title}")
            weight = np.zeros((width, places.width, 1, 1), np.float32)
            weight[channels, places.index] = 1.0
            op = fixed_conv(source, f"channels of {source.title}", weight)
            self._set(op, channels, width)
            self._selected[source, width] = op
            self.added += width - len(channels)
        return self._selected[source, width]

    def _pack(self, op: Op) -> Op:
        """`op` without the channels that were put in."""
        places = self._places[op]
        return op if places.plain else self._select(op, len(places.index))

    def _widen(self, op: Op) -> Op:
        """`op` with a multiple of 8 channels."""
        places = self._places[op]
        if places.width % BLOCK_CODES == 0:
            return op
        return self._select(op, rounded(len(places.index)))

    def _conv(self, op: Op) -> None:
        weight, copies = op.weight, places_of(op)
        out = op.weight.shape[0] // copies  # channels that are stored
        places = self._places[op.sources[0]]
        depthwise = op.groups == out == len(places.index) and op.groups > 1
        if not places.plain and depthwise:
            bias = op.bias
            op.weight = np.zeros((places.width, *weight.shape[1:]), np.float32)
            op.bias = np.zeros(places.width, np.float32)
            op.weight[places.index], op.bias[places.index] = weight, bias
            op.groups = places.width
            self._follow(op)
            return
        if not places.plain and op.groups == 1:
            size = weight.nbytes // weight.shape[1] * places.width
            self._budget.check(size, f"the weights of node {op.title}")
            op.weight = np.zeros((len(weight), places.width, *weight.shape[2:]), np.float32)
            op.weight[:, places.index] = weight
        elif not places.plain:  # groups would no longer meet their channels
            op.sources = [self._pack(op.sources[0])]
        width = rounded(out) if op in self._inner and op.groups == 1 else out
        if width > out:
            op.weight, op.bias = (
                np.pad(
                    one.reshape(copies, out, *one.shape[1:]),
                    [(0, 0), (0, width - out), *[(0, 0)] * (one.ndim - 1)],
                ).reshape(-1, *one.shape[1:])
                for one in (op.weight, op.bias)
            )
            self.added += width - out
        self._set(op, np.arange(out), width)

    def _both(self, op: Op) -> None:
        first, second = (self._places[source] for source in op.sources)
        if first.width != second.width or not np.array_equal(first.index, second.index):
            op.sources = [self._pack(source) for source in op.sources]
        self._follow(op)

    def _lrn(self, op: Op) -> None:
        index = self._places[op.sources[0]].index
        # numbers between or behind the channels that it sums over
        between = not np.array_equal(index, np.arange(len(index)))
        if between or op.sources[0].coded and not self._places[op.sources[0]].plain:
            op.sources = [self._pack(op.sources[0])]
        self._follow(op)

    def _concat(self, op: Op) -> None:
        op.sources = [self._widen(part) if part in self._inner else part for part in op.sources]
        index, offset = [], 0
        for part in op.sources:
            places = self._places[part]
            index.append(places.index + offset)
            offset += places.width
        self._set(op, np.concatenate(index), offset)
