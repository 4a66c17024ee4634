# SPDX-License-Identifier: Apache-2.0
"""Walks the nodes: each becomes an `Op`, a view, or a folded constant; all refusals are collected.

The `convert_*` modules hold the operators; `Context` is what they work with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from formats.errors import UserError
from model_prep.graph import INPUT
from model_prep.onnx.attributes import Attributes, UnsupportedError
from model_prep.onnx.limits import Budget, check_map
from model_prep.onnx.operations import Op, Value, feature_map, refused
from model_prep.onnx.reader import DOMAINS, Source, node_title
from model_prep.onnx.tensors import TensorReader
from model_prep.onnx.text import shown

Handler = Callable[["Context", "Node"], None]
MAX_LISTED = 100  # nodes in one message


@dataclass(frozen=True)
class Operator:
    """How one operator is converted: its function and the attributes that it understands."""

    convert: Handler
    attributes: frozenset[str]


@dataclass(frozen=True)
class Node:
    """A node with checked attributes."""

    op_type: str
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes

    def has(self, index: int) -> bool:
        """Whether input number `index` is connected."""
        return index < len(self.inputs) and bool(self.inputs[index])


class Context:
    """The state of a conversion: what every tensor name stands for."""

    def __init__(self, source: Source, tensors: TensorReader, budget: Budget) -> None:
        self.source = source
        self.tensors = tensors
        self.budget = budget
        self.notes: list[str] = []
        self._values: dict[str, Value | np.ndarray] = {
            source.input_name: feature_map(Op("input", [], source.in_shape, INPUT))
        }
        self._read_names = {name for node in source.nodes for name in node.input}
        self._read_names.add(source.output_name)

    def value(self, name: str) -> Value | np.ndarray:
        """What a tensor name stands for; initialisers are decoded when they are first read."""
        if name not in self._values:
            if name not in self.source.initializers:
                raise UnsupportedError(
                    f"output {shown(name)} of the node before it is not computed"
                )
            self._values[name] = self.tensors.array(self.source.initializers[name], name)
        return self._values[name]

    def known(self, node: Node, index: int) -> bool:
        """Whether input number `index` is a constant."""
        return node.has(index) and isinstance(self.value(node.inputs[index]), np.ndarray)

    def constant(self, node: Node, index: int) -> np.ndarray:
        """Input number `index`, which must be a constant."""
        value = self.value(node.inputs[index]) if node.has(index) else None
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"input {index} must be a constant")
        return value

    def integers(self, node: Node, index: int) -> tuple[int, ...] | None:
        """Input number `index` as integers, or None where it is not connected."""
        if not node.has(index):
            return None
        array = self.constant(node, index)
        if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1 or array.size > 64:
            raise UnsupportedError(f"input {index} must be a list of integers")
        return tuple(int(value) for value in array.reshape(-1))

    def weights(self, node: Node, index: int) -> np.ndarray:
        """Input number `index` as finite float32 numbers."""
        array = self.constant(node, index)
        if not np.issubdtype(array.dtype, np.floating):
            raise UnsupportedError(f"input {index} must hold float numbers, not {array.dtype}")
        with np.errstate(over="ignore"):
            values = np.array(array, np.float32, order="C")  # a copy that may be written
        if not np.isfinite(values).all():
            raise UnsupportedError(f"input {index} must be finite, but it holds NaN or Inf")
        return values

    def tensor(self, node: Node, index: int = 0) -> Value:
        """Input number `index`, which must depend on the network's input."""
        if not node.has(index):
            raise UnsupportedError(f"input {index} must be connected")
        value = self.value(node.inputs[index])
        if isinstance(value, np.ndarray):
            raise UnsupportedError(
                f"input {index} must depend on the network's input, not be constant"
            )
        if value.host:
            raise UnsupportedError(f"{value.host} must come last, because the host computes it")
        return value

    def map(self, node: Node, index: int = 0) -> Op:
        """Input number `index` as a plain feature map [1, channels, rows, columns]."""
        value = self.tensor(node, index)
        if not value.is_map:
            raise UnsupportedError(
                f"input {index} must be a map (batch, channels, rows, columns), "
                f"not reshaped or transposed to {list(value.dims)}"
            )
        return value.op

    def emit(self, node: Node, op: Op, like: Value | None = None) -> None:
        """Make `op` the node's result, seen as `like` was (default: as a plain map)."""
        check_map(op.shape, f"the output of node {node.title}", self.budget)
        self.set(node, feature_map(op) if like is None else Value(op, like.axes))

    def set(self, node: Node, value: Value | np.ndarray) -> None:
        """Make `value` the node's first output; others must have no reader."""
        for name in node.outputs[1:]:
            if name and name in self._read_names:
                raise UnsupportedError(f"output {shown(name)} must have no reader")
        if not node.outputs or not node.outputs[0]:
            raise UnsupportedError("output 0 must have a name")
        self._values[node.outputs[0]] = value

    def logits_name(self) -> str:
        """The tensor before what the host does at the end."""
        producers = {name: node for node in self.source.nodes for name in node.output}
        name = self.source.output_name
        while True:
            value = self.value(name)
            if not (isinstance(value, Value) and value.host):
                return name
            name = producers[name].input[0]

    def stand_in(self, name: str, dims: tuple[int, ...]) -> None:
        """Let a refused node's output be a tensor of `dims`, so that its readers are checked."""
        self._values[name] = refused(dims)


def lower(context: Context, operators: dict[str, Operator]) -> Value:
    """Convert all nodes; return the network's output.

    Raises:
        UserError: lists every node that is not supported, with what is wrong.
    """
    problems: list[tuple[str, str, str]] = []
    lost: set[str] = set()  # tensors behind a refused node
    for index, proto in enumerate(context.source.nodes):
        title, op_type = node_title(proto, index), shown(proto.op_type, 30)
        known = proto.op_type in operators and proto.domain in DOMAINS
        if not known:
            domain = "" if proto.domain in DOMAINS else f" of domain {shown(proto.domain, 30)}"
            problems.append((op_type + domain, title, "not an operator of the engine"))
        if not known or not lost.isdisjoint(proto.input):
            lost.update(proto.output)
            continue
        try:
            attributes = Attributes(proto)
            operator = operators[proto.op_type]
            attributes.only(operator.attributes)
            node = Node(proto.op_type, title, tuple(proto.input), tuple(proto.output), attributes)
            operator.convert(context, node)
        except UnsupportedError as error:
            problems.append((op_type, title, str(error)))
            lost.update(proto.output)
            if error.dims and proto.output:
                context.stand_in(proto.output[0], error.dims)
                lost.discard(proto.output[0])
    if problems:
        raise UserError(_listed(problems))
    value = context.value(context.source.output_name)
    if isinstance(value, np.ndarray):
        raise UserError("the model's output must depend on its input, not be constant")
    return value


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
