# SPDX-License-Identifier: Apache-2.0
"""Max pools behind concatenations: where they go into the parts, and that no value changes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto
from onnx_models import build, compare, node, random, save

from nuq.formats.commands import main as model_prep
from nuq.model_prep.graph import Graph
from nuq.model_prep.onnx import load, load_onnx
from nuq.model_prep.run import forward
from tests.checkout import needs_compiler, python

Nodes = list[NodeProto]
WEIGHTS = {
    "wa": random(1, 8, 4, 3, 3), "wb": random(2, 16, 4, 3, 3), "wc": random(3, 8, 4, 3, 3),
    "odd": random(4, 5, 4, 3, 3), "mix": random(5, 24, 8, 1, 1), "grouped": random(6, 10, 2, 3, 3),
    "depthwise": random(7, 24, 1, 1, 1), "scale": random(8, 1, 24, 1, 1),
    "wide": random(11, 32, 16, 1, 1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "low": np.float32(-np.inf),
}  # fmt: skip
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}


def conv(source: str, weight: str, name: str, pad: int = 1, **attributes: object) -> Nodes:
    """A convolution and its ReLU."""
    plain = node("Conv", f"{source} {weight}", f"{name}_c", pads=[pad] * 4, **attributes)
    return [plain, node("Relu", f"{name}_c", name)]


def join(parts: str, name: str = "k") -> NodeProto:
    return node("Concat", parts, name, axis=1)


def pool(source: str = "k", name: str = "m", **window: object) -> NodeProto:
    return node("MaxPool", source, name, **(window or WINDOW))


A, B, C = conv("x", "wa", "a"), conv("x", "wb", "b"), conv("x", "wc", "c")
SMALL = conv("x", "wa", "d", strides=[2, 2])  # as large as what HALF leaves
HALF = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SQUARE = {"kernel_shape": [2, 2]}
# Nodes up to the tensor `m` and its channels; convolutions that pool, max pools that are layers.
CASES: dict[str, tuple[Nodes, int, int, int]] = {
    "two convolutions": ([*A, *B, join("a b"), pool()], 24, 2, 0),
    "the pool is read twice": (
        [*A, *B, join("a b"), pool(name="p"), *conv("p", "depthwise", "d", 0, group=24),
         node("Add", "p d", "m")], 24, 2, 0,
    ),
    "relu behind the concat": (
        [A[0], B[0], join("a_c b_c", "j"), node("Relu", "j", "k"), pool()], 24, 2, 0,
    ),
    "relu behind the pool": (
        [A[0], B[0], join("a_c b_c"), pool(name="p"), node("Relu", "p", "m")], 24, 2, 0,
    ),
    "ceil mode": (
        [*A, *B, join("a b"), pool(kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)], 24, 2, 0,
    ),
    "whole map": ([*A, *B, join("a b"), node("GlobalMaxPool", "k", "m")], 24, 2, 0),
    "pad before the pool": (
        [*A, *B, join("a b"), node("Pad", "k pads low", "p"), pool("p", kernel_shape=[3, 2])],
        24, 2, 0,
    ),
    "scale behind the pool": (
        [*A, *B, join("a b"), pool(name="p"), node("Mul", "p scale", "m")], 24, 2, 0,
    ),
    "5 channels": ([*conv("x", "odd", "o"), *B, join("o b"), pool()], 21, 2, 0),
    "10 channels of groups": (
        [*conv("x", "grouped", "g", group=2), *A, join("g a"), pool()], 18, 2, 0,
    ),
    "nested": ([*A, *B, *C, join("a c", "j"), join("j b"), pool()], 32, 3, 0),
    "joined again": (
        [*A, *C, *SMALL, join("a c"), pool(name="p", **HALF), join("p d", "m")], 24, 2, 0,
    ),
    "joined again twice": (  # in another order, so that the second concat copies its parts
        [*A, *C, *SMALL, join("a c"), pool(name="p", **HALF), join("p d", "i"), join("d p", "j"),
         node("Add", "i j", "m")], 24, 2, 2,
    ),
    "joined and pooled again": (
        [*A, *C, *SMALL, join("a c"), pool(name="p", **HALF), join("p d", "j"),
         pool("j", **SQUARE)], 24, 2, 1,
    ),
    "a second pool": ([*A, *B, join("a b"), pool(name="p", **SQUARE), pool("p")], 24, 2, 1),
    "the concat is read": (
        [*A, *B, join("a b"), pool(name="p"), pool(name="q"), node("Add", "p q", "m")], 24, 0, 2,
    ),
    "a part is read": (
        [*A, *B, join("a b"), pool(name="p"), *conv("a", "mix", "d", 0), pool("d", "q"),
         node("Add", "p q", "m")], 24, 1, 1,
    ),
    "a nested concat is read": (
        [*A, *B, *C, join("a c", "j"), join("j b"), pool(name="p"), *conv("j", "wide", "d", 0),
         pool("d", "q"), node("Add", "p q", "m")], 32, 1, 1,
    ),
    "a part twice": ([*A, *C, join("a c a"), pool()], 24, 0, 2),  # and copied
    "a part has a pool": (
        [*A, *conv("x", "wb", "b", 0), pool("a", "p", kernel_shape=[3, 3]), join("p b"), pool()],
        24, 1, 1,
    ),
    "a part is an average": (
        [*A, *B, node("AveragePool", "a", "v", kernel_shape=[3, 3], pads=[1] * 4), join("v b"),
         pool()], 24, 0, 1,
    ),
    "a part is a sum": ([*A, *B, *C, node("Add", "a c", "s"), join("s b"), pool()], 24, 0, 1),
}  # fmt: skip


def model(nodes: Nodes, channels: int) -> ModelProto:
    """A network that ends in a 1x1 convolution of `m`, which has so many channels."""
    used = {name for one in nodes for name in one.input}
    weights = {name: value for name, value in WEIGHTS.items() if name in used}
    end = random(10, 6, channels, 1, 1)
    return build([*nodes, node("Conv", "m end", "y")], {**weights, "end": end})


def pools(graph: Graph) -> tuple[int, int]:
    """Convolutions that pool, and max pools that are layers."""
    fused = sum(layer.has_weights and layer.pool is not None for layer in graph.layers)
    return fused, sum(layer.kind == "maxpool" for layer in graph.layers)


def apart(path: Path) -> Graph:
    """The Graph of a file whose max pools stay behind their concats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "spread_pools", lambda output: 0)
        return load_onnx(path).graph


