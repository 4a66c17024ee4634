# SPDX-License-Identifier: Apache-2.0
"""The multiplier array: lanes that cross taps, several pixels a cycle, inputs that stay on chip.

Cycles of the model equal the C-simulation's counters (checked by `codegen csim`), for shapes whose
blocks, columns and taps are no multiples of what a cycle takes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from full_size_networks import full_size
from test_codegen_csim import check, run

from codegen.design.array import Array
from codegen.design.cost import layer_cost
from codegen.design.lowering import packing_cost
from codegen.design.planner import line_capacities, plan, use_line_buffer
from codegen.design.rows import Row
from codegen.emit.weights_file import order_rows
from formats.commands import main
from formats.errors import UserError
from formats.hardware import find_part
from tests.checkout import needs_compiler
from tests.toys import POOL2, Toy, ToyLayer


def awkward() -> Toy:
    """5 and 7 blocks, 11 and 13 columns, strides, dilation, groups, an add, a classifier."""
    layers = [
        ToyLayer(40, (3, 3), pads=(1, 1, 1, 1), scheme="knq", bits=4),
        ToyLayer(56, (5, 3), (2, 1), (2, 1, 1, 0), scheme="enq", bits=5),
        ToyLayer(56, (3, 3), pads=(2, 2, 2, 2), dilation=(2, 2), scheme="knq", bits=3, signed=True),
        ToyLayer(kind="add", source2="layer1", scheme="knq", bits=5),
        ToyLayer(32, (2, 2), groups=2, scheme="uniform", bits=9, pool=POOL2),
        ToyLayer(70, (2, 4), kind="fc", scheme="knq", bits=3),
        ToyLayer(19, (1, 1)),
    ]
    return Toy((3, 13, 11), layers, images=3)


@needs_compiler
@pytest.mark.parametrize(
    ("simd", "pe", "pixels"), [(24, 8, 1), (24, 8, 2), (40, 8, 2), (8, 8, 8), (72, 8, 1)]
)
def test_engines(make_toy: Callable[..., Path], simd: int, pe: int, pixels: int) -> None:
    toy = awkward()
    build = make_toy(toy)
    options = [f"SIMD={simd}", f"PE={pe}", f"PIXELS={pixels}"]
    assert main(["codegen", f"OUT={build}", *options, "PART=XC7Z045"]) == 0
    report = run(build)
    check(report, len(toy.layers))
    assert report["engine"]["pixels"] == pixels


@needs_compiler
def test_pixels_in_exact_types(make_toy: Callable[..., Path]) -> None:
    toy = awkward()
    build = make_toy(toy)
    options = ["SIMD=24", "PE=16", "PIXELS=2", "PART=XC7Z045"]
    assert main(["codegen", f"OUT={build}", *options]) == 0
    check(run(build, "CSIM_TYPES=exact", "SANITIZE=1"), len(toy.layers))


@pytest.mark.parametrize("pixels", ["0", "9", "x"])
def test_bad_pixels(make_toy: Callable[..., Path], pixels: str) -> None:
    rule = "an integer, not 'x'" if pixels == "x" else f"1..8, not {pixels}"
    with pytest.raises(UserError, match=f"^PIXELS must be {rule}$"):
        main(["codegen", f"OUT={make_toy()}", f"PIXELS={pixels}"])


@pytest.mark.parametrize(
    ("name", "bits", "images", "least"), [("vgg16", 5, 1, 0.98), ("alexnet", 3, 8, 0.97)]
)
def test_multipliers_are_busy(name: str, bits: int, images: int, least: float) -> None:
    part = find_part("XC7Z020")
    made = plan(full_size(name, bits), part, Array(24, 8), images)
    assert made.efficiency("conv") >= least > made.efficiency()
    assert made.resources.bram36 <= part.bram36 and made.resources.dsp == 192


def test_taps_are_no_border_for_lanes() -> None:
    """64 channels, 3x3, 24 lanes: 24 cycles a pixel, not the 27 of three groups a tap."""
    array = Array(24, 8)
    assert Row(kernel_h=3, kernel_w=3, sources=1).steps(8, array) == 24
    weight = np.arange(8 * 64 * 9).reshape(8, 64, 3, 3)
    rows = order_rows(weight, 8, array)
    assert rows.shape == (24, 24, 8)
    for item in range(72):
        tap, block = divmod(item, 8)
        found = rows[item // 3, item % 3 * 8 : item % 3 * 8 + 8]
        wanted = weight[:, block * 8 : block * 8 + 8, tap // 3, tap % 3]
        assert np.array_equal(found, wanted.T)


def test_a_resident_input_is_read_once() -> None:
    made = plan(full_size("alexnet", 3), find_part("XC7Z020"), Array(24, 8), 8)
    index = next(i for i, layer in enumerate(made.layers) if layer.name == "fc7")
    plain = replace(made.rows[index], chunks=1, chunk_blocks=512, ring_rows=1, resident=0)
    row = use_line_buffer(plain, 8, 8 * 512)
    assert (row.resident, row.ring_rows, row.line_entries) == (1, 8, 4096)
    assert line_capacities([plain], 8) == [512, 4096]
    cost = layer_cost(row, made.array, 8)
    assert cost.counts["read"] == 8 * 512 and cost.counts["unpack"] == 8 * 512
    streamed = layer_cost(replace(row, resident=0, prefetch_next=0), made.array, 8)
    assert streamed.counts["read"] == 512 * cost.counts["read"]
    assert streamed.cycles >= cost.cycles


def test_the_first_rows_of_the_next_pass_are_hidden() -> None:
    """With prefetching only the layer's first pass waits for its first rows."""
    made = plan(full_size("vgg16", 5), find_part("XC7Z020"), Array(24, 8))
    row = made.rows[12]  # conv5_3: 14x14, 64 blocks, 64 tiles
    assert row.prefetch_next and row.chunk_sizes == [64]
    early = layer_cost(row, made.array, 1).counts["compute"]
    late = layer_cost(replace(row, prefetch_next=0), made.array, 1).counts["compute"]
    assert late - early == 63 * 2 * 14 * 64


def test_wide_codes_take_a_shallow_memory() -> None:
    made = plan(full_size("vgg16", 5), find_part("XC7Z020"), Array(24, 8))
    assert made.sizes.code_bits == 10 and made.sizes.line_low_bits == 5
    assert made.sizes.line_high_blocks < made.sizes.line_blocks // 2


def test_lane_packing_knows_the_array() -> None:
    conv = full_size("vgg16", 5).layers[0]
    assert packing_cost(conv, 10, Array(24, 8))[0] == 8 * 224 * 224 * 3
    assert packing_cost(conv, 10, Array(24, 8, 2))[0] == 8 * 224 * 112 * 3
    assert packing_cost(conv, 10, Array(24, 8, 3))[0] == 8 * 224 * 280  # reading 10-bit codes


def test_efficiency_counts_all_multipliers() -> None:
    array = Array(24, 8, 2)
    assert array.efficiency(384 * 50, 100) == 0.5
    assert replace(array, pixels=1).multipliers == 192


def test_the_planner_refuses_what_it_cannot_build() -> None:
    with pytest.raises(
        UserError, match=r"^vgg16 with SIMD=24 PE=8 PIXELS=2 must fit XC7Z020: DSP: needs 384, "
    ):
        plan(full_size("vgg16", 5), find_part("XC7Z020"), Array(24, 8, 2))
