# SPDX-License-Identifier: Apache-2.0
"""The adapters of the memory ports: what Vitis HLS puts between the engine and the AXI bus.

An adapter keeps a whole burst for every request that it may have under way, in block RAM:
outstanding requests times words of a burst times width (UG1399, "Controlling AXI4 Burst Behavior"
and "M_AXI Resources"). 16 requests, its default, take 8 BRAM36 for bursts of 256 words.
"""

from dataclasses import dataclass

from nuq.codegen.design.sizes import Memory
from nuq.formats.design import MAP_PORTS, weight_pointers
from nuq.formats.packing import WORD_BITS, WORD_BYTES

READ_AHEAD = 4  # rows whose bursts read_words asks for ahead, a power of two
WRITE_AHEAD = 4  # rows whose bursts write_words may have under way
READ_BITS = WORD_BITS + 3  # of a word that was read, with its response and end of burst
WRITE_BITS = WORD_BITS + WORD_BYTES  # of one to write, with a strobe a byte
# An estimate of an adapter's LUTs and flip-flops, without its memory. Published csynth reports list
# for one that reads and writes 580 LUTs and 512 flip-flops (32 bits, Vitis HLS 2021.2, XCZU3EG:
# "vadd" of the ROS 2 hardware acceleration documentation, ros-acceleration/acceleration_examples),
# 823 and 725 (32 bits, 2024.1, XCZU48DR: sdrangan/waveflow, the matmul unit of its mimo_cg tests),
# 766 and 566, of a wide port 1,052 and 881 (Alveo, 2020: WenqiJiang/FPGA-ANNS, notes of its merge
# sorts). 64 bits lie between; of ours each uses one direction, and most flip-flops hold a word.
ADAPTER_LUT, ADAPTER_FF = 800, 1000


@dataclass(frozen=True)
class Adapter:
    """Requests that may be under way and words of a burst, of reads and of writes.

    The least that the pragma takes stands for a direction that the engine does not use.
    """

    reads: int = 1
    read_burst: int = 2
    writes: int = 1
    write_burst: int = 2

    def memories(self, name: str) -> list[Memory]:
        """What holds the bursts."""
        read, written = self.reads * self.read_burst, self.writes * self.write_burst
        return [
            Memory(f"port {name}, words read", 1, read, READ_BITS),
            Memory(f"port {name}, words to write", 1, written, WRITE_BITS),
        ]


# 512 words are one BRAM36. A map's burst is a row, or as much of one as fits.
WEIGHT_ADAPTER = Adapter(reads=8, read_burst=64)
MAP_ADAPTERS = (
    Adapter(reads=READ_AHEAD, read_burst=128),
    Adapter(writes=WRITE_AHEAD, write_burst=128),
)


def adapters(weight_ports: int) -> dict[str, Adapter]:
    """Of every pointer to memory, in the order of the arguments.

    >>> list(adapters(2))
    ['w0', 'w1', 'fm_in', 'fm_out']
    """
    weights = dict.fromkeys(weight_pointers(weight_ports), WEIGHT_ADAPTER)
    return {**weights, **dict(zip(MAP_PORTS, MAP_ADAPTERS, strict=True))}
