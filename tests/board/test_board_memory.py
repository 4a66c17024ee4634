# SPDX-License-Identifier: Apache-2.0
"""Preflight, several weight buffers, and what the messages advise."""

from dataclasses import replace
from pathlib import Path

import pytest

from board.driver import Accelerator
from board.emulator import PAGE, EmulatedDevice, install
from board.errors import MemoryShortageError
from board.memory import free_bytes, parse_cma_free, plan_batch, split, whole
from formats.design import read_design

MIB = 1 << 20


def vgg_sized(design):
    """The design with as many weight words as VGG-16 has: 138,357,544 weights of 14 bits."""
    factor = 138_357_544 * 14 / 64 / design.weight_words
    layers = tuple(
        replace(layer, weight_words=round(layer.weight_words * factor), bias_words=0)
        for layer in design.layers
    )
    return replace(design, layers=layers, weight_words=sum(layer.weight_words for layer in layers))


def test_vgg16_does_not_fit_a_pynq_z2_and_a_codebook_would(bundle):
    design = vgg_sized(read_design(bundle / "parameters"))
    with pytest.raises(MemoryShortageError) as found:
        plan_batch(design, 1, 120 * MIB)
    text = str(found.value)
    assert text.startswith(
        "free contiguous memory must be at least 242.1 MB (weights 242.1 MB of 14"
    )
    assert "not 125.8 MB; weight codebooks of up to 7 bits would fit (121.1 MB)" in text
    with pytest.raises(MemoryShortageError, match="no weight codebook would fit"):
        plan_batch(design, 1, MIB)


def test_batch_is_what_fits(bundle):
    design = read_design(bundle / "parameters")
    assert plan_batch(design, 100, None) == 100
    assert plan_batch(design, 100, design.weight_bytes + 7 * design.arena_bytes + 1) == 7
    assert plan_batch(design, 5, 100 * MIB) == 5


def test_cma_free_is_read_from_meminfo(device):
    assert free_bytes(device) == 120 * MIB
    assert parse_cma_free("MemTotal: 500 kB\n") is None
    assert free_bytes(object()) == parse_cma_free(Path("/proc/meminfo").read_text())


def test_preflight_refuses_before_anything_is_allocated(bundle):
    small = install(EmulatedDevice(cma_bytes=16 * PAGE, taken_bytes=0))
    with pytest.raises(
        MemoryShortageError, match="^free contiguous memory must be at least 0.1 MB"
    ):
        Accelerator(bundle)
    assert small.bank.total_allocations == 0


@pytest.mark.parametrize("by_layer", [False, True])
def test_weights_are_split_where_memory_is_in_pieces(bundle, golden, by_layer):
    """Free pages in pieces of 7: no gap holds the 18 pages of weights, some hold a layer."""
    pieces = install(EmulatedDevice(cma_bytes=64 * PAGE, taken_bytes=0))
    for start in range(0, 64, 8):
        pieces.bank.taken[(start + 7) * PAGE] = PAGE
    with Accelerator(bundle, batch=2) as board:
        segments = [segment for segment, _ in board.buffers.segments()]
        assert len(segments) >= 3
        assert [s.first for s in segments[1:]] == [s.last + 1 for s in segments[:-1]]
        found = board.predict(golden["images"][:20], by_layer)
        assert (found == golden["logits"][:20]).all()
        assert len(board.calls) == 10 * (5 if by_layer else len(segments))
    assert pieces.live_buffers == 8


def test_a_layer_that_fits_no_piece_is_named(bundle):
    pieces = install(EmulatedDevice(cma_bytes=80 * PAGE, taken_bytes=0))
    for start in range(0, 80, 4):
        pieces.bank.taken[(start + 3) * PAGE] = PAGE
    with pytest.raises(
        MemoryShortageError, match="^the weights of layer conv2 must have 0.0 MB of"
    ):
        Accelerator(bundle, batch=1)
    assert pieces.live_buffers == 20


def test_split_cuts_between_layers(bundle):
    design = read_design(bundle / "parameters")
    first, second = split(design, whole(design))
    assert (first.first, second.last) == (0, 4)
    assert first.stop == second.start == design.layers[second.first].weight_address
    assert split(design, replace(first, last=first.first)) is None
