# SPDX-License-Identifier: Apache-2.0
"""Feature map memories: nothing that is live at the same time overlaps; what stays on chip, what
then crosses the bus, and that codes are the same.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_codegen_csim import chunked, grouped, inception, residual

from nuq.codegen.design.array import Array
from nuq.codegen.design.memory import Tensor, all_on_chip, allocate, peak_words
from nuq.codegen.design.planner import plan
from nuq.codegen.design.resources import RESOURCES
from nuq.codegen.design.rows import Place
from nuq.codegen.emit.report import paper_footprint, stored_footprint
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.network import Network
from tests.checkout import needs_compiler
from tests.networks import full_size, planned
from tests.toys import Toy, read_json, simulated

DDR = Array(fm="ddr")

tensors = st.lists(
    st.tuples(st.integers(1, 50), st.integers(-1, 12), st.integers(0, 5)), min_size=1, max_size=14
).map(lambda items: [Tensor(f"t{i}", w, b, b + d) for i, (w, b, d) in enumerate(items)])


@given(tensors)
def test_live_tensors_never_overlap(items: list[Tensor]) -> None:
    arena = allocate(items)
    for a, b in combinations(items, 2):
        if a.birth <= b.death and b.birth <= a.death:
            start_a, start_b = arena.address[a.name], arena.address[b.name]
            assert start_a + a.words <= start_b or start_b + b.words <= start_a
    assert peak_words(items) <= arena.words <= sum(item.words for item in items)
    assert max(arena.address[item.name] + item.words for item in items) == arena.words


def test_a_chain_needs_no_more_than_its_worst_moment() -> None:
    chain = [Tensor(f"t{i}", words, i, i + 1) for i, words in enumerate((90, 70, 60, 20, 10))]
    assert allocate(chain).words == peak_words(chain) == 160


def test_vgg16_activations_are_the_papers() -> None:
    # papers 000/001: 13.55 million activations, 27 MB in half precision, 8.4 MB at 5 bits
    paper = paper_footprint(full_size("vgg16").layers)
    assert paper.activations == 13_547_520
    assert round(paper.half_precision_bits / 8e6, 1) == 27.1
    assert round(paper.nb_bits / 8e6, 1) == 8.5
    assert paper.ratio == 5 / 16


def test_stored_activations_are_counted_after_the_pool() -> None:
    layers = full_size("alexnet").layers
    expected = 64 * 27 * 27 + 192 * 13 * 13 + (384 + 256) * 13 * 13 + 256 * 6 * 6 + 2 * 4096
    assert stored_footprint(layers).activations == expected
    assert stored_footprint(layers).nb_bits == 3 * expected


def test_alexnet_moves_its_input_and_its_logits_only() -> None:
    made = planned("alexnet")
    first, last = made.costs[0], made.costs[-1]
    assert made.activation_bytes == first.bytes_read + last.bytes_written
    assert first.bytes_read == made.input_words * 8 and last.bytes_written == 8000
    used, part = made.resources, made.part
    assert all(getattr(used, name) <= 0.9 * getattr(part, name) for name in RESOURCES)
    assert made.cycles <= 1.01 * planned("alexnet", DDR).cycles


def test_in_ddr_nothing_is_on_chip() -> None:
    made = planned("alexnet", DDR)
    assert made.chip.words == (0, 0) and made.sizes.chip_words == (1, 1)
    for row, cost in zip(made.rows, made.costs, strict=True):
        assert not row.in_chip and not row.out_chip
        assert (cost.ddr_read, cost.ddr_written) == (cost.counts["read"], cost.counts["write"])


@pytest.mark.parametrize("toy", [inception, residual, grouped])
def test_a_layer_never_reads_the_memory_that_it_writes(
    load_toy: Callable[..., Network], toy: Callable[[], Toy]
) -> None:
    made = plan(load_toy(toy()), find_part("XCZU7EV"), Array(16, 32))
    memory = made.chip.memory
    assert memory
    for layer, row in zip(made.layers, made.rows, strict=True):
        read = {memory[name] for name in layer.inputs if name in memory}
        if row.in_chip == Place.CACHE:
            read.add(made.chip.cache[layer.name][0])
        assert len(read) <= 1
        assert layer.name not in memory or memory[layer.name] not in read
        assert row.out_chip == int(layer.name in memory)
        if row.out_chip:
            assert row.out_addr + row.output_words <= made.chip.words[memory[layer.name]]


def test_maps_that_live_at_once_do_not_overlap() -> None:
    made = planned("vgg16", part="XCZU7EV")
    assert all_on_chip(made.network.layers, made.rows) is None
    for row, after in pairwise(made.rows):
        assert after.in_chip == Place.CHIP and after.in_addr == row.out_addr
        assert after.chip_swap != row.chip_swap
    assert made.resources.uram <= 0.9 * made.part.uram


def test_less_block_ram_keeps_fewer_maps() -> None:
    part = find_part("XC7Z020")
    kept = []
    for blocks in (140, 115, 95, 88):
        made = planned("alexnet", part=replace(part, bram36=blocks))
        assert made.resources.bram36 <= 0.9 * blocks
        kept.append(made.activation_bytes)
    assert kept == sorted(kept) and kept[0] < kept[-1]


def test_what_does_not_fit_on_chip_is_said() -> None:
    with pytest.raises(
        UserError,
        match=r"^vgg16 with FM=chip: XC7Z020 must have room on chip for the output of layer "
        r"conv1_1 \([\d,]+ bytes\); use FM=auto, a smaller BATCH or PE, or a larger PART$",
    ):
        planned("vgg16", Array(fm="chip"))
    with pytest.raises(UserError, match="^FM must be one of auto, chip, ddr, not 'bram'"):
        Array(fm="bram")


def test_all_on_chip_takes_a_smaller_batch_where_it_must() -> None:
    made = planned("alexnet", Array(fm="chip"), 8)
    assert made.batch == 1 and all_on_chip(made.network.layers, made.rows) is None
    assert planned("alexnet", images=8).batch == 8


@needs_compiler
@pytest.mark.parametrize(
    "toy",
    [
        inception,
        *(pytest.param(toy, marks=pytest.mark.slow) for toy in (residual, grouped, chunked)),
    ],
)
def test_bit_exact_wherever_the_maps_are(
    generated: Callable[..., Path], toy: Callable[[], Toy]
) -> None:
    ddr, auto = (
        simulated(generated(toy(), "PART=XC7Z045", "SIMD=8", "PE=24", f"FM={fm}"))["memory"]
        for fm in ("ddr", "auto")
    )
    assert auto["ddr"]["other_bytes"] < ddr["ddr"]["other_bytes"] and auto["chip_bytes"] > 0


@needs_compiler
def test_a_wrong_word_on_chip_is_found(generated: Callable[..., Path], capfd) -> None:
    """The test bench looks into the memories, not into what it hopes was written to DRAM."""
    build = generated(grouped(), "PART=XC7Z045", "SIMD=8", "PE=24")
    assert any(layer["memory"]["output"] != "ddr" for layer in read_json(build)["layers"])
    path, right = build / "hls" / "memory.hpp", "chip[job.address + addr_t(at)] = word;"
    text = path.read_text()
    assert text.count(right) == 1
    path.write_text(text.replace(right, right.replace(";", " ^ 1;")))
    assert main(["csim", f"OUT={build}"]) == 1
    assert "MISMATCH in layer" in capfd.readouterr().out
