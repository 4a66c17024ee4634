# SPDX-License-Identifier: Apache-2.0
"""The planner at full size: what fits, what is chosen, and what is said where nothing fits."""

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from full_size_networks import full_size
from hypothesis import given
from hypothesis import strategies as st

from codegen.design.array import Array
from codegen.design.lowering import merge_groups
from codegen.design.planner import plan
from codegen.design.resources import conversion_luts
from codegen.design.rows import Row
from codegen.design.sizes import Memory, gear_bits
from codegen.design.unit_luts import lut_estimate
from formats.errors import UserError
from formats.hardware import find_part
from formats.network import load
from tests.checkout import ROOT, python
from tests.naive import convolve


@pytest.mark.parametrize(("name", "bits"), [("alexnet", 3), ("vgg16", 5)])
@pytest.mark.parametrize("images", [1, 4])
def test_published_networks_fit_the_default_part(name: str, bits: int, images: int) -> None:
    part = find_part("XC7Z020")
    made = plan(full_size(name, bits), part, images=images)
    used = made.resources
    assert used.dsp <= part.dsp and used.bram36 <= part.bram36 and used.lut <= part.lut
    for row in made.rows:
        assert row.steps(row.chunk_blocks, made.array) <= made.sizes.weight_rows
        line = row.ring_rows * row.in_width * row.chunk_blocks
        assert line <= made.sizes.line_blocks
        if row.chunks > 1:
            pixels = made.batch * row.conv_height * row.conv_width
            assert pixels <= made.sizes.psum_groups


def test_vgg16_deep_layers_run_as_two_chunks() -> None:
    made = plan(full_size("vgg16", 5), find_part("XC7Z020"))
    chunks = {layer.name: row.chunks for layer, row in zip(made.layers, made.rows, strict=True)}
    assert (chunks["conv4_2"], chunks["conv5_3"], chunks["conv4_1"]) == (2, 2, 1)
    assert made.sizes.psum_groups == 784


def test_a_batch_shares_the_weights_of_fully_connected_layers() -> None:
    part = find_part("XC7Z020")
    one = plan(full_size("alexnet", 3), part, images=1)
    four = plan(full_size("alexnet", 3), part, images=4)
    assert four.batch == 4
    assert four.costs[5].bytes_weights == one.costs[5].bytes_weights
    assert four.cycles < 2 * one.cycles


def test_more_multipliers_are_faster_on_a_larger_part() -> None:
    network = full_size("alexnet", 3)
    small = plan(network, find_part("XC7Z045"), Array(8, 24))
    large = plan(network, find_part("XC7Z045"), Array(16, 48))
    assert large.cycles < small.cycles


def test_what_is_short_is_said() -> None:
    with pytest.raises(
        UserError,
        match=r"^alexnet with SIMD=8 PE=48 must fit XC7Z020: DSP: needs 384, XC7Z020 has 220; "
        r"use a smaller PE or SIMD, or a larger PART$",
    ):
        plan(full_size("alexnet", 3), find_part("XC7Z020"), Array(8, 48))
    with pytest.raises(
        UserError,
        match=r"^alexnet with SIMD=24 PE=40 must fit XCK26: BRAM36: needs \d+, XCK26 has 144; "
        r"largest: weight buffer 210; use a smaller PE",
    ):
        plan(full_size("alexnet", 3), find_part("XCK26"), Array(24, 40))


@pytest.mark.parametrize(("simd", "pe"), [(12, 24), (0, 24), (8, 20), (8, -8)])
def test_simd_and_pe_are_multiples_of_8(simd: int, pe: int) -> None:
    with pytest.raises(UserError, match=r"^(SIMD|PE) must be a positive multiple of 8, not "):
        Array(simd, pe)


def test_kernel_too_large_for_any_weight_buffer() -> None:
    network = full_size("alexnet", 3)
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


def test_unknown_part_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^PART must be one of XC7Z020, XCZU3EG, .* not 'XC9'"):
        find_part("XC9")


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
    layer = full_size("alexnet", 3).layers[-1 if last else 2]
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
        lut_estimate("ck", 4, sizes.quant_bits, sizes.knq_tables, 8)
        + lut_estimate("qk", 4, sizes.quant_bits, sizes.knq_tables, sizes.array.qk_units)
        + lut_estimate("ce", 5, sizes.quant_bits, lanes=8)
        + lut_estimate("qe", 5, sizes.quant_bits, lanes=sizes.array.qk_units)
    )
    assert sizes.knq_tables == 2 and conversion_luts(sizes) == round(expected) > 0


@pytest.mark.parametrize("module", ["design.planner", "emit.generate"])
def test_no_module_of_the_units_is_loaded(module: str) -> None:
    code = f"import sys, codegen.{module}; print([m for m in sys.modules if 'codegen.units' in m])"
    assert python("-c", code).stdout == "[]\n"


def test_a_constant_of_the_engine_is_written_once() -> None:
    places = defaultdict(set)
    for folder in ("formats", "codegen/design", "codegen/emit"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"^([A-Z][A-Z_0-9]+) = [\d(-]", path.read_text(), re.MULTILINE):
                places[name].add(path.name)
    assert "RECIPROCAL_BITS" in places and "FEATURE_MAP_PORTS" in places
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
