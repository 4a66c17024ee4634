# SPDX-License-Identifier: Apache-2.0
"""Operations to layers: what the engine does in one go becomes one operation.

After `fuse` there are only conv, add, maxpool, avgpool, lrn and concat operations. Affine maps are
folded into the convolution before them, or become depthwise 1x1 convolutions; ReLUs are absorbed by
their producer (before its max pool, since the two commute), or become identity convolutions; pads
move into what reads them.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from formats.arithmetic import Window
from formats.errors import UserError
from model_prep.onnx.operations import Op, identity

ABSORBS = ("conv", "add", "avgpool", "lrn")


def reachable(output: Op) -> list[Op]:
    """The operations that `output` depends on, in topological order; no recursion."""
    order: list[Op] = []
    seen: set[int] = set()
    stack: list[tuple[Op, bool]] = [(output, False)]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif id(op) not in seen:
            seen.add(id(op))
            stack.append((op, True))
            stack.extend(
                (source, False) for source in reversed(op.inputs) if id(source) not in seen
            )
    return order


class Fuser:
    """Rewrites operations in topological order; `_now` says what each has become."""

    def __init__(self, output: Op) -> None:
        self._order = reachable(output)
        self._output = output
        self._uses = Counter(id(source) for op in self._order for source in op.inputs)
        self._uses[id(output)] += 1
        self._now: dict[int, Op] = {}
        self._padded: dict[int, Op] = {}

    def run(self) -> Op:
        """The output of the rewritten operations."""
        rules = {
            "affine": self._affine, "relu": self._relu, "maxpool": self._max_pool,
            "avgpool": self._average, "conv": self._conv, "input": self._keep,
            "pad": self._pad, "add": self._join, "concat": self._join, "lrn": self._join,
        }  # fmt: skip
        for op in self._order:
            self._now[id(op)] = rules[op.kind](op)
        result = self._now[id(self._output)]
        return self._solid(result) if result.kind == "pad" else result

    def _source(self, op: Op, index: int = 0) -> Op:
        return self._now[id(op.inputs[index])]

    def _sole(self, op: Op) -> bool:
        return self._uses[id(op)] == 1

    def _become(self, op: Op, source: Op) -> Op:
        """`op` is absorbed into `source`, which takes over its readers."""
        if op is not source:
            self._uses[id(source)] += self._uses[id(op)] - 1
        return source

    def _keep(self, op: Op) -> Op:
        return op

    def _new(self, op: Op, like: Op) -> Op:
        """A new operation that takes the place of `like`, with its readers."""
        self._uses[id(op)] = self._uses[id(like)]
        return op

    def _solid(self, op: Op) -> Op:
        """`op`, or the identity convolution that does what the pad `op` asks for."""
        if op.kind != "pad":
            return op
        if id(op) not in self._padded:
            if op.pad_value != 0.0:
                raise UserError(
                    f"node {op.title} must pad with 0, not {op.pad_value:g}; only a MaxPool that "
                    "reads it takes -inf"
                )
            made = identity(op.inputs[0], op.title, op.pads)
            self._padded[id(op)] = self._new(made, op)
        return self._padded[id(op)]

    def _bypass(self, pad: Op) -> Op:
        """What a pad reads, for a reader that takes over the padding itself."""
        source = pad.inputs[0]
        self._uses[id(source)] += 1
        self._uses[id(pad)] -= 1
        if not self._uses[id(pad)]:
            self._uses[id(source)] -= 1
        return source

    def _pad(self, op: Op) -> Op:
        source = self._source(op)
        if source.kind == "pad" and source.pad_value == op.pad_value:
            pads = _sum_pads(source.pads, op.pads)
            return self._new(replace(op, inputs=[self._bypass(source)], pads=pads), op)
        source = self._solid(source)
        return self._new(replace(op, inputs=[source], nonnegative=source.nonnegative), op)

    def _conv(self, op: Op) -> Op:
        source = self._source(op)
        if source.kind == "pad" and source.pad_value == 0.0:
            op.inputs = [self._bypass(source)]
            op.pads = _sum_pads(op.pads, source.pads)
        else:
            op.inputs = [self._solid(source)]
        return op

    def _join(self, op: Op) -> Op:
        op.inputs = [self._solid(self._now[id(source)]) for source in op.inputs]
        op.nonnegative = all(source.nonnegative for source in op.inputs)
        return op

    def _affine(self, op: Op) -> Op:
        source = self._solid(self._source(op))
        scale, shift = op.kernels
        if source.kind == "conv" and self._sole(source) and not (source.relu or source.pool):
            weight, bias = source.kernels
            with np.errstate(over="ignore"):
                source.weight = weight * scale[:, None, None, None]
                source.bias = bias * scale + shift
            source.fixed = False
            if not (np.isfinite(source.weight).all() and np.isfinite(source.bias).all()):
                raise UserError(f"node {op.title} must leave weights finite, not overflow them")
            return self._become(op, source)
        made = Op(
            "conv", [source], op.shape, op.title, weight=scale.reshape(-1, 1, 1, 1), bias=shift,
            groups=op.shape[0],
        )  # fmt: skip
        return self._new(made, op)

    def _relu(self, op: Op) -> Op:
        source = self._solid(self._source(op))
        if source.nonnegative and op.clip is None:
            return self._become(op, source)
        result = self._rectified(source, op)
        return self._become(op, result) if result is source else self._new(result, op)

    def _rectified(self, source: Op, relu: Op) -> Op:
        """`source` with the ReLU in it, or a new convolution behind it that applies the ReLU."""
        if source.kind == "maxpool" and self._sole(source) and source.pad_value == 0.0:
            before = source.inputs[0]
            inner = self._rectified(before, relu)
            source.inputs = [inner]
            if inner is not before:
                self._uses[id(inner)] = 1
            source.nonnegative = True
            return source
        parts = source.inputs if source.kind == "concat" else [source]
        if self._sole(source) and all(
            part.kind in ABSORBS and (part is source or self._sole(part)) for part in parts
        ):
            for part in parts:
                part.relu = part.nonnegative = True
                part.clip = _lower(part.clip, relu.clip)
            source.nonnegative = True
            return source
        made = identity(source, relu.title)
        made.relu, made.nonnegative, made.clip = True, True, relu.clip
        return made

    def _max_pool(self, op: Op) -> Op:
        source, pool = self._source(op), op.pool
        if source.kind == "pad" and pool:
            pads = _sum_pads(pool.pads, source.pads)
            zero_wins_not = source.pad_value != 0.0 or source.nonnegative
            if zero_wins_not and _inside(pads, pool.kernel):
                pool = Window(pool.kernel, pool.stride, pads)
                source = self._bypass(source)
            else:
                source = self._solid(source)
        if source.kind == "conv" and self._sole(source) and source.pool is None:
            source.pool, source.shape = pool, op.shape
            return self._become(op, source)
        op.inputs, op.pool, op.nonnegative = [source], pool, source.nonnegative
        return op

    def _average(self, op: Op) -> Op:
        source, average = self._source(op), op.average
        if source.kind == "pad" and average:
            own = any(average.pads) and not average.count_include_pad
            if source.pad_value == 0.0 and not own:
                pads = _sum_pads(average.pads, source.pads)
                op.average = replace(average, pads=pads, count_include_pad=True)
                source = self._bypass(source)
            else:
                source = self._solid(source)
        op.inputs, op.nonnegative = [source], source.nonnegative
        return op


def _sum_pads(
    first: tuple[int, int, int, int], second: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Pads of two paddings in a row.

    >>> _sum_pads((1, 1, 1, 1), (0, 0, 1, 2))
    (1, 1, 2, 3)
    """
    return (
        first[0] + second[0], first[1] + second[1], first[2] + second[2], first[3] + second[3]
    )  # fmt: skip


