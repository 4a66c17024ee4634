# SPDX-License-Identifier: Apache-2.0
"""Walks the nodes: each becomes an `Op`, a view, or a folded constant; all refusals are collected.

An operator is a function with the decorator `operator`; `Node` is what it works with.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper

from nuq.formats.errors import UserError
from nuq.model_prep.graph import INPUT, Codes
from nuq.model_prep.onnx.limits import Budget, check_map, shown
from nuq.model_prep.onnx.operations import (
    Axes,
    Finished,
    Op,
    UnsupportedError,
    Value,
    map_axes,
    reachable,
    refused,
)
from nuq.model_prep.onnx.reader import DOMAINS, Source, node_title, to_array

Result = Value | Finished | np.ndarray
Results = Result | tuple[Result, ...]  # of one output or of several
Ints = tuple[int, ...]
MAX_LISTED = 100  # nodes in one message
HOST = frozenset((  # operators that the host can do behind the last layer
    "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "ArgMax", "Transpose", "Reshape", "Flatten",
    "Squeeze", "Unsqueeze", "DepthToSpace", "Identity", "Dropout", "Cast", "QuantizeLinear",
    "DequantizeLinear",
))  # fmt: skip
ROUNDS = ("QuantizeLinear", "DequantizeLinear")  # of these, what they only round
QONNX = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")  # domains
QONNX_OPERATORS = ("Quant", "BipolarQuant")
TYPES: dict[Any, int] = {  # of an attribute, by a parameter's annotation
    int: AttributeProto.INT, float: AttributeProto.FLOAT, str: AttributeProto.STRING,
    tuple[int, ...]: AttributeProto.INTS, tuple[float, ...]: AttributeProto.FLOATS,
    TensorProto: AttributeProto.TENSOR,
}  # fmt: skip
TYPES |= {kind | None: number for kind, number in TYPES.items()}


@dataclass(frozen=True)
class Operator:
    """A function that converts nodes, and the attributes that it understands."""

    convert: Callable[..., Results]
    types: dict[str, int | None]  # by attribute, None where it has no effect
    groups: dict[str, type]  # dataclasses whose fields are attributes, by parameter


OPERATORS: dict[str, Operator] = {}  # by ONNX name


def operator(
    *names: str, ignored: Collection[str] = ()
) -> Callable[[Callable[..., Results]], Callable[..., Results]]:
    """Let a function convert the nodes of some operators.

    Its keyword parameters are the attributes that it understands, with type and default; one whose
    type is a dataclass stands for the fields of that. Other attributes are refused.

    Args:
        names: of the operators in ONNX.
        ignored: attributes that have no effect here.
    """

    def register(convert: Callable[..., Results]) -> Callable[..., Results]:
        parameters = inspect.signature(convert).parameters.values()
        given = {one.name: one.annotation for one in parameters if one.kind is one.KEYWORD_ONLY}
        groups = {name: given.pop(name) for name in list(given) if is_dataclass(given[name])}
        given |= {one.name: one.type for group in groups.values() for one in fields(group)}
        types = {name: TYPES[kind] for name, kind in given.items()} | dict.fromkeys(ignored)
        OPERATORS.update(dict.fromkeys(names, Operator(convert, types, groups)))
        return convert

    return register


def _arguments(one: Operator, proto: NodeProto) -> dict[str, Any]:
    """A node's attributes as arguments; a setting that nobody reads is refused, not ignored."""
    attributes: dict[str, AttributeProto] = {}
    for attribute in proto.attribute:
        if attribute.name in attributes:
            raise UnsupportedError(f"attribute {shown(attribute.name)} must be given once only")
        if attribute.ref_attr_name:
            raise UnsupportedError(f"attribute {shown(attribute.name)} must not be a reference")
        attributes[attribute.name] = attribute
    unknown = sorted(shown(name) for name in attributes if name not in one.types)
    if unknown:
        raise UnsupportedError(f"attribute {unknown[0]} is not supported")
    values: dict[str, Any] = {}
    for name, attribute in attributes.items():
        expected = one.types[name]
        if expected is None:
            continue
        if attribute.type != expected:
            raise UnsupportedError(
                f"attribute {name} must be of type {AttributeProto.AttributeType.Name(expected)}"
            )
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        values[name] = tuple(value) if isinstance(value, list) else value
    for name, group in one.groups.items():
        own = [field.name for field in fields(group) if field.name in values]
        values[name] = group(**{field: values.pop(field) for field in own})
    return values


@contextmanager
def folding() -> Iterator[None]:
    """Constants in numpy: sizes that do not fit each other are the file's fault."""
    try:
        with np.errstate(all="ignore"):
            yield
    except UserError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        raise UnsupportedError(f"constants must fit each other: {shown(str(error))}") from None


