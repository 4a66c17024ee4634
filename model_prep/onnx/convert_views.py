# SPDX-License-Identifier: Apache-2.0
"""Nodes without arithmetic: views, Identity, Dropout, Cast, Shape, and constants.

Nodes whose inputs are all constant are folded (`fold`).
"""

import numpy as np
from onnx import TensorProto

from model_prep.onnx import views
from model_prep.onnx.attributes import UnsupportedError
from model_prep.onnx.lowering import Context, Node, Operator
from model_prep.onnx.operations import Value
from model_prep.onnx.tensors import FLOATS

MAX_RANK = 16


def _passing(context: Context, node: Node) -> Value:
    """Input 0, which may lie behind the host's softmax."""
    value = context.value(node.inputs[0]) if node.has(0) else None
    if not isinstance(value, Value):
        raise UnsupportedError("input 0 must depend on the network's input")
    return value


def convert_reshape(context: Context, node: Node) -> None:
    """Reshape that joins axes, or only adds and drops axes of size 1."""
    value = _passing(context, node)
    wanted = context.integers(node, 1)
    if wanted is None or len(wanted) > MAX_RANK:
        raise UnsupportedError(f"sizes must be a constant list of at most {MAX_RANK}")
    zero = bool(node.attributes.integer("allowzero", 0))
    dims = views.target_dims(value, wanted, context.source.batch, zero)
    context.set(node, views.reshape(value, dims))


def convert_flatten(context: Context, node: Node) -> None:
    """Flatten."""
    value = _passing(context, node)
    context.set(node, views.flatten(value, node.attributes.integer("axis", 1)))


def convert_squeeze(context: Context, node: Node) -> None:
    """Squeeze."""
    value = _passing(context, node)
    axes = node.attributes.integers("axes")
    context.set(node, views.squeeze(value, context.integers(node, 1) if axes is None else axes))


def convert_unsqueeze(context: Context, node: Node) -> None:
    """Unsqueeze."""
    value = _passing(context, node)
    axes = node.attributes.integers("axes")
    axes = context.integers(node, 1) if axes is None else axes
    if axes is None or len(axes) + len(value.axes) > MAX_RANK:
        raise UnsupportedError(f"axes must be given, for at most {MAX_RANK} in all")
    context.set(node, views.unsqueeze(value, axes))


def convert_transpose(context: Context, node: Node) -> None:
    """Transpose; the order is undone in the next fully connected layer's weights."""
    value = _passing(context, node)
    context.set(node, views.transpose(value, node.attributes.integers("perm")))


def convert_identity(context: Context, node: Node) -> None:
    """Identity: the value itself."""
    context.set(node, _passing(context, node))


def convert_dropout(context: Context, node: Node) -> None:
    """Dropout in inference: nothing."""
    if node.has(2) and np.any(context.constant(node, 2)):
        raise UnsupportedError("training_mode must be false")
    context.set(node, _passing(context, node))


def convert_cast(context: Context, node: Node) -> None:
    """Cast to a float type: nothing."""
    value = _passing(context, node)
    if node.attributes.integer("to", 0) not in (*FLOATS, TensorProto.FLOAT):
        raise UnsupportedError("the type must be a float type")
    context.set(node, value)


def convert_shape(context: Context, node: Node) -> None:
    """Shape: known, since only the batch may be free, and that is 1."""
    value = context.value(node.inputs[0]) if node.has(0) else None
    if value is None:
        raise UnsupportedError("input 0 must be connected")
    dims = value.shape if isinstance(value, np.ndarray) else value.dims
    start, end = node.attributes.integer("start", 0), node.attributes.integer("end", len(dims))
    context.set(node, np.asarray(dims[start:end], np.int64))


def convert_constant(context: Context, node: Node) -> None:
    """Constant."""
    attributes = node.attributes
    tensor = attributes.tensor("value")
    if tensor is not None:
        context.set(node, context.tensors.array(tensor, node.title))
    elif attributes.has("value_float"):
        context.set(node, np.float32(attributes.number("value_float", 0.0)).reshape(()))
    elif attributes.has("value_floats"):
        context.set(node, np.asarray(attributes.numbers("value_floats"), np.float32))
    elif attributes.has("value_int"):
        context.set(node, np.asarray(attributes.integer("value_int", 0), np.int64))
    elif attributes.has("value_ints"):
        context.set(node, np.asarray(attributes.integers("value_ints"), np.int64))
    else:
        raise UnsupportedError("the value must be a tensor, or float or integer numbers")


OPERATORS = {
    "Reshape": Operator(convert_reshape, frozenset({"allowzero"})),
    "Flatten": Operator(convert_flatten, frozenset({"axis"})),
    "Squeeze": Operator(convert_squeeze, frozenset({"axes"})),
    "Unsqueeze": Operator(convert_unsqueeze, frozenset({"axes"})),
    "Transpose": Operator(convert_transpose, frozenset({"perm"})),
    "Identity": Operator(convert_identity, frozenset()),
    "Dropout": Operator(convert_dropout, frozenset({"ratio", "seed"})),
    "Cast": Operator(convert_cast, frozenset({"to", "saturate", "round_mode"})),
    "Shape": Operator(convert_shape, frozenset({"start", "end"})),
    "Constant": Operator(
        convert_constant,
        frozenset({"value", "value_float", "value_floats", "value_int", "value_ints"}),
    ),
}
