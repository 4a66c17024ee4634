# SPDX-License-Identifier: Apache-2.0
"""Operations to layers: what the engine does in one go becomes one operation.

After `fuse` there are only the Graph's kinds, concats and the input. Affine maps are folded into
the convolution before them, or become depthwise 1x1 convolutions; activations are absorbed by their
producer (before its max pool, where the two commute), or become identity convolutions; pads move
into what reads them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import Average, Window
from nuq.formats.errors import UserError
from nuq.model_prep.activations import nonnegative, rises
from nuq.model_prep.onnx import places
from nuq.model_prep.onnx.limits import Budget
from nuq.model_prep.onnx.operations import (
    Op,
    Pads,
    Shape,
    identity,
    reachable,
    readers,
)

LARGEST_AVERAGE = 256  # elements of a window; a mean over more is one across, then one down
ABSORBS = ("conv", "fc", "add", "mul", "avgpool", "lrn")


def fuse(outputs: Sequence[Op], budget: Budget) -> list[Op]:
    """The heads of the fused network; their raw accumulators are the outputs, in order."""
    heads = Fuser(outputs, budget).run()
    uses = readers(reachable(heads))
    ends: dict[Op, Op] = {}
    for head in heads:
        if head.kind == "input":
            raise UserError("the model must compute something, not return its input")
        if head not in ends:
            ends[head] = head if _leaves(head) and not uses[head] else _copied(head)
    return [ends[head] for head in heads]


def _leaves(op: Op) -> bool:
    """Whether raw accumulators are the operation's output, but for a factor."""
    whole = op.average is not None and (op.average.count_include_pad or not any(op.average.pads))
    plain = op.pool is None and op.upscale is None
    return plain and (op.has_weights or whole) and not op.activation


def _copied(op: Op) -> Op:
    """An identity convolution whose raw accumulators are what `op` stores."""
    end = identity(op, "output")
    end.activation, end.nonnegative = None, False
    return end


