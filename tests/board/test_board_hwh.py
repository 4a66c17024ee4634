# SPDX-License-Identifier: Apache-2.0
"""The generated .hwh through pynq's own parser, and registers by name."""

from types import SimpleNamespace

import pytest
from pynqmetadata.frontends import Metadata
from pynqmetadata.views.runtime import RuntimeMetadataParser

from nuq.board.driver import Accelerator
from nuq.board.errors import DesignError
from nuq.board.hwh import BASE_ADDRESS, make_hwh, register_layout
from nuq.board.registers import Registers


def entries(ports=1):
    """All registers as ip_dict has them."""
    return {name: {"address_offset": r.offset} for name, r in register_layout(ports).items()}


def registers(names, ports=1):
    return Registers(SimpleNamespace(mmio=None, register_map=None), names, ports)


def test_pynq_reads_the_registers(tmp_path):
    path = tmp_path / "accelerator.hwh"
    path.write_text(make_hwh("toy", 100.0))
    parsed = RuntimeMetadataParser(Metadata(input=str(path)))
    entry = parsed.ip_dict["accelerator_0"]
    assert entry["type"] == "xilinx.com:hls:accelerator:1.0"
    assert entry["phys_addr"] == BASE_ADDRESS
    for name, register in register_layout().items():
        found = entry["registers"][name]
        assert (found["address_offset"], found["size"]) == (register.offset, register.size)
        assert set(found["fields"]) == {field[0] for field in register.fields}
    assert parsed.clock_dict[0]["enable"] == 1 and parsed.clock_dict[1]["enable"] == 0


def test_registers_do_not_overlap_and_memories_are_aligned():
    end = 0
    for register in register_layout().values():
        assert register.offset >= end
        end = register.offset + register.size // 8
    memory = register_layout()["Memory_counters"]
    assert memory.offset % (memory.size // 8) == 0


def test_offsets_come_from_the_file_only(bundle, golden, device):
    """All arguments moved: the driver follows the .hwh, whose registers it addresses by name."""
    with Accelerator(bundle) as board:
        board.registers.write("w0", 0x1_2345_6789)
        assert device.read_registers(BASE_ADDRESS + 0x10, 8).hex() == "8967452301000000"
        assert board.registers.read("w0") == 0x1_2345_6789
        board.registers.write("last", -1)
        assert board.registers.read("last") == 0xFFFFFFFF


def test_missing_registers_are_named():
    names = entries()
    del names["fm_in_2"], names["images"]
    text = "^the accelerator's registers must include fm_in, images"
    with pytest.raises(DesignError, match=text):
        registers(names)
    del names["Memory_counters"]
    with pytest.raises(DesignError, match="must include fm_in, images, Memory_counters, not"):
        registers(names)


def test_names_of_halves_and_pointers_do_not_mix():
    halves = ["w0_1", "w0_2", "w1_1", "w1_2", "w2_1", "w2_2"]
    assert [name for name in entries(3) if name.startswith("w")] == halves
    wide = registers(entries(3), 3)
    assert wide._parts("w1") == ("w1_1", "w1_2")
    assert not set(halves) & set(wide.arguments)
    whole = ("w0", "w1", "w2", "program", "fm_in", "fm_out")
    rest = ("first", "last", "images", "design_id", "CTRL", "counters")
    narrow = registers(dict.fromkeys((*whole, *rest), {"address_offset": 0}), 3)
    assert narrow._parts("w0") == ("w0",) and narrow._parts("w1") == ("w1",)
    with pytest.raises(DesignError, match="^the accelerator's registers must include w3,"):
        registers(entries(3), 4)
