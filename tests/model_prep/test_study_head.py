# SPDX-License-Identifier: Apache-2.0
"""HEAD and SIDE of the study: a linear layer on features, and convolutions at another size."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.model_prep.source import Recipe, open_source
from nuq.model_prep.study.head import trained
from nuq.model_prep.study.results import kept


def network(path: Path, flat: bool = False) -> Path:
    """An ONNX file of one convolution of 8x8 images with ReLU and pool, its last map the output."""
    random = np.random.default_rng(5)
    arrays = {"w": random.normal(size=(8, 3, 3, 3)), "b": random.normal(size=8)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    shape = [1, 8, 4, 4]
    if flat:
        arrays["v"] = random.normal(size=(4, 128))
        nodes += [helper.make_node("Flatten", ["p"], ["f"], name="flat"),
                  helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm", transB=1)]  # fmt: skip
        shape = [1, 4]
    graph = helper.make_graph(
        nodes, "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y" if flat else "p", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def images(path: Path, number: int, seed: int, classes: int = 3) -> Path:
    """Images 12x12 whose brightest channel is their label."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, number)
    pixels = random.integers(0, 120, (number, 12, 12, 3), dtype=np.uint8)
    pixels[np.arange(number), :, :, label % 3] += 100
    np.savez(path, images=pixels, labels=label)
    return path


def test_a_study_of_features_with_a_trained_layer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        "study", f"NET={network(tmp_path / 'one.onnx')}", f"OUT={out}", "SIDE=12", "QUICK=1",
        f"HEAD={images(tmp_path / 'train.npz', 300, 1)}", "SECTIONS=order", "RESIZE=12",
        f"DATA={images(tmp_path / 'test.npz', 200, 2)}", "IMAGES=80",
    ]  # fmt: skip
    assert main(words) == 0
    content = json.loads((out / "study" / "study.json").read_text())
    tables = content["sections"]["order"]["tables"]
    schemes, claims, integers = tables[2:]
    assert schemes["rows"][0][0] == "float" and schemes["rows"][0][4] > 90
    found = {row[0]: row for row in schemes["rows"]}
    assert found.keys() > {"KNQ, nearest", "ENQ, own q_i", "CLNQ", "uniform, one F"}
    assert found["uniform, one F"][4] >= found["uniform, steps of qm"][4]
    assert all(row[-1] in ("confirmed", "refuted", "not decided") for row in claims["rows"])
    assert all(row[2] == row[3] for row in integers["rows"])  # float32 answers as integers do
    layer = (out / "study" / "head.npz").read_bytes()
    assert main(words) == 0
    assert (out / "study" / "head.npz").read_bytes() == layer


def test_the_layer_is_the_same_on_any_number_of_threads() -> None:
    random = np.random.default_rng(3)
    features, labels = random.normal(size=(200, 40)).astype(np.float32), random.integers(0, 4, 200)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(trained(features, labels, 4))
    torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_side_needs_convolutions_alone(tmp_path: Path) -> None:
    features = network(tmp_path / "one.onnx")
    assert open_source(str(features), None, Recipe(side=12)).spec.in_shape == (3, 12, 12)
    with pytest.raises(UserError, match="SIDE must be large enough for the network, not 1: layer"):
        open_source(str(features), None, Recipe(side=1))
    whole = network(tmp_path / "two.onnx", flat=True)
    with pytest.raises(UserError, match="SIDE must go with a network of convolutions alone, but l"):
        open_source(str(whole), None, Recipe(side=12))


def test_head_needs_labels(tmp_path: Path) -> None:
    one = images(tmp_path / "one.npz", 20, 1, classes=1)
    words = ["study", f"NET={network(tmp_path / 'one.onnx')}", f"HEAD={one}", f"DATA={one}"]
    with pytest.raises(UserError, match="HEAD must hold labelled images of two classes or more"):
        main([*words, f"OUT={tmp_path / 'out'}"])


def test_an_array_is_kept_for_the_same_settings_only(tmp_path: Path) -> None:
    path, calls = tmp_path / "array.npz", list[int]()

    def make() -> np.ndarray:
        calls.append(1)
        return np.arange(len(calls))

    for settings, length in (("a", 1), ("a", 1), ("b", 2), ("", 3), ("", 4)):
        assert len(kept(path, settings, make)) == length
    path.write_bytes(b"PK")
    assert len(kept(path, "b", make)) == 5
