# SPDX-License-Identifier: Apache-2.0
"""Makes odd graphs from a seed: every operator of onnx, random attributes, inputs and sizes.

Most nodes are operators that the importer knows, with attributes that nearly fit, so that a graph
gets as far as the engine's rules; the rest are any operator of the standard.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from nuq.model_prep.onnx.lowering import OPERATORS, QONNX, QONNX_OPERATORS

SCHEMAS = {schema.name: schema for schema in defs.get_all_schemas()}  # every operator, newest form
NUMBERS = [-3, -2, -1, 0, 1, 1, 2, 2, 3, 4, 5, 8, 1 << 40]
FLOATS = [-1.0, 0.0, 0.0, 1e-5, 0.5, 1.0, 1.0, 6.0, float("nan"), float("inf"), -3e38]
WORDS = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "constant", "reflect", "edge", "nearest"]
NAMES = ["kernel_shape", "strides", "pads", "dilations", "axis", "axes", "group", "alpha", "perm"]
USUAL = [  # operators of which whole networks are made
    "Conv", "Conv", "Relu", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean",
    "Add", "Mul", "Sub", "Div", "Concat", "BatchNormalization", "Clip", "Pad", "LRN", "Flatten",
    "Reshape", "Transpose", "Squeeze", "Gemm", "Softmax", "Sigmoid", "ArgMax", "Split", "Sum",
    "QuantizeLinear", "DequantizeLinear",
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [
    (), (1,), (2,), (4,), (8,), (4, 1, 1), (1, 4, 1, 1), (8, 4), (4, 8), (8, 8), (288, 8), (8, 288),
    (8, 4, 1, 1), (8, 4, 3, 3), (4, 4, 3, 3), (8, 8, 3, 3), (8, 1, 3, 3), (4, 1, 3, 3), (8, 2, 3),
    (0,), (0, 4, 1, 1), (1, 4, 9, 8), (1, 1, 1, 1, 1, 1),
]  # fmt: skip
INPUTS: list[tuple[int | str, ...]] = [
    (1, 4, 9, 8), (1, 4, 9, 8), (1, 4, 9, 8), ("N", 4, 9, 8), (3, 4, 9, 8), (1, 9, 8, 4), (1, 32),
    ("N", 32), (1, 4, 1, 1), (1, 9, 8), (4,), (), (1, 4, "h", 8), (1, 4, 0, 8), (1, 1, 2, 3, 4),
]  # fmt: skip


class Maker:
    """One random graph."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._constants: dict[str, np.ndarray] = {}
        self._flow = ["x"]  # what depends on the input, newest last
        self._made = 0
        self._channels = 4  # of the newest convolution
        self._group = 1
        self._grid: list[Any] = []  # scale and zero point of the newest codes
        self._input = self._pick(INPUTS)
        self._tame = self._chance(0.5)  # usual operators, everything nearly right

    def model(self) -> ModelProto:
        """The whole file; nothing about it need be right."""
        nodes = self._start() if self._chance(0.95 if self._tame else 0.5) else []
        most = self._pick([2, 3, 5] if self._tame else [3, 9])
        nodes += [self._node() for _ in range(int(self._rng.integers(1, most)))]
        produced = [name for node in nodes for name in node.output if name]
        outputs = [(produced or ["x"])[-1]]
        if not self._tame and self._chance(0.08):
            outputs.append(self._pick(["x", "nowhere", *produced]))
        if produced and self._chance(0.3):
            outputs += sorted({self._pick(produced) for _ in range(2)} - {*outputs})
        graph = helper.make_graph(
            nodes, "g",
            [helper.make_tensor_value_info("x", self._element(), self._input)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )  # fmt: skip
        opset = int(self._rng.integers(6, 24)) if not self._tame and self._chance(0.5) else 13
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        return model

    def _start(self) -> list[NodeProto]:
        """A convolution and perhaps a ReLU that fit, for what comes behind them."""
        self._input, self._channels, self._flow = self._pick(INPUTS[:5]), 8, ["x", "conv"]
        conv = helper.make_node("Conv", ["x", self._floats(8, 4, 3, 3)], ["conv"], pads=[1] * 4)
        if self._chance(0.2):
            return [conv]
        self._flow.append("relu")
        return [conv, helper.make_node("Relu", ["conv"], ["relu"])]

    def _pick(self, choices: Any) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _element(self) -> int:
        return TensorProto.INT64 if self._chance(0.03) else TensorProto.FLOAT

    def _node(self) -> NodeProto:
        known = sorted(OPERATORS) if self._chance(0.75) else sorted(SCHEMAS)
        op = self._pick(USUAL if self._tame else known)
        self._made += 1
        title = f"odd{self._made}"
        plain = self._tame or self._chance(0.8)
        inputs = self._plain_inputs(op) if plain else self._any_inputs(op)
        count = 1 if self._tame or self._chance(0.85) else int(self._rng.integers(0, 4))
        outputs = [f"{title}_{index}" for index in range(count)]
        node = helper.make_node(op, inputs, outputs, name=title)
        attributes = self._plain_attributes(op) if self._tame or self._chance(0.8) else {}
        if not self._tame and self._chance(0.2):
            attributes |= self._odd_attributes(op)
        if op in QONNX_OPERATORS and self._chance(0.9):
            node.domain = QONNX[0]
        for name, value in attributes.items():
            if value is not None:
                node.attribute.append(helper.make_attribute(name, value))
        self._flow += outputs[:1]
        return node

    def _constant(self, array: np.ndarray) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = array
        return name

    def _floats(self, *shape: int) -> str:
        values = self._rng.standard_normal(shape).astype(np.float32)
        if not self._tame and self._chance(0.03) and values.size:
            values.reshape(-1)[0] = self._pick(FLOATS)
        return self._constant(np.asarray(values))

    def _any_constant(self) -> str:
        shape = self._pick(SHAPES)
        if self._chance(0.25):
            kind = self._pick([np.int64, np.int64, np.int32, np.bool_, np.float64])
            return self._constant(np.asarray(self._rng.integers(-1, 5, shape), kind))
        return self._floats(*shape)

    def _newest(self) -> str:
        return str(self._flow[-1] if self._chance(0.8) else self._pick(self._flow))

    def _plain_inputs(self, op: str) -> list[str]:
        """Inputs that may well be right."""
        flow = self._newest()
        channels = self._channels if self._chance(0.9) else self._pick([4, 8, 3])
        if op == "Conv":
            outputs, kernel = self._pick([4, 8]), self._pick([1, 3])
            columns = self._pick([channels, channels, channels, 1, channels // 2])
            inputs = [flow, self._floats(outputs, columns, kernel, kernel)]
            self._channels, self._group = outputs, max(channels // columns, 1)
            return [*inputs, self._floats(outputs)] if self._chance(0.3) else inputs
        if op in ("Gemm", "MatMul"):
            features = self._pick([4, 8, 32, 288, 576])
            return [flow, self._floats(features, self._pick([4, 8, 32]))]
        if op == "BatchNormalization":
            variance = np.abs(self._rng.standard_normal(channels)).astype(np.float32)
            numbers = [self._floats(channels) for _ in range(3)]
            return [flow, *numbers, self._constant(variance)]
        if op in ("Add", "Sub", "Mul", "Div"):
            other = self._pick(self._flow) if self._chance(0.5) else self._floats(channels, 1, 1)
            return [flow, other] if self._chance(0.8) else [other, flow]
        if op in ("QuantizeLinear", "DequantizeLinear", "Quant"):
            numbers = [np.float32(self._pick([0.02, 0.05, 1.0])), np.uint8(self._pick([0, 0, 128]))]
            self._grid = self._grid if self._grid and self._chance(0.9) else numbers
            more = [np.float32(8)] if op == "Quant" else []
            return [flow, *(self._constant(np.asarray(one)) for one in (*self._grid, *more))]
        if op == "Clip":
            return [flow, *(self._constant(np.float32(limit)) for limit in (0, 6))]
        if op in ("Concat", "Sum"):
            return [str(self._pick(self._flow)) for _ in range(int(self._rng.integers(1, 4)))]
        if op in ("Reshape", "Expand"):
            sizes = [
                (1, -1),
                (0, -1),
                (1, 2, 4, 9, 8),
                (1, 4, 72),
                (1, 8, 9, 4),
                (4, 8),
                (1, 8, -1),
            ]
            return [flow, self._constant(np.array(self._pick(sizes)))]
        if op in ("Pad", "Slice", "Split", "Gather", "Resize"):
            sizes = self._rng.integers(0, 4, self._pick([1, 2, 4, 8]))
            return [flow, *(self._constant(sizes) for _ in range(self._pick([1, 2, 3])))]
        return [flow]

    def _any_inputs(self, op: str) -> list[str]:
        schema = SCHEMAS.get(op)
        least, most = (schema.min_input, min(schema.max_input, 6)) if schema else (1, 3)
        count = int(self._rng.integers(max(least - 1, 0), max(most, least) + 2))
        choices = [self._newest, self._newest, self._any_constant, lambda: ""]
        return [self._pick(choices)() for _ in range(count)]

    def _plain_attributes(self, op: str) -> dict[str, Any]:
        pair = [self._pick([1, 2, 3]), self._pick([1, 2, 3])]
        pads = [int(self._rng.integers(0, min(size, 2))) for size in (*pair, *pair)]
        if op == "Conv":
            return {"pads": [1, 1, 1, 1], "group": self._group}
        if op.endswith("Pool") and not op.startswith("Global"):
            return {"kernel_shape": pair, "strides": self._pick([[1, 1], pair]), "pads": pads}
        if op == "Transpose":
            return {"perm": self._pick([[0, 2, 3, 1], [0, 3, 1, 2], [1, 0], [0, 2, 1, 3, 4]])}
        if op.startswith("Reduce"):
            return {"axes": self._pick([[2, 3], [3], [-1, -2], [1, 2], [1]]),
                    "keepdims": self._pick([0, 1])}  # fmt: skip
        if op in ("Concat", "Flatten", "Softmax", "LogSoftmax", "ArgMax", "Split", "Gather"):
            return {"axis": self._pick([1, 1, 1, -1, 0, 2])}
        if op == "LRN":
            return {"size": self._pick([1, 3, 5])}
        if op == "Cast":
            return {"to": self._pick([1, 1, 10, 7, 99])}
        return {}

    def _odd_attributes(self, op: str) -> dict[str, Any]:
        """Any attributes of the operator, of the declared type or of another."""
        declared = dict(SCHEMAS[op].attributes) if op in SCHEMAS else {}
        names = [*declared, self._pick(NAMES), "nonsense"]
        found = {}
        for _ in range(int(self._rng.integers(1, 4))):
            name = self._pick(names)
            kind = declared[name].type.name if name in declared and self._chance(0.8) else ""
            found[name] = self._value(kind)
        return found

    def _value(self, kind: str) -> Any:
        many = int(self._rng.integers(1, 6))
        values = {
            "INT": lambda: self._pick(NUMBERS),
            "INTS": lambda: [self._pick(NUMBERS) for _ in range(many)],
            "FLOAT": lambda: self._pick(FLOATS),
            "FLOATS": lambda: [self._pick(FLOATS) for _ in range(many)],
            "STRING": lambda: self._pick(WORDS),
            "STRINGS": lambda: [self._pick(WORDS) for _ in range(many)],
            "TENSOR": lambda: numpy_helper.from_array(np.zeros(self._pick(SHAPES), np.float32)),
        }
        return values.get(kind, values[self._pick(sorted(values))])()
