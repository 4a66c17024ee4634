# SPDX-License-Identifier: Apache-2.0
"""The planner at full size: what fits, what is chosen, and what is said where nothing fits.

Lanes cross taps, several pixels a cycle, inputs stay on chip.
"""

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuq.codegen.design.array import Array
from nuq.codegen.design.cost import layer_cost
from nuq.codegen.design.lowering import merge_groups, packing_cost
from nuq.codegen.design.planner import line_capacities, plan, use_line_buffer
from nuq.codegen.design.resources import conversion_luts
from nuq.codegen.design.rows import Row
from nuq.codegen.design.sizes import Memory, gear_bits
from nuq.codegen.design.unit_luts import lut_estimate
from nuq.codegen.emit.weights_file import order_rows
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.network import load
from tests.checkout import ROOT, python
from tests.naive import convolve
from tests.networks import full_size, planned


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
@pytest.mark.parametrize("images", [1, 4])
def test_published_networks_fit_the_default_part(name: str, images: int) -> None:
    made = planned(name, images=images)
    used, part = made.resources, made.part
    assert used.dsp <= part.dsp and used.bram36 <= part.bram36 and used.lut <= part.lut
    for row in made.rows:
        assert row.steps(row.chunk_blocks, made.array) <= made.sizes.weight_rows
        line = row.ring_rows * row.in_width * row.chunk_blocks
        assert line <= made.sizes.line_blocks
        if row.chunks > 1:
            pixels = made.batch * row.conv_height * row.conv_width
            assert pixels <= made.sizes.psum_groups


def test_vgg16_deep_layers_run_as_two_chunks() -> None:
    made = planned("vgg16")
    chunks = {layer.name: row.chunks for layer, row in zip(made.layers, made.rows, strict=True)}
    assert (chunks["conv4_2"], chunks["conv5_3"], chunks["conv4_1"]) == (2, 2, 1)
    assert made.sizes.psum_groups == 784


def test_a_batch_shares_the_weights_of_fully_connected_layers() -> None:
    one, four = planned("alexnet"), planned("alexnet", images=4)
    assert four.batch == 4
    assert four.costs[5].bytes_weights == one.costs[5].bytes_weights
    assert four.cycles < 2 * one.cycles


def test_more_multipliers_are_faster_on_a_larger_part() -> None:
    small, large = (
        planned("alexnet", array, part="XC7Z045") for array in (Array(8), Array(16, 48))
    )
    assert large.cycles < small.cycles


@pytest.mark.parametrize(
    ("name", "array", "part", "text"),
    [
        ("alexnet", Array(8, 48), "XC7Z020",
         r"alexnet with SIMD=8 PE=48 must fit XC7Z020: DSP: needs 384, XC7Z020 has 198 "
         r"\(90% of 220\); use a smaller PE or SIMD, or a larger PART$"),
        ("alexnet", Array(24, 40), "XCK26",
         r"alexnet with SIMD=24 PE=40 must fit XCK26: BRAM36: needs \d+, XCK26 has 129 "
         r"\(90% of 144\); largest: weight buffer 187; use a smaller PE"),
        ("alexnet", Array(8, 80), "XCZU7EV",
         r"alexnet with SIMD=8 PE=80 must fit XCZU7EV: weights of PE=80 output channels take "
         r"1,120 bits, an ap_uint has 1,024; use a smaller PE"),
        ("vgg16", Array(24, 8, 2), "XC7Z020",
         r"vgg16 with SIMD=24 PE=8 PIXELS=2 must fit XC7Z020: DSP: needs 384, "),
    ],
)  # fmt: skip
def test_what_is_short_is_said(name: str, array: Array, part: str, text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}"):
        planned(name, array, part=part)


@pytest.mark.parametrize(("name", "images", "least"), [("vgg16", 1, 0.98), ("alexnet", 8, 0.97)])
def test_multipliers_are_busy(name: str, images: int, least: float) -> None:
    made = planned(name, Array(24, 8), images)
    assert made.efficiency("conv") >= least > made.efficiency()
    assert made.resources.bram36 <= made.part.bram36 and made.array.multipliers == 192


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
    made = planned("alexnet", Array(24, 8), 8)
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
    made = planned("vgg16", Array(24, 8))
    row = made.rows[12]  # conv5_3: 14x14, 64 blocks, 64 tiles
    assert row.prefetch_next and row.chunk_sizes == [64]
    early = layer_cost(row, made.array, 1).counts["compute"]
    late = layer_cost(replace(row, prefetch_next=0), made.array, 1).counts["compute"]
    assert late - early == 63 * 2 * 14 * 64


def test_wide_codes_take_a_shallow_memory() -> None:
    made = planned("vgg16", Array(24, 8))
    assert made.sizes.code_bits == 10 and made.sizes.line_low_bits == 5
    assert made.sizes.line_high_blocks < made.sizes.line_blocks // 2


def test_lane_packing_knows_the_array() -> None:
    conv = full_size("vgg16").layers[0]
    assert packing_cost(conv, 10, Array(24, 8))[0] == 8 * 224 * 224 * 3
    assert packing_cost(conv, 10, Array(24, 8, 2))[0] == 8 * 224 * 112 * 3
    assert packing_cost(conv, 10, Array(24, 8, 3))[0] == 8 * 224 * 280  # reading 10-bit codes


def test_efficiency_counts_all_multipliers() -> None:
    array = Array(24, 8, 2)
    assert array.efficiency(384 * 50, 100) == 0.5
    assert replace(array, pixels=1).multipliers == 192


