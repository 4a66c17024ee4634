# SPDX-License-Identifier: Apache-2.0
"""Products of maps: what is refused, large means, whole networks with squeeze-and-excitation."""

from pathlib import Path

import numpy as np
import pytest
from gate_cases import RELU, around
from gated_networks import NETWORKS, exported
from onnx_models import build, compare, node, random, save

from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.model_prep.onnx import load_onnx
from tests.checkout import needs_compiler
from tests.toys import read_json


@pytest.mark.parametrize("axes", [[2], [3], [1], [1, 2]])
def test_one_number_for_each_channel_is_all_that_is_spread(axes: list[int], tmp_path: Path) -> None:
    """Not one for each row, for each column or for each pixel."""
    mean = node("ReduceMean", "a", "m", axes=axes)
    model = around(RELU, [mean, node("Mul", "a m", "p")])
    with pytest.raises(UserError, match=r"(Mul|ReduceMean) \(node_[pm]\): "):
        load_onnx(save(model, tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("pool", "size", "kernels"),
    [
        ({"op": "GlobalAveragePool"}, (20, 13), [(1, 13), (20, 1)]),
        ({"op": "GlobalAveragePool"}, (16, 16), [(16, 16)]),
        ({"op": "ReduceMean", "axes": [2, 3]}, (300, 2), [(1, 2), (300, 1)]),
        ({"op": "ReduceMean", "axes": [2]}, (300, 2), [(300, 1)]),
        (
            {"op": "AveragePool", "kernel_shape": [17, 18], "strides": [3, 2],
             "pads": [1, 2, 0, 3], "count_include_pad": 1}, (29, 24), [(1, 18), (17, 1)],
        ),
        (
            {"op": "AveragePool", "kernel_shape": [17, 18], "pads": [1, 2, 0, 3]}, (29, 24),
            [(17, 18)],
        ),
    ],
)  # fmt: skip
def test_a_mean_over_many_is_one_across_then_one_down(
    pool: dict[str, object], size: tuple[int, int], kernels: list[object], tmp_path: Path
) -> None:
    op = str(pool["op"])
    rest = {key: value for key, value in pool.items() if key != "op"}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node(op, "r", "m", **rest),
             node("Conv", "m w", "y")]  # fmt: skip
    model = build(nodes, {"w": random(1, 4, 4, 1, 1)}, (1, 4, *size))
    layers = compare(model, tmp_path).graph.layers
    assert [layer.kernel for layer in layers if layer.kind == "avgpool"] == kernels


@pytest.mark.filterwarnings("ignore")  # of the exporters about themselves
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_those_of_onnxruntime(name: str, dynamo: bool, tmp_path: Path) -> None:
    graph = compare(exported(name, 64, dynamo), tmp_path).graph
    gates = {"mobilenet_v3_small": 9, "efficientnet_b0": 16, "regnet_y_400mf": 16}[name]
    assert [layer.kind for layer in graph.layers].count("mul") == gates


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_bit_exact(name: str, tmp_path: Path) -> None:
    model, out = exported(name, 64, False), tmp_path / "out"
    path = save(model, tmp_path / f"{name}.onnx")
    pixels = np.random.default_rng(3).integers(0, 256, (24, 3, 64, 64), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    options = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", "SCHEME=knq", "BITS=6", "IMAGES=1"]
    assert main(["csim", *options, f"OUT={out}"]) == 0
    assert read_json(out)["csim"]["mismatches"] == 0