class Context:
    """The state of a conversion: what every tensor name stands for."""

    def __init__(self, source: Source, folder: Path, budget: Budget) -> None:
        self.source = source
        self.budget = budget
        self.notes: list[str] = []
        self._folder = folder
        self._start = start = Op("input", sources=[], conv_shape=source.in_shape, title=INPUT)
        labels = map_axes(source.in_shape)
        axes = tuple(labels[axis] for axis in source.in_axes)
        self._values: dict[str, Result] = {source.input_name: Value(start, axes)}
        self._read_names = {name for node in source.nodes for name in node.input}
        self._read_names.update(source.output_names)
        self._ending = ending_nodes(source)

    def array(self, tensor: TensorProto, name: str) -> np.ndarray:
        """The values of a tensor in the file."""
        return to_array(tensor, name, self._folder, self.budget)

    def value(self, name: str) -> Result:
        """What a tensor name stands for; initialisers are decoded when they are first read."""
        if name not in self._values:
            if name not in self.source.initializers:
                raise UnsupportedError(
                    f"output {shown(name)} of the node before it is not computed"
                )
            self._values[name] = self.array(self.source.initializers[name], name)
        return self._values[name]

    def whole(self, name: str, value: Value) -> Value:
        """A tensor, or the map that it is where channels became places of pixels, or these them."""
        op = value.moved() if value.split else None
        if op is not None:
            check_map(op.out_shape, f"the tensor {shown(name)}", self.budget)
            self._values[name] = value = Value(op, map_axes(op.out_shape))
        return value

    def convert(self, proto: NodeProto, title: str) -> None:
        """Give a node's first output its value; others must have no reader."""
        one = OPERATORS[proto.op_type]
        arguments = _arguments(one, proto)
        at_end = bool(proto.output) and proto.output[0] in self._ending
        node = Node(self, proto.op_type, title, tuple(proto.input), at_end, len(proto.output))
        found = one.convert(node, **arguments)
        results = found if isinstance(found, tuple) else (found,)
        for name in proto.output[len(results) :]:
            if name and name in self._read_names:
                raise UnsupportedError(f"output {shown(name)} must have no reader")
        if not proto.output or not proto.output[0]:
            raise UnsupportedError("output 0 must have a name")
        for name, result in zip(proto.output, results, strict=False):
            if not isinstance(result, Value | Finished):
                result = np.asarray(result)  # numpy gives scalars for arrays without axes
            self._values[name] = result

    def stand_in(self, name: str, dims: tuple[int, ...]) -> None:
        """Let a refused node's output be a tensor of `dims`, so that its readers are checked."""
        self._values[name] = refused(dims)

    @property
    def input_codes(self) -> Codes | None:
        """The codes that the file gives its input, behind its normalisation."""
        return self._start.codes

    def normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """(scale, shift), [channels], that were folded into the input."""
        channels, bias = self._start.out_shape[0], self._start.bias
        if not bias.size:
            return np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return self._start.weight.reshape(-1), bias

    def before_host(self, name: str) -> str:
        """The tensor behind an output that lies as a layer gives it, before what the host does."""
        producers = {name: node for node in self.source.nodes for name in node.output}
        while True:
            value = self.value(name)
            if isinstance(value, Value) and value.plain:
                return self._unrounded(name, producers)
            name = producers[name].input[0]

    def _unrounded(self, name: str, producers: Mapping[str, NodeProto]) -> str:
        """The tensor before nodes that only round it, or the tensor itself."""
        before, value = name, self.value(name)
        while before in producers:
            node = producers[before]
            if node.op_type not in ROUNDS or self.value(node.input[0]) is not value:
                break
            before = node.input[0]
        return name if producers[before].op_type == "QuantizeLinear" else before


