# SPDX-License-Identifier: Apache-2.0
"""Quantized files: QDQ as onnxruntime writes it, per tensor and per channel, and QONNX's Quant."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cases import IMAGE, weight
from onnx import ModelProto, NodeProto
from onnx_models import build, node, outputs, random, runtime, save

from nuq.formats.activation import Activation
from nuq.formats.commands import main, parse
from nuq.formats.errors import UserError
from nuq.formats.network import load
from nuq.model_prep.accuracy import EXACT_SUMS, float_runner
from nuq.model_prep.commands import subject_of
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.onnx.lowering import QONNX
from nuq.model_prep.quantize.channel_scale import given_scale, own_steps
from nuq.model_prep.quantize.codes import usual_width
from nuq.model_prep.quantize.matching import matched
from nuq.model_prep.quantize.quantizers import fit_weights
from tests import quantized_file
from tests.checkout import needs_compiler, shared
from tests.toys import read_json

STEPS = {"x": 0.018, "r1": 0.011, "p1": 0.011, "r2": 0.023}  # of the codes
ZERO = {"x": 117}


def coded(name: str, constants: dict[str, np.ndarray], kind: type = np.uint8) -> list[NodeProto]:
    """QuantizeLinear and DequantizeLinear of a feature map."""
    constants[f"s_{name}"] = np.float32(STEPS[name])
    constants[f"z_{name}"] = np.asarray(kind(ZERO.get(name, 0)))
    grid = f"s_{name} z_{name}"
    return [node("QuantizeLinear", f"{name} {grid}", f"q_{name}"),
            node("DequantizeLinear", f"q_{name} {grid}", f"d_{name}")]  # fmt: skip


def weights(
    name: str, values: np.ndarray, constants: dict[str, np.ndarray], channel: bool, unsigned: bool
) -> NodeProto:
    """DequantizeLinear of 8-bit weights, each channel with its own step or all with one."""
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim))) if channel else np.abs(
        values
    ).max()  # fmt: skip
    steps = np.asarray(largest / 127, np.float32)
    shape = (-1,) + (1,) * (values.ndim - 1) if channel else ()
    codes = np.clip(np.rint(values / steps.reshape(shape)), -127, 127).astype(np.int64)
    zero = np.full(steps.shape, 128 if unsigned else 0)
    constants[f"q_{name}"] = (codes + (128 if unsigned else 0)).astype(
        np.uint8 if unsigned else np.int8
    )
    constants[f"s_{name}"] = steps
    constants[f"z_{name}"] = zero.astype(constants[f"q_{name}"].dtype)
    axis = {"axis": 0} if channel else {}
    return node("DequantizeLinear", f"q_{name} s_{name} z_{name}", name, **axis)


def quantized(channel: bool, unsigned: bool) -> ModelProto:
    """Two convolutions, the first with a max pool; the second's ReLU is what its codes saturate."""
    constants: dict[str, np.ndarray] = {}
    nodes = [
        *coded("x", constants),
        weights("w1", weight(1, 16, 3, 3, 3), constants, channel, unsigned),
        weights("w2", weight(2, 24, 16, 3, 3), constants, channel, unsigned),
        weights("w3", weight(3, 10, 24), constants, channel, unsigned),
        node("Conv", "d_x w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        *coded("r1", constants),
        node("MaxPool", "d_r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        *coded("p1", constants),
        node("Conv", "d_p1 w2", "r2", pads=[1, 1, 1, 1]),
        *coded("r2", constants),
        node("GlobalAveragePool", "d_r2", "g"), node("Flatten", "g", "f"),
        node("Gemm", "f w3", "y", transB=1),
    ]  # fmt: skip
    return build(nodes, constants, IMAGE)


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    """In dB."""
    noise = np.square(found - expected).sum()
    return float(10 * np.log10(np.square(expected).sum() / noise))


def exposed(model: ModelProto, names: str) -> ModelProto:
    """The same file with other tensors as its outputs."""
    other = ModelProto()
    other.CopyFrom(model)
    del other.graph.output[:]
    other.graph.output.extend(build([], output=names).graph.output)
    for one in other.graph.output:
        one.ClearField("type")
    return other


KINDS = [(True, False), (True, True), (False, False), (False, True)]


@pytest.mark.parametrize(("channel", "unsigned"), KINDS)
def test_float_values_are_onnxruntimes_but_for_rounding(
    channel: bool, unsigned: bool, tmp_path: Path
) -> None:
    model = quantized(channel, unsigned)
    network = load_onnx(save(model, tmp_path / "q.onnx"))
    assert [(layer.kind, layer.activation is not None) for layer in network.graph.layers] == [
        ("conv", True), ("conv", True), ("avgpool", False), ("fc", False),
    ]  # fmt: skip
    x = random(1, 1, *network.in_shape)
    expected = runtime(model, network, x)
    assert sqnr(expected, outputs(network, x)[0]) > 30
    rescaled = replace(network, graph=matched(network.graph))
    assert outputs(rescaled, x)[0] == pytest.approx(outputs(network, x)[0], rel=1e-4, abs=1e-4)
    first, second, *_ = rescaled.graph.layers
    assert usual_width(rescaled.graph) == 8
    assert first.codes and second.codes
    assert (first.codes.step, second.codes.step) == (1 / 128, 1 / 32)


def test_accuracy_compares_with_sums_that_do_not_saturate(tmp_path: Path) -> None:
    """Large codes times large weights: onnxruntime's fastest products wrap no pair of them."""
    constants: dict[str, np.ndarray] = {}
    signs = np.repeat([1.0, 1.0, -0.9, 1.0], 4)[:, None, None].astype(np.float32)
    nodes = [
        *coded("x", constants),
        weights("w1", np.ones((16, 3, 1, 1), np.float32), constants, True, False),
        weights("w2", np.ones((8, 16, 1, 1), np.float32) * signs, constants, True, False),
        node("Conv", "d_x w1", "c1"), node("Relu", "c1", "r1"), *coded("r1", constants),
        node("Conv", "d_r1 w2", "c2"), node("Relu", "c2", "r2"), *coded("r2", constants),
        node("GlobalAveragePool", "d_r2", "g"), node("Flatten", "g", "y"),
    ]  # fmt: skip
    constants["s_r2"] = np.float32(0.15)
    model = build(nodes, constants, IMAGE)
    pixels = np.full((4, *IMAGE[1:]), 255, np.uint8)
    pixels[1:] = np.random.default_rng(3).integers(100, 256, (3, *IMAGE[1:]), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    path = save(model, tmp_path / "q.onnx")
    words = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", f"OUT={tmp_path / 'out'}"]
    subject = subject_of(parse("accuracy", words), 1)
    name, run_float = float_runner(subject)
    assert name == "onnxruntime" and run_float is not None
    x = subject.to_float(pixels)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), plain, providers=["CPUExecutionProvider"]
    )
    network = subject.source.imported
    assert network is not None
    files = [network.file_input(image[None]) for image in x.numpy()]
    expected = [session.run(None, {"x": image})[0][0] for image in files]
    assert run_float(x) == pytest.approx(np.array(expected), abs=0.15)


@pytest.mark.data
@pytest.mark.slow
@needs_compiler
def test_squeezenet_as_onnxruntime_quantizes_it(tmp_path: Path) -> None:
    """Outputs nearly as it has them on 100 images; the C-simulation of one is bit-exact."""
    net, images = shared("data/squeezenet_v1.0.onnx"), shared("data/imagenet500.npz")
    path, out = tmp_path / "qdq.onnx", tmp_path / "out"
    quantized_file.write(net, images, path)
    words = [f"NET={path}", f"DATA={images}", *quantized_file.RECIPE, f"OUT={out}"]
    words += ["WEIGHT_BITS=8", "WEIGHT_SCALE=channel"]
    assert main(["accuracy", *words, "IMAGES=100"]) == 0
    found = json.loads((out / "accuracy.json").read_text())
    assert found["paired"]["agreement5"]["percent"] >= 98  # its first answer is among five
    assert found["layers"][-1]["sqnr_db"] > 24
    assert main(["codegen", f"OUT={out}"]) == 0
    assert main(["csim", f"OUT={out}"]) == 0
    assert read_json(out)["csim"]["mismatches"] == 0


@needs_compiler
@pytest.mark.parametrize(("channel", "unsigned"), KINDS[:2])
def test_codes_are_those_of_the_file(channel: bool, unsigned: bool, tmp_path: Path) -> None:
    """8-bit uniform codes without being asked for; at most 2 in 100 are the neighbour's."""
    model = quantized(channel, unsigned)
    path, out = save(model, tmp_path / "q.onnx"), tmp_path / "out"
    pixels = np.random.default_rng(3).integers(0, 256, (24, *IMAGE[1:]), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    assert main(
        ["quantize", f"NET={path}", f"DATA={tmp_path / 'data.npz'}", "IMAGES=3", f"OUT={out}"]
    ) == 0  # fmt: skip
    assert main(["codegen", f"OUT={out}", "SIMD=8", "PE=16", "PIXELS=1"]) == 0
    assert main(["csim", f"OUT={out}"]) == 0
    stored, network = load(out / "quantized"), load_onnx(path)
    assert [layer.quantizer and layer.quantizer.scheme for layer in stored.layers] == [
        "uniform", "uniform", "uniform", None,
    ]  # fmt: skip
    assert stored.input.frac == 6
    with np.load(out / "quantized" / "vectors.npz") as vectors:
        arrays = {name: vectors[name] for name in vectors.files}
    exact = onnxruntime.SessionOptions()
    exact.add_session_config_entry(EXACT_SUMS, "1")
    session = onnxruntime.InferenceSession(
        exposed(model, "q_p1 q_r2").SerializeToString(), exact, providers=["CPUExecutionProvider"]
    )
    x = arrays["input"].astype(np.float32) * np.float32(STEPS["x"])
    for number, image in enumerate(x):
        found = session.run(None, {network.input_name: image[None]})
        for layer, codes in zip(stored.layers, found, strict=False):
            gap = arrays[layer.name][number].astype(int) - codes[0].astype(int)
            assert np.abs(gap).max() <= 1
            assert (gap != 0).mean() < 0.05


def test_quant_of_qonnx(tmp_path: Path) -> None:
    """A file with 4-bit weights and 3-bit activations: its weights are 15 values."""
    constants = {
        "w1": weight(1, 16, 3, 3, 3), "w2": weight(2, 10, 16, 1, 1), "ws": np.float32(0.1),
        "as": np.float32(0.25), "zero": np.float32(0), "four": np.float32(4),
        "three": np.float32(3),
    }  # fmt: skip
    nodes = [
        node("Quant", "w1 ws zero four", "v1", signed=1, narrow=1, rounding_mode="ROUND"),
        node("Quant", "w2 ws zero four", "v2", signed=1, narrow=1, rounding_mode="ROUND"),
        node("Conv", "x v1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Quant", "r1 as zero three", "a1", signed=0, narrow=0, rounding_mode="ROUND"),
        node("Conv", "a1 v2", "y"),
    ]  # fmt: skip
    for one in nodes:
        if one.op_type == "Quant":
            one.domain = QONNX[0]
    graph = load_onnx(save(build(nodes, constants, IMAGE), tmp_path / "q.onnx")).graph
    codes = np.unique(np.rint(graph.layers[0].weight / 0.1))
    assert graph.layers[0].weight == pytest.approx(np.rint(graph.layers[0].weight / 0.1) * 0.1)
    assert codes.min() == -7 and codes.max() == 7
    first = graph.layers[0].codes
    assert first and (first.step, first.low, first.high) == (0.25, 0, 7)
    assert graph.layers[0].activation == Activation("relu", {"limit": 1.75})
    assert usual_width(graph) == 3


REFUSED = {
    "the scale must be positive": {"s_x": np.float32(0)},
    "a feature map must have one scale": {
        "s_x": np.ones(3, np.float32), "z_x": np.zeros(3, np.uint8),
    },
    "scale must be positive": {"s_x": np.zeros(0, np.float32)},
    "scale and zero point must be one number, or 16": {
        "s_w1": np.ones(5, np.float32), "z_w1": np.zeros(5, np.int8),
    },
    "the zero point must be one number": {"z_w1": np.zeros(5, np.int8)},
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_grids_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    model = quantized(True, False)
    for tensor in model.graph.initializer:
        if tensor.name in REFUSED[text]:
            other = build([], {tensor.name: REFUSED[text][tensor.name]}).graph.initializer[0]
            tensor.CopyFrom(other)
    with pytest.raises(UserError, match=text):
        load_onnx(save(model, tmp_path / "q.onnx"))


def test_another_scale_behind_the_same_codes_is_refused(tmp_path: Path) -> None:
    model = quantized(True, False)
    model.graph.node[1].input[1] = "s_r1"
    with pytest.raises(UserError, match="must be those of the QuantizeLinear before it"):
        load_onnx(save(model, tmp_path / "q.onnx"))


@pytest.mark.parametrize("bits", [8, 14])
def test_weights_are_the_integers_of_the_file(bits: int) -> None:
    """Or a multiple of them for a channel, whose scale then is nearer to its step."""
    steps = np.linspace(0.01, 0.02, 16)
    integers = np.random.default_rng(1).integers(-127, 128, (16, 4, 3, 3))
    integers[:, 0, 0, 0] = 127
    values = (integers * steps[:, None, None, None]).astype(np.float32)
    found = fit_weights("uniform", values, bits, "conv", "channel")
    ratio = found.integers / np.where(integers, integers, 1)
    multiples = ratio.reshape(16, -1).max(axis=1)
    assert (found.integers == integers * multiples[:, None, None, None]).all()
    assert found.scale is not None
    gain = found.scale * multiples * 2.0**-found.frac / steps
    assert np.abs(gain - 1).max() < {8: 1 / 128, 14: 1 / 2048}[bits]


def test_weights_on_no_grid_are_rounded_as_ever() -> None:
    values = np.random.default_rng(1).standard_normal((16, 4, 3, 3)).astype(np.float32)
    assert own_steps(values, 127) is None
    spread = np.round(values * 40) * np.geomspace(1, 1000, 16)[:, None, None, None]
    steps = own_steps(spread, 127)
    assert steps is not None and given_scale(spread, steps, 127) is None  # one m cannot be so small
