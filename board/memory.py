# SPDX-License-Identifier: Apache-2.0
"""Contiguous memory: what is free, what is needed, how weights are split over buffers.

A PYNQ-Z1/Z2 has about 128 MB that the accelerator can reach (the kernel's CMA area), some of it
taken.
"""

from dataclasses import dataclass
from pathlib import Path

from board.errors import MemoryShortageError
from formats.design import Design
from formats.packing import WORD_BYTES

MEMINFO = Path("/proc/meminfo")
MB = 1_000_000
CODEBOOK_BITS = range(8, 0, -1)


@dataclass(frozen=True)
class Segment:
    """Layers first..last whose weights lie in one buffer.

    Words start..stop of each port's section of weights.bin, one section's after the other's.
    """

    first: int
    last: int
    start: int
    stop: int

    @property
    def words(self) -> int:
        """Words of each section."""
        return self.stop - self.start


def parse_cma_free(meminfo: str) -> int | None:
    """Bytes of CmaFree in the text of /proc/meminfo; None where the kernel has no CMA.

    >>> parse_cma_free("CmaTotal:  131072 kB\\nCmaFree:    2 kB\\n"), parse_cma_free("x: 1 kB")
    (2048, None)
    """
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "CmaFree":
            return int(value.split()[0]) * 1024
    return None


def free_bytes(device: object) -> int | None:
    """Free contiguous memory, None where it cannot be known.

    A device may bring its own text of /proc/meminfo in an attribute `meminfo`.
    """
    text = getattr(device, "meminfo", None)
    if text is None:
        if not MEMINFO.is_file():
            return None
        text = MEMINFO.read_text(encoding="ascii")
    return parse_cma_free(text)


def plan_batch(design: Design, wanted: int, free: int | None) -> int:
    """Images whose feature maps are allocated; MemoryShortageError where not even one fits.

    Args:
        design: what is to run.
        wanted: images at a time that the caller asks for.
        free: contiguous bytes, None where unknown.
    """
    if free is None:
        return wanted
    room = free - design.weight_bytes
    if room < design.arena_bytes:
        raise MemoryShortageError(shortage(design, free))
    return min(wanted, room // design.arena_bytes)


def shortage(design: Design, free: int) -> str:
    """The sentence that says what does not fit, and which codebook widths would."""
    need = design.weight_bytes + design.arena_bytes
    fitting = [
        bits
        for bits in CODEBOOK_BITS
        if bits < design.weight_bits
        and design.weight_words_at(bits) * WORD_BYTES + design.arena_bytes <= free
    ]
    if fitting:
        size = design.weight_words_at(fitting[0]) * WORD_BYTES / MB
        remedy = f"weight codebooks of up to {fitting[0]} bits would fit ({size:.1f} MB)"
    else:
        remedy = "no weight codebook would fit"
    return (
        f"free contiguous memory must be at least {need / MB:.1f} MB (weights "
        f"{design.weight_bytes / MB:.1f} MB of {design.weight_bits} bits, feature maps "
        f"{design.arena_bytes / MB:.1f} MB), not {free / MB:.1f} MB; {remedy}, or give the kernel "
        "more with cma= in its boot arguments"
    )


def whole(design: Design) -> Segment:
    """All weights in one buffer."""
    return Segment(0, len(design.layers) - 1, 0, design.weight_words // design.weight_ports)


def split(design: Design, segment: Segment) -> tuple[Segment, Segment] | None:
    """Two segments of about equal size, cut between layers; None where there is one layer."""
    if segment.first == segment.last:
        return None
    middle = segment.start + segment.words / 2
    cut = min(
        range(segment.first + 1, segment.last + 1),
        key=lambda index: abs(design.layers[index].weight_address - middle),
    )
    address = design.layers[cut].weight_address
    return (
        Segment(segment.first, cut - 1, segment.start, address),
        Segment(cut, segment.last, address, segment.stop),
    )
