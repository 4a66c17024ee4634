# SPDX-License-Identifier: Apache-2.0
"""Feature maps on chip: what is chosen, what then crosses the bus, and that codes are the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from full_size_networks import full_size
from test_codegen_csim import check, chunked, grouped, run
from test_codegen_operations import inception, residual

from codegen.design.array import Array
from codegen.design.design import Design
from codegen.design.memory import CHIP_SHARE, all_on_chip
from codegen.design.planner import plan
from codegen.design.rows import Place
from formats.commands import main
from formats.errors import UserError
from formats.hardware import Part, find_part
from tests.checkout import needs_compiler


def alexnet(part: str | Part = "XC7Z020", fm: str = "auto", images: int = 1) -> Design:
    found = find_part(part) if isinstance(part, str) else part
    return plan(full_size("alexnet", 3), found, Array(fm=fm), images)


def test_alexnet_moves_its_input_and_its_logits_only() -> None:
    made = alexnet()
    first, last = made.costs[0], made.costs[-1]
    assert made.activation_bytes == first.bytes_read + last.bytes_written
    assert first.bytes_read == made.input_words * 8 and last.bytes_written == 8000
    used, part = made.resources, made.part
    assert used.bram36 <= CHIP_SHARE * part.bram36 and used.dsp <= CHIP_SHARE * part.dsp
    assert used.lut <= CHIP_SHARE * part.lut
    assert made.cycles <= 1.01 * alexnet(fm="ddr").cycles


def test_in_ddr_nothing_is_on_chip() -> None:
    made = alexnet(fm="ddr")
    assert made.chip.words == (0, 0) and made.sizes.chip_words == (1, 1)
    for row, cost in zip(made.rows, made.costs, strict=True):
        assert not row.in_chip and not row.out_chip
        assert (cost.ddr_read, cost.ddr_written) == (cost.counts["read"], cost.counts["write"])


def test_a_layer_never_reads_the_memory_that_it_writes(make_toy: Callable[..., Path]) -> None:
    from formats.network import load

    for toy in (inception(), residual(), grouped()):
        network = load(make_toy(toy) / "quantized")
        made = plan(network, find_part("XCZU7EV"), Array(16, 32))
        memory, layers = made.chip.memory, made.layers
        assert memory
        for layer, row in zip(layers, made.rows, strict=True):
            read = {memory[name] for name in layer.inputs if name in memory}
            if row.in_chip == Place.CACHE:
                read.add(made.chip.cache[layer.name][0])
            assert len(read) <= 1
            assert layer.name not in memory or memory[layer.name] not in read
            assert row.out_chip == int(layer.name in memory)
            if row.out_chip:
                size = made.chip.words[memory[layer.name]]
                assert row.out_addr + row.output_words <= size


def test_maps_that_live_at_once_do_not_overlap() -> None:
    made = plan(full_size("vgg16", 5), find_part("XCZU7EV"))
    assert all_on_chip(made.network.layers, made.rows) is None
    for row, after in zip(made.rows, made.rows[1:], strict=False):
        assert after.in_chip == Place.CHIP and after.in_addr == row.out_addr
        assert after.chip_swap != row.chip_swap
    assert made.resources.uram <= CHIP_SHARE * made.part.uram


def test_less_block_ram_keeps_fewer_maps() -> None:
    part = find_part("XC7Z020")
    kept = []
    for blocks in (140, 100, 85, 76):
        made = alexnet(replace(part, bram36=blocks))
        assert made.resources.bram36 <= blocks
        kept.append(made.activation_bytes)
    assert kept == sorted(kept) and kept[0] < kept[-1]


def test_what_does_not_fit_on_chip_is_said() -> None:
    with pytest.raises(
        UserError,
        match=r"^vgg16 with FM=chip: XC7Z020 must have room on chip for the output of layer "
        r"conv1_1 \([\d,]+ bytes\); use FM=auto, fewer IMAGES or PE, or a larger PART$",
    ):
        plan(full_size("vgg16", 5), find_part("XC7Z020"), Array(fm="chip"))
    with pytest.raises(UserError, match="^FM must be one of auto, chip, ddr, not 'bram'"):
        alexnet(fm="bram")


def test_all_on_chip_takes_a_smaller_batch_where_it_must() -> None:
    made = alexnet(images=8, fm="chip")
    assert made.batch == 1 and all_on_chip(made.network.layers, made.rows) is None
    assert alexnet(images=8).batch == 8


@needs_compiler
@pytest.mark.parametrize("make", [inception, residual, grouped, chunked])
def test_bit_exact_wherever_the_maps_are(make_toy: Callable[..., Path], make) -> None:
    build = make_toy(make())
    found = {}
    for fm in ("ddr", "auto"):
        arguments = ["codegen", f"OUT={build}", "PART=XC7Z045", f"FM={fm}"]
        assert main(arguments) == 0
        report = run(build)
        check(report, len(report["layers"]))
        found[fm] = report
    ddr, auto = (found[fm]["memory"]["ddr"]["other_bytes"] for fm in ("ddr", "auto"))
    assert auto < ddr and found["auto"]["memory"]["chip_bytes"] > 0


@needs_compiler
def test_a_wrong_word_on_chip_is_found(make_toy: Callable[..., Path], capfd) -> None:
    """The test bench looks into the memories, not into what it hopes was written to DRAM."""
    build = make_toy(grouped())
    assert main(["codegen", f"OUT={build}", "PART=XC7Z045"]) == 0
    report = json.loads((build / "report.json").read_text())
    assert any(layer["memory"]["output"] != "ddr" for layer in report["layers"])
    path = build / "hls" / "packing.hpp"
    text = path.read_text()
    assert text.count("chip[address + i] = words.read();") == 1
    path.write_text(
        text.replace("chip[address + i] = words.read();", "chip[address + i] = words.read() ^ 1;")
    )
    assert main(["csim", f"OUT={build}"]) == 1
    assert "MISMATCH in layer" in capfd.readouterr().out
