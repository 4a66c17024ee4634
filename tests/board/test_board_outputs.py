# SPDX-License-Identifier: Apache-2.0
"""A network with two outputs on the emulated board: both bit-exact, by name, with their endings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from nuq.board import measure
from nuq.board.bundle import IMAGES, golden_outputs, read_arrays
from nuq.board.driver import Accelerator
from nuq.board.emulate import emulate, prepare
from nuq.board.emulator import EmulatedDevice
from nuq.board.errors import SelfTestError
from nuq.formats.errors import UserError

IMAGE = (3, 16, 16)


def detector(path: Path) -> None:
    """A backbone with a head at each of two sizes; one is squashed by a sigmoid."""
    rng = np.random.default_rng(1)
    shapes = {"w0": (8, 3, 3, 3), "w1": (16, 8, 3, 3), "w2": (6, 16, 1, 1), "w3": (9, 8, 1, 1)}
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)
        for name, shape in shapes.items()
    }

    def node(op: str, inputs: str, output: str, **attributes: object) -> object:
        return helper.make_node(op, inputs.split(), [output], name=f"n_{output}", **attributes)

    nodes = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]), node("Relu", "c0", "r0"),
        node("Conv", "r0 w3", "fine_raw"), node("Sigmoid", "fine_raw", "fine"),
        node("MaxPool", "r0", "p0", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p0 w1", "c1", pads=[1, 1, 1, 1]), node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "coarse"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *IMAGE))],
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in ("coarse", "fine")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 13)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.fixture(scope="module")
def build(
    compiler: None, tmp_path_factory: pytest.TempPathFactory, run_stage: Callable[..., None]
) -> Path:
    """The detector, for 6 images of 12."""
    folder = tmp_path_factory.mktemp("outputs")
    detector(folder / "detector.onnx")
    pixels = np.random.default_rng(2).integers(0, 256, (12, *IMAGE), dtype=np.uint8)
    np.savez(folder / "data.npz", images=pixels)
    made = folder / "build"
    data = (f"NET={folder / 'detector.onnx'}", f"DATA={folder / 'data.npz'}", "IMAGES=6")
    run_stage("model_prep", "quantize", *data, f"OUT={made}")
    run_stage("codegen", "codegen", f"OUT={made}", "SIMD=8", "PE=16", "PIXELS=1", "BATCH=4")
    return made


@pytest.fixture(scope="module")
def detector_bundle(build: Path) -> Path:
    """Its unpacked bundle."""
    return prepare(build)


def test_both_outputs_are_the_reference_s(
    build: Path, detector_bundle: Path, device: EmulatedDevice
) -> None:
    golden = read_arrays(detector_bundle / IMAGES)
    wanted = golden_outputs(golden)
    assert {name: one.shape[1:] for name, one in wanted.items()} == {
        "coarse": (6, 8, 8), "fine": (9, 16, 16),
    }  # fmt: skip
    with (
        np.load(build / "quantized" / "vectors.npz") as vectors,
        Accelerator(detector_bundle) as board,
    ):
        for output in board.design.outputs:
            assert (wanted[output.name] == vectors[output.layer][:4]).all()
        for by_layer in (False, True):
            found = board.predict(vectors["images"], by_layer)  # two batches
            assert list(found) == ["coarse", "fine"]
            for output in board.design.outputs:
                assert (found[output.name] == vectors[output.layer]).all()
        values = board.outputs(golden["images"])
        coarse, fine = board.design.outputs
        assert values["coarse"] == pytest.approx(wanted["coarse"] * coarse.scale)
        assert values["fine"] == pytest.approx(1 / (1 + np.exp(-wanted["fine"] * fine.scale)))


def test_what_asks_for_classes_is_refused(detector_bundle: Path, device: EmulatedDevice) -> None:
    images = read_arrays(detector_bundle / IMAGES)["images"]
    with Accelerator(detector_bundle) as board:
        with pytest.raises(UserError, match="must answer by classes .* not by coarse, fine; use"):
            board.classify(images)
        fine = next(one.layer for one in board.design.outputs if one.name == "fine")
        with pytest.raises(UserError, match=f"^layer must be no head, as {fine}"):
            board.activations(images, fine)
        assert measure.accuracy(board, images, np.zeros(len(images), int))["top1"] is None


def test_a_wrong_second_output_fails(
    build: Path, detector_bundle: Path, device: EmulatedDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    """The self-test and the comparison on the PC see an output that is not the first."""
    assert emulate(build) == 0
    assert "PASSED: all logits are bit-exact" in capsys.readouterr().out
    with Accelerator(detector_bundle) as board:
        swapped = replace(board.design.outputs[1], factors=(1,) * 8 + (2,))
        board.design = replace(board.design, outputs=(board.design.outputs[0], swapped))
        with pytest.raises(SelfTestError, match="test image 0 must give the reference's logits"):
            board.self_test()
    vectors = build / "quantized" / "vectors.npz"
    kept = vectors.read_bytes()
    arrays = read_arrays(vectors)
    design = json.loads((build / "design.json").read_text())
    arrays[design["outputs"][1]["layer"]][2, 0, 0, 0] += 1
    np.savez(vectors, **arrays)
    with pytest.raises(SelfTestError):  # the bundle's own images are the same ones
        emulate(build)
    vectors.write_bytes(kept)