def _inside(pads: tuple[int, int, int, int], kernel: tuple[int, int]) -> bool:
    """Whether every window still touches the map."""
    return max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]


def _lower(first: float | None, second: float | None) -> float | None:
    """The smaller of two upper limits, None being none.

    >>> _lower(None, 6.0), _lower(4.0, 6.0), _lower(None, None)
    (6.0, 4.0, None)
    """
    limits = [limit for limit in (first, second) if limit is not None]
    return min(limits) if limits else None


def finish(output: Op) -> Op:
    """Make the last operation one whose raw accumulators are the network's output."""
    whole = output.kind == "avgpool" and output.average is not None and (
        output.average.count_include_pad or not any(output.average.pads)
    )  # fmt: skip
    plain_conv = output.kind == "conv" and output.pool is None
    if (plain_conv or whole) and not output.relu:
        return output
    if output.kind == "input":
        raise UserError("the model must compute something, not return its input")
    last = identity(output, "output")
    last.relu = last.nonnegative = False
    return last


def check(order: list[Op]) -> None:
    """UserError where an operation breaks a rule of the engine."""
    for op in order:
        if op.kind not in ("conv", "input") and any(s.kind == "input" for s in op.inputs):
            raise UserError(
                f"node {op.title} ({op.kind}) must not read the network's input, which is signed; "
                "only convolutions may: put a Conv before it"
            )
        pooled = op.pool is not None
        signed = not op.relu if op.kind == "conv" else not op.nonnegative
        if pooled and signed:
            raise UserError(
                f"the MaxPool at node {op.title} must have a ReLU before or behind it, because the "
                "engine pools values of 0 and more; add one"
            )
