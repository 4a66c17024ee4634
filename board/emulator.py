# SPDX-License-Identifier: Apache-2.0
"""A board that needs no board: a pynq.Device whose fabric is the C-simulation of the accelerator.

Registers, physical addresses, caches that must be flushed and invalidated, start and done behave
as on a Zynq; pynq itself is the real package. A "bitstream" is a shared library (emulate.py), so
loading another one loads another design. Faults can be injected.
"""

import _ctypes
import ctypes
import logging
import mmap
import shutil
import struct
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pynq
from pynq.buffer import PynqBuffer
from pynqmetadata.frontends import Metadata

from nuq.board.hwh import ADDRESS_RANGE, BASE_ADDRESS, register_layout
from nuq.formats.design import COUNTERS, MAP_PORTS, PROGRAM_PORT, pointers, weight_pointers
from nuq.formats.errors import call
from nuq.formats.packing import WORD_BYTES
from nuq.formats.program import HEADER_WORDS, INDEX_WORDS, Program

try:
    from pynqmetadata.views.runtime import RuntimeMetadataParser
except ImportError:  # pynq 3 keeps the same class in its own package
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser

log = logging.getLogger(__name__)

PAGE = 4096
CMA_BYTES = 128 << 20  # what the kernel of a PYNQ-Z1/Z2 reserves
CMA_TAKEN = 8 << 20  # and what other drivers have taken of it
CMA_ADDRESS = 0x16000000
GARBAGE = 0xA5  # memory that nobody has written
# What the boot loader has left in the clock registers that pynq.Clocks reads: the feedback divisors
# of the phase-locked loops of a Zynq UltraScale+ (1,500 MHz).
CLOCKS = {0xFF5E0020: 45 << 8, 0xFF5E0030: 45 << 8, 0xFD1A002C: 45 << 8}
AP_START, AP_DONE, AP_IDLE, AP_READY = 1, 2, 4, 8
WRONG_ID = 0xDEADBEEF


@dataclass
class Faults:
    """What goes wrong; everything off by default."""

    hang_layer: int | None = None  # a call that reaches this layer never finishes
    wrong_id: bool = False  # the ID register says something else
    corrupt: int = 0  # so many flushes from now, a bit of the flushed memory flips
    fail_allocation: int = 0  # so many allocations from now, one fails
    lost_flush: bool = False  # caches are not written back
    lost_invalidate: bool = False  # or not discarded
    break_weights: bool = False  # a bit of the weights flips before the next call


class EmulatedBuffer(PynqBuffer):
    """A PynqBuffer that gives its memory back once, when it is freed or forgotten."""

    def freebuffer(self) -> None:
        """Free the memory; views do nothing, nor does a second call."""
        memory = self.__dict__.pop("memory", None)
        if memory is not None:
            memory.return_pointer(self.device_address)