@dataclass(frozen=True)
class Node:
    """A node of the file, as its operator's function sees it; inputs are called by number."""

    context: Context
    op_type: str
    title: str
    inputs: tuple[str, ...]
    at_end: bool = False  # whether the host may do it: nothing but its steps comes behind
    outputs: int = 1  # how many there are

    def has(self, index: int) -> bool:
        """Whether the input is connected."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def value(self, index: int = 0) -> Result:
        """An input, constant or not."""
        if not self.has(index):
            raise UnsupportedError(f"input {index} must be connected")
        return self.context.value(self.inputs[index])

    def known(self, index: int) -> bool:
        """Whether the input is a constant."""
        return self.has(index) and isinstance(self.value(index), np.ndarray)

    def constants(self) -> list[np.ndarray]:
        """All connected inputs where all are constants, else none."""
        connected = [index for index in range(len(self.inputs)) if self.has(index)]
        if all(self.known(index) for index in connected):
            return [self.constant(index) for index in connected]
        return []

    def constant(self, index: int) -> np.ndarray:
        """An input that must be a constant."""
        value = self.value(index) if self.has(index) else None
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"input {index} must be a constant")
        return value

    def number(self, index: int, what: str, default: float) -> float:
        """A constant input of one number, or `default` where it is not connected."""
        if not self.has(index):
            return default
        array = self.constant(index)
        if array.size != 1:
            raise UnsupportedError(f"{what} must be one number")
        return float(array.reshape(-1)[0])

    def integers(self, index: int) -> Ints | None:
        """A constant input of integers, or None where it is not connected."""
        if not self.has(index):
            return None
        array = self.constant(index)
        if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1 or array.size > 64:
            raise UnsupportedError(f"input {index} must be a list of integers")
        return tuple(int(value) for value in array.reshape(-1))

    def weights(self, index: int) -> np.ndarray:
        """A constant input of finite numbers, float32."""
        array = self.constant(index)
        if not np.issubdtype(array.dtype, np.floating):
            raise UnsupportedError(f"input {index} must hold float numbers, not {array.dtype}")
        with np.errstate(over="ignore"):
            values = np.array(array, np.float32, order="C")  # a copy that may be written
        if not np.isfinite(values).all():
            raise UnsupportedError(f"input {index} must be finite, but it holds NaN or Inf")
        return values

    def tensor(self, index: int = 0) -> Value:
        """An input that must depend on the network's input."""
        value = self.value(index)
        if isinstance(value, np.ndarray):
            raise UnsupportedError(
                f"input {index} must depend on the network's input, not be constant"
            )
        if isinstance(value, Finished):
            raise UnsupportedError(f"input {index} must not be what the host computes at the end")
        if value.opaque:
            raise UnsupportedError("")
        return self.context.whole(self.inputs[index], value)

    def map(self, index: int = 0) -> Op:
        """An input that must be a plain feature map [1, channels, rows, columns]."""
        value = self.tensor(index)
        if not value.is_map:
            raise UnsupportedError(
                f"input {index} must be a map (batch, channels, rows, columns), "
                f"not reshaped or transposed to {list(value.shape)}"
            )
        return value.op

    def finished(self) -> Finished:
        """Input 0, for a step of the host."""
        value = self.value()
        if isinstance(value, Finished):
            return value
        value = self.tensor()
        if not self.at_end:
            raise UnsupportedError("it must come last, because the host computes it", value.shape)
        return value.finished()

    def take(self, size: int) -> None:
        """Take the bytes of an output that is a constant."""
        self.context.budget.take(size, f"the output of node {self.title}")

    def op(self, kind: str, *sources: Op, axes: Axes | None = None, **fields: Any) -> Value:
        """An operation of the node's name, see `Op`; its tensor's axes, default those of a map."""
        op = Op(kind, sources=list(sources), title=self.title, **fields)
        check_map(op.out_shape, f"the output of node {self.title}", self.context.budget)
        return Value(op, map_axes(op.out_shape) if axes is None else axes)


def ending_nodes(source: Source) -> set[str]:
    """First outputs of the nodes behind which the host can do everything, itself included."""
    needed: set[str] = set()  # what nodes read that are the host's business no more
    found: set[str] = set()
    for node in reversed(source.nodes):
        first = node.output[0] if node.output else ""
        if node.op_type in HOST and node.domain in DOMAINS and first and first not in needed:
            found.add(first)
            needed.update(node.input[1:])
        elif node.op_type != "Shape":  # sizes are known without the tensor
            needed.update(node.input)
    return found


def lower(context: Context) -> list[Finished]:
    """Convert all nodes; return the network's outputs.

    Raises:
        UserError: lists every node that is not supported, with what is wrong.
    """
    problems: list[tuple[str, str, str]] = []
    lost: set[str] = set()  # tensors behind a refused node
    for index, proto in enumerate(context.source.nodes):
        title, op_type = node_title(proto, index), shown(proto.op_type, 30)
        domains = QONNX if proto.op_type in QONNX_OPERATORS else DOMAINS
        known = proto.op_type in OPERATORS and proto.domain in domains
        if not known:
            domain = "" if proto.domain in DOMAINS else f" of domain {shown(proto.domain, 30)}"
            problems.append((op_type + domain, title, "not an operator of the engine"))
        if not known or not lost.isdisjoint(proto.input):
            lost.update(proto.output)
            continue
        try:
            context.convert(proto, title)
        except UnsupportedError as error:
            if str(error):
                problems.append((op_type, title, str(error)))
            lost.update(proto.output)
            if error.dims and proto.output:
                context.stand_in(proto.output[0], error.dims)
                lost.discard(proto.output[0])
    if problems:
        raise UserError(_listed(problems))
    found = []
    for name in context.source.output_names:
        value = context.value(name)
        if isinstance(value, np.ndarray):
            raise UserError(
                f"the model's output {shown(name)} must depend on its input, not be constant"
            )
        found.append(value.finished() if isinstance(value, Value) else value)
    parts = [op for op in reachable([one.op for one in found]) if op.kind == "pointwise"]
    if parts:
        reason = "it must be a part of an activation that docs/onnx.md lists"
        raise UserError(_listed([(op.of.operator, op.title, reason) for op in parts if op.of]))
    return found


def _listed(problems: list[tuple[str, str, str]]) -> str:
    """One sentence: the nodes, grouped by operator and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for op_type, title, reason in problems[:MAX_LISTED]:
        groups.setdefault((op_type, reason), []).append(title)
    parts = [f"{op} ({', '.join(nodes)}): {reason}" for (op, reason), nodes in groups.items()]
    more = len(problems) - MAX_LISTED
    tail = f"; and {more} more nodes" if more > 0 else ""
    return (
        "the model must use operators and settings that the engine has, not "
        + "; ".join(parts) + tail
        + "; docs/onnx.md says what is supported, so export the model without these"
    )  # fmt: skip