class Fuser:
    """Rewrites operations in topological order; `_now` says what each has become."""

    def __init__(self, outputs: Sequence[Op], budget: Budget) -> None:
        self._budget = budget
        self._order = reachable(outputs)
        self._outputs = outputs
        self._uses = readers(self._order)
        self._uses.update(outputs)
        self._now: dict[Op, Op] = {}
        self._readers: dict[Op, list[Op]] = {op: [] for op in self._order}
        for op in self._order:
            for source in op.sources:
                self._readers[source].append(op)
        self._padded: dict[Op, Op] = {}
        self._scaled: set[Op] = set()  # affine maps that became depthwise convolutions

    def run(self) -> list[Op]:
        """The outputs of the rewritten operations."""
        rules = {
            "affine": self._affine, "activation": self._activation, "maxpool": self._max_pool,
            "avgpool": self._average, "conv": self._conv, "fc": self._conv, "pad": self._pad,
            "select": self._select, "quantize": self._quantize, "upscale": self._upscale,
            "fold": self._fold,
        }  # fmt: skip
        for op in self._order:
            result = rules.get(op.kind, self._join)(op)
            self._now[op] = result
            if result not in self._uses:
                self._uses[result] = self._uses[op]
            elif result is not op:  # absorbed
                self._uses[result] += self._uses[op] - 1
        return [self._solid(self._now[output]) for output in self._outputs]

    def _source(self, op: Op) -> Op:
        return self._now[op.sources[0]]

    def _sole(self, op: Op) -> bool:
        return self._uses[op] == 1

    def _solid(self, op: Op) -> Op:
        """`op`, or the convolution that does what a pad or a choice of channels asks for."""
        if op.kind in ("select", "fold"):
            if op not in self._padded:
                make = places.choice if op.kind == "select" else places.folded
                self._padded[op] = make(op, self._budget)
                self._uses[self._padded[op]] = self._uses[op]
            return self._padded[op]
        if op.kind != "pad":
            return op
        if op not in self._padded:
            if op.pad_value != 0.0:
                raise UserError(
                    f"node {op.title} must pad with 0, not {op.pad_value:g}; only a MaxPool that "
                    "reads it takes -inf"
                )
            self._padded[op] = identity(op.sources[0], op.title, op.pads)
            self._uses[self._padded[op]] = self._uses[op]
        return self._padded[op]

    def _bypass(self, pad: Op) -> Op:
        """What a pad or a choice of channels reads, for a reader that takes it over itself."""
        source = pad.sources[0]
        self._uses[source] += 1
        self._uses[pad] -= 1
        if not self._uses[pad]:
            self._uses[source] -= 1
        return source

    def _pad(self, op: Op) -> Op:
        source = self._source(op)
        if source.kind == "pad" and source.pad_value == op.pad_value:
            pads = _sum_pads(source.pads, op.pads)
            return replace(op, sources=[self._bypass(source)], pads=pads)
        source = self._solid(source)
        return replace(op, sources=[source], nonnegative=source.nonnegative)

    def _select(self, op: Op) -> Op:
        source = self._source(op)
        if source.kind == "select":
            op.index, op.sources = source.index[op.index], [self._bypass(source)]
        else:
            op.sources = [self._solid(source)]
        op.nonnegative = op.sources[0].nonnegative
        return op

    def _fold(self, op: Op) -> Op:
        op.sources = [self._solid(self._source(op))]
        op.nonnegative = op.sources[0].nonnegative
        return op

    def _upscale(self, op: Op) -> Op:
        """The layer before it that stores its pixels at several places, or one behind that."""
        source, upscale = self._solid(self._source(op)), op.upscale
        parts = source.sources if source.kind == "concat" else [source]
        alone = self._sole(source) and all(part is source or self._sole(part) for part in parts)
        if upscale and alone and all(places.takes(part, upscale) for part in parts):
            for part in parts:
                places.enlarge(part, upscale, op.index)
            if source.kind == "concat":
                source.conv_shape = op.out_shape
            return source
        return places.behind(source, op, self._budget)

    def _conv(self, op: Op) -> Op:
        source = self._source(op)
        if source.kind == "fold" and op.groups == 1 and op.dilation == (1, 1):
            places.unfold(op, source)
            op.sources = [self._bypass(source)]
            return op
        if source.kind == "select" and op.groups == 1:
            weight, channels = op.weight, source.sources[0].out_shape[0]
            size = weight.nbytes // weight.shape[1] * channels
            self._budget.check(size, f"the weights of node {op.title}")
            op.weight = np.zeros((len(weight), channels, *weight.shape[2:]), np.float32)
            for place, channel in enumerate(source.index):  # which may come twice
                op.weight[:, channel] += weight[:, place]
            op.sources = [self._bypass(source)]
            return op
        if source.kind == "pad" and source.pad_value == 0.0:
            op.sources = [self._bypass(source)]
            op.pads = _sum_pads(op.pads, source.pads)
        else:
            op.sources = [self._solid(source)]
        return op

    def _join(self, op: Op) -> Op:
        if op.sources:
            op.sources = [self._solid(self._now[source]) for source in op.sources]
            op.nonnegative = all(source.nonnegative for source in op.sources)
        return op

    def _affine(self, op: Op) -> Op:
        source = self._solid(self._source(op))
        by_weights = all(one.kind in ("conv", "fc", "affine") for one in self._readers[op])
        if source.kind == "input" and self._sole(source) and op.weight.all() and by_weights:
            _normalise(source, op)
            source.codes = None
            return source
        if source.has_weights and self._sole(source) and not (source.activation or source.pool):
            factors, shifts = places.at_all(source, op.weight), places.at_all(source, op.bias)
            with np.errstate(over="ignore"):
                source.weight = source.weight * factors
                source.bias = source.bias * factors.reshape(-1) + shifts
            source.fixed, source.codes = False, None
            if not (np.isfinite(source.weight).all() and np.isfinite(source.bias).all()):
                raise UserError(f"node {op.title} must leave weights finite, not overflow them")
            return source
        scaled = replace(op, kind="conv", sources=[source])
        self._scaled.add(scaled)
        return scaled

    def _activation(self, op: Op) -> Op:
        source = self._solid(self._source(op))
        if source.nonnegative and op.activation == RELU:
            return source
        return self._activated(source, op)

    def _quantize(self, op: Op) -> Op:
        """What codes do besides rounding: those that begin at 0 saturate there and at the end.

        The codes then are those of the layers that store it. The network's input has its own.
        """
        source, codes = self._solid(self._source(op)), op.codes
        if source.kind == "input" or codes is None:
            if self._sole(source):
                source.codes = codes
            return source
        result, ends = source, None
        if codes.low == 0:
            ends = Activation("relu", {"limit": codes.high * codes.step})
        if ends and not (source.nonnegative and not self._takes(source, ends)):
            result = self._activated(source, replace(op, activation=ends))
        for part in result.sources if result.kind == "concat" else [result]:
            part.codes = codes
        return result

    def _takes(self, source: Op, activation: Activation | None) -> bool:
        """Whether an activation can be absorbed by `source`, or all parts of a concat."""
        parts = source.sources if source.kind == "concat" else [source]
        return self._sole(source) and all(
            part.kind in ABSORBS
            and (part is source or self._sole(part))
            and (rises(activation) or part.pool is None)
            and _joint(part.activation, activation) is not None
            for part in parts
        )

    def _activated(self, source: Op, op: Op) -> Op:
        """`source` with the activation in it, or a new convolution behind it that applies it."""
        rising, above = rises(op.activation), nonnegative(op.activation)
        if source.kind == "maxpool" and self._sole(source) and rising:
            before = source.sources[0]
            inner = self._activated(before, op)
            source.sources = [inner]
            if inner is not before:
                self._uses[inner] = 1
            source.nonnegative = above
            return source
        if self._takes(source, op.activation):
            for part in source.sources if source.kind == "concat" else [source]:
                part.activation = _joint(part.activation, op.activation)
                part.nonnegative = above
            source.nonnegative = above
            return source
        behind = identity(source, op.title)
        behind.activation, behind.nonnegative = op.activation, above
        return behind

    def _max_pool(self, op: Op) -> Op:
        source, pool = self._before_window(op), op.pool
        if source.kind == "pad" and pool:
            pads = _sum_pads(pool.pads, source.pads)
            zero_never_wins = source.pad_value != 0.0 or source.nonnegative
            if zero_never_wins and _inside(pads, pool.kernel):
                pool = Window(pool.kernel, pool.stride, pads)
                source = self._bypass(source)
            else:
                source = self._solid(source)
        scaled = source in self._scaled and source.sources[0].kind != "input"
        if (
            scaled
            and (source.weight > 0).all()
            and self._sole(source)
            and not source.activation
            and source.pool is None
            and source.upscale is None
        ):
            return self._commuted(source, op, pool)
        if _pools(source) and self._sole(source):
            source.pool = pool
            return source
        op.sources, op.pool, op.nonnegative = [source], pool, source.nonnegative
        return op

    def _commuted(self, affine: Op, op: Op, pool: Window | None) -> Op:
        """The affine map of positive factors behind the max pool, which then reads fewer values."""
        before = affine.sources[0]
        if _pools(before) and self._sole(before):
            before.pool, inner = pool, before
        else:
            op.sources, op.pool, op.nonnegative = [before], pool, before.nonnegative
            inner = replace(op)
            self._uses[inner] = 1
        affine.sources, affine.in_shape = [inner], inner.out_shape
        affine.conv_shape = inner.out_shape
        return affine

    def _before_window(self, op: Op) -> Op:
        """What a pool reads, a pad as it is."""
        source = self._source(op)
        return source if source.kind == "pad" else self._solid(source)

    def _average(self, op: Op) -> Op:
        source, average = self._before_window(op), op.average
        if source.kind == "pad" and average:
            own = any(average.pads) and not average.count_include_pad
            if source.pad_value == 0.0 and not own:
                pads = _sum_pads(average.pads, source.pads)
                op.average = replace(average, pads=pads, count_include_pad=True)
                source = self._bypass(source)
            else:
                source = self._solid(source)
        inner = source.average if source.upscale is None else None
        if average and inner and self._sole(source) and not source.activation:
            both = _in_one(inner, average, source.sources[0].out_shape)
            if both is not None:
                op.average, source = both, source.sources[0]
        if op.average and op.average.size > LARGEST_AVERAGE:
            op.average, source = self._across(op, op.average, source)
        if op.average:
            op.stride, op.pads, op.in_shape = op.average.stride, op.average.pads, source.out_shape
        op.sources, op.nonnegative = [source], source.nonnegative
        return op

    def _across(self, op: Op, average: Average, source: Op) -> tuple[Average, Op]:
        """What is left of a large mean, and the mean over its columns that it reads."""
        if 1 in average.kernel or (any(average.pads) and not average.count_include_pad):
            return average, source
        (rows, columns), (down, across) = average.kernel, average.stride
        top, left, bottom, right = average.pads
        inner = Average((1, columns), (1, across), (0, left, 0, right), average.count_include_pad)
        rest = Average((rows, 1), (down, 1), (top, 0, bottom, 0), average.count_include_pad)
        first = Op(
            "avgpool", sources=[source], title=f"columns of {op.title}", average=inner,
            nonnegative=source.nonnegative,
        )  # fmt: skip
        self._uses[first] = 1
        return rest, first


