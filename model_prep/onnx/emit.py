# SPDX-License-Identifier: Apache-2.0
"""Operations to the Graph: safe names, layers, concats."""

import numpy as np

from formats.errors import UserError
from model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from model_prep.onnx.fuse import reachable
from model_prep.onnx.operations import Op, Shape
from model_prep.onnx.text import TITLE_LENGTH, Namer, shown


def emit(name: str, in_shape: Shape, output: Op) -> Graph:
    """The Graph of all that `output` depends on."""
    namer = Namer()
    names: dict[int, str] = {}
    layers: list[Layer] = []
    concats: dict[str, tuple[str, ...]] = {}
    for op in reachable(output):
        if op.kind == "input":
            names[id(op)] = INPUT
            continue
        inputs = tuple(names[id(source)] for source in op.inputs)
        kind = "fc" if op.full else op.kind
        names[id(op)] = namer.name(op.title, kind)
        if op.kind == "concat":
            concats[names[id(op)]] = inputs
        else:
            layers.append(_layer(op, names[id(op)], kind, inputs))
    try:
        return Graph(name, in_shape, layers, concats)
    except ValueError as error:
        raise UserError(f"the model must fit the engine's rules: {error}") from None


def _layer(op: Op, name: str, kind: str, inputs: tuple[str, ...]) -> Layer:
    weighted = op.kind == "conv"
    return Layer(
        name=name, kind=kind, inputs=inputs,
        weight=np.ascontiguousarray(op.weight) if weighted and op.weight is not None
        else no_weight(),
        bias=np.ascontiguousarray(op.bias) if weighted and op.bias is not None else no_bias(),
        stride=op.stride, pads=op.pads, dilation=op.dilation, groups=op.groups, relu=op.relu,
        pool=op.pool, average=op.average, lrn=op.lrn, clip_max=op.clip,
        title=shown(op.title, TITLE_LENGTH), fixed=op.fixed,
    )  # fmt: skip
