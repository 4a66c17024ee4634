# SPDX-License-Identifier: Apache-2.0
"""Activations: operators of the table, and what exporters write in parts.

Every operation that is a function of one number knows which (`Pointwise`). Where two of them meet
in arithmetic and both are functions of the same tensor, so is the result; that is compared with the
table number by number, whatever the nodes are that it was made of. SiLU, GELU, HardSwish and Mish
are recognised so.
"""

from collections.abc import Callable
from functools import partial
from math import isfinite

import numpy as np

from nuq.formats.activation import RELU, Activation
from nuq.formats.ending import Step
from nuq.model_prep import activations
from nuq.model_prep.activations import FUNCTIONS
from nuq.model_prep.onnx.lowering import OPERATORS, TYPES, Node, Operator, Result, operator
from nuq.model_prep.onnx.operations import Axes, Compute, Op, Pointwise, UnsupportedError, Value

_LARGEST = 32  # function that is looked through, in operations
_HUGE = 3e38  # a limit that is none
_PLAIN = "it must be a part of an activation that docs/onnx.md lists"


def activated(node: Node, value: Value, activation: Activation) -> Value:
    """A value behind an activation."""
    if not activations.turns_once(activation):
        raise UnsupportedError(
            f"{activation} must rise, or fall up to some number and then rise", value.shape
        )
    compute = partial(activations.values, activation)
    return node.op(
        "activation", value.op, axes=value.axes, activation=activation,
        nonnegative=activations.nonnegative(activation),
        of=_behind(node, value.op, compute, value.op),
    )  # fmt: skip


def _behind(node: Node, base: Op, compute: Compute, *read: Op) -> Pointwise | None:
    """How what a node makes of what it has read is a function of `base`; None where it is large."""
    size = 1 + sum(op.of.size for op in read if op.of)
    return Pointwise(base, compute, size, node.op_type) if size <= _LARGEST else None


def reach(op: Op) -> list[tuple[Op, Compute]]:
    """The operation and all that it is a function of, the nearest first, with that function."""
    found: list[tuple[Op, Compute]] = [(op, lambda x: x)]
    while op.of is not None:
        found.append((op.of.base, partial(_one_after_other, op.of.compute, found[-1][1])))
        op = op.of.base
    return found


def _one_after_other(first: Compute, second: Compute, x: np.ndarray) -> np.ndarray:
    return second(first(x))


def unresolved(op: Op) -> bool:
    """Whether it is a function that nothing but a part of an activation can be."""
    return any(one.kind == "pointwise" for one, _ in reach(op))


def part_of_one(node: Node, value: Value, compute: Compute) -> Value:
    """A function that the engine has only as an activation, or as a part of one."""
    found = _looked_up(node, value, compute)
    return _part(node, value, compute, value.op) if found is None else found


def _part(node: Node, value: Value, compute: Compute, *read: Op) -> Value:
    of = _behind(node, value.op, compute, *read)
    if of is None:
        raise UnsupportedError(_PLAIN, value.shape)
    return node.op("pointwise", value.op, axes=value.axes, of=of)


def scaled(node: Node, value: Value, scale: float, shift: float) -> Value | Pointwise | None:
    """What x * scale + shift is of a value: an activation, or how it is a function of others."""
    compute = partial(_line, scale, shift)
    found = None
    if any(one.kind in ("activation", "pointwise") for one, _ in reach(value.op)):
        found = _looked_up(node, value, compute)
    return _behind(node, value.op, compute, value.op) if found is None else found


def _looked_up(node: Node, value: Value, compute: Compute) -> Value | None:
    """The activation that a function of a value is, of that or of what it is a function of."""
    for base, before in reach(value.op):
        found = _known(node, base, partial(_one_after_other, before, compute), value.axes)
        if found is not None:
            return found
    return None


def _line(scale: float, shift: float, x: np.ndarray) -> np.ndarray:
    return x * scale + shift


ARITHMETIC: dict[str, np.ufunc] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
}  # fmt: skip


