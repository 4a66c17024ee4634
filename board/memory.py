# SPDX-License-Identifier: Apache-2.0
"""The accelerator's memory on the board: weights in one or several buffers, program, feature maps.

A PYNQ-Z1/Z2 has about 128 MB that the accelerator can reach (the kernel's CMA area), some of it
taken. Every transfer is checked by reading memory back, so a forgotten flush or a stray write is an
exception and not a wrong class.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuq.board.bundle import PARAMETERS, PROGRAM, WEIGHTS
from nuq.board.errors import MemoryShortageError, StaleDataError
from nuq.formats.design import Design, Layer
from nuq.formats.packing import WORD_BYTES
from nuq.formats.program import Program, read_program

log = logging.getLogger(__name__)

MEMINFO = Path("/proc/meminfo")
MB = 1_000_000
CODEBOOK_BITS = range(8, 0, -1)
COPY_WORDS = 1 << 20  # words of weights copied at a time
UNWRITTEN = 0xA5A5A5A5A5A5A5A5
ALLOCATION_ERRORS = (RuntimeError, MemoryError, OSError)  # what the versions of pynq raise


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
    if text is None and MEMINFO.is_file():
        text = MEMINFO.read_text(encoding="ascii")
    return None if text is None else parse_cma_free(text)


def plan_batch(design: Design, wanted: int, free: int | None) -> int:
    """Images whose feature maps are allocated, at most `wanted`, in `free` bytes (None: unknown).

    MemoryShortageError where not even one fits.
    """
    if free is None:
        return wanted
    room = free - design.weight_bytes - design.program_bytes
    if room < design.arena_bytes:
        raise MemoryShortageError(shortage(design, free))
    return min(wanted, room // design.arena_bytes)


def shortage(design: Design, free: int) -> str:
    """The sentence that says what does not fit, and which codebook widths would."""
    need = design.weight_bytes + design.program_bytes + design.arena_bytes
    remedy = "no weight codebook would fit"
    for bits in CODEBOOK_BITS:
        size = design.weight_words_at(bits) * WORD_BYTES
        if bits < design.weight_bits and size + need - design.weight_bytes <= free:
            remedy = f"weight codebooks of up to {bits} bits would fit ({size / MB:.1f} MB)"
            break
    return (
        f"free contiguous memory must be at least {need / MB:.1f} MB (weights "
        f"{design.weight_bytes / MB:.1f} MB of {design.weight_bits} bits, feature maps "
        f"{design.arena_bytes / MB:.1f} MB, program {design.program_bytes / MB:.1f} MB), not "
        f"{free / MB:.1f} MB; {remedy}, or give the kernel "
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


def _outputs(layers: Sequence[Layer]) -> list[slice]:
    """Words of an image's arena that each of the layers writes; none where that is on chip."""
    return [
        slice(0, 0)
        if layer.on_chip
        else slice(layer.out_address, layer.out_address + layer.out_words)
        for layer in layers
    ]