@pytest.mark.parametrize("case", CASES)
def test_pools_go_where_every_part_takes_one(case: str, tmp_path: Path) -> None:
    nodes, channels, fused, layers = CASES[case]
    network = compare(model(nodes, channels), tmp_path)
    assert pools(network.graph) == (fused, layers)
    x = torch.from_numpy(random(21, 2, *network.in_shape))
    before = apart(tmp_path / "model.onnx")
    assert pools(before)[0] <= fused
    assert torch.equal(forward(network.graph, x), forward(before, x))


def test_the_pooled_concat_keeps_its_name_and_its_readers(tmp_path: Path) -> None:
    nodes, channels, *_ = CASES["two convolutions"]
    path = save(model(nodes, channels), tmp_path / "model.onnx")
    graph, before = load_onnx(path).graph, apart(path)
    assert graph.concats == before.concats == {"node_k": ("node_a_c", "node_b_c")}
    assert graph.layers[-1].inputs == ("node_k",) and before.layers[-1].inputs == ("node_m",)
    assert [layer.pool for layer in graph.layers] == [before.layer("node_m").pool] * 2 + [None]
    assert graph.source_shape("node_k") == before.layer("node_m").out_shape == (24, 4, 4)
    assert graph.macs == before.macs


def test_the_pool_of_a_part_without_relu_stays_a_layer(tmp_path: Path) -> None:
    network = compare(model([*A, B[0], join("a b_c"), pool()], 24), tmp_path)
    assert pools(network.graph) == (0, 1)


def quantize(case: str, folder: Path) -> np.ndarray:
    """Quantize a case into a folder at 4 bits; the last layer's integers for three images."""
    net = save(model(*CASES[case][:2]), folder / "model.onnx")
    images = np.random.default_rng(3).integers(0, 256, (20, 9, 8, 4), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    options = {"NET": net, "DATA": folder / "images.npz", "IMAGES": 3, "BITS": 4,
               "MEAN": "0,0,0,0", "STD": "1,1,1,1", "OUT": folder}  # fmt: skip
    assert model_prep(["quantize", *(f"{name}={value}" for name, value in options.items())]) == 0
    with np.load(folder / "quantized" / "vectors.npz") as vectors:
        return np.array(vectors[load_onnx(net).graph.layers[-1].name])


@pytest.mark.parametrize("case", ["two convolutions", "5 channels", "nested", "a second pool"])
def test_integers_are_those_of_pools_with_their_sources_quantizer(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apart").mkdir()
    found = quantize(case, tmp_path)
    monkeypatch.setattr(load, "spread_pools", lambda output: 0)
    assert np.array_equal(found, quantize(case, tmp_path / "apart"))


@needs_compiler
def test_the_c_simulation_is_bit_exact(tmp_path: Path) -> None:
    expected = quantize("5 channels", tmp_path)
    for command in ("codegen", "csim"):
        python("-m", "nuq.codegen", command, f"OUT={tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["csim"]["mismatches"] == 0
    assert [layer["kind"] for layer in report["layers"]] == ["conv"] * 3
    assert report["csim"]["accuracy"]["same_logits"] == len(expected) == 3


@st.composite
def trees(draw: st.DrawFn) -> tuple[Nodes, int]:
    """Concats of concats and convolutions, pools of one window among them, and their channels."""
    nodes: Nodes = []
    ready = [("a", 8), ("b", 16), ("c", 8), ("e", 5)]
    for weight, (name, _) in zip(("wa", "wb", "wc", "odd"), ready, strict=True):
        nodes += conv("x", weight, name)
    same = {"kernel_shape": [2, 3], "pads": [0, 1, 1, 1]}  # all maps keep their size
    for index in range(draw(st.integers(1, 4))):
        names = draw(st.lists(st.sampled_from(ready), min_size=1, max_size=3))
        nodes.append(join(" ".join(name for name, _ in names), f"k{index}"))
        ready.append((f"k{index}", sum(channels for _, channels in names)))
        if draw(st.booleans()):
            nodes.append(pool(f"k{index}", f"p{index}", **same))
            ready.append((f"p{index}", ready[-1][1]))
    nodes.append(pool(ready[-1][0], "m", **same))
    return nodes, ready[-1][1]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=trees())
def test_any_tree_of_concats_equals_onnxruntime(tree: tuple[Nodes, int], tmp_path: Path) -> None:
    network = compare(model(*tree), tmp_path)
    x = torch.from_numpy(random(22, 1, *network.in_shape))
    assert torch.equal(forward(network.graph, x), forward(apart(tmp_path / "model.onnx"), x))
