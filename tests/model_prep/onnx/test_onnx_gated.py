# SPDX-License-Identifier: Apache-2.0
"""Products of maps: what is refused, and large means."""

from pathlib import Path

import pytest
from gate_cases import RELU, around
from onnx_models import build, compare, node, random, save

from nuq.formats.errors import UserError
from nuq.model_prep.onnx import load_onnx


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