class Buffers:
    """Buffers of weights, of the program and of feature maps ("arenas", one per image).

    Args:
        design: what is to run.
        device: where to allocate.
        batch: images at a time; fewer where memory is short (attribute `batch`).

    Raises:
        MemoryShortageError: with nothing left allocated.
    """

    def __init__(self, design: Design, device: Any, batch: int) -> None:
        self._design = design
        self._device = device
        self._weights: list[tuple[Segment, Any]] = []
        self._arena: Any = None
        self._program: Any = None
        free = free_bytes(device)
        self.batch = plan_batch(design, batch, free)
        if self.batch < batch:
            log.warning("memory for %d images at a time, not %d", self.batch, batch)
        try:
            self._arena = self._allocate(
                self.batch * design.arena_words,
                "{} of contiguous memory must be free for feature maps; free buffers of other "
                f"programs, or use batch={max(1, self.batch // 2)}",
            )
            self._program = self._allocate(
                design.program_words,
                "{} of contiguous memory must be free for the program; free buffers of other "
                "programs",
            )
            self._allocate_weights(free)
        except BaseException:
            self.close()
            raise
        log.info("%d weight buffers, %d images at a time", len(self._weights), self.batch)

    @property
    def open(self) -> bool:
        """Whether the buffers exist."""
        return self._arena is not None

    @property
    def feature_map_bytes(self) -> int:
        """Bytes allocated for feature maps."""
        return int(self._arena.nbytes) if self.open else 0

    @property
    def feature_map_address(self) -> int:
        """Physical address of the feature maps."""
        return int(self._arena.device_address)

    @property
    def program_address(self) -> int:
        """Physical address of the program."""
        return int(self._program.device_address)

    def segments(self) -> list[tuple[Segment, tuple[int, ...]]]:
        """Layers with a weight address per port: where word 0 of the port's section would be."""
        ports = range(self._design.weight_ports)
        if not self._weights:
            return [(whole(self._design), tuple(self.feature_map_address for _ in ports))]
        return [
            (
                segment,
                tuple(
                    buffer.device_address + (q * segment.words - segment.start) * WORD_BYTES
                    for q in ports
                ),
            )
            for segment, buffer in self._weights
        ]

    def close(self) -> None:
        """Free everything; may be called twice."""
        buffers = [buffer for _, buffer in self._weights]
        buffers += [item for item in (self._program, self._arena) if item is not None]
        self._weights, self._program, self._arena = [], None, None
        for buffer in buffers:
            buffer.freebuffer()
        if buffers:
            log.info("freed %d buffers", len(buffers))

    def _allocate_weights(self, free: int | None) -> None:
        """One buffer for all weights, or several, cut between layers, where there is no room."""
        pending = [whole(self._design)] if self._design.weight_words else []
        while pending:
            segment = pending.pop(0)
            halves = split(self._design, segment)
            message = "" if halves else (
                f"the weights of layer {self._design.layers[segment.first].name} must have {{}} of "
                "contiguous memory, which are not free in one piece; in total "
                + shortage(self._design, free or 0)
            )  # fmt: skip
            buffer = self._allocate(segment.words * self._design.weight_ports, message)
            if buffer is not None:
                self._weights.append((segment, buffer))
            else:
                pending = [*(halves or ()), *pending]

    def _allocate(self, words: int, message: str) -> Any:
        """A pynq buffer of 64-bit words; without room MemoryShortageError, None for no message."""
        import pynq

        size = words * WORD_BYTES
        try:
            return pynq.allocate(shape=(words,), dtype=np.uint64, target=self._device)
        except ALLOCATION_ERRORS as error:
            log.warning("no buffer of %d bytes: %s", size, error)
        if message:
            raise MemoryShortageError(message.format(f"{size / 1e6:.1f} MB"))
        return None

    # Parameters

    def load_parameters(self, folder: Path) -> None:
        """Copy weights.bin and program.bin to the buffers, and read them back."""
        if self._weights:
            self._load_weights(folder)
        self._program[:] = read_program(folder / PARAMETERS).words
        self._program.flush()
        self.verify_parameters()

    def _load_weights(self, folder: Path) -> None:
        source = np.memmap(folder / WEIGHTS, dtype="<u8", mode="r")
        sections = source.reshape(self._design.weight_ports, -1)
        for segment, buffer in self._weights:
            for q, section in enumerate(sections):
                first = q * segment.words
                for start in range(0, segment.words, COPY_WORDS):
                    stop = min(start + COPY_WORDS, segment.words)
                    part = section[segment.start + start : segment.start + stop]
                    buffer[first + start : first + stop] = part
            buffer.flush()

    def verify_parameters(self) -> None:
        """Read weights and program back; StaleDataError names the layer that differs."""
        stale = (
            "must be in memory as in {}, but differ: the cache was not flushed, or another program "
            "writes there; open the accelerator again"
        )
        for segment, buffer in self._weights:
            buffer.invalidate()
            for layer in self._design.layers[segment.first : segment.last + 1]:
                crc, words = 0, layer.weight_words // self._design.weight_ports
                for q in range(self._design.weight_ports):
                    start = q * segment.words + layer.weight_address - segment.start
                    crc = zlib.crc32(buffer[start : start + words].view(np.ndarray), crc)
                if layer.weight_words and crc != layer.weight_crc:
                    raise StaleDataError(f"weights of layer {layer.name} {stale.format(WEIGHTS)}")
        self._program.invalidate()
        fault = Program(self._program.view(np.ndarray)).fault()
        if fault is not None:
            layers = self._design.layers
            where = f"layer {layers[fault].name}" if fault >= 0 else "the header"
            raise StaleDataError(f"words of {where} {stale.format(PROGRAM)}")

    # Feature maps

    @contextmanager
    def scratch(self, words: int) -> Iterator[Any]:
        """A buffer of words that the driver has marked, freed at the end."""
        buffer = self._allocate(
            words,
            "{} of contiguous memory must be free to read the feature maps on chip; free buffers "
            "of other programs, or use a smaller batch",
        )
        try:
            buffer[:] = UNWRITTEN
            buffer.flush()
            yield buffer
        finally:
            buffer.freebuffer()

    def _arenas(self, images: int) -> tuple[Any, np.ndarray]:
        """The part of the feature map buffer that a batch uses; the same as [images, words]."""
        view = self._arena[: images * self._design.arena_words]
        return view, view.view(np.ndarray).reshape(images, -1)

    def upload(self, words: np.ndarray, wanted: Sequence[Layer]) -> list[np.ndarray]:
        """Write the input [N, words], check that it has reached memory.

        Returns:
            What stands where each layer wanted will write, [N, words]; no words where that is on
            chip.
        """
        design = self._design
        place = slice(design.input_address, design.input_address + design.input_words)
        outputs = _outputs(wanted)
        view, arenas = self._arenas(len(words))
        for output in outputs:
            arenas[:, output] = UNWRITTEN
        arenas[:, place] = words
        view.flush()
        view.invalidate()
        if not np.array_equal(arenas[:, place], words):
            raise StaleDataError(
                "the input must be in memory as it was written, but differs: the cache was not "
                "flushed, or another program writes there; open the accelerator again"
            )
        return [arenas[:, output].copy() for output in outputs]

    def download(self, before: Sequence[np.ndarray], wanted: Sequence[Layer]) -> list[np.ndarray]:
        """Outputs of layers, [N, words]; StaleDataError where one is what was there before."""
        view, arenas = self._arenas(len(before[0]))
        view.invalidate()
        found = []
        for layer, place, old in zip(wanted, _outputs(wanted), before, strict=True):
            after = arenas[:, place].copy()
            if np.array_equal(old, after):
                raise StaleDataError(
                    f"the output of layer {layer.name} must be written by the accelerator, but "
                    "memory holds what it held before: the cache was not invalidated, or the bus "
                    "stopped; open the accelerator again"
                )
            found.append(after)
        return found
