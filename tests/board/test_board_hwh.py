# SPDX-License-Identifier: Apache-2.0
"""The generated .hwh through pynq's own parser, and registers by name."""

import pytest
from pynqmetadata.frontends import Metadata
from pynqmetadata.views.runtime import RuntimeMetadataParser

from board.driver import Accelerator
from board.errors import DesignError
from board.hwh import BASE_ADDRESS, make_hwh, register_layout
from board.registers import Registers


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
        registers = board.registers
        registers.write("weights", 0x1_2345_6789)
        assert device.read_registers(BASE_ADDRESS + 0x10, 8).hex() == "8967452301000000"
        assert registers.read("weights") == 0x1_2345_6789
        registers.write("last", -1)
        assert registers.read("last") == 0xFFFFFFFF


def test_missing_registers_are_named(bundle, device):
    class Ip:
        mmio = None
        register_map = None

    names = {name: {"address_offset": r.offset} for name, r in register_layout().items()}
    del names["fm_in_2"], names["images"]
    with pytest.raises(
        DesignError, match="^the accelerator's registers must include fm_in, images"
    ):
        Registers(Ip(), names)
    del names["Memory_counters"]
    with pytest.raises(DesignError, match="must include fm_in, images, Memory_counters, not"):
        Registers(Ip(), names)