def _pools(op: Op) -> bool:
    """Whether a max pool behind a convolution can be fused into it."""
    free = op.pool is None and op.upscale is None
    return op.has_weights and free and rises(op.coded)


def _in_one(first: Average, second: Average, shape: Shape) -> Average | None:
    """The mean over rows and columns that two averages in a row are, the first over one side."""
    if any(first.pads) or any(second.pads):
        return None
    kernel = first.kernel[0] * second.kernel[0], first.kernel[1] * second.kernel[1]
    sides = {first.kernel, second.kernel} == {(shape[1], 1), (1, shape[2])}
    return Average(kernel, (1, 1)) if sides and kernel == shape[1:] else None


def _normalise(source: Op, affine: Op) -> None:
    """Let the network's input be what an affine map makes of the file's: one more map of it."""
    factors = affine.weight.reshape(-1)
    before = source.weight.reshape(-1), source.bias
    scale, shift = before if source.bias.size else (np.ones_like(factors), np.zeros_like(factors))
    with np.errstate(over="ignore"):
        source.weight = (scale * factors).reshape(-1, 1, 1, 1)
        source.bias = shift * factors + affine.bias
    if not (np.isfinite(source.weight).all() and np.isfinite(source.bias).all()):
        raise UserError(f"node {affine.title} must leave the input finite, not overflow it")


