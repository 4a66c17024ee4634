# SPDX-License-Identifier: Apache-2.0
"""The accelerator's memory on the board: weights in one or several buffers, and feature maps.

Every transfer is checked by reading memory back, so a forgotten flush or a stray write is an
exception and not a wrong class.
"""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pynq

from board.bundle import WEIGHTS
from board.errors import MemoryShortageError, StaleDataError
from board.memory import Segment, free_bytes, plan_batch, shortage, split, whole
from formats.design import Design, Layer
from formats.packing import WORD_BYTES

log = logging.getLogger(__name__)

COPY_WORDS = 1 << 20  # words of weights copied at a time
UNWRITTEN = 0xA5A5A5A5A5A5A5A5
ALLOCATION_ERRORS = (RuntimeError, MemoryError, OSError)  # what the versions of pynq raise


def _output(layer: Layer) -> slice:
    """Words of an image's arena that `layer` writes."""
    end = layer.out_address + layer.out_words
    return slice(0, 0) if layer.on_chip else slice(layer.out_address, end)


class Buffers:
    """Weight buffers and the feature map buffer ("arenas", one per image) of a design.

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
        free = free_bytes(device)
        self.batch = plan_batch(design, batch, free)
        if self.batch < batch:
            log.warning("memory for %d images at a time, not %d", self.batch, batch)
        try:
            self._allocate_arena()
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
        return int(self._arena.nbytes) if self._arena is not None else 0

    @property
    def feature_map_address(self) -> int:
        """Physical address of the feature maps."""
        return int(self._arena.device_address)

    def segments(self) -> list[tuple[Segment, tuple[int, ...]]]:
        """Layers with a weight address per port: where word 0 of the port's section would be."""
        ports = self._design.weight_ports
        if not self._weights:
            return [(whole(self._design), (self.feature_map_address,) * ports)]
        return [
            (
                segment,
                tuple(
                    buffer.device_address + (q * segment.words - segment.start) * WORD_BYTES
                    for q in range(ports)
                ),
            )
            for segment, buffer in self._weights
        ]

    def close(self) -> None:
        """Free everything; may be called twice."""
        buffers = [buffer for _, buffer in self._weights]
        buffers += [self._arena] if self._arena is not None else []
        self._weights, self._arena = [], None
        for buffer in buffers:
            buffer.freebuffer()
        if buffers:
            log.info("freed %d buffers", len(buffers))

    def _allocate_arena(self) -> None:
        words = self.batch * self._design.arena_words
        self._arena = self._buffer(words)
        if self._arena is None:
            raise MemoryShortageError(
                f"{words * WORD_BYTES / 1e6:.1f} MB of contiguous memory must be free for feature "
                f"maps; free buffers of other programs, or use batch={max(1, self.batch // 2)}"
            )

    def _allocate_weights(self, free: int | None) -> None:
        """One buffer for all weights, or several, cut between layers, where there is no room."""
        pending = [whole(self._design)] if self._design.weight_words else []
        while pending:
            segment = pending.pop(0)
            buffer = self._buffer(segment.words * self._design.weight_ports)
            if buffer is not None:
                self._weights.append((segment, buffer))
                continue
            halves = split(self._design, segment)
            if halves is None:
                name = self._design.layers[segment.first].name
                size = segment.words * self._design.weight_ports * WORD_BYTES
                raise MemoryShortageError(
                    f"the weights of layer {name} must have {size / 1e6:.1f} MB of contiguous "
                    "memory, which are not free in one piece; in total "
                    + shortage(self._design, free or 0)
                )
            pending = [*halves, *pending]

    def _buffer(self, words: int) -> Any:
        """A pynq buffer of 64-bit words, or None where there is no room."""
        try:
            return pynq.allocate(shape=(words,), dtype=np.uint64, target=self._device)
        except ALLOCATION_ERRORS as error:
            log.warning("no buffer of %d bytes: %s", words * WORD_BYTES, error)
            return None

    # Weights

    def load_weights(self, folder: Path) -> None:
        """Copy weights.bin to the buffers, and read them back."""
        if not self._weights:
            return
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
        self.verify_weights()

    def verify_weights(self) -> None:
        """Read the weights back from memory; StaleDataError names the layer that has changed."""
        for segment, buffer in self._weights:
            buffer.invalidate()
            for layer in self._design.layers[segment.first : segment.last + 1]:
                crc, words = 0, layer.weight_words // self._design.weight_ports
                for q in range(self._design.weight_ports):
                    start = q * segment.words + layer.weight_address - segment.start
                    crc = zlib.crc32(buffer[start : start + words].view(np.ndarray), crc)
                if layer.weight_words and crc != layer.weight_crc:
                    raise StaleDataError(
                        f"weights of layer {layer.name} must be in memory as in {WEIGHTS}, but "
                        "differ: the cache was not flushed, or another program writes there; "
                        "open the accelerator again"
                    )

    # Feature maps

    @contextmanager
    def scratch(self, words: int) -> Iterator[Any]:
        """A buffer of words that the driver has marked, freed at the end."""
        buffer = self._buffer(words)
        if buffer is None:
            raise MemoryShortageError(
                f"{words * WORD_BYTES / 1e6:.1f} MB of contiguous memory must be free to read the "
                "feature maps on chip; free buffers of other programs, or use a smaller batch"
            )
        try:
            buffer[:] = UNWRITTEN
            buffer.flush()
            yield buffer
        finally:
            buffer.freebuffer()

    def _view(self, images: int) -> Any:
        """The part of the feature map buffer that a batch uses, as a pynq buffer."""
        return self._arena[: images * self._design.arena_words]

    def _arenas(self, images: int) -> np.ndarray:
        """The same as an array [images, words]."""
        return self._view(images).view(np.ndarray).reshape(images, -1)

    def upload(self, words: np.ndarray, layer: Layer) -> np.ndarray:
        """Write the input [N, words], check that it has reached memory.

        Returns:
            What stands where `layer` will write, [N, words]; no words where that is on chip.
        """
        design = self._design
        place = slice(design.input_address, design.input_address + design.input_words)
        output = _output(layer)
        arenas = self._arenas(len(words))
        arenas[:, output] = UNWRITTEN
        arenas[:, place] = words
        view = self._view(len(words))
        view.flush()
        view.invalidate()
        if not np.array_equal(arenas[:, place], words):
            raise StaleDataError(
                "the input must be in memory as it was written, but differs: the cache was not "
                "flushed, or another program writes there; open the accelerator again"
            )
        return arenas[:, output].copy()

    def download(self, before: np.ndarray, layer: Layer) -> np.ndarray:
        """The output of `layer`, [N, words]; StaleDataError where it is what was there before."""
        images = len(before)
        self._view(images).invalidate()
        output = _output(layer)
        after = self._arenas(images)[:, output].copy()
        if np.array_equal(before, after):
            raise StaleDataError(
                f"the output of layer {layer.name} must be written by the accelerator, but memory "
                "holds what it held before: the cache was not invalidated, or the bus stopped; "
                "open the accelerator again"
            )
        return after
