# SPDX-License-Identifier: Apache-2.0
"""Several weight ports and weight codebooks on the emulated board."""

import json
from pathlib import Path

import numpy as np
import pytest

from board.driver import Accelerator
from board.emulator import PAGE, EmulatedDevice, install
from board.errors import DesignError, SelfTestError, StaleDataError
from board.hwh import register_layout
from board.registers import Registers
from formats.design import read_design


@pytest.fixture(scope="module")
def images(ports_bundle: Path) -> dict[str, np.ndarray]:
    with np.load(ports_bundle / "images.npz") as stored:
        return dict(stored)


def test_logits_equal_the_reference(ports_bundle, images, device):
    with Accelerator(ports_bundle) as board:
        assert len(board.buffers.segments()) == 1
        (_, addresses), *_ = board.buffers.segments()
        section = board.design.weight_words // 3 * 8
        assert np.diff(addresses).tolist() == [section, section]
        assert (board.predict(images["images"]) == images["logits"]).all()
        counted = sum(call.counters["bytes_weights"] for call in board.calls)
    assert counted == board.design.weight_bytes * len(board.calls)


def test_designs_of_one_process_share_nothing(bundle, ports_bundle, golden, images, device):
    """Static memories of one fabric must not be those of another with larger ones."""
    for folder, known in ((bundle, golden), (ports_bundle, images), (bundle, golden)):
        with Accelerator(folder) as board:
            assert (board.predict(known["images"][:9]) == known["logits"][:9]).all()


def test_weights_are_split_over_buffers(ports_bundle, images):
    """Free pages in pieces of 3 or 7: each buffer holds its layers' part of all three sections."""
    pieces = install(EmulatedDevice(cma_bytes=64 * PAGE, taken_bytes=0))
    for start in range(0, 64, 8):
        pieces.bank.taken[(start + 7) * PAGE] = PAGE
    with Accelerator(ports_bundle, batch=2) as board:
        assert len(board.buffers.segments()) >= 2
        assert (board.predict(images["images"][:6], True) == images["logits"][:6]).all()


def test_sizes_in_the_design(ports_bundle):
    design = read_design(ports_bundle / "parameters")
    found = {layer.name: layer.weight_bits for layer in design.layers}
    assert found["fc4"] in (4, 5) and found["conv1"] == 14 and design.weight_bits == 14
    assert design.weight_words_at(14) == design.weight_words
    assert design.weight_words_at(2) < design.weight_words_at(4) < design.weight_words


def test_changed_weights_are_found(ports_bundle, device):
    device.faults.break_weights = True
    with pytest.raises((StaleDataError, SelfTestError)):
        Accelerator(ports_bundle)


def test_names_of_halves_and_pointers_do_not_mix():
    layout = register_layout(3)
    assert [name for name in layout if name.startswith("weights")] == [
        "weights_1", "weights_2", "weights_1_1", "weights_1_2", "weights_2_1", "weights_2_2",
    ]  # fmt: skip

    class Ip:
        mmio = None
        register_map = None

    names = {name: {"address_offset": r.offset} for name, r in layout.items()}
    wide = Registers(Ip(), names, 3)
    assert wide._parts("weights_1") == ("weights_1_1", "weights_1_2")
    assert wide._parts("weights") == ("weights_1", "weights_2")
    whole = ("weights", "weights_1", "weights_2", "fm_in", "fm_out")
    rest = ("first", "last", "images", "design_id", "CTRL", "counters")
    narrow = Registers(Ip(), {name: {"address_offset": 0} for name in (*whole, *rest)}, 3)
    assert narrow._parts("weights") == ("weights",) and narrow._parts("weights_1") == ("weights_1",)
    with pytest.raises(DesignError, match="^the accelerator's registers must include weights_3,"):
        Registers(Ip(), names, 4)


def test_report_names_the_sections(ports_bundle):
    report = json.loads((ports_bundle.parents[1] / "report.json").read_text())
    size = (ports_bundle / "parameters" / "weights.bin").stat().st_size
    assert report["engine"]["weight_ports"] == 3
    assert 3 * report["memory"]["weight_section_bytes"] == size