def _sum_pads(first: Pads, second: Pads) -> Pads:
    """Pads of two paddings in a row.

    >>> _sum_pads((1, 1, 1, 1), (0, 0, 1, 2))
    (1, 1, 2, 3)
    """
    top, left, bottom, right = (one + other for one, other in zip(first, second, strict=True))
    return top, left, bottom, right


def _inside(pads: Pads, kernel: tuple[int, int]) -> bool:
    """Whether every window still touches the map."""
    return max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]


def _joint(first: Activation | None, second: Activation | None) -> Activation | None:
    """One activation that does what two in a row do; None where there is none such.

    >>> str(_joint(RELU, Activation("relu", {"limit": 6.0}))), _joint(RELU, Activation("tanh"))
    ('relu(limit=6)', None)
    """
    if first is None or second is None:
        return first or second
    if not (first.rectifies and second.rectifies):
        return None
    limits = [*first.parameters.values(), *second.parameters.values()]
    return Activation("relu", {"limit": min(limits)}) if limits else RELU


def check(heads: Sequence[Op]) -> None:
    """UserError where an operation breaks a rule of the engine."""
    for op in reachable(heads):
        if not op.has_weights and any(source.kind == "input" for source in op.sources):
            raise UserError(
                f"node {op.title} ({op.kind}) must not read the network's input, which is signed; "
                "only convolutions may: put a Conv before it"
            )
