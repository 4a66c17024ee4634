# SPDX-License-Identifier: Apache-2.0
"""Preflight, one or several weight ports and buffers, codebooks, and what the messages advise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuq.board.driver import Accelerator
from nuq.board.emulator import PAGE, EmulatedDevice, install
from nuq.board.errors import MemoryShortageError, SelfTestError, StaleDataError
from nuq.board.memory import free_bytes, parse_cma_free, plan_batch, split, whole
from nuq.formats.design import read_design

MIB = 1 << 20


def pieces(pages, period):
    """A board whose free pages are in pieces of `period` - 1."""
    board = install(EmulatedDevice(cma_bytes=pages * PAGE, taken_bytes=0))
    for end in range(period - 1, pages, period):
        board.bank.taken[end * PAGE] = PAGE
    return board


@pytest.fixture
def design(bundle):
    return read_design(bundle / "parameters")


def test_vgg16_does_not_fit_a_pynq_z2_and_a_codebook_would(design):
    """The design with as many weight words as VGG-16 has: 138,357,544 weights of 14 bits."""
    factor = 138_357_544 * 14 / 64 / design.weight_words
    layers = tuple(
        replace(layer, weight_words=round(layer.weight_words * factor), bias_words=0)
        for layer in design.layers
    )
    words = sum(layer.weight_words for layer in layers)
    large = replace(design, layers=layers, weight_words=words)
    with pytest.raises(MemoryShortageError) as found:
        plan_batch(large, 1, 120 * MIB)
    text = str(found.value)
    start = "free contiguous memory must be at least 242.1 MB (weights 242.1 MB of 14"
    assert text.startswith(start)
    assert "not 125.8 MB; weight codebooks of up to 7 bits would fit (121.1 MB)" in text
    with pytest.raises(MemoryShortageError, match="no weight codebook would fit"):
        plan_batch(large, 1, MIB)


def test_batch_is_what_fits(design):
    assert plan_batch(design, 100, None) == 100
    parameters = design.weight_bytes + design.program_bytes
    assert plan_batch(design, 100, parameters + 7 * design.arena_bytes + 1) == 7
    assert plan_batch(design, 5, 100 * MIB) == 5


def test_cma_free_is_read_from_meminfo(device):
    assert free_bytes(device) == 120 * MIB
    assert parse_cma_free("MemTotal: 500 kB\n") is None
    assert free_bytes(object()) == parse_cma_free(Path("/proc/meminfo").read_text())


def test_preflight_refuses_before_anything_is_allocated(bundle):
    small = install(EmulatedDevice(cma_bytes=16 * PAGE, taken_bytes=0))
    text = "^free contiguous memory must be at least 0.1 MB"
    with pytest.raises(MemoryShortageError, match=text):
        Accelerator(bundle)
    assert small.bank.total_allocations == 0


@pytest.mark.parametrize("by_layer", [False, True])
def test_weights_are_split_where_memory_is_in_pieces(bundle, golden, by_layer):
    """No gap of 7 pages holds the 18 pages of weights, some hold a layer."""
    device = pieces(64, 8)
    with Accelerator(bundle, batch=2) as board:
        segments = [segment for segment, _ in board.buffers.segments()]
        assert len(segments) >= 3
        assert [s.first for s in segments[1:]] == [s.last + 1 for s in segments[:-1]]
        found = board.predict(golden["images"][:20], by_layer)
        assert (found == golden["logits/output"][:20]).all()
        assert len(board.calls) == 10 * (5 if by_layer else len(segments))
    assert device.live_buffers == 8


def test_a_layer_that_fits_no_piece_is_named(bundle):
    device = pieces(80, 4)
    text = "^the weights of layer conv2 must have 0.0 MB of"
    with pytest.raises(MemoryShortageError, match=text):
        Accelerator(bundle, batch=1)
    assert device.live_buffers == 20


def test_split_cuts_between_layers(design):
    first, second = split(design, whole(design))
    assert (first.first, second.last) == (0, 4)
    assert first.stop == second.start == design.layers[second.first].weight_address
    assert split(design, replace(first, last=first.first)) is None


@pytest.fixture(scope="module")
def images(ports_bundle):
    with np.load(ports_bundle / "images.npz") as stored:
        return dict(stored)


def test_several_ports_give_the_reference_s_logits(ports_bundle, images, device):
    with Accelerator(ports_bundle) as board:
        assert len(board.buffers.segments()) == 1
        (_, addresses), *_ = board.buffers.segments()
        section = board.design.weight_words // 3 * 8
        assert np.diff(addresses).tolist() == [section, section]
        assert (board.predict(images["images"]) == images["logits/output"]).all()
        counted = sum(call.counters["bytes_weights"] for call in board.calls)
    assert counted == board.design.weight_bytes * len(board.calls)


def test_designs_of_one_process_share_nothing(bundle, ports_bundle, golden, images, device):
    """Static memories of one fabric must not be those of another with larger ones."""
    for folder, known in ((bundle, golden), (ports_bundle, images), (bundle, golden)):
        with Accelerator(folder) as board:
            assert (board.predict(known["images"][:9]) == known["logits/output"][:9]).all()


def test_weights_of_several_ports_are_split_over_buffers(ports_bundle, images):
    """Each buffer holds its layers' part of all three sections."""
    pieces(64, 8)
    with Accelerator(ports_bundle, batch=2) as board:
        assert len(board.buffers.segments()) >= 2
        assert (board.predict(images["images"][:6], True) == images["logits/output"][:6]).all()


def test_sizes_in_the_design_and_in_the_report(ports_bundle):
    design = read_design(ports_bundle / "parameters")
    found = {layer.name: layer.weight_bits for layer in design.layers}
    assert found["fc4"] in (4, 5) and found["conv1"] == 14 and design.weight_bits == 14
    assert design.weight_words_at(14) == design.weight_words
    assert design.weight_words_at(2) < design.weight_words_at(4) < design.weight_words
    report = json.loads((ports_bundle.parents[1] / "report.json").read_text())
    size = (ports_bundle / "parameters" / "weights.bin").stat().st_size
    assert report["engine"]["weight_ports"] == 3
    assert 3 * report["memory"]["weight_section_bytes"] == size


def test_changed_weights_of_several_ports_are_found(ports_bundle, device):
    device.faults.break_weights = True
    with pytest.raises((StaleDataError, SelfTestError)):
        Accelerator(ports_bundle)