@pytest.mark.parametrize(("simd", "pe"), [(12, 24), (0, 24), (8, 20), (8, -8)])
def test_simd_and_pe_are_multiples_of_8(simd: int, pe: int) -> None:
    with pytest.raises(UserError, match=r"^(SIMD|PE) must be a positive multiple of 8, not "):
        Array(simd, pe)


def test_kernel_too_large_for_any_weight_buffer() -> None:
    network = full_size("alexnet")
    layer = network.layers[-1]
    wide = replace(
        layer, kernel=(80, 80), in_shape=(4096, 80, 80), pads=(0, 0, 0, 0),
        weight=np.broadcast_to(np.int16(0), (1000, 4096, 80, 80)),
    )  # fmt: skip
    broken = replace(network, layers=(*network.layers[:-1], wide))
    with pytest.raises(
        UserError, match=r"^alexnet: the kernel of layer fc8 must have at most 4096"
    ):
        plan(broken, find_part("XC7Z020"))


@pytest.mark.parametrize(
    ("depth", "width", "blocks"),
    [(512, 36, 1), (513, 36, 2), (512, 64, 2), (1024, 64, 4), (2048, 9, 1), (784, 912, 51),
     (64, 1000, 0), (7168, 80, 35)],
)  # fmt: skip
def test_block_ram_geometry(depth: int, width: int, blocks: int) -> None:
    assert Memory("m", 1, depth, width).bram18 == blocks


@given(st.integers(1, 16), st.integers(1, 40), st.integers(1, 40))
def test_gearboxes_hold_whatever_is_left_over(bits: int, width: int, rows: int) -> None:
    held = largest = 0
    for _ in range(width * rows):
        held += bits
        largest = max(largest, held)
        held %= 8
    assert 8 * largest <= gear_bits(bits)


@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2), st.integers(1, 12)
)
def test_the_ring_holds_every_window_and_what_arrives(
    kernel: int, stride: int, pad: int, dilation: int, outs: int
) -> None:
    reach = (outs - 1) * stride + (kernel - 1) * dilation + 1
    if reach - pad < 1:
        return
    row = Row(
        conv_height=outs, stride_h=stride, pad_top=pad, kernel_h=kernel, dilation_h=dilation,
        rows_used=reach - pad,
    )  # fmt: skip
    for prefetch in (False, True):
        ring = row.ring(prefetch)
        needed = row.rows_needed
        for oy in range(outs):
            oldest = max(0, oy * stride - pad)
            ahead = row.rows_used + (int(needed[0]) if prefetch else 0)
            newest = int(needed[oy + 1]) if oy + 1 < outs else ahead
            assert newest - oldest <= ring


def grouped_layer(groups: int, cin: int, cout: int, last: bool = False):
    layer = full_size("alexnet").layers[-1 if last else 2]
    weight = np.random.default_rng(0).integers(-9, 9, (groups * cout, cin, 3, 3)).astype(np.int16)
    return replace(
        layer, groups=groups, in_shape=(groups * cin, 6, 6), conv_shape=(groups * cout, 4, 4),
        kernel=(3, 3), pads=(0, 0, 0, 0), weight=weight,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "cin", "cout", "left"), [(2, 8, 24, 2), (4, 4, 4, 2), (3, 5, 8, 1), (32, 1, 1, 4)]
)
def test_groups_are_merged_to_whole_blocks(groups: int, cin: int, cout: int, left: int) -> None:
    layer = grouped_layer(groups, cin, cout)
    conv = merge_groups(layer, Array(8, 24))
    assert conv.groups == left
    values = np.random.default_rng(1).integers(0, 99, (1, groups * cin, 6, 6))
    expected = convolve(values, layer.weight, replace(layer))
    assert np.array_equal(convolve(values, conv.weight, conv), expected)


def test_the_last_layer_is_never_grouped() -> None:
    conv = merge_groups(grouped_layer(2, 8, 8, last=True), Array(8, 24))
    assert conv.groups == 1


def test_lut_estimate_of_the_units_is_the_fitted_formula(make_toy):
    """KNQ at 3 and 4 bits: the largest table's formula, plus ENQ's units."""
    sizes = plan(load(make_toy() / "quantized"), find_part("XC7Z020")).sizes
    expected = (
        lut_estimate("ck", 4, sizes.quant_bits, lanes=8)
        + lut_estimate("qk", 4, sizes.quant_bits, lanes=sizes.array.qk_units)
        + lut_estimate("ce", 5, sizes.quant_bits, lanes=8)
        + lut_estimate("qe", 5, sizes.quant_bits, lanes=sizes.array.qk_units)
    )
    assert sizes.knq_levels == 16 and conversion_luts(sizes) == round(expected) > 0


@pytest.mark.parametrize("module", ["design.planner", "emit.generate"])
def test_no_module_of_the_units_is_loaded(module: str) -> None:
    code = f"import sys, nuq.codegen.{module}; print([m for m in sys.modules if '.units' in m])"
    assert python("-c", code).stdout == "[]\n"


def test_a_constant_of_the_engine_is_written_once() -> None:
    places = defaultdict(set)
    for folder in ("formats", "codegen/design", "codegen/emit"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"^([A-Z][A-Z_0-9]+) = [\d(-]", path.read_text(), re.MULTILINE):
                places[name].add(path.name)
    assert "RECIPROCAL_BITS" in places and "FEATURE_MAP_PORTS" in places
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
