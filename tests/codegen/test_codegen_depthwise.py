# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolutions whose lanes are channels: bit-exact, the order of their weights, and which
layers run so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.design.array import Array
from nuq.codegen.design.planner import plan
from nuq.codegen.design.search import choose
from nuq.codegen.emit.weights_file import channel_rows
from nuq.formats.arithmetic import Window
from nuq.formats.hardware import find_part
from nuq.formats.network import Network
from tests.checkout import needs_compiler
from tests.toys import Toy, ToyLayer, simulated

PART = find_part("XC7Z045")
PADDED = {"pads": (1, 1, 1, 1)}
DEEP = ["layer1", "layer3", "layer6", "layer7", "layer8"]  # depthwise layers of `separable`


def separable(images: int = 2, **fields: object) -> Toy:
    """Depthwise layers with strides, dilation, odd channels, a pool behind; what stands between."""
    low = Window((2, 1), (1, 1), (0, 0, 0, 0))
    layers = [
        ToyLayer(24, (3, 3), (2, 2), scheme="knq", bits=5, **PADDED),
        ToyLayer(24, groups=24, scheme="knq", bits=5, **PADDED),
        ToyLayer(20, (1, 1), scheme="uniform", bits=9, signed=True),
        ToyLayer(20, groups=20, stride=(2, 2), scheme="enq", bits=4, variant="mid", **PADDED),
        ToyLayer(20, (1, 1), scheme="knq", bits=4, signed=True),
        ToyLayer(kind="add", source="layer3", source2="layer4", scheme="knq", bits=5),
        ToyLayer(20, (3, 2), groups=20, dilation=(1, 2), scheme="knq", bits=3, **PADDED),
        ToyLayer(20, (1, 3), groups=20, stride=(1, 3), pads=(0, 2, 0, 2), scheme="knq", bits=3),
        ToyLayer(20, (2, 1), groups=20, scheme="uniform", bits=8, pool=low),
        ToyLayer(kind="avgpool", kernel=(2, 1), scheme="knq", bits=6),
        ToyLayer(11, (2, 2), kind="fc"),
    ]
    return Toy((3, 26, 23), layers, images=images, **fields)


def deep(network: Network, array: Array) -> list[str]:
    """Names of the layers whose lanes are channels."""
    rows = plan(network, PART, array).rows
    named = zip(network.layers, rows, strict=True)
    return [layer.name for layer, row in named if row.depthwise]


@needs_compiler
@pytest.mark.parametrize(
    ("fields", "array", "options"),
    [
        ({}, "SIMD=16 PE=24 PIXELS=2", ()),
        pytest.param({}, "SIMD=8 PE=24 PIXELS=1", ("CSIM_TYPES=exact", "SANITIZE=1"),
                     marks=pytest.mark.slow),  # most of a minute to compile
        # the fuzzer's narrow_pairs has such lanes, too
        pytest.param({"weight_bits": 8, "symmetric": True}, "SIMD=8 PE=48 PIXELS=1 STAGE=pairs",
                     ("CSIM_TYPES=exact",), marks=pytest.mark.slow),
    ],
    ids=["two pixels", "exact", "pairs"],
)  # fmt: skip
def test_bit_exact(
    generated: Callable[..., Path],
    fields: dict[str, object],
    array: str,
    options: tuple[str, ...],
) -> None:
    build = generated(separable(**fields), *array.split(), "PART=xc7z045")
    assert "KERNEL_ROWS = 3;" in (build / "hls" / "network.hpp").read_text()
    simulated(build, *options)


def test_which_layers(load_toy: Callable[..., Network]) -> None:
    network = load_toy(separable())
    assert deep(network, Array(8, 24, kernel_rows=3)) == DEEP
    assert deep(network, Array(8, 24)) == []
    # a kernel of 3 columns at stride 1 takes 24 lanes; one of 3 rows needs them all at once
    assert "layer1" not in deep(network, Array(8, 16, kernel_rows=3))
    assert deep(network, Array(8, 24, kernel_rows=2)) == ["layer7", "layer8"]


def test_the_explorer_finds_it_worth_its_price(load_toy: Callable[..., Network]) -> None:
    network = load_toy(separable())
    axes = {"simd": 8, "pe": 24, "pixels": 1}
    with_rows, without = (
        choose(network, PART, 1, {**axes, **more}) for more in ({}, {"kernel_rows": 0})
    )
    assert with_rows.array.kernel_rows == 3 and without.array.kernel_rows == 0
    assert with_rows.cycles < without.cycles
    assert with_rows.resources.lut > without.resources.lut


@pytest.mark.parametrize("name", DEEP)
def test_rows_make_a_convolution(load_toy: Callable[..., Network], name: str) -> None:
    """A chain of sums, as the array has it, gives each output pixel of one row of its planes."""
    layer = next(item for item in load_toy(separable()).layers if item.name == name)
    array = Array(8, 24, kernel_rows=3)
    rng = np.random.default_rng(3)
    (_, _, width), (out, _, columns) = layer.in_shape, layer.conv_shape
    (kernel_h, kernel_w), dilation, stride = layer.kernel, layer.dilation[1], layer.stride[1]
    length = -(-((kernel_w - 1) * dilation + 1) // stride)
    steps = columns + length - 1
    for first in range(0, out, 8):
        weight = layer.weight[first : first + 8, 0].astype(np.int64)
        lanes = len(weight)
        values = np.zeros((kernel_h, 8, stride * steps + width), dtype=np.int64)
        values[:, :lanes, layer.pads[1] : layer.pads[1] + width] = rng.integers(
            -99, 99, (kernel_h, lanes, width)
        )
        rows = channel_rows(layer, first, array).astype(np.int64)
        assert rows.shape == (stride, array.simd, array.pe)
        sums, found = np.zeros(array.pe, dtype=np.int64), []
        for step in range(steps):
            sums = np.append(sums[8:], np.zeros(8, dtype=np.int64))
            for r in range(stride):
                column = values[:, :, step * stride + r]
                for s in range(kernel_h):
                    sums = sums + rows[r, s] * np.tile(column[s], array.pe // 8)
            found.append(sums[:lanes])
        for x in range(columns):
            window = values[:, :lanes, x * stride : x * stride + length * stride : 1]
            window = window[:, :, : (kernel_w - 1) * dilation + 1 : dilation]
            expected = (window * weight.transpose(1, 0, 2)).sum(axis=(0, 2))
            assert (found[x + length - 1] == expected).all()