class Bank:
    """The contiguous memory, in the place of pynq's XrtMemory."""

    base_address = CMA_ADDRESS

    def __init__(self, device: "EmulatedDevice", size: int) -> None:
        self.device = device
        self.size = size  # bytes
        # the bytes in DRAM; caches (the arrays that programs see) lie elsewhere
        self.data = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
        self.taken: dict[int, int] = {}  # start of each live allocation to its size, bytes
        self.total_allocations = 0  # since the beginning

    @property
    def host(self) -> int:
        """Address of the first byte in this process."""
        return int(self.data.ctypes.data)

    @property
    def free(self) -> int:
        """Bytes not taken, contiguous or not."""
        return self.size - sum(self.taken.values())

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> EmulatedBuffer:
        """A buffer: an array of its own (the cache) over a place in DRAM."""
        faults = self.device.faults
        if faults.fail_allocation:
            faults.fail_allocation -= 1
            if faults.fail_allocation == 0:
                raise RuntimeError("Failed to allocate Memory!")
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        start = self._place(size)
        buffer = EmulatedBuffer(
            shape,
            dtype=dtype,
            buffer=mmap.mmap(-1, max(size, 1)),
            device=self.device,
            device_address=CMA_ADDRESS + start,
            bo=start,
        )
        buffer.memory = self
        return buffer

    def _place(self, size: int) -> int:
        """Take the first gap of whole pages that is large enough; RuntimeError where none is."""
        size = -(-max(size, 1) // PAGE) * PAGE
        start = 0
        for other, length in sorted(self.taken.items()):
            if other - start >= size:
                break
            start = other + length
        if start + size > self.size:
            raise RuntimeError("Failed to allocate Memory!")
        self.taken[start] = size
        self.total_allocations += 1
        self.data[start : start + size] = GARBAGE
        return start

    def return_pointer(self, address: int) -> None:
        """Called by EmulatedBuffer.freebuffer."""
        self.taken.pop(address - CMA_ADDRESS, None)

    def holds(self, start: int, size: int) -> bool:
        """Whether one allocation covers the bytes."""
        return any(
            place <= start and start + size <= place + length
            for place, length in self.taken.items()
        )


class Fabric:
    """The programmable logic: registers, and the engine behind them."""

    def __init__(self, bank: Bank, faults: Faults) -> None:
        self.bank = bank
        self.faults = faults
        self.library: Any = None
        self.calls = 0
        self.pointers = weight_pointers(1)
        self._layout = register_layout()
        self._words: dict[int, int] = {}
        self._state = AP_IDLE
        self._lock = threading.Lock()
        self._job: threading.Thread | None = None

    def load(self, bitstream: Path) -> None:
        """Configure the logic; whatever it was doing has ended before."""
        self.unload()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "fabric.so"  # a copy: the same file would not be loaded twice
            shutil.copyfile(bitstream, copy)
            try:
                self.library = ctypes.CDLL(str(copy))
            except OSError as error:
                raise RuntimeError(
                    f"{bitstream} must be an emulated bitstream ({error}); run {call('emulate')}"
                ) from None
        u64, i32 = ctypes.c_uint64, ctypes.c_int32
        pointer, others = ctypes.c_void_p, [u64] * len((PROGRAM_PORT, *MAP_PORTS))
        self.library.emulator_run.argtypes = [pointer, *others, i32, i32, i32, pointer, pointer]
        self.library.emulator_run.restype = None
        self.library.emulator_layer.argtypes = [pointer, pointer]
        self.library.emulator_layer.restype = None
        self.pointers = weight_pointers(self.library.emulator_weight_ports())
        self._layout = register_layout(len(self.pointers))
        self._words.clear()
        self._state = AP_IDLE

    def unload(self) -> None:
        """Wait for the engine and forget the design."""
        self._wait()
        if self.library is not None:
            _ctypes.dlclose(self.library._handle)
            self.library = None

    def _wait(self) -> None:
        if self._job is not None:
            self._job.join()
            self._job = None

    def read(self, offset: int) -> int:
        """A register as the bus reads it; ap_done and ap_vld are cleared by it."""
        with self._lock:
            if offset == 0:
                state = self._state
                self._state &= ~(AP_DONE | AP_READY)
                return state
            value = self._words.get(offset, 0)
            if offset == self._layout["design_id_ctrl"].offset:
                self._words[offset] = 0
            return value

    def write(self, offset: int, value: int) -> None:
        """Write a register; writing ap_start begins a call."""
        with self._lock:
            if offset:
                self._words[offset] = value
                return
            if not value & AP_START or not self._state & AP_IDLE or self.library is None:
                return
            self._state = AP_START
        self._wait()
        self._job = threading.Thread(target=self._run, daemon=True)
        self._job.start()

    def _argument(self, name: str) -> int:
        return self._words.get(self._layout[name].offset, 0)

    def _pointer(self, name: str) -> int:
        # 0 where the metadata lacks the pointer, as that of a design with fewer ports does
        found = [self._layout.get(f"{name}_{part}") for part in (1, 2)]
        low, high = (self._words.get(item.offset, 0) if item else 0 for item in found)
        return low | high << 32

    def _signed(self, name: str) -> int:
        return (self._argument(name) ^ 1 << 31) - (1 << 31)

    def _run(self) -> None:
        """One call of the engine, then done; a call that hangs returns without it."""
        self.calls += 1
        first, last, images = (self._signed(name) for name in ("first", "last", "images"))
        hang = self.faults.hang_layer
        hangs = hang is not None and first <= hang <= last
        end = hang - 1 if hangs and hang is not None else last
        problem = self._bus_error(first, last, images)
        if problem:
            log.warning("bus error, the engine hangs: %s", problem)
            return
        if self.faults.break_weights and last >= first:
            self.faults.break_weights = False
            # The first bias of the last layer: it moves the first class of every image.
            place = self._reach(last)[2] * WORD_BYTES
            self.bank.data[self._pointer(self.pointers[0]) + place - CMA_ADDRESS] ^= 1
        counters = np.zeros(len(COUNTERS), dtype=np.uint64)
        identity = np.zeros(1, dtype=np.uint32)
        shift = self.bank.host - CMA_ADDRESS
        *weights, program, fm_in, fm_out = (
            (self._pointer(name) + shift) % 2**64 for name in pointers(len(self.pointers))
        )
        sections = np.array(weights, dtype=np.uint64)
        self.library.emulator_run(
            sections.ctypes.data, program, fm_in, fm_out, first, end, images, counters.ctypes.data,
            identity.ctypes.data,
        )  # fmt: skip
        if hangs:
            return
        with self._lock:
            self._finish(counters, int(identity[0]))

    def _finish(self, counters: np.ndarray, identity: int) -> None:
        start = self._layout["Memory_counters"].offset
        for index, word in enumerate(counters.view(np.uint32).tolist()):
            self._words[start + 4 * index] = word
        wrong = self.faults.wrong_id
        self._words[self._layout["design_id"].offset] = WRONG_ID if wrong else identity
        self._words[self._layout["design_id_ctrl"].offset] = 1
        self._state = AP_DONE | AP_READY | AP_IDLE

    def _held(self, name: str, words: int, offset: int = 0) -> bool:
        """Whether `words` words behind a pointer, from word `offset` on, are allocated."""
        start = (self._pointer(name) + offset * WORD_BYTES) % 2**64 - CMA_ADDRESS
        return self.bank.holds(start, words * WORD_BYTES)

    def _words_at(self, name: str, words: int) -> np.ndarray:
        """Words behind a pointer."""
        start = self._pointer(name) - CMA_ADDRESS
        return self.bank.data[start : start + words * WORD_BYTES].view("<u8")

    def _program(self) -> Program | None:
        """The program that the engine would read; None where it is not in memory."""
        if not self._held(PROGRAM_PORT, HEADER_WORDS):
            return None
        size = Program(self._words_at(PROGRAM_PORT, HEADER_WORDS)).header("words")
        if size < HEADER_WORDS + INDEX_WORDS or not self._held(PROGRAM_PORT, size):
            return None
        return Program(self._words_at(PROGRAM_PORT, size))

    def _reach(self, layer: int) -> list[int]:
        """What the library's `emulator_layer` says of a layer; none before `_bus_error` says so."""
        program, reach = self._program(), np.zeros(4, dtype=np.int64)
        if program is None:
            raise ValueError("a call without a program is a bus error")
        record = np.ascontiguousarray(program.record(layer))
        self.library.emulator_layer(record.ctypes.data, reach.ctypes.data)
        return [int(value) for value in reach]

    def _bus_error(self, first: int, last: int, images: int) -> str | None:
        """Which argument makes the engine leave the memory that is allocated, None where none."""
        library = self.library
        if first < 0 and first > last:
            words = min(images, library.emulator_chip_words(-1 - first))
            return None if self._held("fm_out", words) else f"fm_out at {self._place('fm_out')}"
        if first > last:
            return None
        program = self._program()
        if program is None or program.fault() is not None:
            return f"program at {self._place(PROGRAM_PORT)}"
        if not 0 <= first <= last < program.layers:
            return f"layers {first}..{last}"
        if not 1 <= images <= library.emulator_max_images():
            return f"{images} images"
        for layer in range(first, last + 1):
            start, words, _, maps = self._reach(layer)
            for name in self.pointers:
                if words and not self._held(name, words, start):
                    return f"{name} at {self._place(name)}"
            for name in MAP_PORTS:
                if not self._held(name, images * maps):
                    return f"{name} at {self._place(name)}"
        return None

    def _place(self, name: str) -> str:
        return f"{self._pointer(name):#x}"


class EmulatedDevice(pynq.Device):
    """A Zynq UltraScale+ board in this process.

    Args:
        cma_bytes: size of the contiguous memory.
        taken_bytes: how much of it other drivers have.
    """

    emulated = True

    def __init__(self, cma_bytes: int = CMA_BYTES, taken_bytes: int = CMA_TAKEN) -> None:
        super().__init__("emulated")
        self.name = "emulated"
        self.arch = "aarch64"
        self.capabilities = {"REGISTER_RW": True}
        self.faults = Faults()
        self.bank = self.default_memory = Bank(self, cma_bytes - taken_bytes)
        self.cma_bytes = cma_bytes
        self.fabric = Fabric(self.bank, self.faults)
        self.timestamp = ""
        self._bitfile_name = ""
        self._other = dict(CLOCKS)

    @property
    def meminfo(self) -> str:
        """What /proc/meminfo says about contiguous memory."""
        return f"CmaTotal: {self.cma_bytes // 1024} kB\nCmaFree: {self.bank.free // 1024} kB\n"

    @property
    def live_buffers(self) -> int:
        """Buffers that are allocated now."""
        return len(self.bank.taken)

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> Any:
        """The .hwh beside the bitstream, read by pynq's parser."""
        return RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Configure the fabric and do what every pynq device does afterwards."""
        self.fabric.load(Path(bitstream.bitfile_name))
        super().post_download(bitstream, parser, self.name)

    def close_fabric(self) -> None:
        """Unload the design."""
        self.fabric.unload()

    def read_registers(self, address: int, length: int) -> bytes:
        """Registers at a physical address: the accelerator's, or the processor's clocks."""
        words = [self._read(address + 4 * index) for index in range(-(-length // 4))]
        return struct.pack(f"<{len(words)}I", *words)[:length]

    def write_registers(self, address: int, data: bytes) -> None:
        """Write whole words."""
        for index, word in enumerate(struct.unpack(f"<{len(data) // 4}I", bytes(data))):
            place = address + 4 * index
            if BASE_ADDRESS <= place < BASE_ADDRESS + ADDRESS_RANGE:
                self.fabric.write(place - BASE_ADDRESS, word)
            else:
                self._other[place] = word

    def _read(self, address: int) -> int:
        if BASE_ADDRESS <= address < BASE_ADDRESS + ADDRESS_RANGE:
            return self.fabric.read(address - BASE_ADDRESS)
        return self._other.get(address, 0)

    def flush(self, bo: int, offset: int, ptr: int, size: int) -> None:
        """Write a buffer's cache back to memory."""
        if self.faults.lost_flush:
            return
        ctypes.memmove(self.bank.host + bo + offset, ptr, size)
        if self.faults.corrupt:
            self.faults.corrupt -= 1
            if self.faults.corrupt == 0:
                self.bank.data[bo + offset + size // 2] ^= 0x10

    def invalidate(self, bo: int, offset: int, ptr: int, size: int) -> None:
        """Discard a buffer's cache: read memory again."""
        if not self.faults.lost_invalidate:
            ctypes.memmove(ptr, self.bank.host + bo + offset, size)


def install(device: EmulatedDevice | None = None) -> EmulatedDevice:
    """Make an emulated board the one that pynq uses by default."""
    device = device or EmulatedDevice()
    pynq.Device.active_device = device
    return device
