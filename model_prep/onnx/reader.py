# SPDX-License-Identifier: Apache-2.0
"""A file to a checked `Source`: nodes in execution order, initialisers, one input, one output.

Nothing here trusts the file: sizes, names, cycles and references are checked before any node is
interpreted.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from formats.errors import UserError
from model_prep.onnx.limits import MAX_FILE_BYTES, Budget, check_map
from model_prep.onnx.text import shown

OPSETS = range(7, 23)
DOMAINS = ("", "ai.onnx")
INPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Source:
    """What a file holds, checked but not interpreted.

    Attributes:
        nodes: in execution order.
        initializers: by tensor name.
        input_name, output_name: tensor names, as they are in the file.
        in_shape: (channels, rows, columns).
        batch: the batch size that the file declares, or None where it is free.
        opset: version of the default operator set.
    """

    nodes: tuple[NodeProto, ...]
    initializers: dict[str, TensorProto]
    input_name: str
    output_name: str
    in_shape: tuple[int, int, int]
    batch: int | None
    opset: int


def read(path: Path, budget: Budget) -> Source:
    """Read and check the file at `path`.

    Raises:
        UserError: the file is no ONNX model, or its graph breaks a rule.
    """
    model = _parse(path, budget)
    opset = _opset(model)
    graph = model.graph
    if not graph.node:
        raise UserError("the model must have at least one node, not none")
    if model.functions:
        raise UserError("the model must not define functions; inline them with onnx.inliner")
    if graph.sparse_initializer:
        raise UserError("the model must not have sparse initialisers; store them densely")
    initializers = _initializers(graph)
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(shown(value.name) for value in inputs[:5]) or "none"
        raise UserError(f"the model must have one input, not {len(inputs)} ({names})")
    if len(graph.output) != 1:
        names = ", ".join(shown(value.name) for value in graph.output[:5]) or "none"
        raise UserError(
            f"the model must have one output, not {len(graph.output)} ({names}); keep one of them"
        )
    batch, in_shape = _input_shape(inputs[0], budget)
    nodes = _ordered(graph, {inputs[0].name, *initializers})
    output = graph.output[0].name
    if not any(output in node.output for node in nodes):
        raise UserError(f"output {shown(output)} must be computed by a node")
    return Source(nodes, initializers, inputs[0].name, output, in_shape, batch, opset)


def _parse(path: Path, budget: Budget) -> ModelProto:
    if not path.is_file():
        raise UserError("the model must be an existing file")
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise UserError(f"the model must have 1 to {MAX_FILE_BYTES} bytes, not {size}")
    budget.check(2 * size, "the model's file")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, RuntimeError, MemoryError):
        raise UserError("the model must be an ONNX protobuf, but it does not parse") from None
    if not model.HasField("graph"):
        raise UserError("the model must be an ONNX protobuf, but it has no graph")
    if not all(isinstance(text, str) for text in _texts(model.graph)):
        raise UserError("the model must have names in UTF-8")
    return model


def _texts(graph: GraphProto) -> Iterator[object]:
    """All strings that are read; protobuf gives bytes where one is no UTF-8."""
    for value in (*graph.input, *graph.output):
        yield value.name
    for tensor in graph.initializer:
        yield tensor.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)


def _opset(model: ModelProto) -> int:
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if len(versions) != 1:
        raise UserError("the model must name one version of the default operator set (opset)")
    version = versions.pop()
    if version not in OPSETS:
        raise UserError(
            f"the model's opset must be {OPSETS[0]} to {OPSETS[-1]}, not {version}; convert it "
            "with onnx.version_converter"
        )
    return int(version)


def _initializers(graph: GraphProto) -> dict[str, TensorProto]:
    found: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in found:
            raise UserError(
                f"initialisers must have names of their own, not {shown(tensor.name) or 'none'}"
            )
        found[tensor.name] = tensor
    return found


def _input_shape(value: ValueInfoProto, budget: Budget) -> tuple[int | None, tuple[int, int, int]]:
    """(declared batch or None, (channels, rows, columns))."""
    what = f"input {shown(value.name)}"
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in INPUT_TYPES:
        raise UserError(f"{what} must be a tensor of float numbers")
    dims = kind.shape.dim
    if not kind.HasField("shape") or len(dims) != 4:
        raise UserError(
            f"{what} must have 4 axes (batch, channels, rows, columns), not {len(dims)}"
        )
    sizes = [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims]
    if any(size is None for size in sizes[1:]):
        raise UserError(
            f"{what} must have fixed channels, rows and columns; only the batch axis may be free"
        )
    if any(size is not None and size < 1 for size in sizes):
        raise UserError(f"{what} must have positive sizes, not {sizes}")
    shape = (sizes[1] or 0, sizes[2] or 0, sizes[3] or 0)
    check_map(shape, what, budget)
    return sizes[0], shape


def _ordered(graph: GraphProto, given: set[str]) -> tuple[NodeProto, ...]:
    """The nodes sorted so that each comes after what it reads; no recursion, linear time."""
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if not name:
                continue
            if name in producers or name in given:
                raise UserError(f"tensor {shown(name)} must be computed once, not twice")
            producers[name] = index
    readers: dict[int, list[int]] = {}
    waiting = []
    for index, node in enumerate(graph.node):
        needs = {name for name in node.input if name and name not in given}
        for name in needs:
            if name not in producers:
                raise UserError(
                    f"node {node_title(node, index)} reads {shown(name)}, which must be an "
                    "initialiser, the input or a node's output, not missing"
                )
        sources = {producers[name] for name in needs}
        waiting.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]  # a heap: file order
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(waiting):
        stuck = next(index for index, count in enumerate(waiting) if count)
        raise UserError(
            "the model's graph must not have a cycle, but node "
            f"{node_title(graph.node[stuck], stuck)} waits for one"
        )
    return tuple(graph.node[index] for index in order)


def node_title(node: NodeProto, index: int) -> str:
    """How messages call a node: its name, else its output, else its number."""
    return shown(node.name or (node.output[0] if node.output else "") or f"#{index}")