def combined(node: Node, first: Value, second: Value) -> Value | None:
    """What arithmetic makes of two functions of the same tensor; None where it is not that."""
    ufunc = ARITHMETIC[node.op_type]
    if first.axes != second.axes or first.shape != second.shape:
        return None
    others = dict(reach(second.op))
    shared = [(op, compute, others[op]) for op, compute in reach(first.op) if op in others]
    for base, one, other in shared:
        found = _known(node, base, partial(_of_both, ufunc, one, other), first.axes)
        if found is not None:
            return found
    plain = not (unresolved(first.op) or unresolved(second.op))
    if not shared or (node.op_type == "Add" and plain):
        return None
    base, one, other = shared[0]
    both = partial(_of_both, ufunc, one, other)
    return _part(node, Value(base, first.axes), both, first.op, second.op)


def _of_both(ufunc: np.ufunc, first: Compute, second: Compute, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = ufunc(first(x), second(x))
    return found


def _known(node: Node, base: Op, compute: Compute, axes: Axes) -> Value | None:
    known = activations.recognised(compute)
    return None if known is None else activated(node, Value(base, axes), known)


def table_function(name: str, node: Node, **given: float) -> Result:
    """An activation of the table, with the operator's attributes as its parameters."""
    value = node.tensor()
    parameters = {**FUNCTIONS[name].parameters, **given}
    if not all(isfinite(number) for number in parameters.values()):
        raise UnsupportedError("attributes must be finite", value.shape)
    if name == "leaky_relu" and parameters["alpha"] in (0.0, 1.0):
        return activated(node, value, RELU) if parameters["alpha"] == 0.0 else value
    return activated(node, value, Activation(name, parameters))


def at_the_end(name: str, node: Node) -> Result:
    """Sigmoid or Tanh: left to the host at the end."""
    return node.finished().then(Step(name)) if node.at_end else table_function(name, node)


for _name, _function in FUNCTIONS.items():
    if _function.operator:
        _convert = at_the_end if _function.operator in ("Sigmoid", "Tanh") else table_function
        OPERATORS[_function.operator] = Operator(
            partial(_convert, _name), dict.fromkeys(_function.parameters, TYPES[float]), {}
        )


@operator("Relu")
def relu(node: Node) -> Value:
    """Relu."""
    return activated(node, node.tensor(), RELU)


@operator("Clip")
def clip(node: Node, *, min: float | None = None, max: float | None = None) -> Value:
    """Clip: from 0 a ReLU with an upper limit, else an activation of the table."""
    low = node.number(1, "min", -np.inf) if min is None else min
    high = node.number(2, "max", np.inf) if max is None else max
    value = node.tensor()
    if not low < high:
        raise UnsupportedError(f"limits must rise, not be {low:g} and {high:g}", value.shape)
    if low <= -_HUGE and high >= _HUGE:
        return value
    if low == 0.0:
        limit = {"limit": high} if high < _HUGE else {}
        return activated(node, value, Activation("relu", limit))
    limits = {
        "low": float(np.clip(low, -_HUGE, _HUGE)),
        "high": float(np.clip(high, -_HUGE, _HUGE)),
    }
    return activated(node, value, Activation("clip", limits))


@operator("PRelu")
def prelu(node: Node) -> Result:
    """PRelu with one slope for all channels."""
    slopes, value = node.weights(1), node.tensor()
    if not slopes.size or (slopes != slopes.flat[0]).any():
        raise UnsupportedError(
            "slope must be one number, as a layer's channels share a codebook", value.shape
        )
    return table_function("leaky_relu", node, alpha=float(slopes.flat[0]))


@operator("Gelu")
def gelu(node: Node, *, approximate: str = "none") -> Value:
    """Gelu, exact or by tanh."""
    if approximate not in ("none", "tanh"):
        raise UnsupportedError("approximate must be none or tanh")
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return activated(node, node.tensor(), Activation(name))


_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Erf": lambda x: activations.erf(x), "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt,
    "Abs": np.abs, "Reciprocal": lambda x: 1 / x,
}  # fmt: skip


@operator(*_PARTS)
def primitive(node: Node) -> Value:
    """A function that only parts of an activation are made of."""
    return part_of_one(node, node.tensor(), _PARTS[node.op_type])


@operator("Pow")
def power(node: Node) -> Value:
    """A constant power, likewise."""
    exponent = node.number(1, "the exponent", 1.0)
    return part_of_one(node, node.tensor(), partial(_power, exponent))


def _power(exponent: float, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.power(x, exponent)
    return found
