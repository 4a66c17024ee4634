# SPDX-License-Identifier: Apache-2.0
"""The longest path of mapped netlists, by hand and from Yosys."""

import json

import pytest

from nuq.codegen.hls_check.delays import FAMILIES, SERIES7, ULTRASCALE_PLUS, Delays, delays_of
from nuq.codegen.units.static_timing import Netlist
from nuq.codegen.units.synthesis import run_yosys
from nuq.formats.errors import UserError
from nuq.formats.hardware import load_parts
from tests.checkout import needs_yosys

OUTPUTS = ("Q", "O", "CO", "DOA", "DOB")


def netlist(**cells: tuple[str, dict[str, list[int | str]]]) -> Netlist:
    """A module of cells: name, type and connections."""
    return Netlist({"cells": {
        name: {"type": kind, "connections": ports,
               "port_directions": {p: "output" if p in OUTPUTS else "input" for p in ports}}
        for name, (kind, ports) in cells.items()
    }})  # fmt: skip


def flop(data: int, output: int) -> tuple[str, dict[str, list[int | str]]]:
    return "FDRE", {"C": [1], "CE": ["1"], "R": ["0"], "D": [data], "Q": [output]}


def test_luts_and_multiplexers() -> None:
    own = SERIES7
    lut = ("LUT2", {"I0": [3], "I1": [9], "O": [4]})
    path = netlist(a=flop(5, 3), b=lut, c=("LUT1", {"I0": [4], "O": [5]})).longest(own)
    assert path.nanoseconds == pytest.approx(own.clock_to_q + 2 * (own.net + own.lut) + own.setup)
    assert str(path) == "FDRE LUT2 LUT1 FDRE.D"
    wide = ("MUXF7", {"I0": [4], "I1": [8], "S": [9], "O": [5]})
    path = netlist(a=flop(5, 3), b=lut, c=wide).longest(own, 0.5)
    assert path.nanoseconds == pytest.approx(
        own.clock_to_q + 0.5 + own.lut + own.mux + own.setup, abs=1e-3
    )


def test_carry_blocks() -> None:
    own = SERIES7
    first = ("CARRY4", {"CI": ["0"], "CYINIT": ["0"], "S": [4, "0", "0", "0"], "DI": ["0"] * 4,
                        "CO": [10, 11, 12, 13], "O": [20, 21, 22, 23]})  # fmt: skip
    second = ("CARRY4", {"CI": [13], "CYINIT": ["0"], "S": ["0"] * 4, "DI": ["0"] * 4,
                         "CO": [30, 31, 32, 33], "O": [40, 41, 42, 43]})  # fmt: skip
    lut = ("LUT1", {"I0": [3], "O": [4]})
    path = netlist(a=flop(41, 3), b=lut, c=first, d=second).longest(own)
    chain = own.net + own.lut + own.carry_in + own.carry_out
    assert path.nanoseconds == pytest.approx(own.clock_to_q + chain + own.setup, abs=1e-3)
    assert str(path) == "FDRE LUT1 2xCARRY4 FDRE.D"


def test_memories_shift_registers_and_enables() -> None:
    own = SERIES7
    ram = ("RAM32M", {"ADDRA": [3, "0"], "ADDRB": [8], "WE": [3], "WCLK": [1], "DOA": [4, 5]})
    path = netlist(a=flop(5, 3), m=ram).longest(own)
    # the read takes a LUT's time, and the flip-flop has a net of its own; write enable is shorter
    read = own.clock_to_q + own.net + own.lut + own.net + own.setup
    assert path.nanoseconds == pytest.approx(read, abs=1e-3)
    shift = ("SRL16E", {"CLK": [1], "CE": ["1"], "D": [3], "Q": [6]})
    path = netlist(a=flop(9, 3), s=shift, b=flop(6, 7)).longest(own)
    assert path.nanoseconds == pytest.approx(own.srl + own.net + own.setup)
    held = ("FDRE", {"C": [1], "CE": [3], "R": ["0"], "D": ["0"], "Q": [7]})
    path = netlist(a=flop(9, 3), b=held).longest(own)
    assert path.nanoseconds == pytest.approx(own.clock_to_q + own.net + own.setup_enable)
    assert path.cells == ("FDRE", "FDRE.CE")


def test_what_cannot_be_timed_is_refused() -> None:
    ring = netlist(b=("LUT1", {"I0": [3], "O": [4]}), c=("LUT1", {"I0": [4], "O": [3]}))
    with pytest.raises(UserError, match="^a recurrence must have no combinational loop$"):
        ring.longest(SERIES7)
    with pytest.raises(UserError, match="known delays, not to DSP48E1$"):
        netlist(d=("DSP48E1", {"A": [3], "O": [4]})).longest(SERIES7)


def test_every_part_has_delays() -> None:
    assert {delays_of(part.device).family for part in load_parts().values()} == {"xc7", "xcup"}
    assert set(FAMILIES) == {"xc7", "xczu", "xck"}
    with pytest.raises(UserError, match="^part xcvu9p must be of a family with known delays"):
        delays_of("xcvu9p")


COUNTER = """module counter(input clk, input [31:0] limit, output reg [31:0] n);
reg [31:0] last;
always @(posedge clk) begin last <= limit; n <= n < last ? n + 1 : 0; end
endmodule
"""


@needs_yosys
@pytest.mark.parametrize("delays", [SERIES7, ULTRASCALE_PLUS])
def test_netlist_of_yosys(delays: Delays, tmp_path) -> None:
    """A counter that goes back to 0 where it has reached its limit: a comparison, then a reset."""
    (tmp_path / "counter.v").write_text(COUNTER)
    run_yosys(
        ["read_verilog counter.v",
         f"synth_xilinx -family {delays.family} -top counter -noiopad -noclkbuf -flatten",
         "write_json n.json"], tmp_path,
    )  # fmt: skip
    module = json.loads((tmp_path / "n.json").read_text())["modules"]["counter"]
    path = Netlist(module).longest(delays)
    assert any(cell.startswith("CARRY") for cell in path.cells), path
    assert path.start.startswith(("n[", "last["))
    # a carry chain and what it decides, each behind a net
    least = delays.clock_to_q + 2 * delays.net + delays.lut + delays.carry_in
    assert least < path.nanoseconds < least + 3 * (delays.net + delays.lut) + delays.setup_reset
