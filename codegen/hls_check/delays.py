# SPDX-License-Identifier: Apache-2.0
"""Delays of the cells of a part's family, in ns, and what a recurrence may take there.

Each family has the figures of its slowest speed grade, -1; those of faster grades are shorter.
"""

from dataclasses import dataclass

from nuq.formats.errors import UserError


@dataclass(frozen=True)
class Delays:
    """Delays of one family, all in ns; nets inside of a slice count 0."""

    family: str  # synth_xilinx's name
    source: str
    limit: float  # of a recurrence
    net: float  # between slices
    clock_to_q: float
    setup: float  # of a flip-flop's D
    setup_enable: float
    setup_reset: float
    lut: float
    block: int  # bits of a carry block
    carry_in: float  # operands to carry out
    carry: float  # carry in to carry out
    carry_out: float  # carry in to sum
    carry_sum: float  # operands to sum
    carry_start: float  # CYINIT or the first CI to carry out and sum
    mux: float  # MUXF7, MUXF8: data
    mux_select: float
    ram: float  # LUT RAM: clock to output
    srl: float  # shift register: clock to output
    multiplier: float  # DSP48 without registers


SERIES7 = Delays(
    "xc7",
    "Vivado's timing reports for 7-series parts of speed grade -1, DS187 (LUT RAM and shift "
    "registers: T_SHCKO, T_REG), prjxray-db artix7/timings/CLBLL_L.sdf (MUXF7, MUXF8, S and R)",
    limit=5.0, net=0.75, clock_to_q=0.518, setup=0.05, setup_enable=0.205, setup_reset=0.43,
    lut=0.124, block=4, carry_in=0.53, carry=0.117, carry_out=0.334, carry_sum=0.6,
    carry_start=0.58, mux=0.25, mux_select=0.3, ram=1.32, srl=1.61, multiplier=3.84,
)  # fmt: skip
# 250 MHz less the 27 % that Vitis HLS keeps for routing is 2.9 ns. Nets there are 0.1 to 0.4 ns
# long; LUT RAM, shift registers, multiplexers and control inputs are no part of those reports:
# they are 7-series figures at the ratio of the flip-flops' and LUTs' there (two thirds at most).
ULTRASCALE_PLUS = Delays(
    "xcup",
    "Vivado 2021.2 timing reports for XCZU3EG, speed file -1 1.29 (repository gussmith23/"
    "lakeroad-evaluation, runs/2022-07-06-1704-full/vivado-eval: if.futil-ultrascale-timing-route, "
    "inlining.futil-vanilla-timing-route, std-fp-sdiv.futil-vanilla-timing-synth)",
    limit=2.9, net=0.4, clock_to_q=0.096, setup=0.0, setup_enable=0.14, setup_reset=0.29,
    lut=0.124, block=8, carry_in=0.245, carry=0.03, carry_out=0.146, carry_sum=0.245,
    carry_start=0.245, mux=0.17, mux_select=0.2, ram=0.88, srl=1.07, multiplier=1.93,
)  # fmt: skip
FAMILIES = {"xc7": SERIES7, "xczu": ULTRASCALE_PLUS, "xck": ULTRASCALE_PLUS}


def delays_of(device: str) -> Delays:
    """The delays of a part.

    Args:
        device: the vendor's name, as in `formats.hardware.Part.device`.

    >>> delays_of("xc7z020clg400-1").net, delays_of("xck26-sfvc784-2LV-c").net
    (0.75, 0.4)
    """
    for start, delays in FAMILIES.items():
        if device.lower().startswith(start):
            return delays
    raise UserError(
        f"part {device} must be of a family with known delays ({', '.join(FAMILIES)}...); add its "
        "figures to codegen/hls_check/delays.py"
    )
