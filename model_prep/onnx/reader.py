# SPDX-License-Identifier: Apache-2.0
"""A file to a checked `Source`: nodes in execution order, initialisers, one input, its outputs.

Nothing here trusts the file: sizes, names, cycles and references are checked before any node is
interpreted, and every tensor's size before memory is taken. External data is read only from regular
files inside the model's folder.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from nuq.formats.errors import UserError
from nuq.model_prep.onnx.limits import MAX_FILE_BYTES, MAX_OUTPUTS, Budget, check_map, shown

OPSETS = range(7, 23)
DOMAINS = ("", "ai.onnx")
INPUT_AXES = {2: (0, 1), 3: (0, 2, 3), 4: (0, 1, 2, 3)}  # by how many there are
CHANNELS_LAST = (0, 2, 3, 1)
ELEMENTWISE = ("Identity", "Cast", "Dropout", "Add", "Sub", "Mul", "Div")
INPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
FLOATS: dict[int, int] = {
    TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2,
}  # fmt: skip
INTEGERS: dict[int, int] = {
    TensorProto.INT64: 8, TensorProto.INT32: 4, TensorProto.INT16: 2, TensorProto.INT8: 1,
    TensorProto.UINT64: 8, TensorProto.UINT32: 4, TensorProto.UINT16: 2, TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}  # fmt: skip
ITEM_BYTES: dict[int, int] = {**FLOATS, **INTEGERS}
FIELDS: dict[int, str] = {  # where values lie that are not raw bytes
    TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data", TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}  # fmt: skip
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


@dataclass(frozen=True)
class Source:
    """What a file holds, checked but not interpreted."""

    nodes: tuple[NodeProto, ...]  # in execution order
    initializers: dict[str, TensorProto]
    input_name: str  # as it is in the file
    output_names: tuple[str, ...]
    in_shape: tuple[int, int, int]  # channels, rows, columns
    # which of (batch, channels, rows, columns) each axis of the input is; others have size 1
    in_axes: tuple[int, ...]
    batch: int | None  # size that the file declares, None where it is free
    opset: int  # version of the default operator set


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
    sizes = _input_sizes(inputs[0])
    nodes = _ordered(graph, {inputs[0].name, *initializers})
    axes = input_axes(nodes, inputs[0].name, sizes)
    by_axis = dict(zip(axes, sizes, strict=True))
    in_shape = (by_axis.get(1) or 1, by_axis.get(2) or 1, by_axis.get(3) or 1)
    check_map(in_shape, f"input {shown(inputs[0].name)}", budget)
    return Source(
        nodes, initializers, inputs[0].name, _outputs(graph), in_shape, axes, sizes[0], opset
    )  # fmt: skip


def _outputs(graph: GraphProto) -> tuple[str, ...]:
    """The names of the outputs, which nodes compute."""
    names = tuple(value.name for value in graph.output)
    if not 1 <= len(names) <= MAX_OUTPUTS or len(set(names)) < len(names):
        listed = ", ".join(map(shown, names[:5])) or "none"
        raise UserError(
            f"the model must have 1 to {MAX_OUTPUTS} different outputs, not {len(names)} ({listed})"
        )
    computed = {name for node in graph.node for name in node.output}
    for name in names:
        if not name or name not in computed:
            raise UserError(f"output {shown(name)} must be computed by a node")
    return names


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


def _input_sizes(value: ValueInfoProto) -> list[int | None]:
    """The declared sizes; only the batch, axis 0, may be None."""
    what = f"input {shown(value.name)}"
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in INPUT_TYPES:
        raise UserError(f"{what} must be a tensor of float numbers")
    dims = kind.shape.dim
    if not kind.HasField("shape") or len(dims) not in INPUT_AXES:
        raise UserError(
            f"{what} must have 2 axes (batch, features), 3 (batch, rows, columns) or 4 (batch, "
            f"channels, rows, columns; or channels last), not {len(dims)}"
        )
    sizes = [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims]
    if any(size is None for size in sizes[1:]):
        raise UserError(
            f"{what} must have fixed channels, rows and columns; only the batch axis may be free"
        )
    if any(size is not None and size < 1 for size in sizes):
        raise UserError(f"{what} must have positive sizes, not {sizes}")
    return sizes


def input_axes(
    nodes: Iterable[NodeProto], name: str, sizes: Sequence[int | None]
) -> tuple[int, ...]:
    """Which of (batch, channels, rows, columns) each axis of the input is.

    An input of 4 axes has its channels last where every node that reads it, behind arithmetic,
    moves them to the front, or where it has 1 or 3 of them and is flattened at once.
    """
    axes = INPUT_AXES[len(sizes)]
    if len(sizes) != 4:
        return axes
    same, first = {name}, []
    for node in nodes:
        if same.isdisjoint(node.input):
            continue
        if node.op_type in ELEMENTWISE:
            same.update(node.output[:1])
        else:
            first.append(node)
    moved = all(node.op_type == "Transpose" and _perm(node) == [0, 3, 1, 2] for node in first)
    flattened = all(node.op_type in ("Flatten", "Reshape") for node in first)
    pictures = sizes[3] in (1, 3) and sizes[1] not in (1, 3)
    return CHANNELS_LAST if first and (moved or (flattened and pictures)) else axes


def _perm(node: NodeProto) -> list[int]:
    return [int(axis) for one in node.attribute if one.name == "perm" for axis in one.ints]


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
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for index, node in enumerate(graph.node):
        needs = {name for name in node.input if name and name not in given}
        for name in needs:
            if name not in producers:
                raise UserError(
                    f"node {node_title(node, index)} reads {shown(name)}, which must be an "
                    "initialiser, the input or a node's output, not missing"
                )
        sorter.add(index, *{producers[name] for name in needs})
    try:
        sorter.prepare()
    except CycleError as error:
        stuck = min(error.args[1])
        raise UserError(
            "the model's graph must not have a cycle, but node "
            f"{node_title(graph.node[stuck], stuck)} waits for one"
        ) from None
    ready: list[int] = []  # a heap: file order
    order = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heapq.heappush(ready, index)
        order.append(heapq.heappop(ready))
        sorter.done(order[-1])
    return tuple(graph.node[index] for index in order)


def node_title(node: NodeProto, index: int) -> str:
    """How messages call a node: its name, else its output, else its number."""
    return shown(node.name or (node.output[0] if node.output else "") or f"#{index}")


def to_array(tensor: TensorProto, name: str, folder: Path, budget: Budget) -> np.ndarray:
    """The tensor's values; bfloat16 becomes float32.

    Raises:
        UserError: unknown type, negative or absurd sizes, sizes that do not fit the data, or
            external data outside the model's folder.
    """
    what = f"tensor {shown(name)}"
    if tensor.data_type not in ITEM_BYTES:
        kinds = TensorProto.DataType
        known = tensor.data_type in kinds.values()
        found = kinds.Name(tensor.data_type) if known else tensor.data_type
        raise UserError(f"{what} must be of a float or integer type, not {found}")
    dims = tuple(int(dim) for dim in tensor.dims)
    if any(dim < 0 for dim in dims):
        raise UserError(f"{what} must have sizes of 0 or more, not {list(dims)[:8]}")
    if tensor.HasField("segment"):
        raise UserError(f"{what} must be whole, not a segment")
    elements, item = prod(dims), ITEM_BYTES[tensor.data_type]
    budget.take(elements * item, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _with_external(tensor, elements * item, what, folder.resolve())
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != elements * item:
            raise UserError(
                f"{what} must have {elements * item} bytes for its sizes, "
                f"not {len(tensor.raw_data)}"
            )
    else:
        values = len(getattr(tensor, FIELDS.get(tensor.data_type, "int32_data")))
        if values != elements:
            raise UserError(f"{what} must have {elements} values for its sizes, not {values}")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{what} must be readable: {shown(str(error))}") from None
    return array.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else array


def _with_external(tensor: TensorProto, size: int, what: str, folder: Path) -> TensorProto:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    texts = all(isinstance(value, str) for value in entries.values())
    if not texts or set(entries) - EXTERNAL_KEYS or "location" not in entries:
        raise UserError(f"{what} must say a location for its external data, and nothing unknown")
    path = _external_path(entries["location"], what, folder)
    offset = _number(entries.get("offset", "0"), what)
    length = _number(entries.get("length", str(size)), what)
    if length != size or offset + size > path.stat().st_size:
        raise UserError(
            f"{what} must have {size} bytes of external data for its sizes, but its file has "
            f"{path.stat().st_size} bytes and it names {length} from byte {offset}"
        )
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(size)
    return TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)


def _external_path(location: str, what: str, folder: Path) -> Path:
    parts = PurePosixPath(location)
    outside = UserError(
        f"{what} must have its external data inside the model's folder, not at {shown(location)}"
    )
    if parts.is_absolute() or ".." in parts.parts or "\\" in location or "\0" in location:
        raise outside
    try:
        path = (folder / parts).resolve()
    except (OSError, RuntimeError):
        raise outside from None
    if not path.is_relative_to(folder):
        raise outside
    if not path.is_file():
        raise UserError(f"{what} must have its external data in the file {shown(location)}")
    return path


def _number(text: str, what: str) -> int:
    """A decimal number of at most 15 digits.

    >>> _number("4096", "tensor w")
    4096
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise UserError(f"{what} must have a number as external offset and length")
    return int(text)
