# SPDX-License-Identifier: Apache-2.0
"""Builds small ONNX models, fills the light models with random weights, and runs onnxruntime."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nuq.formats.ending import apply, result_shape
from nuq.model_prep.accuracy import EXACT_SUMS
from nuq.model_prep.onnx import ImportedNetwork, load_onnx
from nuq.model_prep.run import run_float

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
TOLERANCE = 1e-4  # of the largest output


def random(seed: int, *shape: int) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    """A node named after its output; `inputs` are words, "_" for one that is not connected."""
    names = [name if name != "_" else "" for name in inputs.split()]
    return helper.make_node(op, names, [output], name=f"node_{output}", **attributes)


def build(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    in_shape: tuple[int | str, ...] = (1, 4, 9, 8),
    opset: int = 13,
    output: str = "y",
) -> ModelProto:
    """A model with the input `x`; the outputs' names have blanks between them."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in output.split()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def save(model: ModelProto, path: Path) -> Path:
    """Write the model as it is, checked by nobody."""
    path.write_bytes(model.SerializeToString())
    return path


def runtimes(model: ModelProto, network: ImportedNetwork, x: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime computes where the Graph's input is x, output by output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.add_session_config_entry(EXACT_SUMS, "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {network.input_name: network.file_input(x)}))


def runtime(model: ModelProto, network: ImportedNetwork, x: np.ndarray) -> np.ndarray:
    """The first of `runtimes`."""
    return runtimes(model, network, x)[0]


def outputs(network: ImportedNetwork, x: np.ndarray) -> list[np.ndarray]:
    """What the Graph computes and the host makes of it, for one image, output by output."""
    graph = network.graph
    values = {
        layer.name: stored.numpy()
        for layer, stored in run_float(graph, torch.from_numpy(x))
        if layer.name in graph.heads
    }
    found = []
    for one in network.outputs:
        shape = result_shape(one.ending, graph.layer(one.layer).out_shape)
        found.append(apply(one.ending, values[one.layer]).reshape(shape))
    return found


def compare(model: ModelProto, folder: Path, seed: int = 1) -> ImportedNetwork:
    """Import the model and require its float run to equal onnxruntime's."""
    network = load_onnx(save(model, folder / "model.onnx"))
    x = random(seed, 1, *network.in_shape)
    for expected, found in zip(runtimes(model, network, x), outputs(network, x), strict=True):
        assert found.shape == expected.shape
        largest = float(np.abs(expected).max())
        assert np.isfinite(largest)
        assert np.abs(found - expected).max() <= TOLERANCE * max(largest, 1e-20)
    return network


def light(name: str) -> ModelProto:
    """One of the models that come with the onnx package, all its weights constant."""
    return onnx.load(LIGHT / f"light_{name}.onnx")


def randomise(model: ModelProto, seed: int = 7) -> ModelProto:
    """Put random weights, scaled by fan-in, in the place of the ConstantOfShape nodes."""
    generator = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    roles = {
        name: (reader.op_type, place)
        for reader in model.graph.node
        for place, name in enumerate(reader.input)
    }
    kept = []
    for one in model.graph.node:
        if one.op_type != "ConstantOfShape":
            kept.append(one)
            continue
        shape = tuple(int(size) for size in shapes[one.input[0]])
        values = generator.standard_normal(shape, dtype=np.float32)
        role = roles.get(one.output[0])
        if len(shape) > 1:
            values *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
        elif role == ("BatchNormalization", 4):  # the variance
            values = 1 + np.abs(values)
        elif role in (("BatchNormalization", 1), ("Unsqueeze", 0)):  # a scale
            values = 1 + np.float32(0.2) * values
        else:
            values *= np.float32(0.1)
        model.graph.initializer.append(numpy_helper.from_array(values, one.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8
    return model
